"""Positions of patches: the fixed 2-D sine-cosine table, and bicubic resampling of a table to another grid.

Letters: L patches, D width. All in numpy: tables are constants of the program, not arrays a model carries.
"""

from __future__ import annotations

import functools

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


def resample(table_LD: np.ndarray, *, grid: int) -> np.ndarray:
    """A table [1 + g * g, D] brought to [1 + grid * grid, D]: the patches bicubically, the cls row unchanged.

    Half-pixel centres, a = -0.75, borders repeated, no antialiasing: what PyTorch calls bicubic with align_corners=False,
    the way published encoders are brought to another image size.
    """
    old = round((len(table_LD) - 1) ** 0.5)
    if old * old + 1 != len(table_LD):
        raise UsageError(f'a table of {len(table_LD)} positions is not a cls token and a square grid; give one that is')
    if old == grid:
        return np.asarray(table_LD)
    weights = _bicubic(old, new=grid)
    patches = np.asarray(table_LD[1:], np.float64).reshape(old, old, -1)
    patches = np.einsum('yi,xj,ijd->yxd', weights, weights, patches, optimize=True)
    return np.concatenate([table_LD[:1], patches.reshape(grid * grid, -1).astype(table_LD.dtype)])


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
