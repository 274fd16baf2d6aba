"""Token reconstruction: pretraining without labels from another encoder (RETFound-Green; `models.token_reconstruction`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx

from retfound_jax.models.token_reconstruction import TokenReconstruction, TokenReconstructionConfig
from retfound_jax.models.transfer import load_encoder
from retfound_jax.tasks.base import Batch, Task

_TEACHER = 'teacher'


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenReconstructionTask(Task):
    """Predict, from a corrupted photograph, the tokens that the encoder it started from makes of the clean one."""

    model: TokenReconstructionConfig

    @property
    def kind(self) -> str:
        return 'token'

    @property
    def depth(self) -> int:
        return self.model.encoder.depth

    @property
    def image_size(self) -> int:
        return self.model.encoder.image_size

    def init(self, *, rngs: nnx.Rngs) -> TokenReconstruction:
        return TokenReconstruction(self.model, rngs=rngs)

    def loss(self, model: TokenReconstruction, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        loss_B = model(batch['image'], key=key)
        if 'mask' not in batch:
            return loss_B.mean(), {}
        weight_B = batch['mask'].astype(loss_B.dtype)
        return (loss_B * weight_B).sum() / weight_B.sum().clip(1), {}

    def predict(self, model: TokenReconstruction, batch: Batch) -> dict[str, jax.Array]:
        """The loss of each image under the fixed corruption, as `score` [B,1]."""
        return {'score': model(batch['image'])[:, None]}

    def trainable(self, path: str) -> bool:
        return path.split('.')[0] != _TEACHER

    def load_pretrained(self, params: Any, source: Any) -> Any:
        """Student and teacher both start as the encoder of `source`; the projector starts afresh."""
        start = {name: load_encoder({'encoder': params[name]}, source)['encoder'] for name in ('encoder', _TEACHER)}
        return {**params, **start}
