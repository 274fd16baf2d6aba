"""Encoders and MAE equal timm and PyTorch code written from the papers: float32, every parameter random, read from PyTorch's files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip('torch', reason='PyTorch is not here: launch/test --oracle brings it')

import timm
import torch
import torch_models
from torch_names import as_vit, difference, numbers, randomise, read_back

from retfound_jax.interop.adapt import with_norm_twice
from retfound_jax.interop.build import build
from retfound_jax.interop.weights import Weights
from retfound_jax.models.mae import MAEConfig, MAEOutput, Pictures
from retfound_jax.models.transfer import path_name
from retfound_jax.models.vit import ViTConfig, vit_config

pytestmark = pytest.mark.oracle

TOLERANCE = 2e-5  # of the largest magnitude of the output
OUTPUTS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One shape: our config, the timm model that is it, and how many images."""

    config: ViTConfig
    timm: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    batch: int = 2


def learned(size: str, **changes: Any) -> ViTConfig:
    return vit_config(size, positions='learned', **changes)


REGISTERS = {'patch_size': 14, 'layer_scale': 1e-5, 'registers': 4, 'cls_position': False}
SMALL = {'width': 96, 'depth': 3, 'heads': 3, 'image_size': 64}
TIMM_SMALL = {'embed_dim': 96, 'depth': 3, 'num_heads': 3, 'img_size': 64}
DINOV3 = {'positions': 'rope', 'registers': 4, 'layer_scale': 1e-5, 'qkv_bias': False, 'norm_epsilon': 1e-5}
CASES = {
    'ViT-B/16': Case(config=learned('B', pool='cls'), timm='vit_base_patch16_224'),
    'ViT-L/16 fc_norm': Case(config=learned('L', pool='mean'), timm='vit_large_patch16_224', options={'global_pool': 'avg'}, batch=1),
    'DINOv2-L/14': Case(
        config=learned('L', pool='cls', patch_size=14, layer_scale=1e-5),
        timm='vit_large_patch14_dinov2',
        options={'img_size': 224},
        batch=1,
    ),
    'DINOv2-S/14 registers': Case(
        config=learned('S', pool='cls', image_size=112, **REGISTERS), timm='vit_small_patch14_reg4_dinov2', options={'img_size': 112}
    ),
    'DINOv2-g/14 SwiGLU, 2 blocks': Case(
        config=ViTConfig(
            width=1536, depth=2, heads=24, image_size=56, mlp='swiglu', mlp_ratio=4096 / 1536, positions='learned', pool='cls', **REGISTERS
        ),
        timm='vit_giant_patch14_reg4_dinov2',
        options={'img_size': 56, 'depth': 2},
    ),
    'DINOv3-S/16': Case(
        config=vit_config('S', pool='cls', image_size=128, **DINOV3),
        timm='vit_small_patch16_dinov3',
        options={'img_size': 128, 'global_pool': 'token'},
    ),
    'DINOv3-S/16 mean': Case(
        config=vit_config('S', pool='mean_normed', image_size=96, **DINOV3), timm='vit_small_patch16_dinov3', options={'img_size': 96}
    ),
    'mean without fc_norm': Case(
        config=ViTConfig(**SMALL, positions='learned', pool='mean_normed'),
        timm='vit_base_patch16_224',
        options={**TIMM_SMALL, 'global_pool': 'avg', 'fc_norm': False},
    ),
    'norm twice': Case(
        config=ViTConfig(**SMALL, positions='learned', pool='mean', norm_twice=True),
        timm='vit_base_patch16_224',
        options={**TIMM_SMALL, 'global_pool': 'avg'},
    ),
}


def images(batch: int, size: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)


def torch_image(image_BHWC: np.ndarray) -> torch.Tensor:
    return torch.tensor(image_BHWC).permute(0, 3, 1, 2)


def timm_model(case: Case) -> torch.nn.Module:
    model = timm.create_model(case.timm, pretrained=False, num_classes=OUTPUTS, **case.options).eval()
    randomise(model, seed=1)
    return model


