"""Positions of patches: the fixed 2-D sine-cosine table, rotary angles, and bicubic resampling of a table to another grid.

Letters: L patches, D width, E head width. All in numpy: tables are constants of the program, not arrays a model carries.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from retfound_jax.core.errors import UsageError


@functools.lru_cache(maxsize=32)
def sincos_2d(width: int, *, grid: int) -> np.ndarray:
    """The sine-cosine table [1 + grid * grid, width] in float32, row 0 (the cls token) zero, patches in row-major order.

    The first half of the channels codes the column, the second half the row; each half is `width / 4` sines, then as many
    cosines, of position times 10000 ** (-i / (width / 4)) (MAE, arXiv 2111.06377, section 3, after Vaswani et al. 2017).

    Raises:
      UsageError: the width does not divide by 4.
    """
    if width % 4:
        raise UsageError(f'sine-cosine positions need a width that divides by 4, not {width}; choose another width')
    frequency = 10000.0 ** (-np.arange(width // 4) / (width // 4))
    angles = np.arange(grid)[:, None] * frequency
    axis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    column = np.broadcast_to(axis[None, :, :], (grid, grid, width // 2))
    row = np.broadcast_to(axis[:, None, :], (grid, grid, width // 2))
    table = np.concatenate([column, row], axis=2).reshape(grid * grid, width)
    table = np.concatenate([np.zeros((1, width)), table]).astype(np.float32)
    table.setflags(write=False)  # shared by the cache
    return table


def is_sincos(table_LD: np.ndarray) -> bool:
    """Whether positions are, to the last digits, the table that `sincos_2d` has for as many patches."""
    table = sincos_2d(table_LD.shape[1], grid=math.isqrt(len(table_LD)))
    return table.shape == table_LD.shape and bool(np.allclose(table_LD, table, atol=1e-5))


@functools.lru_cache(maxsize=32)
def rotary_2d(head_width: int, *, grid: int, base: float = 100.0) -> np.ndarray:
    """Sines and cosines [2, grid * grid, head_width] that turn q and k of each patch: DINOv3's axial rotary positions.

    Row and column of a patch's centre are put on a scale of -1 to 1 over the image; of the head's first half of channels a
    quarter turns with the row, a quarter with the column, by 2 pi coordinate / base ** (i / (head_width / 4)), and the second
    half turns likewise (Simeoni et al. 2025, arXiv 2508.10104, section 3; base as in the published weights).

    Raises:
      UsageError: the width does not divide by 4.
    """
    if head_width % 4:
        raise UsageError(f'rotary positions need heads of a width that divides by 4, not {head_width}; choose other heads')
    periods = base ** (np.arange(head_width // 4) / (head_width // 4))
    centre = 2.0 * (np.arange(grid) + 0.5) / grid - 1.0
    row, column = np.meshgrid(centre, centre, indexing='ij')
    angles = 2.0 * np.pi * np.stack([row.ravel(), column.ravel()], axis=1)[:, :, None] / periods
    angles = np.tile(angles.reshape(grid * grid, head_width // 2), 2)
    table = np.stack([np.sin(angles), np.cos(angles)]).astype(np.float32)
    table.setflags(write=False)  # shared by the cache
    return table


def resample(table_LD: np.ndarray, *, grid: int, antialias: bool = False) -> np.ndarray:
    """A table [1 + g * g, D] brought to [1 + grid * grid, D]: the patches bicubically, the cls row unchanged; likewise without that row.

    Half-pixel centres and borders as PyTorch has them with align_corners=False. Without `antialias`, a = -0.75: how MAE,
    RETFound and DINOv2 bring their encoders to another image size. With it, a = -0.5 and a kernel that widens where the grid
    shrinks: how timm does it.
    """
    old = math.isqrt(len(table_LD))
    prefix = len(table_LD) - old * old
    if prefix > 1 or not old:
        raise UsageError(f'a table of {len(table_LD)} positions is not a square grid, with or without a cls token; give one that is')
    if old == grid:
        return np.asarray(table_LD)
    weights = _antialiased(old, new=grid) if antialias else _bicubic(old, new=grid)
    patches = np.asarray(table_LD[prefix:], np.float64).reshape(old, old, -1)
    patches = np.einsum('yi,xj,ijd->yxd', weights, weights, patches, optimize=True)
    return np.concatenate([table_LD[:prefix], patches.reshape(grid * grid, -1).astype(table_LD.dtype)])


def _bicubic(old: int, *, new: int) -> np.ndarray:
    """Weights [new, old] of cubic convolution (Keys 1981) with a = -0.75."""
    a = -0.75
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int) - 1
    weights = np.zeros((new, old))
    for tap in range(4):
        x = np.abs(centre - (first + tap))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * (x**3 - 5 * x**2 + 8 * x - 4)
        np.add.at(weights, (np.arange(new), np.clip(first + tap, 0, old - 1)), np.where(x <= 1, near, far))
    return weights


def _antialiased(old: int, *, new: int) -> np.ndarray:
    """Weights [new, old] of cubic convolution with a = -0.5 and a support that grows with the shrinking, each row summing to 1."""
    shrink = max(old / new, 1.0)
    centre = (np.arange(new) + 0.5) * old / new
    x = np.abs((np.arange(old) + 0.5 - centre[:, None]) / shrink)
    a = -0.5
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)
