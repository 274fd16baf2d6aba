"""Predicting a later photograph of an eye from an earlier one: a Siamese masked autoencoder that knows how much time lies between.

Gupta et al., "Siamese Masked Autoencoders" (NeurIPS 2023, arXiv 2305.14344): one encoder sees the earlier frame whole and the few patches
of the later one that are not masked (95 % are), and a decoder of cross-attention and self-attention predicts the masked patches, as a
masked autoencoder does (arXiv 2111.06377). Frames of a video lie a fixed range apart and their model is not told how far; visits of a
patient lie months to decades apart, and what is to be predicted depends on it. So the interval conditions the decoder here: a sinusoidal
embedding through a small MLP, as of a diffusion model's time (Ho et al., arXiv 2006.11239, appendix B), is added to each of its tokens.

Letters: B pairs, H W image [px], C channels, L patches, V visible patches, K masked patches, P values of a patch, S tokens of the
earlier photograph, D encoder width, M decoder width.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models import layers, ops, positions
from retfound_jax.models.cross import CrossBlock
from retfound_jax.models.mae import random_masking, targets
from retfound_jax.models.vit import TOKEN_STD, ViT, ViTConfig, patchify, take_patches

_PERIODS = (0.5, 200.0)  # [years], shortest and longest of the waves that tell an interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemporalConfig:
    """An encoder, and the decoder that trains it."""

    encoder: ViTConfig = ViTConfig(pool='mean_normed')  # pool 'mean_normed' or 'cls': the decoder reads tokens after the final norm
    decoder_width: int = 256
    decoder_depth: int = 4  # [blocks]
    decoder_heads: int = 8
    mask_ratio: float = 0.95  # of the later photograph's patches, hidden
    norm_pix_loss: bool = True  # targets are each patch less its mean, over its standard deviation

    @property
    def decoder_block(self) -> layers.BlockShape:
        """What each block of the decoder is made like."""
        return layers.BlockShape(
            width=self.decoder_width,
            heads=self.decoder_heads,
            hidden=round(self.decoder_width * self.encoder.mlp_ratio),
            letter='M',
            norm_epsilon=self.encoder.norm_epsilon,
            linear=self.encoder.linear,
        )

    @property
    def visible(self) -> int:
        """Patches of the later photograph that the encoder sees: L (1 - mask_ratio), rounded down, forgiving the float's last digit."""
        return int(self.encoder.grid**2 * (1.0 - self.mask_ratio) + 1e-9)


@flax.struct.dataclass
class Predicted:
    """What one pass gives, for the masked patches of the later photograph."""

    loss_B: jax.Array  # mean squared error of a pair
    pred_BKP: jax.Array
    target_BKP: jax.Array
    masked_BK: jax.Array  # which patches they are, row-major


