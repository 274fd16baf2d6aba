"""The only training loop in the project."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from retfound_jax.core import compile_cache, environment, progress
from retfound_jax.core.errors import UserError
from retfound_jax.core.runlog import RunLog, truncate_metrics
from retfound_jax.data.loader import Loader, eval_batches
from retfound_jax.data.sources import Source, open_source
from retfound_jax.optim import learning_rate
from retfound_jax.train.checkpoint import Better, Checkpoints, Validation, is_run, load_run, prepare_workdir
from retfound_jax.train.config import TrainConfig, align, resolve
from retfound_jax.train.program import make_program
from retfound_jax.train.state import TrainState
from retfound_jax.train.step import make_predict

Tree = Any
ReadWeights = Callable[..., Mapping[str, Any]]  # (source, *, image_size) -> parameters by dotted name
_Pending = tuple[int, dict[str, jax.Array], np.ndarray]  # step, its metrics still on the device, rows of its batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished run reports."""

    config: TrainConfig
    step: int
    metrics: dict[str, float]  # of the last validation; empty where there was none
    images_per_second: float  # samples seen, over the steps of this call, compilation left out; decoded are data.repeat times fewer
    programs: compile_cache.Counts  # compiled, and loaded from the cache, in this call


def train(
    config: TrainConfig,
    *,
    workdir: Path | str,
    resume: bool = False,
    overwrite: bool = False,
    validation: Validation | None = None,
    read_weights: ReadWeights | None = None,
) -> Outcome:
    """Trains to `config.steps`, or goes on to it from the latest checkpoint.

    Args:
      read_weights: what reads `config.init_from` where that is no run directory of ours.

    Raises:
      UserError: the data, the directory or a checkpoint cannot be used, or the loss became non-finite.
    """
    workdir, config = Path(workdir), align(config)
    source = open_source(config.data)
    config = resolve(config, source=source)
    better = validation.better if validation else Better()
    prepare_workdir(config, workdir=workdir, resume=resume, overwrite=overwrite, better=better)
    environment.write(workdir, devices=f'{jax.device_count()} {jax.devices()[0].device_kind} device(s)')
    with Checkpoints(workdir, better=better) as checkpoints:
        trainer = _Trainer(
            config, source=source, workdir=workdir, checkpoints=checkpoints, validation=validation, read_weights=read_weights
        )
        return trainer.run()


