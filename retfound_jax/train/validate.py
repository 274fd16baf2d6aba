"""Validation in the course of training: every process predicts its rows, and all learn all numbers."""

from __future__ import annotations

import math

import jax
import numpy as np

from retfound_jax.core.mesh import replicated
from retfound_jax.data.loader import eval_batches
from retfound_jax.data.pairs import in_pairs
from retfound_jax.data.sources import Source, open_source
from retfound_jax.train.checkpoint import Validation
from retfound_jax.train.program import Program
from retfound_jax.train.state import TrainState
from retfound_jax.train.step import make_predict


class Validator:
    """Loss and the injected metrics on the validation split."""

    def __init__(self, program: Program, *, validation: Validation | None) -> None:
        config = program.config
        self._program, self._validation, self._config = program, validation, config
        self._data = config.data.whole(config.eval_split)
        self._predict = make_predict(config, spec=program.spec, mesh=program.mesh)
        self._gather = jax.jit(lambda x: x, out_shardings=replicated(program.mesh))

    def measure(self, state: TrainState) -> dict[str, float]:
        """Numbers by name, the same on every process; those that the split cannot tell are NaN. Empty where it has no image."""
        source = open_source(self._data)
        if self._data.pairs:  # all rows that have a later visit, each with the same one every time
            source = in_pairs(source, by=self._data.pairs)
        if len(source) == 0:
            return {}
        count, task = self._data.batch_size, self._config.task
        losses, labels, scores = [], [], []
        params = state.ema if self._config.optim.ema else state.params
        for batch in eval_batches(self._data, source, places=self._program.rows(count)):
            rows = self._program.put(batch, count=count)
            known = jax.device_get(self._gather({name: rows[name] for name in rows if name != 'image'}))
            out = jax.device_get(self._predict(params, rows))
            mask = known['mask']
            losses.append((float(out['loss']), int(mask.sum())))
            scores.append(out['score'][mask])
            if task.labels:
                labels.append(known['labels'][mask])
        images = sum(n for _, n in losses)
        found = {'loss': sum(loss * n for loss, n in losses) / images}
        if labels and self._validation is not None:
            groups = {'group': self._groups(source)} if self._config.data.groups else {}
            found.update(self._validation.measure(task.kind, np.concatenate(labels), np.concatenate(scores), **groups))
        return {name: float(value) for name, value in found.items()}

    def _groups(self, source: Source) -> np.ndarray:
        """The name of each row's group, in the order that rows are predicted in."""
        strata = source.strata(self._config.data.groups, field='data.groups')
        return np.array(strata.names)[strata.index]


def finite(numbers: dict[str, float]) -> dict[str, float]:
    """Those that can rank a checkpoint."""
    return {name: value for name, value in numbers.items() if math.isfinite(value)}
