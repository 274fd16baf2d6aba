"""The one extension point: `Task` says what is trained; the loop in train/ says how.

Letters: B batch, H W image height and width [px], C channels, Y outputs.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

Batch = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetColumn:
    """What the training split holds in one label column, as a task needs it to settle its outputs."""

    values: np.ndarray  # float [rows], NaN missing
    classes: tuple[str, ...] | None  # names by index, or None for a number


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupColumn:
    """Who is in which group in the training split, and how often each row is drawn."""

    names: tuple[str, ...]  # by index
    index: np.ndarray  # int32 [rows]
    shares: np.ndarray  # float64 [rows], of the training stream; they sum to 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A frozen description of a training run's model and loss; every method is pure."""

    labels: tuple[str, ...] = ()  # label columns, in the order of the batch's `labels`

    @property
    @abc.abstractmethod
    def kind(self) -> str:
        """What is predicted: single, multi, ordinal or regress, or without labels mae or token."""

    @property
    @abc.abstractmethod
    def depth(self) -> int:
        """Encoder blocks, for layer-wise learning-rate decay."""

    @property
    @abc.abstractmethod
    def image_size(self) -> int:
        """Side of the square input [px]."""

    @property
    def pairs(self) -> str:
        """The label by which rows 2i and 2i+1 of a batch are an earlier and a later visit of one eye; '' where rows are single images."""
        return ''

    @property
    def views(self) -> bool:
        """Whether a batch's `image` is global views [B,G,H,W,C] of each image, with `local` [B,K,h,w,C] where there are smaller ones."""
        return False

    @property
    def whole_batch(self) -> bool:
        """Whether an image's loss depends on the others of its batch, so that parts of a batch give another loss than all of it."""
        return False

    @property
    def grouped(self) -> bool:
        """Whether the loss reads a batch's `group` [B], int32 (`data.groups`)."""
        return False

    @property
    def group_names(self) -> tuple[str, ...]:
        """Names of the groups by index, once they are settled."""
        return ()

    @property
    def compute_dtype(self) -> str:
        """What matrix products are made in, float32 or bfloat16."""
        return 'float32'

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of a single or ordinal label; empty otherwise."""
        return ()

    def resolve(self, columns: Mapping[str, TargetColumn]) -> Task:
        """Settles what only the data know (class names, target scale); the result is what `config.json` keeps."""
        return self

    def resolve_groups(self, groups: GroupColumn, columns: Mapping[str, TargetColumn]) -> Task:
        """Settles what depends on the groups of `data.groups`, after `resolve`.

        Raises:
          UsageError: the task takes no groups.
        """
        from retfound_jax.core.errors import UsageError

        raise UsageError(f"a {self.kind} run looks at no groups; set data.groups to ''")

    @abc.abstractmethod
    def init(self, *, rngs: nnx.Rngs) -> nnx.Module:
        """A freshly initialised model."""

    @abc.abstractmethod
    def loss(self, model: nnx.Module, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Mean loss over the batch and named scalars. `batch['image']` is normalised [B,H,W,C]; `batch['labels']` [B,Y], NaN missing.

        `batch['progress']`, float32 [], is the share of the steps that is done; 1 outside training. `key` None means deterministic: no drop
        path, and a fixed mask where the task masks. Arrays whose name begins with an underscore are no scalars to log: `after` gets them.
        """

    @abc.abstractmethod
    def predict(self, model: nnx.Module, batch: Batch) -> dict[str, jax.Array]:
        """Predictions a row of the batch: `score` [B,Y] for supervised tasks."""

    def trainable(self, path: str) -> bool:
        """Whether the parameter at this dotted path learns by gradient."""
        return True

    def after(self, params: Any, told: Mapping[str, jax.Array], *, progress: jax.Array) -> Any:
        """`params` of a step that is done, with what changes otherwise than by gradient: a teacher that follows, a running centre.

        Args:
          params: a nested dict, as the optimiser left it.
          told: the loss's arrays whose name begins with an underscore; means over the parts of the batch where it was accumulated.
          progress: float32 [], as in the batch of the step.
        """
        return params

    def load_pretrained(self, params: Any, source: Any) -> Any:
        """Returns `params` with the encoder of a pretraining run's parameters in it.

        Raises:
          UserError: this task starts from nothing, or shapes differ.
        """
        from retfound_jax.core.errors import UserError

        raise UserError(f'a {self.kind} run takes no pretrained weights; leave init_from empty')
