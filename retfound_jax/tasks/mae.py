"""Masked autoencoding: pretraining without labels (He et al., arXiv 2111.06377)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx

from retfound_jax.models.mae import MAE, MAEConfig, Pictures
from retfound_jax.models.transfer import MISSING, flat_names, load_encoder
from retfound_jax.tasks.base import Batch
from retfound_jax.tasks.self_supervised import SelfSupervisedTask, mean_loss

# The mask of deterministic calls (validation, figures): any constant serves, as long as it never changes.
_FIXED_MASK_SEED = 0
_DECODER = ('mask_token', 'decoder_*')


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAETask(SelfSupervisedTask):
    """Predict the hidden patches from the visible ones."""

    model: MAEConfig

    @property
    def kind(self) -> str:
        return 'mae'

    def init(self, *, rngs: nnx.Rngs) -> MAE:
        return MAE(self.model, rngs=rngs)

    def loss(self, model: MAE, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        key = jax.random.key(_FIXED_MASK_SEED) if key is None else key
        return mean_loss(model(batch['image'], key=key).per_image_loss_B, batch), {}

    def predict(self, model: MAE, batch: Batch) -> dict[str, jax.Array]:
        """The loss of each image under the fixed mask, as `score` [B,1]."""
        out = model(batch['image'], key=jax.random.key(_FIXED_MASK_SEED))
        return {'score': out.per_image_loss_B[:, None]}

    def reconstruct(self, model: MAE, image_BHWC: jax.Array) -> Pictures:
        """Photograph, masked and reconstructed, in normalised colours, under the fixed mask."""
        return model.reconstruct(image_BHWC, key=jax.random.key(_FIXED_MASK_SEED))

    def load_pretrained(self, params: Any, source: Any) -> Any:
        """Encoder and decoder of a whole masked autoencoder; of anything else the encoder alone, the decoder starting afresh."""
        whole = any(name.startswith('decoder_') for name in flat_names(source))
        return load_encoder(params, source, missing=MISSING if whole else MISSING + _DECODER)