def timm_outputs(case: Case, model: torch.nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tokens as timm's forward_features gives them, and logits; timm of today applies no norm twice, so that is written out."""
    tokens = model.forward_features(image)
    if case.config.norm_twice:
        return {'tokens': tokens, 'logits': model.head(model.fc_norm(model.fc_norm(tokens[:, 1:].mean(1))))}
    return {'tokens': tokens, 'logits': model.forward_head(tokens)}


def reference_outputs(case: Case, tensors: dict[str, np.ndarray], image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of the implementation from the papers. It takes timm's tensors, all and no others."""
    model = torch_models.ViT(case.config, outputs=OUTPUTS)
    model.load_state_dict(as_vit(tensors))
    return {'tokens': model.features(image), 'logits': model(image)}


def read(case: Case, tensors: dict[str, np.ndarray], folder: Path) -> Weights:
    """As a user gets them, out of a file. What the file cannot say, pooling and heads, is said; the rest must be found out."""
    pool, heads = case.config.pool, case.config.heads
    weights = read_back(tensors, folder=folder, image_size=case.config.image_size, pool=pool, heads=heads)
    weights = with_norm_twice(weights, case.config.norm_twice) if pool == 'mean' else weights
    assert weights.config == case.config and weights.outputs == OUTPUTS
    return weights


def compiled(weights: Weights) -> tuple[Callable[[nnx.State, jax.Array], dict[str, jax.Array]], nnx.State]:
    """Our forward pass as a function of parameters and images, and the parameters."""
    graph, params = nnx.split(build(weights))

    @jax.jit
    def run(params: nnx.State, image: jax.Array) -> dict[str, jax.Array]:
        model = nnx.merge(graph, params)
        tokens = model.encoder(image) if weights.encoder.pool == 'mean' else model.encoder.tokens(image)
        return {'tokens': tokens, 'logits': model(image)}

    return run, params


@pytest.mark.parametrize('name', CASES)
@torch.no_grad()
def test_tokens_and_logits_equal_timm_and_the_papers(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    image = images(case.batch, case.config.image_size)
    model = timm_model(case)
    want, tensors = timm_outputs(case, model, torch_image(image)), numbers(model)
    run, params = compiled(read(case, tensors, tmp_path))
    got = run(params, image)
    papers = reference_outputs(case, tensors, torch_image(image))
    for output in ('tokens', 'logits'):
        for who, reference in (('timm', want), ('papers', papers)):
            found = difference(got[output], reference[output])
            print(f'{name}: {output} against {who} {found:.1e}')
            assert found <= TOLERANCE, f'{output} against {who}: {found:.1e}'


@pytest.mark.parametrize('name', ['DINOv2-g/14 SwiGLU, 2 blocks', 'norm twice'])
@torch.no_grad()
def test_a_thousandth_of_any_parameter_would_be_seen(name: str, tmp_path: Path) -> None:
    """The tolerance is worth something: each parameter, off by a thousandth, moves the logits by more."""
    case = CASES[name]
    image = images(1, case.config.image_size)
    run, params = compiled(read(case, numbers(timm_model(case)), tmp_path))
    want = run(params, image)['logits']
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        changed = jax.tree_util.tree_map_with_path(lambda at, x, path=path, leaf=leaf: 1.001 * leaf if at == path else x, params)
        assert difference(run(changed, image)['logits'], want) > TOLERANCE, path_name(path)


@pytest.mark.parametrize('name', ['DINOv2-S/14 registers', 'DINOv3-S/16', 'mean without fc_norm'])
@torch.no_grad()
def test_attention_equals_the_papers(name: str, tmp_path: Path) -> None:
    """The first and the last block's softmax weights."""
    case = CASES[name]
    tensors, image = numbers(timm_model(case)), images(1, case.config.image_size)
    reference = torch_models.ViT(case.config, outputs=OUTPUTS)
    reference.load_state_dict(as_vit(tensors))
    model = build(read(case, tensors, tmp_path))
    for layer in (0, -1):
        got = model.encoder.attention(image, layer=layer)
        want = reference.attention(torch_image(image), layer % case.config.depth)
        assert difference(got, want) <= TOLERANCE, layer


MAES = {
    'MAE ViT-B/16': MAEConfig(encoder=vit_config('B')),
    'MAE ViT-L/16': MAEConfig(encoder=vit_config('L')),
    'MAE ViT-S/14 of OCT, pixels': MAEConfig(encoder=vit_config('S', patch_size=14), mask_ratio=0.85, norm_pix_loss=False),
}


@pytest.mark.parametrize('name', MAES)
@torch.no_grad()
def test_reconstructions_equal_the_papers(name: str, tmp_path: Path) -> None:
    """Loss, mask, every predicted patch, and the picture put together from them, for the same noise."""
    config = MAES[name]
    encoder = config.encoder
    image, noise = images(1, encoder.image_size), np.random.default_rng(1).uniform(size=(1, encoder.grid**2)).astype(np.float32)
    model = torch_models.MAE(config)
    randomise(model, seed=2)
    loss, pred, mask = model(torch_image(image), torch.from_numpy(noise))
    weights = read_back(numbers(model), folder=tmp_path)
    graph, params = nnx.split(build(dataclasses.replace(weights, config=config)))  # a file says neither mask ratio nor kind of loss

    @jax.jit
    def run(params: nnx.State, image: jax.Array) -> tuple[MAEOutput, Pictures]:
        model = nnx.merge(graph, params)
        return model(image, noise_BL=noise), model.reconstruct(image, noise_BL=noise)

    out, pictures = run(params, image)
    np.testing.assert_array_equal(out.mask_BL, mask)
    found = {'prediction': difference(out.pred_BLP, pred), 'loss': difference(out.loss, loss)}
    patches = torch_models.patches(torch_image(image), encoder.patch_size)
    if config.norm_pix_loss:
        variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
        pred = pred * (variance + 1e-6).sqrt() + mean
    shown = torch.where(mask[..., None] == 1, pred, patches)
    found['picture'] = difference(torch_models.patches(torch_image(np.asarray(pictures.reconstruction)), encoder.patch_size), shown)
    print(f'{name}: {found}')
    assert max(found.values()) <= TOLERANCE, found
