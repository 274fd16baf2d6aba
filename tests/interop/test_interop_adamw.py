"""Fine-tuning's optimiser equals PyTorch's: ten steps of AdamW with layer-wise decay, and every parameter's rate and decay by name.

The published scheme is that of BEiT (arXiv 2106.08254) and of MAE's and RETFound's fine-tuning: embeddings are layer 0, block i is
layer i + 1, all above is layer depth + 1, and layer i learns at decay ** (depth + 1 - i) of the rate; biases, norms, the cls token
and positions have no weight decay.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx

pytest.importorskip('torch', reason='PyTorch is not here: launch/test --oracle brings it')

import timm
import torch
import torch_models
from timm.optim import param_groups_layer_decay
from torch_names import flatten, numbers, randomise, weights

from retfound_jax.core.mesh import MeshConfig, ShardingRules, make_mesh
from retfound_jax.data.config import DataConfig
from retfound_jax.interop.build import build
from retfound_jax.interop.timm_names import entries
from retfound_jax.models.heads import Classifier
from retfound_jax.models.vit import ViTConfig, vit_config
from retfound_jax.optim import OptimConfig, layer_scales, make_optimizer
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.state import abstract_params, init_state, model_spec, state_shardings
from retfound_jax.train.step import make_step

pytestmark = pytest.mark.oracle

STEPS, WARMUP, PEAK, FLOOR, DECAY, SHRINK = 10, 3, 2e-3, 1e-6, 0.65, 0.05
CLASSES = tuple('abcde')
EMBEDDINGS = ('cls_token', 'pos_embed', 'reg_token', 'patch_embed.')


def published_scale(name: str, depth: int) -> float:
    """Of a parameter by timm's name."""
    block = re.match(r'blocks\.(\d+)\.', name)
    layer = int(block[1]) + 1 if block else 0 if name.startswith(EMBEDDINGS) else depth + 1
    return DECAY ** (depth + 1 - layer)


def published_shrink(name: str, param: torch.Tensor) -> float:
    return 0.0 if param.ndim == 1 or name in ('cls_token', 'pos_embed', 'reg_token') else SHRINK


# ------------------------------------------------------------------------------------------------ every name

# The names of the real models: full depth, but narrow.
THIN = {'embed_dim': 16, 'num_heads': 2, 'img_size': 32, 'num_classes': 5}
OURS = {'width': 16, 'heads': 2, 'image_size': 32, 'positions': 'learned'}
OURS_14 = {'patch_size': 14, 'layer_scale': 1e-5, 'pool': 'cls'}
MODELS = {
    'RETFound (ViT-L/16, fc_norm)': ('vit_large_patch16_224', {'global_pool': 'avg'}, vit_config('L', **OURS)),
    'DINOv2-L/14': ('vit_large_patch14_dinov2', {'img_size': 28}, vit_config('L', **OURS | OURS_14 | {'image_size': 28})),
    'DINOv2-S/14 registers': (
        'vit_small_patch14_reg4_dinov2',
        {'img_size': 28},
        vit_config('S', **OURS | OURS_14 | {'image_size': 28, 'registers': 4, 'cls_position': False}),
    ),
}


def moved(tx: optax.GradientTransformation, params: Any, *, at: float, gradient: float) -> dict[str, np.ndarray]:
    """How far the first update at a constant rate of 1 takes parameters that are all `at`, by our unrolled names."""
    params, slope = (jax.tree.map(lambda a, value=value: np.full(a.shape, value, np.float32), params) for value in (at, gradient))
    updates, _ = jax.jit(lambda g, p: tx.update(g, tx.init(p), p))(slope, params)
    return flatten(updates)


@pytest.mark.parametrize('name', MODELS)
def test_rate_and_decay_of_every_parameter_are_the_published_ones(name: str) -> None:
    """What the optimiser really does to each: Adam's first step is the rate itself, and with no gradient only decay moves."""
    architecture, options, config = MODELS[name]
    theirs = dict(timm.create_model(architecture, **THIN | options).named_parameters())
    params = nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: Classifier(config, outputs=5, rngs=nnx.Rngs(0)))))
    optim = OptimConfig(lr=1.0, min_lr=1.0, weight_decay=SHRINK, layer_decay=DECAY)
    tx = make_optimizer(optim, params=params, steps=STEPS, batch_size=8, depth=config.depth)
    rates, shrinks = moved(tx, params, at=0.0, gradient=1.0), moved(tx, params, at=1.0, gradient=0.0)
    scales = flatten(jax.tree.map(lambda s, p: np.broadcast_to(s, p.shape), layer_scales(params, depth=config.depth, decay=DECAY), params))
    table = {entry.theirs: entry.ours for entry in entries(config, outputs=5)}
    assert set(table) == set(theirs) and set(table.values()) == set(rates)
    for timm_name, param in theirs.items():
        our_name = table[timm_name]
        scale, shrink = published_scale(timm_name, config.depth), published_shrink(timm_name, param)
        np.testing.assert_allclose(scales[our_name], scale, rtol=1e-6, err_msg=timm_name)
        np.testing.assert_allclose(-rates[our_name], scale, rtol=1e-6, err_msg=timm_name)
        np.testing.assert_allclose(-shrinks[our_name], scale * shrink, rtol=1e-6, atol=0, err_msg=timm_name)


