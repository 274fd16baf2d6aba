"""Regression of a number, such as age in years.

Letters: B batch, Y outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from retfound_jax.core.errors import UserError
from retfound_jax.tasks.base import Batch, TargetColumn
from retfound_jax.tasks.supervised import SupervisedTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressTask(SupervisedTask):
    """Mean squared error on one standardised column; predictions come back in the column's own unit."""

    target_mean: float = 0.0  # [unit of the column]; of the training split
    target_std: float = 0.0  # [unit of the column]; 0: taken from the data

    @property
    def kind(self) -> str:
        return 'regress'

    def resolve(self, columns: Mapping[str, TargetColumn]) -> RegressTask:
        """Takes the scale of the target from the training split.

        Raises:
          UserError: more than one column, named classes, or a column that does not vary.
        """
        if len(self.labels) != 1:
            raise UserError(f'a regression takes one label column and was given {", ".join(self.labels)}')
        if self.target_std:
            return self
        column = columns[self.labels[0]]
        if column.classes is not None:
            raise UserError(f'the label "{self.labels[0]}" holds classes, not numbers; train it as a classification')
        values = column.values[~np.isnan(column.values)]
        if len(values) == 0 or np.std(values) == 0:
            raise UserError(f'the label "{self.labels[0]}" does not vary in the training split and cannot be learned')
        return dataclasses.replace(self, target_mean=float(np.mean(values)), target_std=float(np.std(values)))

    def loss(self, model: nnx.Module, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        output_B = self.logits(model, batch, key=key)[:, 0].astype(jnp.float32)
        label_B = (batch['labels'][:, 0] - self.target_mean) / self.target_std
        present_B = ~jnp.isnan(label_B)
        if 'mask' in batch:
            present_B = present_B & batch['mask']
        each_B = jnp.where(present_B, output_B - jnp.where(present_B, label_B, 0.0), 0.0) ** 2
        return self.weighed(model, batch, each_BY=each_B[:, None], present_BY=present_B[:, None])

    def predict(self, model: nnx.Module, batch: Batch) -> dict[str, jax.Array]:
        """`score` [B,1] in the unit of the column."""
        output_BY = self.logits(model, batch, key=None).astype(jnp.float32)
        return {'score': output_BY * self.target_std + self.target_mean}
