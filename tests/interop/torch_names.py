"""Between PyTorch models and ours, for the tests: random numbers in every parameter, and parameters carried over by interop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from retfound_jax.interop.read import read_weights
from retfound_jax.interop.timm_names import from_timm
from retfound_jax.interop.weights import Meaning, Preprocessing, Weights
from retfound_jax.models.layers import unstack_blocks
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViTConfig


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
    """timm's DINOv3 tensors by the names of its other ViTs, for `torch_models`."""
    return {re.sub(r'gamma_([12])$', r'ls\1.gamma', name): torch.from_numpy(array) for name, array in tensors.items()}


def read_back(tensors: Mapping[str, np.ndarray], *, folder: Path, **options: Any) -> Weights:
    """What our reader makes of the file that a PyTorch program leaves: a state_dict in a container, saved by torch."""
    path = folder / 'checkpoint.pth'
    torch.save({'model': {name: torch.from_numpy(array) for name, array in tensors.items()}}, path)
    found = read_weights(path, **options)
    path.unlink()  # a ViT-L is 1.2 GB, and pytest keeps the folders of its last runs; what is mapped stays readable
    return found


def weights(tensors: Mapping[str, np.ndarray], config: ViTConfig | MAEConfig, *, outputs: int = 0) -> Weights:
    """Tensors by timm's names as a network of ours."""
    kind = 'mae' if isinstance(config, MAEConfig) else 'single' if outputs else 'encoder'
    params = from_timm(tensors, config=config, outputs=outputs)
    return Weights(config=config, params=params, meaning=Meaning(kind=kind), preprocessing=Preprocessing())


def flatten(params: Any) -> dict[str, np.ndarray]:
    """Parameters or gradients of a network by our unrolled names."""
    return flat_names(unstack_blocks(jax.tree.map(np.asarray, params)))


def difference(got: np.ndarray | torch.Tensor, want: np.ndarray | torch.Tensor) -> float:
    """Largest absolute difference over the largest magnitude of what is wanted."""
    want = want.detach().numpy() if isinstance(want, torch.Tensor) else np.asarray(want)
    got = got.numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    assert got.shape == want.shape, (got.shape, want.shape)
    return float(np.abs(got - want).max() / np.abs(want).max())
