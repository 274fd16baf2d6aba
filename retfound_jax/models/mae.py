"""Masked autoencoder (He et al. 2021, arXiv 2111.06377): encode a random quarter of the patches, predict the pixels of the rest.

Letters: B batch, H W image [px], C channels, L patches, V visible patches, K masked patches, P values of a patch, D encoder
width, M decoder width.

The decoder sees [cls, visible, masked] in shuffled order with the positions shuffled alike. Attention has no order of its
own, so this equals the paper's "unshuffle, then decode", and nothing with a gradient is ever gathered or scattered.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models import layers, positions
from retfound_jax.models.vit import TOKEN_STD, ViT, ViTConfig, patchify, take_patches, unpatchify

TARGET_EPSILON = 1e-6  # added to the variance of a patch


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAEConfig:
    """An encoder and the decoder that trains it. The encoder's `pool` is not used: MAE's encoder ends in one norm."""

    encoder: ViTConfig = ViTConfig()
    decoder_width: int = 512
    decoder_depth: int = 8  # [blocks]
    decoder_heads: int = 16
    decoder_attention: layers.AttentionBy = 'plain'  # as the encoder's, which sees a quarter of the tokens
    mask_ratio: float = 0.75  # of the patches, hidden
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
            attention=self.decoder_attention,
        )

    @property
    def visible(self) -> int:
        """Patches the encoder sees of an image of the encoder's size."""
        return self.visible_of(self.encoder.grid**2)

    def visible_of(self, patches: int) -> int:
        """Patches the encoder sees: L (1 - mask_ratio), rounded down (the paper's code), forgiving the float's last digit."""
        return int(patches * (1.0 - self.mask_ratio) + 1e-9)


@flax.struct.dataclass
class MAEOutput:
    """What one pass gives. Under jit, what the caller does not use is not computed."""

    loss: jax.Array  # [] mean over the masked patches of the batch
    per_image_loss_B: jax.Array
    pred_BLP: jax.Array  # every patch, in the space of the targets
    target_BLP: jax.Array
    mask_BL: jax.Array  # 1 masked, 0 visible; float32


@flax.struct.dataclass
class Pictures:
    """The triple to show, each [B, H, W, C] in the space of the input."""

    photograph: jax.Array
    masked: jax.Array  # masked patches 0, the mean colour of normalised images
    reconstruction: jax.Array  # the predictions at masked patches, the photograph elsewhere
    prediction: jax.Array  # the predictions everywhere
    mask: jax.Array  # 1 masked, 0 visible


def random_masking(noise_BL: jax.Array, *, visible: int) -> tuple[jax.Array, jax.Array]:
    """Indices (keep_BV, masked_BK): per image, the `visible` patches of least noise and the others."""
    order_BL = jnp.argsort(noise_BL, axis=1)
    return order_BL[:, :visible], order_BL[:, visible:]


def targets(patches_BLP: jax.Array, *, norm_pix_loss: bool) -> jax.Array:
    """What the decoder predicts: pixels, or (section 4.1, "normalized pixels") each patch standardised.

    The variance is the unbiased one, over P - 1, and 1e-6 is added to it: what the published weights were trained with.
    """
    if not norm_pix_loss:
        return patches_BLP
    mean, std = _statistics(patches_BLP)
    return (patches_BLP - mean) / std


def _statistics(patches_BLP: jax.Array) -> tuple[jax.Array, jax.Array]:
    mean = patches_BLP.mean(-1, keepdims=True)
    return mean, jnp.sqrt(patches_BLP.var(-1, keepdims=True, ddof=1) + TARGET_EPSILON)


