"""What the tasks share that compare an image's views with those of the other images of a batch."""

from __future__ import annotations

import abc
from typing import Any

import jax
from flax import nnx

from retfound_jax.models.contrastive import Compared
from retfound_jax.models.transfer import load_encoder
from retfound_jax.tasks.base import Batch
from retfound_jax.tasks.self_supervised import ViewsTask, mean_loss


class ContrastiveTask(ViewsTask):
    """Pretraining whose loss is one of a whole batch; it also logs what shows a collapse (`embedding_spread`, `projection_spread`)."""

    @property
    def whole_batch(self) -> bool:
        return True

    @abc.abstractmethod
    def compared(self, model: nnx.Module, batch: Batch, *, key: jax.Array | None, weight_B: jax.Array | None) -> Compared:
        """What the model makes of a batch of views; `weight_B` is 0 for rows that only fill it up, None where there are none."""

    def loss(self, model: nnx.Module, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        out = self.compared(model, batch, key=key, weight_B=_weight(batch))
        return mean_loss(out.loss_B, batch), out.scalars

    def predict(self, model: nnx.Module, batch: Batch) -> dict[str, jax.Array]:
        """The loss of each image among those of its batch, under fixed views, as `score` [B,1]."""
        return {'score': self.compared(model, batch, key=None, weight_B=_weight(batch)).loss_B[:, None]}

    def load_pretrained(self, params: Any, source: Any) -> Any:
        """The encoder of `source`; everything else starts afresh."""
        return {**params, 'encoder': load_encoder({'encoder': params['encoder']}, source)['encoder']}


def _weight(batch: Batch) -> jax.Array | None:
    return batch['mask'].astype('float32') if 'mask' in batch else None