class _Trainer:
    """Holds what the loop needs between steps; built for one call of `train`."""

    def __init__(
        self,
        config: TrainConfig,
        *,
        source: Source,
        workdir: Path,
        checkpoints: Checkpoints,
        validation: Validation | None,
        read_weights: ReadWeights | None,
    ) -> None:
        self._config, self._source, self._workdir, self._read_weights = config, source, workdir, read_weights
        self._checkpoints, self._validation = checkpoints, validation
        self._programs = compile_cache.counts()
        self._program = make_program(config)
        for size in config.data.sizes[:-1]:  # a size that the model cannot take is told now, not when its step comes
            self._program.step.lower(self._program.abstract_state(), self._program.abstract_batch(size))
        self._predict = make_predict(config, spec=self._program.spec, mesh=self._program.mesh)
        self._loader = Loader(
            config.data, source, seed=config.seed, process_index=jax.process_index(), process_count=jax.process_count()
        )

    def run(self) -> Outcome:
        try:
            state = self._start()
            first = int(state.step)
            truncate_metrics(self._workdir, after_step=first)
            with RunLog(self._workdir) as log:
                return self._steps(state, first, log)
        finally:
            self._loader.close()

    def _start(self) -> TrainState:
        """The latest checkpoint's state and data position, or fresh ones."""
        latest = self._checkpoints.latest
        if latest is None:
            return self._program.init_state(self._pretrain if self._config.init_from else None)
        state, data = self._checkpoints.restore(latest, like=self._program.abstract_state())
        self._loader.restore(data)
        return state

    def _pretrain(self, params: Tree) -> Tree:
        return self._config.task.load_pretrained(params, self._pretrained())

    def _pretrained(self) -> Mapping[str, Any]:
        """The parameters to start from: those of a run of ours, or of somebody else's weights at the size of the input."""
        config = self._config
        if self._read_weights is None or is_run(config.init_from):
            return load_run(config.init_from, which='latest', mesh=config.mesh).params
        return self._read_weights(config.init_from, image_size=config.task.image_size)

    def _steps(self, state: TrainState, first: int, log: RunLog) -> Outcome:
        config, rate = self._config, learning_rate(self._config.optim, steps=self._config.steps, batch_size=self._config.data.batch_size)
        metrics: dict[str, float] = {}
        pending: _Pending | None = None
        clock = _Clock(config.data.batch_size)
        unit = config.data.batch_size
        with progress.bar(config.steps * unit, desc=config.name, initial=first * unit) as bar:
            for step in range(first + 1, config.steps + 1):
                batch = next(self._loader)
                if step > 1 and config.data.size_at(step - 1) != config.data.size_at(step - 2):
                    clock.pause()  # the step is compiled anew
                state, now = self._program.step(state, self._program.put(batch))
                if pending is not None:  # the numbers of the step before, read while this one runs
                    self._read(pending, state, log, bar, rate)
                pending = (step, now, batch['index'])
                clock.tick()
                bar.update(unit)
                last = step == config.steps
                if last or step % config.checkpoint_every == 0 or self._evaluates(step):
                    self._read(pending, state, log, bar, rate)
                    pending = None
                    metrics = self._validate(state, log) if (last and config.eval_every >= 0) or self._evaluates(step) else metrics
                    self._save(state, metrics if self._evaluates(step) or last else None)
                    clock.pause()
        self._checkpoints.wait()
        programs = compile_cache.counts().since(self._programs)
        return Outcome(config=config, step=int(state.step), metrics=metrics, images_per_second=clock.rate(), programs=programs)

    def _evaluates(self, step: int) -> bool:
        return self._config.eval_every > 0 and step % self._config.eval_every == 0

    def _save(self, state: TrainState, metrics: Mapping[str, float] | None) -> None:
        # A metric that could not be measured (a class absent from the split) leaves the checkpoint without a rank.
        ranked = metrics if metrics and self._checkpoints.better.metric in metrics else None
        self._checkpoints.save(state, data=self._loader.state(), metrics=ranked)

    def _read(self, pending: _Pending, state: TrainState, log: RunLog, bar: progress.Bar, rate: optax.Schedule) -> None:
        """Reads a step's numbers; stops the run at the first loss or gradient that is not finite."""
        step, arrays, index = pending
        values = {name: float(value) for name, value in jax.device_get(arrays).items()}
        if not all(math.isfinite(values[name]) for name in ('loss', 'grad_norm')):
            self._stop(step, values, state, index)
        if step % self._config.log_every == 0 or step in (1, self._config.steps):
            log.write(step, **values, learning_rate=float(rate(step - 1)))
        bar.note(f'loss {values["loss"]:.4f}')

    def _stop(self, step: int, values: dict[str, float], state: TrainState, index: np.ndarray) -> None:
        # The step left the state as it was before it, whatever was dispatched since; its data position is that step's own batch.
        sound = dataclasses.replace(state, halted=jax.device_put(np.zeros((), bool), self._program.shardings.halted))
        data = {**self._loader.state(), 'step': step - 1}
        self._checkpoints.save(sound, data=data, metrics=None)
        self._checkpoints.wait()
        keys = ', '.join(str(self._source.table['key'][row]) for row in index)
        raise UserError(
            f'step {step} of {self._config.name} gave a loss of {values["loss"]} (gradient norm {values["grad_norm"]}): the run stopped; '
            f'checkpoint {step - 1} is from before it; lower the learning rate or look at the images of its batch: {keys}'
        )

    def _validate(self, state: TrainState, log: RunLog) -> dict[str, float]:
        """Loss and the injected metrics on the validation split; empty where it has no image."""
        data = dataclasses.replace(self._config.data, split=self._config.eval_split)
        source = open_source(data)
        if len(source) == 0:
            return {}
        losses, labels, scores = [], [], []
        params = state.ema if self._config.optim.ema else state.params
        for batch in eval_batches(data, source):
            rows = {name: batch[name] for name in ('image', 'labels', 'mask') if name in batch}
            if not self._config.task.labels:
                rows.pop('labels', None)
            out = jax.device_get(self._predict(params, rows))
            mask = batch['mask']
            losses.append((float(out['loss']), int(mask.sum())))
            scores.append(out['score'][mask])
            if self._config.task.labels:
                labels.append(batch['labels'][mask])
        count = sum(n for _, n in losses)
        found = {'loss': sum(loss * n for loss, n in losses) / count}
        if labels and self._validation is not None:
            found.update(self._validation.measure(self._config.task.kind, np.concatenate(labels), np.concatenate(scores)))
        log.write(int(state.step), **{f'{self._config.eval_split}/{name}': value for name, value in found.items()})
        return {name: float(value) for name, value in found.items() if math.isfinite(value)}


class _Clock:
    """Images a second over steady steps: steps that are compiled and pauses for checkpoints are left out."""

    def __init__(self, batch_size: int) -> None:
        self._unit, self._steps, self._spent, self._last = batch_size, 0, 0.0, None

    def tick(self) -> None:
        now = time.monotonic()
        if self._last is not None:
            self._spent += now - self._last
            self._steps += 1
        self._last = now

    def pause(self) -> None:
        self._last = None

    def rate(self) -> float:
        return self._steps * self._unit / self._spent if self._spent else 0.0
