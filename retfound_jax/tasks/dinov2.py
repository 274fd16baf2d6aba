"""DINOv2's combination of DINO, iBOT and KoLeo: pretraining without labels (Oquab et al., arXiv 2304.07193)."""

from __future__ import annotations

import dataclasses

from flax import nnx

from retfound_jax.models.dinov2 import DINOv2, DINOv2Config
from retfound_jax.tasks.dino import SelfDistillationTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOv2Task(SelfDistillationTask):
    """Predict what the teacher makes of another view, and of the patches that are masked; spread the images of a batch."""

    model: DINOv2Config

    @property
    def kind(self) -> str:
        return 'dinov2'

    def init(self, *, rngs: nnx.Rngs) -> DINOv2:
        return DINOv2(self.model, rngs=rngs)
