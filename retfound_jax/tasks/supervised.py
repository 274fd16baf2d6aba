"""What classification and regression share: a ViT encoder with a linear head, trained whole or at the head alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.models.heads import Classifier
from retfound_jax.models.transfer import load_encoder
from retfound_jax.models.vit import ViTConfig
from retfound_jax.tasks.base import Batch, GroupColumn, TargetColumn, Task
from retfound_jax.tasks.robust import WEIGHTS, GroupDRO, Reweight, mean_loss, reweighted, robust_loss, settle, updated


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupervisedTask(Task):
    """A labelled task. `adapt='head'` is the linear probe: the encoder stays as it was loaded."""

    model: ViTConfig
    adapt: Literal['full', 'head'] = 'full'
    robust: Reweight | GroupDRO | None = None  # how groups of people (data.groups) are weighed; None: all samples alike
    groups: tuple[str, ...] = ()  # their names by index; empty: taken from the data

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

    @property
    def grouped(self) -> bool:
        return self.robust is not None

    @property
    def group_names(self) -> tuple[str, ...]:
        return self.groups

    def resolve_groups(self, groups: GroupColumn, columns: Mapping[str, TargetColumn]) -> SupervisedTask:
        """Takes the names of the groups from the data, and how to weigh them.

        Raises:
          UserError: the task names other groups than the data, or they cannot be weighed.
        """
        if self.groups and self.groups != groups.names:
            told = f'are {", ".join(groups.names[:20])} and the task names {", ".join(self.groups[:20])}'
            raise UserError(f'the groups of the data {told}; give the task those of the data, or none')
        label = columns[self.labels[0]] if len(self.labels) == 1 else None
        robust = settle(self.robust, groups=groups, label=label) if self.robust else None
        return dataclasses.replace(self, groups=groups.names, robust=robust)

    def init(self, *, rngs: nnx.Rngs) -> Classifier:
        model = Classifier(self.model, outputs=self.outputs, rngs=rngs)
        if isinstance(self.robust, GroupDRO):  # they start even, and change in `after` alone
            setattr(model, WEIGHTS, nnx.Param(jnp.full((len(self.groups),), 1 / len(self.groups), jnp.float32), letters='G'))
        return model

    def weighed(
        self, model: Classifier, batch: Batch, *, each_BY: jax.Array, present_BY: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of a batch from those of its samples, and what is told of it; without `group` in the batch (validation) their mean."""
        if self.robust is None or 'group' not in batch:
            return mean_loss(each_BY, present_BY), {}
        given = {'each_BY': each_BY, 'present_BY': present_BY, 'group_B': batch['group']}
        if isinstance(self.robust, Reweight):
            return reweighted(self.robust, **given, label_BY=jnp.nan_to_num(batch['labels']))
        return robust_loss(self.robust, **given, weight_G=getattr(model, WEIGHTS)[...], names=self.groups)

    def after(self, params: Any, told: Mapping[str, jax.Array], *, progress: jax.Array) -> Any:
        """The groups' weights follow their losses."""
        if not isinstance(self.robust, GroupDRO):
            return params
        return {**params, WEIGHTS: updated(self.robust, weight_G=params[WEIGHTS], loss_G=told['_group_loss'])}

    def logits(self, model: Classifier, batch: Batch, *, key: jax.Array | None) -> jax.Array:
        """Head outputs [B,Y]; a probe's encoder runs without drop path, as it does not learn."""
        return model(batch['image'], key=key if self.adapt == 'full' else None)

    def trainable(self, path: str) -> bool:
        return path.split('.')[0] == 'head' or (self.adapt == 'full' and path != WEIGHTS)

    def load_pretrained(self, params: Any, source: Any) -> Any:
        return load_encoder(params, source)
