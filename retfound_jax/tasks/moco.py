"""MoCo v3: pretraining without labels (Chen, Xie and He, arXiv 2104.02057)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from retfound_jax.models.contrastive import Compared, MoCo, MoCoConfig, check_views, momentum_at
from retfound_jax.tasks.base import Batch
from retfound_jax.tasks.contrastive import ContrastiveTask

_COPIED = ('encoder', 'projector')
_COPY = 'momentum_'


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCoTask(ContrastiveTask):
    """Tell, from one view of an image, what copies that follow make of the other one, among those of all images of the batch.

    What goes on to other tasks is `encoder`, which learns by gradient, as in the authors' code; its copy stays behind.
    """

    model: MoCoConfig

    @property
    def kind(self) -> str:
        return 'moco'

    def init(self, *, rngs: nnx.Rngs) -> MoCo:
        return MoCo(self.model, rngs=rngs)

    def compared(self, model: MoCo, batch: Batch, *, key: jax.Array | None, weight_B: jax.Array | None) -> Compared:
        check_views(batch['image'], batch.get('local'), method='MoCo v3')
        return model(batch['image'], key=key, weight_B=weight_B)

    def trainable(self, path: str) -> bool:
        frozen = ('encoder.patch_embed.',) if self.model.frozen_patch_embed else ()
        return not path.startswith((_COPY, *frozen))

    def after(self, params: Any, told: Mapping[str, jax.Array], *, progress: jax.Array) -> Any:
        """The copies follow, by a momentum that goes from `model.momentum` to 1.

        The authors' code does it at the start of the next step: the same copies, by a momentum that is one step further on.
        """
        share = momentum_at(progress, start=self.model.momentum)

        def followed(copy: jax.Array, param: jax.Array) -> jax.Array:
            return copy + (1 - share) * (param - copy)  # so that what is the same stays the same

        return {**params, **{_COPY + name: jax.tree.map(followed, params[_COPY + name], params[name]) for name in _COPIED}}

    def load_pretrained(self, params: Any, source: Any) -> Any:
        """Encoder and its copy start as the encoder of `source`; projector and predictor start afresh."""
        params = super().load_pretrained(params, source)
        return {**params, _COPY + 'encoder': params['encoder']}
