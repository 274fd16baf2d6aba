"""Between PyTorch models and ours, for the tests: random numbers in every parameter, and names and shapes carried over."""

from __future__ import annotations

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from retfound_jax.models.layers import STACKS, stack_blocks
from retfound_jax.models.transfer import path_name
from retfound_jax.models.vit import ViTConfig

ENCODER = ('cls_token', 'reg_token', 'pos_embed', 'patch_embed.', 'blocks.', 'norm.', 'fc_norm.')
TABLES = ('pos_embed', 'decoder_pos_embed')  # fixed in a MAE


@torch.no_grad()
def randomise(model: torch.nn.Module, *, seed: int) -> None:
    """Numbers in every trained parameter that keep activations near 1: no bias is zero, no scale or gamma one, no token nothing."""
    generator = torch.Generator().manual_seed(seed)
    for name, param in model.named_parameters():
        if not param.requires_grad:
            continue
        noise = torch.randn(param.shape, generator=generator)
        if name.endswith(('gamma', 'gamma_1', 'gamma_2')):
            param.copy_(0.5 + 0.2 * noise)
        elif 'norm' in name and name.endswith('weight'):
            param.copy_(1 + 0.2 * noise)
        elif param.ndim >= 2 and name.endswith('weight'):
            param.copy_(noise / param[0].numel() ** 0.5)
        else:
            param.copy_(0.2 * noise)


def numbers(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: param.detach().numpy() for name, param in model.named_parameters()}


def as_vit(tensors: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """timm's DINOv3 tensors by the names of its other ViTs."""
    return {re.sub(r'gamma_([12])$', r'ls\1.gamma', name): torch.from_numpy(array) for name, array in tensors.items()}


def ours(tensors: dict[str, np.ndarray], config: ViTConfig, *, decoder_heads: int = 0) -> dict[str, np.ndarray]:
    """Tensors by timm's names as arrays by ours, unrolled; a gradient is carried over as its parameter is."""
    out = {}
    for name, array in tensors.items():
        if name in TABLES and config.positions == 'sincos':
            continue
        name = re.sub(r'gamma_([12])$', r'ls\1.gamma', name)
        heads = decoder_heads if name.startswith('decoder_blocks') else config.heads
        array = shaped(name, array, heads=heads, swiglu=config.mlp == 'swiglu')
        name = re.sub('weight$', 'scale' if 'norm' in name else 'kernel', name)
        out[f'encoder.{name}' if name.startswith(ENCODER) else name] = np.ascontiguousarray(array)
    return out


def shaped(name: str, array: np.ndarray, *, heads: int, swiglu: bool) -> np.ndarray:
    if name.endswith(('cls_token', 'mask_token')):
        return array[0, 0]
    if name.endswith(('reg_token', 'pos_embed')):
        return array[0]
    if name == 'patch_embed.proj.weight':
        return array.transpose(2, 3, 1, 0).reshape(-1, len(array))
    if '.qkv.' in name:
        array = array.reshape(3, heads, -1, *array.shape[1:])
        return array if array.ndim == 3 else array.transpose(3, 0, 1, 2)
    if 'attn.proj.weight' in name:
        return array.T.reshape(heads, -1, len(array))
    if swiglu and 'fc1' in name:
        array = array.reshape(2, -1, *array.shape[1:])
        return array if array.ndim == 2 else array.transpose(2, 0, 1)
    return array.T if array.ndim == 2 else array


def build(make: Callable[[], nnx.Module], flat: dict[str, np.ndarray]) -> tuple[nnx.GraphDef, nnx.State]:
    """The model of `make` around these arrays, in its stacks; every name and shape must fit and none be left over."""
    nested: dict = {}
    for name, array in flat.items():
        *path, last = (int(part) if part.isdigit() else part for part in name.split('.'))
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = array
    stacked = {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(stack_blocks(nested))[0]}
    graph, abstract = nnx.split(nnx.eval_shape(make))

    def take(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        array = stacked.pop(path_name(path))
        assert array.shape == leaf.shape, (path_name(path), array.shape, leaf.shape)
        return jnp.asarray(array)

    params = jax.tree_util.tree_map_with_path(take, abstract)
    assert not stacked, f'left over: {sorted(stacked)}'
    return graph, params


def flatten(params: nnx.State) -> dict[str, np.ndarray]:
    """Parameters or gradients of a built model by our unrolled names."""
    out = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        parts = path_name(path).split('.')
        stack = next((i for i, part in enumerate(parts) if part in STACKS), None)
        if stack is None:
            out['.'.join(parts)] = np.asarray(leaf)
        else:
            for i, block in enumerate(np.asarray(leaf)):
                out['.'.join([*parts[: stack + 1], str(i), *parts[stack + 1 :]])] = block
    return out


def difference(got: np.ndarray | torch.Tensor, want: np.ndarray | torch.Tensor) -> float:
    """Largest absolute difference over the largest magnitude of what is wanted."""
    want = want.detach().numpy() if isinstance(want, torch.Tensor) else np.asarray(want)
    got = got.numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    assert got.shape == want.shape, (got.shape, want.shape)
    return float(np.abs(got - want).max() / np.abs(want).max())
