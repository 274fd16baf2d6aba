"""The Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) as the MAE paper uses it: pre-norm, cls token, sin-cos positions.

Letters: B batch, H W image height and width [px], C channels, L patches, V visible patches, P values of a patch (row, column,
channel order), D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.models import layers, positions

CHANNELS = 3
TOKEN_STD = 0.02  # of the cls and mask tokens at the start


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """The shape of an encoder; `vit_config('S')` gives the published sizes."""

    image_size: int = 224  # [px], square
    patch_size: int = 16  # [px]
    width: int = 1024
    depth: int = 24  # [blocks]
    heads: int = 16
    mlp_ratio: float = 4.0  # MLP width over width
    pool: Literal['mean', 'cls'] = 'mean'  # mean of the patch tokens then fc_norm; or norm then the cls token
    positions: Literal['sincos', 'learned'] = 'sincos'  # a fixed table; or a parameter that starts as that table
    drop_path: float = 0.0  # rate of dropped branches at the last block, linear in depth
    compute_dtype: Literal['float32', 'bfloat16'] = 'float32'  # parameters, norms and softmax stay float32
    scan: bool = True  # one program for all blocks, parameters stacked; else unrolled
    remat: layers.Remat = 'none'  # what backward keeps: all, matrix products ('dots': with scan also the fastest on CPU), block inputs

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def patch_values(self) -> int:
        """Values of one patch."""
        return self.patch_size**2 * CHANNELS


VIT_SIZES = {
    'Ti': {'width': 192, 'depth': 12, 'heads': 3},
    'S': {'width': 384, 'depth': 12, 'heads': 6},
    'B': {'width': 768, 'depth': 12, 'heads': 12},
    'L': {'width': 1024, 'depth': 24, 'heads': 16},
    'H': {'width': 1280, 'depth': 32, 'heads': 16},
}


def vit_config(size: str, **changes: Any) -> ViTConfig:
    """The published size Ti, S, B, L or H, with any field of ViTConfig changed.

    Raises:
      UsageError: there is no such size.
    """
    if size not in VIT_SIZES:
        raise UsageError(f'there is no ViT size "{size}"{nearest(size, VIT_SIZES)}; choose one of {", ".join(VIT_SIZES)}')
    return ViTConfig(**{**VIT_SIZES[size], **changes})


def check(config: ViTConfig) -> None:
    """Raises UsageError where the numbers of a ViT do not fit each other."""
    if config.image_size % config.patch_size or config.image_size < config.patch_size:
        raise UsageError(f'image_size {config.image_size} does not divide into patches of {config.patch_size} px; choose a multiple')
    if config.width % config.heads:
        raise UsageError(f'width {config.width} does not divide into {config.heads} heads; choose a multiple')
    if config.depth < 1 or not 0.0 <= config.drop_path < 1.0:
        raise UsageError(f'depth {config.depth} must be 1 or more, and drop_path {config.drop_path} from 0 to below 1')


def patchify(image_BHWC: jax.Array, patch_size: int) -> jax.Array:
    """Patches [B, L, P] in row-major order, each flattened as (row, column, channel)."""
    b, h, w, c = image_BHWC.shape
    if h != w or h % patch_size:
        raise UsageError(f'images of {h}x{w} px do not divide into square grids of {patch_size} px patches; resize them to a multiple')
    grid = h // patch_size
    x = image_BHWC.reshape(b, grid, patch_size, grid, patch_size * c)
    # Column by column rather than one transpose, which XLA's CPU compiler makes three times slower.
    x = jnp.stack([x[:, :, :, column] for column in range(grid)], axis=2)
    return x.reshape(b, grid * grid, patch_size * patch_size * c)


def take_patches(patches_BLP: jax.Array, index_BV: jax.Array) -> jax.Array:
    """The patches `index_BV` of each image, [B, V, P]; indices must lie in the grid."""
    return jnp.take_along_axis(patches_BLP, index_BV[:, :, None], axis=1, mode='promise_in_bounds')


def unpatchify(patches_BLP: jax.Array, patch_size: int) -> jax.Array:
    """The inverse of `patchify`: [B, H, W, C]."""
    b, length, values = patches_BLP.shape
    grid, c = round(length**0.5), values // patch_size**2
    x = patches_BLP.reshape(b, grid, grid, patch_size, patch_size, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, grid * patch_size, grid * patch_size, c)


class PatchEmbed(nnx.Module):
    """One linear layer over flattened patches: the usual convolution, as a matrix product."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        self.proj = layers.Linear((config.patch_values,), (config.width,), letters='PD', rngs=rngs)


