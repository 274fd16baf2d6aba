"""Masked autoencoding: pretraining without labels (He et al., arXiv 2111.06377)."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from retfound_jax.models.mae import MAE, MAEConfig, Pictures
from retfound_jax.tasks.base import Batch, Task

# The mask of deterministic calls (validation, figures): any constant serves, as long as it never changes.
_FIXED_MASK_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAETask(Task):
    """Predict the hidden patches from the visible ones."""

    model: MAEConfig

    @property
    def kind(self) -> str:
        return 'mae'

    @property
    def depth(self) -> int:
        return self.model.encoder.depth

    @property
    def image_size(self) -> int:
        return self.model.encoder.image_size

    def init(self, *, rngs: nnx.Rngs) -> MAE:
        return MAE(self.model, rngs=rngs)

    def loss(self, model: MAE, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        key = jax.random.key(_FIXED_MASK_SEED) if key is None else key
        out = model(batch['image'], key=key)
        if 'mask' not in batch:
            return out.loss, {}
        weight_B = batch['mask'].astype(out.per_image_loss_B.dtype)
        return (out.per_image_loss_B * weight_B).sum() / weight_B.sum().clip(1), {}

    def predict(self, model: MAE, batch: Batch) -> dict[str, jax.Array]:
        """The loss of each image under the fixed mask, as `score` [B,1]."""
        out = model(batch['image'], key=jax.random.key(_FIXED_MASK_SEED))
        return {'score': out.per_image_loss_B[:, None]}

    def reconstruct(self, model: MAE, image_BHWC: jax.Array) -> Pictures:
        """Photograph, masked and reconstructed, in normalised colours, under the fixed mask."""
        return model.reconstruct(image_BHWC, key=jax.random.key(_FIXED_MASK_SEED))
