"""Classification: one of several classes, several yes/no findings, or an ordered grade.

Letters: B batch, Y outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UserError
from retfound_jax.tasks.base import Batch, TargetColumn
from retfound_jax.tasks.supervised import SupervisedTask


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifyTask(SupervisedTask):
    """`single`: softmax over the classes of one column. `multi`: a sigmoid a column. `ordinal`: P(grade > k) for each step k."""

    mode: Literal['single', 'multi', 'ordinal'] = 'single'
    classes: tuple[str, ...] = ()  # of the one column of single and ordinal; empty: taken from the data
    label_smoothing: float = 0.1

    @property
    def kind(self) -> str:
        return self.mode

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.classes

    @property
    def outputs(self) -> int:
        return {'single': len(self.classes), 'multi': len(self.labels), 'ordinal': len(self.classes) - 1}[self.mode]

    def resolve(self, columns: Mapping[str, TargetColumn]) -> ClassifyTask:
        """Takes the class names from the data.

        Raises:
          UserError: a column is no class, has one class only, or (multi) is not yes/no.
        """
        for name in self.labels:
            column = columns[name]
            if column.classes is None:
                raise UserError(f'the label "{name}" is a number, not a class; train it as a regression')
            if len(column.classes) < 2:
                raise UserError(f'the label "{name}" has one value only ("{", ".join(column.classes)}") and cannot be learned')
            if self.mode == 'multi' and len(column.classes) != 2:
                raise UserError(f'the label "{name}" has {len(column.classes)} classes and a multi-label task takes yes/no columns')
        if self.mode == 'multi':
            return self
        if len(self.labels) != 1:
            raise UserError(f'a {self.mode} task takes one label column and was given {", ".join(self.labels)}')
        classes = columns[self.labels[0]].classes
        if self.classes and self.classes != classes:
            told = f'has the classes {", ".join(classes)} and the task names {", ".join(self.classes)}'
            raise UserError(f'the label "{self.labels[0]}" {told}; give the task those of the data, or none')
        return dataclasses.replace(self, classes=classes)

    def loss(self, model: nnx.Module, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits_BY = self.logits(model, batch, key=key).astype(jnp.float32)
        labels_BY = batch['labels']
        present_BY = ~jnp.isnan(labels_BY)
        if 'mask' in batch:
            present_BY = present_BY & batch['mask'][:, None]
        labels_BY = jnp.where(present_BY, labels_BY, 0.0)
        smoothing = self.label_smoothing
        if self.mode == 'single':
            target_BY = jax.nn.one_hot(labels_BY[:, 0].astype(jnp.int32), self.outputs) * (1 - smoothing) + smoothing / self.outputs
            each_BY = -(target_BY * jax.nn.log_softmax(logits_BY)).sum(-1, keepdims=True)
        else:
            target_BY = labels_BY if self.mode == 'multi' else (labels_BY > jnp.arange(self.outputs)).astype(jnp.float32)
            target_BY = target_BY * (1 - smoothing) + smoothing / 2
            each_BY = jax.nn.softplus(logits_BY) - target_BY * logits_BY  # binary cross-entropy with logits
            if self.mode == 'ordinal':
                each_BY = each_BY.sum(-1, keepdims=True)
        return self.weighed(model, batch, each_BY=each_BY, present_BY=present_BY)

    def predict(self, model: nnx.Module, batch: Batch) -> dict[str, jax.Array]:
        """`score` [B,Y]: class probabilities (single, ordinal; each row sums to 1) or one probability a column (multi)."""
        logits_BY = self.logits(model, batch, key=None).astype(jnp.float32)
        if self.mode == 'single':
            return {'score': jax.nn.softmax(logits_BY)}
        above_BY = jax.nn.sigmoid(logits_BY)
        if self.mode == 'multi':
            return {'score': above_BY}
        # P(grade > k) can only fall with k; independent sigmoids may break that a little, and the running minimum mends it.
        above_BY = jax.lax.cummin(above_BY, axis=1)
        edge_B1 = jnp.ones_like(above_BY[:, :1])
        return {'score': jnp.concatenate([edge_B1, above_BY], 1) - jnp.concatenate([above_BY, 0 * edge_B1], 1)}
