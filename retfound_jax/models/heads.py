"""Heads on an encoder. Letters: B batch, D width, Y outputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.models.layers import Linear
from retfound_jax.models.vit import ViT, ViTConfig

HEAD_STD = 2e-5  # RETFound's and MAE's fine-tuning recipe: predictions start even


class Classifier(nnx.Module):
    """An encoder, its pooled vector, and one linear layer: logits of classes or labels, or numbers to regress."""

    def __init__(self, config: ViTConfig, *, outputs: int, rngs: nnx.Rngs) -> None:
        self.encoder = ViT(config, rngs=rngs)
        self.head = Linear((config.width,), (outputs,), letters='DY', rngs=rngs)
        kernel = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, (config.width, outputs), jnp.float32)
        self.head.kernel = nnx.Param(HEAD_STD * kernel, letters='DY')

    def __call__(self, image_BHWC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Outputs [B, Y] in float32; `key` draws dropped paths."""
        embedded_BD = self.encoder.embed(image_BHWC, key=key)
        return self.head(embedded_BD.astype(jnp.promote_types(embedded_BD.dtype, jnp.float32)))
