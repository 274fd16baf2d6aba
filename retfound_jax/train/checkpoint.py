"""What other rooms use of a run: its parameters as they were saved, and how its validation ranks checkpoints."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.mesh import MeshConfig, make_mesh
from retfound_jax.tasks.base import Task
from retfound_jax.train import checkpoint_files as files
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.save_errors import damaged
from retfound_jax.train.saves import Checkpoints
from retfound_jax.train.state import ModelSpec, abstract_params, model_spec, param_shardings
from retfound_jax.train.step import make_predict
from retfound_jax.train.workdir import CHECKPOINTS, CONFIG, Better, Origin, is_run, prepare_workdir, read_better, read_config

# evals and api may import this module of the room and no other
__all__ = (
    'Better', 'Checkpoints', 'Measure', 'ModelSpec', 'Origin', 'Run', 'Tree', 'Validation', 'is_run', 'load_run', 'prepare_workdir',
    'read_config',
)  # fmt: skip

Tree = Any
ReadWeights = Callable[..., Mapping[str, Any]]  # (source, *, image_size) -> parameters by dotted name
Which = Literal['best', 'latest']
Measure = Callable[..., Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """How validation predictions become numbers, and which one decides.

    `measure(kind, labels [rows,Y], score [rows,Y])`, and with `data.groups` also `group=` [rows], the names of the rows' groups.
    """

    measure: Measure
    better: Better


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

    Nothing in the directory is touched, and the run may be going on meanwhile.

    Raises:
      UserError: the directory is no run, has no checkpoint, or the checkpoint is damaged, or went away while it was read.
      UsageError: the checkpoint is of another run.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    spec = model_spec(config.task)
    made = make_mesh(mesh or MeshConfig())
    step = _choose(workdir, which=which)
    folder = (workdir / CHECKPOINTS / str(step)).absolute()
    shardings = param_shardings(spec, mesh=made, rules=config.rules)
    try:
        why = files.fault(folder, thorough=True)
        if why:
            raise UserError(f'checkpoint {step} is damaged and was not used ({why}); train on in {workdir} with --resume')
        _check_origin(folder, config)
        params = _restore_params(folder / 'state', spec, shardings, ema=bool(config.optim.ema))
    except UserError as error:
        if not (folder / files.COMMIT).is_file():
            raise UserError(f'checkpoint {step} of {workdir} went away while it was read: its training goes on; run again') from error
        raise
    return Run(workdir=workdir, config=config, step=step, params=params, spec=spec, mesh=made)


def load_start(address: str, *, read: ReadWeights | None, image_size: int, mesh: MeshConfig | None = None) -> Tree | Mapping[str, Any]:
    """Parameters to start from: those of the latest checkpoint of a run of ours, or of somebody else's weights as `read` gives them.

    Args:
      read: (address, image_size=...) -> parameters by dotted name; None: only runs of ours are known.
      image_size: of the input [px].

    Raises:
      UserError: there are none, or they cannot be read.
    """
    if read is None or is_run(address):
        return load_run(address, which='latest', mesh=mesh).params
    return read(address, image_size=image_size)


def _choose(workdir: Path, *, which: Which) -> int:
    """The latest committed step, or the one best by the validation metric; the latest where none was measured."""
    root, better = workdir / CHECKPOINTS, read_better(workdir)
    there = [step for step in files.steps(root) if (root / str(step) / files.COMMIT).is_file()]
    if not there:
        raise UserError(f'{workdir} has no checkpoint yet; run `retfound train` with it first')
    measured = {step: files.read_metrics_of(root / str(step)).get(better.metric) for step in there}
    ranked = [step for step in there if measured[step] is not None]
    if which == 'latest' or not ranked:
        return there[-1]
    return (max if better.mode == 'max' else min)(reversed(ranked), key=lambda step: measured[step])


def _check_origin(folder: Path, config: TrainConfig) -> None:
    found = files.read_origin(folder)
    differs = Origin(config=config, data='').difference(found) if found is not None else ''
    if differs:
        whose = f'checkpoint {folder.name} in {folder.parent} is of another run than the {CONFIG} beside it'
        raise UsageError(f'{whose}: {differs.replace("in this call", "here")}; give the directory of its run')


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
    except Exception as error:  # Orbax wraps what TensorStore says of a damaged file in a bare Exception
        raise damaged(path.parent.name, error) from error
