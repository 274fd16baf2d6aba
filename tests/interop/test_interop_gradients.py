"""Losses and the gradient of every parameter equal PyTorch's: of MAE, the same mask given to both, and of the other encoders."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip('torch', reason='PyTorch is not here: launch/test --oracle brings it')

import torch
import torch_models
from torch_names import difference, flatten, numbers, randomise, weights

from retfound_jax.interop.build import build
from retfound_jax.interop.timm_names import from_timm
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig, vit_config

pytestmark = pytest.mark.oracle

TOLERANCE = 1e-4  # of the largest magnitude of the loss, and of each tensor's gradient


def torch_gradients(model: torch.nn.Module, image: np.ndarray, noise: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    loss, _, _ = model(torch.from_numpy(image).permute(0, 3, 1, 2), torch.from_numpy(noise))
    loss.backward()
    return loss.item(), {name: param.grad.numpy() for name, param in model.named_parameters() if param.requires_grad}


@pytest.mark.parametrize(
    ('size', 'norm_pix_loss'),
    [('B', True), ('B', False), pytest.param('L', True, marks=pytest.mark.slow), pytest.param('L', False, marks=pytest.mark.slow)],
)
def test_loss_and_every_gradient_equal_pytorch(size: str, norm_pix_loss: bool) -> None:
    config = MAEConfig(encoder=vit_config(size, pool='cls'), norm_pix_loss=norm_pix_loss)
    rng = np.random.default_rng(3)
    image = rng.normal(size=(2, 224, 224, 3)).astype(np.float32)
    noise = rng.uniform(size=(2, 196)).astype(np.float32)
    model = torch_models.MAE(config)
    randomise(model, seed=4)
    graph, params = nnx.split(build(weights(numbers(model), config)))
    loss, gradients = jax.jit(jax.value_and_grad(lambda params: nnx.merge(graph, params)(image, noise_BL=noise).loss))(params)
    want_loss, want = torch_gradients(model, image, noise)
    want = from_timm(want, config=config, outputs=0)
    got = flatten(gradients)
    assert set(got) == set(want)
    found = {name: difference(got[name], want[name]) for name in want}
    worst = max(found, key=found.get)
    print(f'ViT-{size} {norm_pix_loss=}: loss {abs(loss / want_loss - 1):.1e}, worst of {len(found)}: {worst} {found[worst]:.1e}')
    assert abs(loss - want_loss) <= TOLERANCE * abs(want_loss)
    assert found[worst] <= TOLERANCE, {name: value for name, value in found.items() if value > TOLERANCE}


SMALL = {'image_size': 64, 'width': 96, 'depth': 3, 'heads': 3}
DINOV3 = {'positions': 'rope', 'registers': 4, 'layer_scale': 1e-5, 'qkv_bias': False, 'norm_epsilon': 1e-5, 'pool': 'cls'}
ENCODERS = {
    'RETFound of 2023': ViTConfig(**SMALL, positions='learned', pool='mean'),
    'RETFound of 2025': ViTConfig(**SMALL, positions='learned', pool='mean', norm_twice=True),
    'DINOv2 with registers and SwiGLU': ViTConfig(
        **SMALL, positions='learned', pool='cls', mlp='swiglu', mlp_ratio=8 / 3, registers=4, cls_position=False, layer_scale=1e-5
    ),
    'DINOv3': ViTConfig(**SMALL | DINOV3),
    'DINOv3 with SwiGLU, mean': ViTConfig(**SMALL | DINOV3 | {'pool': 'mean_normed', 'mlp': 'swiglu', 'mlp_ratio': 8 / 3}),
}


@pytest.mark.parametrize('name', ENCODERS)
def test_every_gradient_of_fine_tuning_equals_pytorch(name: str) -> None:
    """Cross-entropy on a classifier of each kind of encoder, small."""
    config = ENCODERS[name]
    image = np.random.default_rng(5).normal(size=(4, 64, 64, 3)).astype(np.float32)
    labels = np.arange(4)
    model = torch_models.ViT(config, outputs=5)
    randomise(model, seed=6)
    graph, params = nnx.split(build(weights(numbers(model), config, outputs=5)))

    def loss_of(params: nnx.State) -> jax.Array:
        return -jax.nn.log_softmax(nnx.merge(graph, params)(image))[np.arange(4), labels].mean()

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(params)
    want_loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(image).permute(0, 3, 1, 2)), torch.from_numpy(labels))
    want_loss.backward()
    want = from_timm({name: param.grad.numpy() for name, param in model.named_parameters()}, config=config, outputs=5)
    got = flatten(gradients)
    assert set(got) == set(want)
    found = {name: difference(got[name], want[name]) for name in want}
    worst = max(found, key=found.get)
    print(f'{name}: loss {abs(loss / want_loss.item() - 1):.1e}, worst of {len(found)}: {worst} {found[worst]:.1e}')
    assert abs(loss - want_loss.item()) <= TOLERANCE * want_loss.item()
    assert found[worst] <= TOLERANCE, {name: value for name, value in found.items() if value > TOLERANCE}