def interval_waves(years_B: jax.Array, *, width: int) -> jax.Array:
    """Sines, then cosines, [B, width], of 2 pi years / period, the periods in a geometric row from half a year to 200 years."""
    periods = np.geomspace(*_PERIODS, width // 2)
    angle_BM = years_B[:, None] * (2 * np.pi / periods).astype(np.float32)
    return jnp.concatenate([jnp.sin(angle_BM), jnp.cos(angle_BM)], axis=1)


class Interval(nnx.Module):
    """The time between two visits as a vector [B, M]."""

    def __init__(self, width: int, *, rngs: nnx.Rngs) -> None:
        self.fc1 = layers.Linear((width,), (width,), letters='MF', rngs=rngs)
        self.fc2 = layers.Linear((width,), (width,), letters='FM', rngs=rngs)
        self._width = width

    def __call__(self, years_B: jax.Array) -> jax.Array:
        return self.fc2(ops.gelu(self.fc1(interval_waves(years_B, width=self._width))))


class Temporal(nnx.Module):
    """Encoder and decoder.

    Raises:
      UsageError: at construction, where the numbers of the config do not fit each other.
    """

    def __init__(self, config: TemporalConfig, *, rngs: nnx.Rngs) -> None:
        _check(config)
        self.config = config
        encoder, width = config.encoder, config.decoder_width
        self.encoder = ViT(encoder, rngs=rngs)
        self.decoder_embed = layers.Linear((encoder.width,), (width,), letters='DM', rngs=rngs)
        self.mask_token = nnx.Param(TOKEN_STD * jax.random.normal(rngs.params(), (width,), jnp.float32), letters='M')
        self.decoder_interval = Interval(width, rngs=rngs)
        made = {'depth': config.decoder_depth, 'scan': encoder.scan, 'rngs': rngs}
        self.decoder_blocks = layers.make_blocks(config.decoder_block, **made, kind=CrossBlock)
        self.decoder_norm = layers.LayerNorm(width, letters='M', epsilon=encoder.norm_epsilon)
        self.decoder_pred = layers.Linear((width,), (encoder.patch_values,), letters='MP', rngs=rngs)

    def __call__(
        self, earlier_BHWC: jax.Array, later_BHWC: jax.Array, years_B: jax.Array, *, key: jax.Array, noise_BL: jax.Array | None = None
    ) -> Predicted:
        """Masks the later photographs by `noise_BL`, or by uniform noise from `key`, and predicts them.

        Args:
          years_B: [years] from the earlier to the later.
          key: draws masks and dropped paths.
        """
        patches_BLP = patchify(later_BHWC, self.config.encoder.patch_size)
        if noise_BL is None:
            noise_BL = jax.random.uniform(jax.random.fold_in(key, 0), patches_BLP.shape[:2])
        visible = int(patches_BLP.shape[1] * (1.0 - self.config.mask_ratio) + 1e-9)
        if not visible:
            raise UsageError(f'mask_ratio {self.config.mask_ratio} leaves no patch of a smaller image visible; choose larger images')
        keep_BV, masked_BK = random_masking(noise_BL, visible=visible)
        seen = self._embedded(self.encoder(earlier_BHWC, key=jax.random.fold_in(key, 1)))
        kept = self._embedded(self.encoder.encode_visible(later_BHWC, keep_BV, key=jax.random.fold_in(key, 2)))
        x_BKM = self._decode(seen, kept, years_B, keep_BV, masked_BK)
        wide = jnp.promote_types(later_BHWC.dtype, jnp.float32)
        pred_BKP = self.decoder_pred(x_BKM).astype(wide)
        hidden_BKP = take_patches(patches_BLP.astype(wide), masked_BK)
        target_BKP = targets(hidden_BKP, norm_pix_loss=self.config.norm_pix_loss)
        return Predicted(jnp.square(pred_BKP - target_BKP).mean((1, 2)), pred_BKP, target_BKP, masked_BK)

    def _embedded(self, tokens_BLD: jax.Array) -> jax.Array:
        return self.decoder_embed(self.encoder.norm(tokens_BLD))

    def _decode(
        self, seen_BSM: jax.Array, kept_BVM: jax.Array, years_B: jax.Array, keep_BV: jax.Array, masked_BK: jax.Array
    ) -> jax.Array:
        """Decoder tokens [B, K, M] of the masked patches, normed. Order is of no meaning to attention: cls, visible, masked."""
        config, dtype = self.config, kept_BVM.dtype
        table_LM = jnp.asarray(positions.sincos_2d(config.decoder_width, grid=round((seen_BSM.shape[1] - 1) ** 0.5)), dtype)
        hidden = jnp.broadcast_to(self.mask_token[...], (*masked_BK.shape, config.decoder_width)).astype(dtype)
        order_BL = jnp.concatenate([jnp.zeros_like(keep_BV[:, :1]), 1 + keep_BV, 1 + masked_BK], axis=1)
        interval_BM = self.decoder_interval(years_B.astype(jnp.float32)).astype(dtype)
        x_BLM = jnp.concatenate([kept_BVM, hidden], axis=1) + table_LM[order_BL] + interval_BM[:, None]
        run = {'depth': config.decoder_depth, **config.encoder.run, 'memory_BSD': seen_BSM + table_LM}
        x_BLM = layers.run_blocks(self.decoder_blocks, layers.constrain(x_BLM), **run)
        return self.decoder_norm(x_BLM[:, kept_BVM.shape[1] :])


def _check(config: TemporalConfig) -> None:
    if config.encoder.registers or config.encoder.positions == 'rope':
        raise UsageError('temporal prediction takes no registers and no rotary positions; set registers 0 and positions sincos or learned')
    if config.encoder.pool == 'mean':
        raise UsageError('temporal prediction reads normed tokens, and pool "mean" norms none; set pool to mean_normed or cls')
    if config.decoder_width % config.decoder_heads or config.decoder_width % 4:
        told = f'decoder_width {config.decoder_width} does not divide by 4 and into {config.decoder_heads} heads'
        raise UsageError(f'{told}; choose a multiple of both')
    if not 0 < config.visible < config.encoder.grid**2:
        patches = config.encoder.grid**2
        raise UsageError(f'mask_ratio {config.mask_ratio} leaves {config.visible} of {patches} patches visible; choose one between')