class MAE(nnx.Module):
    """Encoder and decoder.

    Raises:
      UsageError: at construction, where the numbers of the config do not fit each other.
    """

    def __init__(self, config: MAEConfig, *, rngs: nnx.Rngs) -> None:
        _check(config)
        self.config = config
        encoder, width = config.encoder, config.decoder_width
        self.encoder = ViT(dataclasses.replace(encoder, pool='cls', norm_twice=False), rngs=rngs)
        self.decoder_embed = layers.Linear((encoder.width,), (width,), letters='DM', rngs=rngs)
        self.mask_token = nnx.Param(TOKEN_STD * jax.random.normal(rngs.params(), (width,), jnp.float32), letters='M')
        self.decoder_blocks = layers.make_blocks(config.decoder_block, depth=config.decoder_depth, scan=encoder.scan, rngs=rngs)
        self.decoder_norm = layers.LayerNorm(width, letters='M', epsilon=encoder.norm_epsilon)
        self.decoder_pred = layers.Linear((width,), (encoder.patch_values,), letters='MP', rngs=rngs)

    def __call__(self, image_BHWC: jax.Array, *, key: jax.Array | None = None, noise_BL: jax.Array | None = None) -> MAEOutput:
        """Masks by `noise_BL`, or by uniform noise from `key`; `key` also draws dropped paths.

        Raises:
          UsageError: neither key nor noise is given.
        """
        patches_BLP = patchify(image_BHWC, self.config.encoder.patch_size)
        keep_BV, masked_BK = self._masks(patches_BLP.shape[:2], key, noise_BL)
        x_BLM = self._decode(image_BHWC, keep_BV, masked_BK, key)
        wide = jnp.promote_types(image_BHWC.dtype, jnp.float32)
        patches_BLP = patches_BLP.astype(wide)
        hidden = take_patches(patches_BLP, masked_BK)
        # Predictions of visible patches carry no loss; computed apart, they cost nothing where nobody looks at them.
        pred_BKP = self.decoder_pred(x_BLM[:, 1 + keep_BV.shape[1] :]).astype(wide)
        pred_BVP = self.decoder_pred(x_BLM[:, 1 : 1 + keep_BV.shape[1]]).astype(wide)
        error_BKP = pred_BKP - targets(hidden, norm_pix_loss=self.config.norm_pix_loss)
        per_image_loss_B = jnp.square(error_BKP).mean((1, 2))
        restore_BL = jnp.argsort(jnp.concatenate([keep_BV, masked_BK], axis=1), axis=1)
        return MAEOutput(
            loss=per_image_loss_B.mean(),
            per_image_loss_B=per_image_loss_B,
            pred_BLP=take_patches(jnp.concatenate([pred_BVP, pred_BKP], axis=1), restore_BL),
            target_BLP=targets(patches_BLP, norm_pix_loss=self.config.norm_pix_loss),
            mask_BL=(restore_BL >= keep_BV.shape[1]).astype(jnp.float32),
        )

    def reconstruct(self, image_BHWC: jax.Array, *, key: jax.Array | None = None, noise_BL: jax.Array | None = None) -> Pictures:
        """Photograph, masked photograph and reconstruction, in the space of the input.

        With norm_pix_loss a prediction says nothing of a patch's mean and contrast: those of the photograph are put back,
        so colours are the photograph's own and only the structure is the model's.
        """
        size = self.config.encoder.patch_size
        out = self(image_BHWC, key=key, noise_BL=noise_BL)
        patches_BLP = patchify(image_BHWC, size)
        pred_BLP = out.pred_BLP
        if self.config.norm_pix_loss:
            mean, std = _statistics(patches_BLP)
            pred_BLP = pred_BLP * std + mean
        mask_BLP = jnp.broadcast_to(out.mask_BL[:, :, None], patches_BLP.shape)
        masked = patches_BLP * (1 - mask_BLP)
        shown = (masked, masked + pred_BLP * mask_BLP, pred_BLP, mask_BLP)
        return Pictures(image_BHWC, *(unpatchify(x, size) for x in shown))

    def _masks(self, shape: tuple[int, int], key: jax.Array | None, noise_BL: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        if noise_BL is None:
            if key is None:
                raise UsageError('a masked autoencoder was called without key or noise; give one of them to draw the mask')
            noise_BL = jax.random.uniform(jax.random.fold_in(key, 0), shape)
        visible = self.config.visible_of(noise_BL.shape[1])
        if not visible:
            seen = f'of the {noise_BL.shape[1]} patches of a smaller image none'
            raise UsageError(f'mask_ratio {self.config.mask_ratio} leaves {seen} visible; choose larger images or a lower ratio')
        return random_masking(noise_BL, visible=visible)

    def _decode(self, image_BHWC: jax.Array, keep_BV: jax.Array, masked_BK: jax.Array, key: jax.Array | None) -> jax.Array:
        """Decoder tokens [B, 1 + V + K, M] in the order cls, visible, masked, normed."""
        config, encoder = self.config, self.config.encoder
        key = None if key is None else jax.random.fold_in(key, 1)
        tokens_BVD = self.encoder.norm(self.encoder.encode_visible(image_BHWC, keep_BV, key=key))
        x_BVM = self.decoder_embed(tokens_BVD)
        hidden = jnp.broadcast_to(self.mask_token[...], (*masked_BK.shape, config.decoder_width)).astype(x_BVM.dtype)
        grid = image_BHWC.shape[1] // encoder.patch_size
        table_LM = jnp.asarray(positions.sincos_2d(config.decoder_width, grid=grid), x_BVM.dtype)
        order_BL = jnp.concatenate([jnp.zeros_like(keep_BV[:, :1]), 1 + keep_BV, 1 + masked_BK], axis=1)
        x_BLM = layers.constrain(jnp.concatenate([x_BVM, hidden], axis=1) + table_LM[order_BL])
        return self.decoder_norm(layers.run_blocks(self.decoder_blocks, x_BLM, depth=config.decoder_depth, **encoder.run))


def _check(config: MAEConfig) -> None:
    if config.encoder.registers or config.encoder.positions == 'rope':
        raise UsageError('a masked autoencoder takes no registers and no rotary positions; set registers 0 and positions sincos or learned')
    if config.decoder_width % config.decoder_heads:
        raise UsageError(f'decoder_width {config.decoder_width} does not divide into {config.decoder_heads} heads; choose a multiple')
    if not 0 < config.visible < config.encoder.grid**2:
        patches = config.encoder.grid**2
        raise UsageError(f'mask_ratio {config.mask_ratio} leaves {config.visible} of {patches} patches visible; choose one between')
