"""SimCLR: pretraining without labels (Chen et al., arXiv 2002.05709)."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from retfound_jax.models.contrastive import Compared, SimCLR, SimCLRConfig, check_views
from retfound_jax.tasks.base import Batch
from retfound_jax.tasks.contrastive import ContrastiveTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLRTask(ContrastiveTask):
    """Tell the other view of an image from the views of all other images of the batch."""

    model: SimCLRConfig

    @property
    def kind(self) -> str:
        return 'simclr'

    def init(self, *, rngs: nnx.Rngs) -> SimCLR:
        return SimCLR(self.model, rngs=rngs)

    def compared(self, model: SimCLR, batch: Batch, *, key: jax.Array | None, weight_B: jax.Array | None) -> Compared:
        check_views(batch['image'], batch.get('local'), method='SimCLR')
        return model(batch['image'], key=key, weight_B=weight_B)
