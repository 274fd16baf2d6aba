"""The only training loop in the project."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from retfound_jax.core import compile_cache, environment, goodput, hosts
from retfound_jax.core.errors import Preempted, UserError
from retfound_jax.core.files import append_line
from retfound_jax.core.mirror import Mirror, training
from retfound_jax.core.watchdog import Watchdog
from retfound_jax.data.failures import read_failures
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import Source, open_source
from retfound_jax.optim import learning_rate
from retfound_jax.train.bad_numbers import Rewinds, judge, read_rewinds
from retfound_jax.train.checkpoint import Better, Checkpoints, ReadWeights, Validation, load_start, prepare_workdir
from retfound_jax.train.config import TrainConfig, align, resolve
from retfound_jax.train.integrity import Integrity
from retfound_jax.train.journal import BAD_RECORDS, Journal, ready
from retfound_jax.train.program import make_program
from retfound_jax.train.state import TrainState
from retfound_jax.train.validate import Validator, finite
from retfound_jax.train.workdir import Origin, as_one, check_shared

Tree = Any
_PATIENCE = 600.0  # [s] that processes wait for the first one where the watchdog is off
# What processes tell each other with every step; the largest wins.
_GO, _LEAVE, _TOO_MANY = 0, 1, 2
_FLAGS = ('bad', 'halted', 'skipped')  # of a step's metrics: what was made of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a finished run reports."""

    config: TrainConfig
    step: int
    metrics: dict[str, float]  # of the last validation; empty where there was none
    images_per_second: float  # samples seen, over the steps of this call, compilation left out; decoded are data.repeat times fewer
    programs: compile_cache.Counts  # compiled, and loaded from the cache, in this call
    unreadable: int  # records of the data that were passed over, in all starts of the run; `WORKDIR/bad_records` lists them


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pending:
    """A step that was dispatched and whose numbers are still on the devices."""

    step: int
    metrics: dict[str, jax.Array]
    told: jax.Array  # what the processes agreed on at this step
    index: np.ndarray  # rows of its batch, of this process


class _GoBack(Exception):
    """A bad step sends the run back to an earlier checkpoint."""

    def __init__(self, rewinds: Rewinds) -> None:
        super().__init__()
        self.rewinds = rewinds


def train(
    config: TrainConfig,
    *,
    workdir: Path | str,
    resume: bool = False,
    overwrite: bool = False,
    validation: Validation | None = None,
    read_weights: ReadWeights | None = None,
    notice: Callable[[], str] = str,
    began: float | None = None,
) -> Outcome:
    """Trains to `config.steps`, or goes on to it from the latest checkpoint.

    With several processes (`core.hosts.start`) all of them call this alike.

    Args:
      read_weights: what reads `config.init_from` where that is no run directory of ours.
      notice: asked at every step; words such as 'SIGTERM' end the run after that step, with a checkpoint.
      began: when the process began, by the monotonic clock, where this run is what it was started for.

    Raises:
      UserError: the data, the directory or a checkpoint cannot be used, or the loss became non-finite.
      Preempted: a notice came, or another process is gone; to be started again.
    """
    config = align(config)
    with Watchdog(None, index=hosts.index(), who=hosts.behind, end=hosts.farewell) as dog, contextlib.ExitStack() as stack:
        with dog.watch('start', limit=config.watchdog.start):
            folder, mirror = stack.enter_context(training(workdir, processes=hosts.count()))
            dog.folder = folder
            source = open_source(config.data)
            config = resolve(config, source=source)
            better = validation.better if validation else Better()
            _prepare(config, workdir=folder, resume=resume, overwrite=overwrite, better=better)
            if mirror is not None:
                mirror.begin(overwrite=overwrite)
            journal = stack.enter_context(_journal(config, folder, began=began))
            origin = Origin(config=config, data=source.fingerprint)
            saved = mirror.push_step if mirror is not None else None
            checkpoints = stack.enter_context(Checkpoints(folder, better=better, keep=config.keep, origin=origin, saved=saved))
            around = _Around(checkpoints=checkpoints, journal=journal, mirror=mirror, dog=dog, notice=notice)
            trainer = _Trainer(config, source=source, workdir=folder, around=around, validation=validation)
            stack.callback(trainer.close)
            state = trainer.start(read_weights)
        with dog.watch('train', limit=config.watchdog.step), _naming_lost_peers():
            return trainer.run(state)


