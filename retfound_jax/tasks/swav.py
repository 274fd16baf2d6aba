"""SwAV: pretraining without labels (Caron et al., arXiv 2006.09882)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from retfound_jax.models.contrastive import Compared
from retfound_jax.models.projection import unit
from retfound_jax.models.swav import SwAV, SwAVConfig
from retfound_jax.tasks.base import Batch
from retfound_jax.tasks.contrastive import ContrastiveTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwAVTask(ContrastiveTask):
    """Predict, from each view of an image, the prototypes that another view of it was assigned to among those of the batch."""

    model: SwAVConfig

    @property
    def kind(self) -> str:
        return 'swav'

    def init(self, *, rngs: nnx.Rngs) -> SwAV:
        return SwAV(self.model, rngs=rngs)

    def compared(self, model: SwAV, batch: Batch, *, key: jax.Array | None, weight_B: jax.Array | None) -> Compared:
        return model(batch['image'], batch.get('local'), key=key, weight_B=weight_B, progress=batch.get('progress', 1.0))

    def after(self, params: Any, told: Mapping[str, jax.Array], *, progress: jax.Array) -> Any:
        """Prototypes go back to length 1."""
        return {**params, 'prototypes': unit(params['prototypes'])}
