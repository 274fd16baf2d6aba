"""What classification and regression share: a ViT encoder with a linear head, trained whole or at the head alone."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models.heads import Classifier
from retfound_jax.models.transfer import load_encoder
from retfound_jax.models.vit import ViTConfig
from retfound_jax.tasks.base import Batch, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedTask(Task):
    """A labelled task. `adapt='head'` is the linear probe: the encoder stays as it was loaded."""

    model: ViTConfig
    adapt: Literal['full', 'head'] = 'full'

    def __post_init__(self) -> None:
        if not self.labels:
            raise UsageError(f'{type(self).__name__} has no label columns; set task.labels')

    @property
    def depth(self) -> int:
        return self.model.depth

    @property
    def image_size(self) -> int:
        return self.model.image_size

    @property
    def compute_dtype(self) -> str:
        return self.model.compute_dtype

    @property
    def outputs(self) -> int:
        """Width of the head."""
        return len(self.labels)

    def init(self, *, rngs: nnx.Rngs) -> Classifier:
        return Classifier(self.model, outputs=self.outputs, rngs=rngs)

    def logits(self, model: Classifier, batch: Batch, *, key: jax.Array | None) -> jax.Array:
        """Head outputs [B,Y]; a probe's encoder runs without drop path, as it does not learn."""
        return model(batch['image'], key=key if self.adapt == 'full' else None)

    def trainable(self, path: str) -> bool:
        return self.adapt == 'full' or path.split('.')[0] == 'head'

    def load_pretrained(self, params: Any, source: Any) -> Any:
        return load_encoder(params, source)