class ViT(nnx.Module):
    """An encoder of square images.

    Raises:
      UsageError: at construction, where the numbers of the config do not fit each other; at the call, where the image does
        not fit the patches or learned positions.
    """

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        check(config)
        self.config = config
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        self.cls_token = nnx.Param(TOKEN_STD * jax.random.normal(rngs.params(), (config.width,), jnp.float32), letters='D')
        if config.positions == 'learned':
            self.pos_embed = nnx.Param(jnp.asarray(positions.sincos_2d(config.width, grid=config.grid)), letters='LD')
        hidden = int(config.width * config.mlp_ratio)
        self.blocks = layers.make_blocks(config.depth, scan=config.scan, rngs=rngs, width=config.width, heads=config.heads, hidden=hidden)
        if config.pool == 'mean':
            self.fc_norm = layers.LayerNorm(config.width, letters='D')
        else:
            self.norm = layers.LayerNorm(config.width, letters='D')

    def __call__(self, image_BHWC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Tokens [B, 1 + L, D], cls first, the final norm not applied; `key` draws the dropped paths."""
        return self._encode(patchify(image_BHWC, self.config.patch_size), None, key)

    def encode_visible(self, image_BHWC: jax.Array, keep_BV: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Tokens [B, 1 + V, D] of the patches `keep_BV` (indices in row-major order) alone: the others are never computed."""
        return self._encode(patchify(image_BHWC, self.config.patch_size), keep_BV, key)

    def embed(self, image_BHWC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """One vector an image, [B, D]: fc_norm of the mean patch token, or the cls token of the normed tokens."""
        tokens_BLD = self(image_BHWC, key=key)
        if self.config.pool == 'mean':
            return self.fc_norm(tokens_BLD[:, 1:].mean(1, dtype=jnp.promote_types(tokens_BLD.dtype, jnp.float32)))
        return self.norm(tokens_BLD[:, 0])

    def _encode(self, patches_BLP: jax.Array, keep_BV: jax.Array | None, key: jax.Array | None) -> jax.Array:
        config, dtype = self.config, self.config.compute_dtype
        # Table and token stay float32 up to the broadcast: then their gradients are summed over images in float32 too.
        table_LD = self._table(round(patches_BLP.shape[1] ** 0.5))
        if keep_BV is None:
            place_BVD = jnp.broadcast_to(table_LD[1:], (*patches_BLP.shape[:2], config.width))
        else:
            patches_BLP, place_BVD = take_patches(patches_BLP, keep_BV), table_LD[1:][keep_BV]
        x_BVD = self.patch_embed.proj(patches_BLP.astype(dtype)) + place_BVD.astype(dtype)
        cls_B1D = jnp.broadcast_to(self.cls_token[...] + table_LD[0], (len(x_BVD), 1, config.width)).astype(dtype)
        x_BLD = jnp.concatenate([cls_B1D, x_BVD], axis=1)
        run = {'depth': config.depth, 'scan': config.scan, 'remat': config.remat}
        return layers.run_blocks(self.blocks, layers.constrain(x_BLD), drop_path=config.drop_path, key=key, **run)

    def _table(self, grid: int) -> jax.Array:
        if self.config.positions == 'sincos':
            return jnp.asarray(positions.sincos_2d(self.config.width, grid=grid))
        if grid != self.config.grid:
            sizes = f'{grid * self.config.patch_size} px, but its learned positions are for {self.config.image_size} px'
            raise UsageError(f'the images are {sizes}; resize them, or load the weights into a model of that image_size')
        return self.pos_embed[...]