@contextlib.contextmanager
def _naming_lost_peers() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        if not hosts.lost_peer(error):
            raise
        raise hosts.loss(error) from error


def _prepare(config: TrainConfig, *, workdir: Path, resume: bool, overwrite: bool, better: Better) -> None:
    """The run directory, made or checked by the first process, and seen by all."""
    devices = f'{jax.device_count()} {jax.devices()[0].device_kind} device(s)'  # all processes find them together: none may wait here

    def make() -> None:
        prepare_workdir(config, workdir=workdir, resume=resume, overwrite=overwrite, better=better)
        environment.write(workdir, devices=devices)

    as_one(make, name='the run directory', timeout=config.watchdog.start or _PATIENCE)
    check_shared(workdir)


def _journal(config: TrainConfig, workdir: Path, *, began: float | None) -> Journal:
    size = config.data.batch_size
    return Journal(workdir, name=config.name, images=size, steps=config.steps, writes=hosts.is_first(), began=began)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Around:
    """What keeps, tells and watches while a run goes on."""

    checkpoints: Checkpoints
    journal: Journal
    mirror: Mirror | None  # keeps the run at home, where that is an object store
    dog: Watchdog
    notice: Callable[[], str]


class _Trainer:
    """Holds what the loop needs between steps; built for one call of `train`."""

    def __init__(self, config: TrainConfig, *, source: Source, workdir: Path, around: _Around, validation: Validation | None) -> None:
        self._config, self._source, self._workdir = config, source, workdir
        self._checkpoints, self._journal, self._mirror = around.checkpoints, around.journal, around.mirror
        self._dog, self._notice = around.dog, around.notice
        self._programs = compile_cache.counts()
        self._program = make_program(config)
        for size in config.data.sizes[:-1]:  # a size that the model cannot take is told now, not when its step comes
            self._program.step.lower(self._program.abstract_state(), self._program.abstract_batch(size))
        self._step = Integrity(
            self._program.step, shardings=self._program.shardings, mesh=self._program.mesh, faults=config.faults, name=config.name
        )
        self._validator = Validator(self._program, validation=validation)
        self._loader = Loader(config.data, source, seed=config.seed, places=self._program.rows())
        self._rate = learning_rate(config.optim, steps=config.steps, batch_size=config.data.batch_size)
        self._metrics: dict[str, float] = {}
        self._rewinds = Rewinds()
        self._fresh: Callable[[], TrainState] = self._program.init_state

    def start(self, read_weights: ReadWeights | None) -> TrainState:
        """The latest checkpoint's state and data position, or fresh ones."""
        self._enter('restore')
        self._rewinds = read_rewinds(self._workdir)
        for sentence in self._checkpoints.set_aside:
            self._journal.event({'event': 'set_aside', 'reason': sentence})
        if self._config.init_from:
            self._fresh = lambda: self._program.init_state(self._pretrain(read_weights))
        return self._newest()

    def _newest(self) -> TrainState:
        """The state to go on from, the loader standing where it belongs."""
        latest = self._checkpoints.latest
        if latest is None:
            self._loader.restore({**self._loader.state(), 'step': 0, 'offset': 0})
            return self._fresh()
        state, data = self._checkpoints.restore(latest, like=self._program.abstract_state())
        self._loader.restore(data)
        return state

    def _pretrain(self, read_weights: ReadWeights | None) -> Callable[[Tree], Tree]:
        """What puts the parameters to start from in: those of a run of ours, or of somebody else's weights at the size of the input."""
        config = self._config
        found = load_start(config.init_from, read=read_weights, image_size=config.task.image_size, mesh=config.mesh)
        return lambda params: config.task.load_pretrained(params, found)

    def run(self, state: TrainState) -> Outcome:
        """Trains to the last step."""
        while True:
            try:
                state = self._steps(state)
                break
            except _GoBack as back:
                state = self._go_back(back.rewinds)
        self._enter('save')
        self._checkpoints.wait()
        hosts.barrier('the end', timeout=self._config.watchdog.start or _PATIENCE)  # all have listed their records
        programs = compile_cache.counts().since(self._programs)
        speed = self._journal.images_per_second
        return Outcome(
            config=self._config,
            step=int(state.step),
            metrics=self._metrics,
            images_per_second=speed,
            programs=programs,
            unreadable=len(read_failures((self._workdir / BAD_RECORDS).glob('*.jsonl'))),
        )

    def _go_back(self, rewinds: Rewinds) -> TrainState:
        """Writes down which data are never used again, then goes back to before them."""
        self._enter('restore')
        self._checkpoints.wait()
        as_one(lambda: rewinds.write(self._workdir), name='the list of rewinds', timeout=self._config.watchdog.start or _PATIENCE)
        self._rewinds = rewinds
        with self._dog.watch('restore', limit=self._config.watchdog.start):
            return self._newest()

    def _enter(self, phase: goodput.Phase, *, step: int = -1, was: goodput.Phase | None = None) -> None:
        """What the process is at from now on, for the account of its time and for the other processes. step: the last finished one."""
        self._journal.time.enter(phase, was=was)
        hosts.note(phase, step)

    def close(self) -> None:
        """Stops the loader's threads and workers."""
        self._loader.close()

    def _steps(self, state: TrainState) -> TrainState:
        config, first = self._config, int(state.step)
        self._journal.go_on(first)
        pending: _Pending | None = None
        steady = False
        for step in range(first + 1, config.steps + 1):
            batch = self._next_batch(step, pending)
            compiles = step == first + 1 or config.data.size_at(step - 1) != config.data.size_at(step - 2)
            state, now = self._dispatch(step, state, batch, compiles=compiles)
            told = hosts.agree(self._wish())
            leave = self._read(pending, state) if pending is not None else _GO  # the step before, read while this one runs
            pending = _Pending(step=step, metrics=now, told=told, index=batch['index'])
            self._journal.stepped(step, steady=steady and not compiles)
            self._dog.beat(step)
            steady = True
            if leave or self._saves(step):
                self._read(pending, state)
                pending, steady = None, False
                self._save(state, self._validate(state) if self._evaluates(step) else None)
            if leave:
                self._leave(step, leave)
        return state

    def _next_batch(self, step: int, pending: _Pending | None) -> dict[str, np.ndarray]:
        """The batch of a step; waiting for it is lost time only where the devices have nothing to do meanwhile."""
        self._enter('data', step=step - 1)
        ahead = self._rewinds.offset(step) - self._loader.offset
        if ahead:
            self._loader.skip(ahead)
        batch = next(self._loader)
        idle = pending is None or ready(pending.metrics)
        self._enter('step', step=step - 1, was=None if idle else 'step')
        for failure in self._loader.take_failures():
            listed = self._workdir / BAD_RECORDS / f'host-{hosts.index():05d}.jsonl'
            listed.parent.mkdir(exist_ok=True)
            append_line(listed, dataclasses.asdict(failure))
        return batch

    def _dispatch(
        self, step: int, state: TrainState, batch: Mapping[str, np.ndarray], *, compiles: bool
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        self._checkpoints.check()
        if self._mirror is not None:
            self._mirror.check()
        if not compiles:
            return self._step(step, state, self._program.put(batch))
        self._enter('compile', step=step - 1)
        with self._dog.watch('compile', limit=self._config.watchdog.start):
            done = self._step(step, state, self._program.put(batch))
        self._enter('step', step=step - 1)
        return done

    def _evaluates(self, step: int) -> bool:
        every = self._config.eval_every
        return (every > 0 and step % every == 0) or (every >= 0 and step == self._config.steps)

    def _saves(self, step: int) -> bool:
        return step == self._config.steps or step % self._config.checkpoint_every == 0 or self._evaluates(step)

    def _wish(self) -> int:
        """What this process would have all of them do."""
        if self._loader.too_many():
            return _TOO_MANY
        return _LEAVE if self._notice() else _GO

    def _leave(self, step: int, why: int) -> None:
        """Ends the run after a step whose checkpoint is being written."""
        self._enter('save', step=step)
        self._checkpoints.wait()
        if why == _TOO_MANY:
            told = self._loader.too_many() or 'another process of the run cannot read too many of its records; its log says which'
            raise UserError(f'step {step} of {self._config.name}: {told}; checkpoint {step} is saved')
        heard = self._notice() or 'another process was told to stop'
        self._journal.event({'event': 'preempted', 'step': step, 'reason': heard})
        raise Preempted(f'{self._config.name} stopped after step {step} ({heard}) and saved it; run the same command with --resume')

    def _save(self, state: TrainState, metrics: Mapping[str, float] | None) -> None:
        # A metric that could not be measured (a class absent from the split) leaves the checkpoint without a rank.
        self._enter('save', step=int(state.step))
        self._step.verify()
        ranked = metrics if metrics and self._checkpoints.better.metric in metrics else None
        self._journal.saved(int(state.step))
        self._checkpoints.save(state, data=self._loader.state(), metrics=ranked)
        self._enter('step', step=int(state.step))

    def _read(self, pending: _Pending, state: TrainState) -> int:
        """Reads a step's numbers and what the processes agreed on; a bad step is left out, sends the run back, or stops it."""
        step = pending.step
        values = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
        self._step.verify(through=step)
        self._judge(pending, values, state)
        if step % self._config.log_every == 0 or step in (1, self._config.steps):
            measured = {name: value for name, value in values.items() if name not in _FLAGS}
            updates = step - 1 - (values['skipped'] - values['bad'])  # before this one: the schedule counts those, not steps
            self._journal.numbers(step, **measured, learning_rate=float(self._rate(updates)))
        self._journal.note(f'loss {values["loss"]:.4f}')
        return int(pending.told)

    def _judge(self, pending: _Pending, values: Mapping[str, float], state: TrainState) -> None:
        config = self._config
        verdict = judge(
            pending.step,
            values,
            name=config.name,
            faults=config.faults,
            rewinds=self._rewinds,
            newest=lambda: self._checkpoints.latest or 0,
            keys=lambda: [str(self._source.table['key'][row]) for row in pending.index],
        )
        if verdict.action == 'note':
            self._journal.say(verdict.sentence, verdict.event)
        elif verdict.action == 'rewind':
            self._journal.say(verdict.sentence, verdict.event)
            raise _GoBack(verdict.rewinds)
        elif verdict.action == 'stop':
            self._journal.event(verdict.event)
            self._keep_from_before(pending.step, state)
            raise UserError(verdict.sentence)

    def _keep_from_before(self, step: int, state: TrainState) -> None:
        """Saves the state, which a bad step left as it was before it, whatever was dispatched since; its data position is that step's."""
        sound = dataclasses.replace(state, halted=jax.device_put(np.zeros((), bool), self._program.shardings.halted))
        data = {**self._loader.state(), 'step': step - 1, 'offset': self._rewinds.offset(step)}
        self._checkpoints.save(sound, data=data, metrics=None)
        self._checkpoints.wait()

    def _validate(self, state: TrainState) -> dict[str, float]:
        """Loss and metrics on the validation split, written down; what is not finite is left out."""
        self._enter('validate', step=int(state.step))
        with self._dog.watch('validate', limit=self._config.watchdog.start):
            found = self._validator.measure(state)
        self._journal.numbers(int(state.step), **{f'{self._config.eval_split}/{name}': value for name, value in found.items()})
        self._metrics = finite(found)
        return self._metrics
