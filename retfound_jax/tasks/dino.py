"""DINO: pretraining without labels (Caron et al., arXiv 2104.14294)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from retfound_jax.models.contrastive import Compared, momentum_at
from retfound_jax.models.dino import DINO, DINOConfig
from retfound_jax.models.transfer import flat_names, load_encoder
from retfound_jax.tasks.base import Batch
from retfound_jax.tasks.contrastive import ContrastiveTask

_STUDENT = 'student'
_TEACHER = {'encoder': _STUDENT, 'projector': 'student_projector', 'patch_projector': 'student_patch_projector'}


class SelfDistillationTask(ContrastiveTask):
    """A student learns by gradient and its teacher follows; what goes on to other tasks is `encoder`, which is the teacher's."""

    def trainable(self, path: str) -> bool:
        return path.startswith((_STUDENT, 'mask_token'))

    def after(self, params: Any, told: Mapping[str, jax.Array], *, progress: jax.Array) -> Any:
        """The teacher's parts follow the student's, by a momentum that goes from `model.momentum` by half a cosine to 1."""
        share = momentum_at(progress, start=self.model.momentum)

        def followed(teacher: jax.Array, student: jax.Array) -> jax.Array:
            return share * teacher + (1 - share) * student

        moved = {one: jax.tree.map(followed, params[one], params[other]) for one, other in _TEACHER.items() if one in params}
        return {**params, **moved}

    def compared(self, model: nnx.Module, batch: Batch, *, key: jax.Array | None, weight_B: jax.Array | None) -> Compared:
        return model(batch['image'], batch.get('local'), key=key, weight_B=weight_B, progress=batch.get('progress', 1.0))

    def load_pretrained(self, params: Any, source: Any) -> Any:
        """All of a run of this kind; of anything else the encoder (a teacher's, where it has one) for student and teacher, heads afresh."""
        if set(params) <= {name.split('.')[0] for name in flat_names(source)}:
            return load_encoder(params, source)
        return {**params, **{name: load_encoder({'encoder': params[name]}, source)['encoder'] for name in ('encoder', _STUDENT)}}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOTask(SelfDistillationTask):
    """Predict, from any view of an image, what the teacher makes of another global view."""

    model: DINOConfig

    @property
    def kind(self) -> str:
        return 'dino'

    @property
    def whole_batch(self) -> bool:
        return False  # the centre is that of earlier steps, and the mean of the parts' means is the batch's

    def init(self, *, rngs: nnx.Rngs) -> DINO:
        return DINO(self.model, rngs=rngs)

    def after(self, params: Any, told: Mapping[str, jax.Array], *, progress: jax.Array) -> Any:
        """The teacher follows, and so does the centre (equation 4)."""
        share = self.model.centre_momentum
        centre = share * params['centre'] + (1 - share) * told['_centre']
        return {**super().after(params, told, progress=progress), 'centre': centre}