@pytest.mark.parametrize('name', MODELS)
def test_timm_gives_every_parameter_the_same_rate_and_decay(name: str) -> None:
    """Its own grouping as a second witness. It counts a final `norm` (not fc_norm) to the last block; BEiT and MAE to the head."""
    architecture, options, config = MODELS[name]
    model = timm.create_model(architecture, **THIN | options)
    groups = param_groups_layer_decay(model, weight_decay=SHRINK, layer_decay=DECAY, no_weight_decay_list=model.no_weight_decay())
    named = {id(param): name for name, param in model.named_parameters()}
    seen = {named[id(param)]: (group['lr_scale'], group['weight_decay'], param) for group in groups for param in group['params']}
    assert len(seen) == len(named)
    for timm_name, (scale, shrink, param) in seen.items():
        assert shrink == published_shrink(timm_name, param), timm_name
        factor = DECAY if timm_name.startswith('norm.') else 1.0
        assert scale == pytest.approx(factor * published_scale(timm_name, config.depth)), timm_name


# ------------------------------------------------------------------------------------------------ ten steps

SMALL = ViTConfig(image_size=32, patch_size=8, width=64, depth=4, heads=4, positions='learned')


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        'image': rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8),
        'labels': (np.arange(8) % len(CLASSES))[:, None].astype(np.float32),
    }


def train_config(layer_decay: float, smoothing: float) -> TrainConfig:
    optim = OptimConfig(
        lr=PEAK, min_lr=FLOOR, warmup_steps=WARMUP, weight_decay=SHRINK, layer_decay=layer_decay, b2=0.999
    )  # PyTorch's own betas, which RETFound keeps
    task = ClassifyTask(model=SMALL, labels=('grade',), classes=CLASSES, label_smoothing=smoothing)
    data = DataConfig(path='none', labels=('grade',), image_size=32, batch_size=8, augment='none')
    return TrainConfig(name='parity', task=task, data=data, optim=optim, steps=STEPS)


def our_losses(tensors: dict[str, np.ndarray], *, layer_decay: float = DECAY, smoothing: float = 0.1) -> tuple[list[float], dict]:
    """The losses of ten steps of the training loop's own step, and the parameters after them."""
    config, mesh = train_config(layer_decay, smoothing), make_mesh(MeshConfig())
    spec = model_spec(config.task)
    tx = make_optimizer(config.optim, params=abstract_params(spec), steps=STEPS, batch_size=8, depth=SMALL.depth)
    shardings = state_shardings(spec, tx, mesh=mesh, rules=ShardingRules(), ema=False)
    step = make_step(config, spec=spec, tx=tx, mesh=mesh, shardings=shardings)
    params = nnx.to_pure_dict(nnx.state(build(weights(tensors, SMALL, outputs=len(CLASSES)))))
    state = init_state(params, tx, shardings=shardings)
    losses = []
    for _ in range(STEPS):
        state, metrics = step(state, batch())
        losses.append(float(metrics['loss']))
    return losses, flatten(state.params)


def torch_losses(model: torch.nn.Module) -> list[float]:
    """The same with torch.optim.AdamW, one group a parameter, the rate set before each step."""
    image, labels = torch.from_numpy(batch()['image']), torch.from_numpy(batch()['labels'])[:, 0].long()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = ((image / 255 - mean) / std).permute(0, 3, 1, 2)
    groups = [
        {'params': [param], 'scale': published_scale(name, SMALL.depth), 'weight_decay': published_shrink(name, param)}
        for name, param in model.named_parameters()
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK)
    losses = []
    for step in range(STEPS):
        share = 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))
        rate = PEAK * step / WARMUP if step < WARMUP else FLOOR + (PEAK - FLOOR) * share
        for group in optimizer.param_groups:
            group['lr'] = rate * group['scale']
        loss = torch.nn.functional.cross_entropy(model(image), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_ten_steps_of_layer_decayed_adamw_equal_pytorch() -> None:
    """Loss by loss within 1e-4; the weights are where PyTorch's are; other settings would be seen."""
    model = torch_models.ViT(SMALL, outputs=len(CLASSES))
    randomise(model, seed=6)
    start = {name: array.copy() for name, array in numbers(model).items()}
    got, params = our_losses(start)
    want = torch_losses(model)
    np.testing.assert_allclose(got, want, rtol=1e-4)
    assert want[-1] < 0.8 * want[0]  # there was something to learn
    after, before = (dict(weights(tensors, SMALL, outputs=len(CLASSES)).params) for tensors in (numbers(model), start))
    for name in after:
        if name.endswith('qkv.bias'):  # a bias of the keys cannot change a softmax: its gradient is rounding, which Adam blows up
            params[name], after[name], before[name] = (np.delete(tree[name], 1, axis=0) for tree in (params, after, before))
    apart = {name: np.abs(params[name] - after[name]).max() / np.abs(after[name] - before[name]).max() for name in after}
    worst = max(apart, key=apart.get)
    print(f'losses {np.abs(np.divide(got, want) - 1).max():.1e}; weights, as a share of their way: {worst} {apart[worst]:.1e}')
    assert apart[worst] < 5e-3
    for other in ({'layer_decay': 0.75}, {'smoothing': 0.0}):
        assert np.abs(np.divide(our_losses(start, **other)[0], want) - 1).max() > 1e-2, other
