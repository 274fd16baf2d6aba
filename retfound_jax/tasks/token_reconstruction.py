"""Token reconstruction: pretraining without labels from another encoder (RETFound-Green; `models.token_reconstruction`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import nnx

from retfound_jax.models.token_reconstruction import TokenReconstruction, TokenReconstructionConfig
from retfound_jax.models.transfer import load_encoder
from retfound_jax.tasks.base import Batch
from retfound_jax.tasks.self_supervised import SelfSupervisedTask, mean_loss

_TEACHER = 'teacher'


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenReconstructionTask(SelfSupervisedTask):
    """Predict, from a corrupted photograph, the tokens that the encoder it started from makes of the clean one."""

    model: TokenReconstructionConfig

    @property
    def kind(self) -> str:
        return 'token'

    def init(self, *, rngs: nnx.Rngs) -> TokenReconstruction:
        return TokenReconstruction(self.model, rngs=rngs)

    def loss(self, model: TokenReconstruction, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        return mean_loss(model(batch['image'], key=key), batch), {}

    def predict(self, model: TokenReconstruction, batch: Batch) -> dict[str, jax.Array]:
        """The loss of each image under the fixed corruption, as `score` [B,1]."""
        return {'score': model(batch['image'])[:, None]}

    def trainable(self, path: str) -> bool:
        return path.split('.')[0] != _TEACHER

    def load_pretrained(self, params: Any, source: Any) -> Any:
        """Student and teacher both start as the encoder of `source`; the projector starts afresh."""
        start = {name: load_encoder({'encoder': params[name]}, source)['encoder'] for name in ('encoder', _TEACHER)}
        return {**params, **start}
