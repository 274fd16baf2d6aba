"""Checkpoints: parameters, optimiser and data position written together, asynchronously, whole or not at all.

`checkpoints/STEP/` holds the Orbax items `state` and `data`. The latest step and the best one by the validation metric are
kept. A directory that Orbax has not committed is never read, and a committed one that does not read back is an error that
names it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from orbax.checkpoint.checkpoint_managers import preservation_policy

from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.core.mesh import MeshConfig, make_mesh
from retfound_jax.tasks.base import Task
from retfound_jax.train.config import RESUMABLE_CHANGES, TrainConfig
from retfound_jax.train.state import ModelSpec, TrainState, abstract_params, model_spec, param_shardings
from retfound_jax.train.step import make_predict

CONFIG = 'config.json'
CHECKPOINTS = 'checkpoints'
Tree = Any
Which = Literal['best', 'latest']


Measure = Callable[[str, np.ndarray, np.ndarray], Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Better:
    """The validation metric that decides which checkpoint is best."""

    metric: str = 'loss'
    mode: Literal['max', 'min'] = 'min'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """How validation predictions become numbers: `measure(kind, labels [rows,Y], score [rows,Y])`, and which one decides."""

    measure: Measure
    better: Better


class Checkpoints:
    """Saves and restores training state under `WORKDIR/checkpoints`."""

    def __init__(self, workdir: Path | str, *, better: Better = Better()) -> None:  # noqa: B008 (frozen)
        self.better = better
        self._root = Path(workdir).absolute() / CHECKPOINTS
        self._root.mkdir(parents=True, exist_ok=True)
        best = preservation_policy.BestN(
            get_metric_fn=lambda metrics: metrics[better.metric], reverse=better.mode == 'min', n=1, keep_checkpoints_without_metrics=False
        )
        policy = preservation_policy.AnyPreservationPolicy([preservation_policy.LatestN(n=1), best])
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=lambda metrics: metrics[better.metric],
            best_mode=better.mode,
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(self._root, options=options, item_names=('state', 'data'))

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """The latest committed step, or None."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step best by the validation metric; the latest where none was measured."""
        return self._manager.best_step() if any(self._manager.metrics(s) for s in self._manager.all_steps()) else self.latest

    def path(self, step: int) -> Path:
        """The directory of one step."""
        return self._root / str(step)

    def save(self, state: TrainState, *, data: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Starts writing; returns as soon as the arrays are copied, before the caller draws the next batch."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(_as_dict(state)), data=ocp.args.JsonSave(dict(data)))
        self._manager.save(step, args=items, metrics=None if metrics is None else dict(metrics))

    def wait(self) -> None:
        """Returns once everything started is on disk."""
        self._manager.wait_until_finished()

    def restore(self, step: int, *, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads a step onto the shardings of `like` (abstract), and the data position that belongs to it.

        Raises:
          UserError: the checkpoint is damaged or of another model.
        """
        items = ocp.args.Composite(state=ocp.args.StandardRestore(_as_dict(like)), data=ocp.args.JsonRestore())
        found = _restore(self._manager, step, items)
        return TrainState(**found['state']), found['data']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A trained model as it was saved."""

    workdir: Path
    config: TrainConfig
    step: int
    params: Tree
    spec: ModelSpec
    mesh: jax.sharding.Mesh

    @property
    def task(self) -> Task:
        """What the run was trained to do."""
        return self.config.task

    @functools.cached_property
    def _compiled(self) -> Callable[[Tree, Mapping[str, np.ndarray]], dict[str, jax.Array]]:
        return make_predict(self.config, spec=self.spec, mesh=self.mesh)

    def model(self) -> nnx.Module:
        """The model around its parameters."""
        return self.spec.merge(self.params)

    def predict(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Predictions of one host batch (uint8 `image` [b,S,S,3]); compiled once for each batch shape."""
        rows = {name: value for name, value in batch.items() if name in ('image', 'labels', 'mask')}
        return {name: np.asarray(value) for name, value in jax.device_get(self._compiled(self.params, rows)).items()}


def load_run(workdir: Path | str, *, which: Which = 'best', mesh: MeshConfig | None = None) -> Run:
    """Loads the best or the latest checkpoint of a run directory; averaged parameters where the run kept them.

    Raises:
      UserError: the directory is no run, has no checkpoint, or the checkpoint is damaged.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    spec = model_spec(config.task)
    made = make_mesh(mesh or MeshConfig())
    with Checkpoints(workdir, better=read_better(workdir)) as checkpoints:
        step = checkpoints.best if which == 'best' else checkpoints.latest
        if step is None:
            raise UserError(f'{workdir} has no checkpoint yet; run `retfound train` with it first')
        shardings = param_shardings(spec, mesh=made, rules=config.rules)
        params = _restore_params(checkpoints.path(step) / 'state', spec, shardings, ema=bool(config.optim.ema))
    return Run(workdir=workdir, config=config, step=step, params=params, spec=spec, mesh=made)


def is_run(path: Path | str) -> bool:
    """Whether a directory is one of ours, also where half of it is missing: then `load_run` says which half."""
    folder = Path(path)
    if (folder / CHECKPOINTS).is_dir() or not (folder / CONFIG).is_file():
        return (folder / CHECKPOINTS).is_dir()
    said = read_json(folder / CONFIG)
    return isinstance(said, dict) and said.get('type') == f'{TrainConfig.__module__}:{TrainConfig.__qualname__}'


def read_config(workdir: Path | str) -> TrainConfig:
    """The resolved configuration of a run directory.

    Raises:
      UserError: there is none, or this version cannot read it.
    """
    path = Path(workdir) / CONFIG
    if not path.exists():
        raise UserError(f'{workdir} is not a run directory (it has no {CONFIG}); give the --workdir of a training run')
    return config_lib.from_dict(TrainConfig, read_json(path))


def read_better(workdir: Path | str) -> Better:
    """Which metric the run's best checkpoint is best by."""
    path = Path(workdir) / CHECKPOINTS / 'better.json'
    return Better(**read_json(path)) if path.exists() else Better()


def prepare_workdir(config: TrainConfig, *, workdir: Path, resume: bool, overwrite: bool, better: Better) -> None:
    """Makes the run directory, or checks that it is this very run to be resumed.

    Raises:
      UsageError: the directory is not empty and neither flag was given, or holds another experiment.
    """
    if resume and overwrite:
        raise UsageError('--resume and --overwrite exclude each other; give one')
    if workdir.exists() and not workdir.is_dir():
        raise UsageError(f'--workdir {workdir} is a file; give a directory')
    filled = workdir.exists() and any(workdir.iterdir())
    ours = (workdir / CONFIG).exists()
    if filled and not (resume or overwrite):
        raise UsageError(f'--workdir {workdir} is not empty; give --resume to go on, --overwrite to start again, or another directory')
    if filled and not ours:
        raise UsageError(f'--workdir {workdir} is not empty and holds no run of ours (no {CONFIG}); give another directory')
    if overwrite and filled:
        shutil.rmtree(workdir)
    if resume and ours:
        _same_run(config, read_config(workdir), workdir)
    write_json(workdir / CHECKPOINTS / 'better.json', dataclasses.asdict(better))
    write_json(workdir / CONFIG, config_lib.to_dict(config))


def _same_run(config: TrainConfig, found: TrainConfig, workdir: Path) -> None:
    given, there = (_flatten(config_lib.to_dict(item)) for item in (config, found))
    for name in sorted(given.keys() | there.keys(), key=lambda name: (name != 'name', name)):
        allowed = any(name == free or name.startswith(free + '.') for free in RESUMABLE_CHANGES)
        if given.get(name) != there.get(name) and not allowed:
            raise UsageError(
                f'--workdir {workdir} holds another run: {name} is {json.dumps(there.get(name))} there and '
                f'{json.dumps(given.get(name))} in this call; set it alike, or give another directory'
            )


def _flatten(value: Any, prefix: str = '') -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flatten(item, f'{prefix}.{key}'.strip('.')).items()}
    return {prefix: value}


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _damaged(step: object, error: Exception) -> UserError:
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    advice = 'delete its directory to go on from an earlier one'
    return UserError(f'checkpoint {step} is damaged or of another model and was not used ({first}); {advice}')


def _restore(manager: ocp.CheckpointManager, step: int, items: ocp.args.Composite) -> Any:
    try:
        return manager.restore(step, args=items)
    except Exception as error:  # Orbax wraps what TensorStore says of a damaged file in a bare Exception
        raise _damaged(step, error) from error


def _restore_params(path: Path, spec: ModelSpec, shardings: Tree, *, ema: bool) -> Tree:
    """Reads the parameters alone (the moments are two thirds of a checkpoint)."""
    name = 'ema' if ema else 'params'
    like = jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract_params(spec), shardings)
    arguments = ocp.args.PyTreeRestore(
        item={name: like}, restore_args=ocp.checkpoint_utils.construct_restore_args({name: like}), partial_restore=True
    )
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return reader.restore(path, args=arguments)[name]
    except Exception as error:  # as above
        raise _damaged(path.parent.name, error) from error
