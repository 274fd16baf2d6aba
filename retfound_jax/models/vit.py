"""The Vision Transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) as the MAE paper uses it: pre-norm, cls token, sin-cos positions.

Letters: B batch, H W image height and width [px], C channels, L patches, V visible patches, P values of a patch (row, column,
channel order), D width.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.models import layers, positions

CHANNELS = 3
Pool = Literal['mean', 'cls', 'mean_normed']
POOLS = get_args(Pool)
TOKEN_STD = 0.02  # of the cls and mask tokens at the start


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """The shape of an encoder; `vit_config('S')` gives the published sizes."""

    image_size: int = 224  # [px], square
    patch_size: int = 16  # [px]
    width: int = 1024
    depth: int = 24  # [blocks]
    heads: int = 16
    mlp_ratio: float = 4.0  # MLP width over width; of a SwiGLU, the width of its gated half
    mlp: Literal['gelu', 'swiglu'] = 'gelu'
    # What `embed` gives. mean: fc_norm of the mean patch token; cls: the normed cls token; mean_normed: mean of the normed patch tokens.
    pool: Pool = 'mean'
    norm_twice: bool = False  # fc_norm is applied to its own result once more, as RETFound's code of 2025 does (pool mean)
    # sincos: a fixed table; learned: a parameter that starts as that table; rope: rotary, in every attention (DINOv3).
    positions: Literal['sincos', 'learned', 'rope'] = 'sincos'
    cls_position: bool = True  # learned positions have a row for the cls token
    registers: int = 0  # tokens without a place, after the cls token (Darcet et al., arXiv 2309.16588)
    layer_scale: float | None = None  # start value of LayerScale's gammas; None: no LayerScale
    qkv_bias: bool = True
    norm_epsilon: float = layers.EPSILON
    drop_path: float = 0.0  # rate of dropped branches at the last block, linear in depth
    compute_dtype: Literal['float32', 'bfloat16'] = 'float32'  # parameters, norms and softmax stay float32
    residual_dtype: layers.ResidualDtype = 'compute'  # what blocks add to: as they compute, or float32 (PyTorch's autocast)
    linear: layers.LinearDtype = 'compute'  # blocks' products with parameters (an MAE's decoder too): as they compute, or in eight bits
    attention: layers.AttentionBy = 'plain'  # cudnn: NVIDIA's fused kernel, for bfloat16 on its GPUs
    scan: bool = True  # one program for all blocks, parameters stacked; else unrolled
    remat: layers.Remat = 'none'  # what backward keeps: all, matrix products ('dots': with scan also the fastest on CPU), block inputs

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def prefix(self) -> int:
        """Tokens before the patches: cls, then registers."""
        return 1 + self.registers

    @property
    def block(self) -> layers.BlockShape:
        """What each block is made like."""
        return layers.BlockShape(
            width=self.width,
            heads=self.heads,
            hidden=round(self.width * self.mlp_ratio),
            mlp=self.mlp,
            layer_scale=self.layer_scale,
            qkv_bias=self.qkv_bias,
            norm_epsilon=self.norm_epsilon,
            linear=self.linear,
            attention=self.attention,
        )

    @property
    def run(self) -> dict[str, Any]:
        """How a stack of blocks is run, as `layers.run_blocks` takes it."""
        return {'scan': self.scan, 'remat': self.remat, 'residual_dtype': self.residual_dtype}

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
    if config.norm_twice and config.pool != 'mean':
        raise UsageError(f'norm_twice is of pool "mean", and pool is "{config.pool}"; set one of them otherwise')
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


class _Blank(NamedTuple):
    """Which patches come without their embedding, and what comes in its place."""

    where_BL: jax.Array | None
    token_D: jax.Array | None


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
        self.cls_token = nnx.Param(_token(rngs, (config.width,)), letters='D')
        if config.registers:
            self.reg_token = nnx.Param(_token(rngs, (config.registers, config.width)), letters='RD')
        if config.positions == 'learned':
            table = positions.sincos_2d(config.width, grid=config.grid)
            self.pos_embed = nnx.Param(jnp.asarray(table if config.cls_position else table[1:]), letters='LD')
        self.blocks = layers.make_blocks(config.block, depth=config.depth, scan=config.scan, rngs=rngs)
        norm = layers.LayerNorm(config.width, letters='D', epsilon=config.norm_epsilon)
        if config.pool == 'mean':
            self.fc_norm = norm
        else:
            self.norm = norm

    def __call__(
        self,
        image_BHWC: jax.Array,
        *,
        key: jax.Array | None = None,
        blank_BL: jax.Array | None = None,
        blank_D: jax.Array | None = None,
    ) -> jax.Array:
        """Tokens [B, 1 + R + L, D]: cls, registers, patches, the final norm not applied.

        Args:
          key: draws the dropped paths.
          blank_BL: true where a patch comes to the blocks without its embedding, which `blank_D` replaces before the position is added.
          blank_D: None: zeros.
        """
        return self._encode(patchify(image_BHWC, self.config.patch_size), None, key, _Blank(blank_BL, blank_D))

    def encode_visible(self, image_BHWC: jax.Array, keep_BV: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Tokens [B, 1 + R + V, D] of the patches `keep_BV` (indices in row-major order) alone: the others are never computed."""
        return self._encode(patchify(image_BHWC, self.config.patch_size), keep_BV, key)

    def tokens(self, image_BHWC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Tokens [B, 1 + R + L, D] with the final norm applied, whichever it is."""
        final = self.fc_norm if self.config.pool == 'mean' else self.norm
        return final(self(image_BHWC, key=key))

    def embed(self, image_BHWC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """One vector an image, [B, D]; `config.pool` says which."""
        config, tokens_BLD = self.config, self(image_BHWC, key=key)
        if config.pool == 'cls':
            return self.norm(tokens_BLD[:, 0])
        wide = jnp.promote_types(tokens_BLD.dtype, jnp.float32)
        if config.pool == 'mean_normed':
            return self.norm(tokens_BLD[:, config.prefix :]).mean(1, dtype=wide)
        embedded_BD = self.fc_norm(tokens_BLD[:, config.prefix :].mean(1, dtype=wide))
        return self.fc_norm(embedded_BD) if config.norm_twice else embedded_BD

    def attention(self, image_BHWC: jax.Array, *, layer: int = -1) -> jax.Array:
        """Attention weights [B, N, T, T] of one block, T = 1 + R + L tokens; a row says where that token looks, and sums to 1.

        Raises:
          UsageError: there is no such layer.
        """
        config = self.config
        if not -config.depth <= layer < config.depth:
            raise UsageError(f'there is no layer {layer} among {config.depth} blocks; choose {-config.depth} to {config.depth - 1}')
        x_BLD, rotary_2LE = self._start(patchify(image_BHWC, config.patch_size), None)
        count = layer % config.depth
        x_BLD, block = layers.first_blocks(self.blocks, x_BLD, count=count, scan=config.scan, rotary_2LE=rotary_2LE)
        return block.attn.weights(block.norm1(x_BLD), rotary_2LE)

    def _encode(
        self, patches_BLP: jax.Array, keep_BV: jax.Array | None, key: jax.Array | None, blank: _Blank | None = None
    ) -> jax.Array:
        config = self.config
        x_BLD, rotary_2LE = self._start(patches_BLP, keep_BV, blank)
        run = {'depth': config.depth, **config.run, 'rotary_2LE': rotary_2LE}
        return layers.run_blocks(self.blocks, layers.constrain(x_BLD), drop_path=config.drop_path, key=key, **run)

    def _start(
        self, patches_BLP: jax.Array, keep_BV: jax.Array | None, blank: _Blank | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """The tokens that enter the first block, and the rotary angles where positions are rotary."""
        config, dtype, grid = self.config, self.config.compute_dtype, round(patches_BLP.shape[1] ** 0.5)
        if keep_BV is not None:
            patches_BLP = take_patches(patches_BLP, keep_BV)
        x_BVD = self.patch_embed.proj(patches_BLP.astype(dtype))
        if blank is not None and blank.where_BL is not None:
            stands_in = 0 if blank.token_D is None else blank.token_D.astype(dtype)
            x_BVD = jnp.where(blank.where_BL[:, :, None], stands_in, x_BVD)
        x_BVD, place_1D = self._place(x_BVD, keep_BV, grid)
        # The token stays float32 up to the broadcast: then its gradient is summed over images in float32 too.
        prefix_RD = (self.cls_token[...] + place_1D)[None]
        if config.registers:
            prefix_RD = jnp.concatenate([prefix_RD, self.reg_token[...]])
        prefix_BRD = jnp.broadcast_to(prefix_RD, (len(x_BVD), *prefix_RD.shape)).astype(dtype)
        x_BLD = jnp.concatenate([prefix_BRD, x_BVD], axis=1)
        if config.positions != 'rope':
            return x_BLD, None
        if keep_BV is not None:
            raise UsageError('rotary positions and hidden patches are not built together; choose positions sincos or learned')
        return x_BLD, jnp.asarray(positions.rotary_2d(config.width // config.heads, grid=grid))

    def _place(self, x_BVD: jax.Array, keep_BV: jax.Array | None, grid: int) -> tuple[jax.Array, jax.Array]:
        """Patch tokens with their positions, and the position [D] of the cls token."""
        if self.config.positions == 'rope':
            return x_BVD, jnp.zeros((self.config.width,))
        table_LD = self._table(grid)  # float32 up to the broadcast, as above
        shape = (len(x_BVD), grid**2, self.config.width)
        place_BVD = jnp.broadcast_to(table_LD[1:], shape) if keep_BV is None else table_LD[1:][keep_BV]
        return x_BVD + place_BVD.astype(x_BVD.dtype), table_LD[0]

    def _table(self, grid: int) -> jax.Array:
        """Positions [1 + L, D], the first row that of the cls token."""
        config = self.config
        if config.positions == 'sincos':
            return jnp.asarray(positions.sincos_2d(config.width, grid=grid))
        if grid != config.grid:
            sizes = f'{grid * config.patch_size} px, but its learned positions are for {config.image_size} px'
            raise UsageError(f'the images are {sizes}; resize them, or load the weights into a model of that image_size')
        table_LD = self.pos_embed[...]
        return table_LD if config.cls_position else jnp.concatenate([jnp.zeros_like(table_LD[:1]), table_LD])


def _token(rngs: nnx.Rngs, shape: tuple[int, ...]) -> jax.Array:
    return TOKEN_STD * jax.random.normal(rngs.params(), shape, jnp.float32)
