"""What a configuration compiles to: mesh, model, optimiser, shardings and step, put together once for whoever trains, measures or plans."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from retfound_jax.core.mesh import batch_sharding, make_mesh, put_rows, rows_here
from retfound_jax.optim import make_optimizer
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.state import ModelSpec, TrainState, abstract_params, init_params, init_state, model_spec, state_shardings
from retfound_jax.train.step import Step, make_step

Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """The parts of a run, without an array of it. `config` is resolved: `resolve`, or `assume` where there are no data."""

    config: TrainConfig
    mesh: jax.sharding.Mesh
    spec: ModelSpec
    tx: optax.GradientTransformation
    shardings: TrainState
    step: Step

    def init_state(self, change: Callable[[Tree], Tree] | None = None) -> TrainState:
        """A fresh state, each array made in its shards; `change` may put other weights in before the optimiser sees the parameters."""
        params = init_params(self.config.task, seed=self.config.seed, shardings=self.shardings.params)
        if change is not None:
            params = jax.device_put(change(params), self.shardings.params)
        return init_state(params, self.tx, shardings=self.shardings)

    def abstract_state(self) -> TrainState:
        """Shapes, dtypes and shardings of the state."""
        shapes = jax.eval_shape(lambda params: init_state(params, self.tx, shardings=self.shardings), abstract_params(self.spec))
        return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes, self.shardings)

    def abstract_batch(self, size: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes, dtypes and shardings of a global batch as the loader gives it, its images at `size` [px] or as they are last."""
        data, place = self.config.data, batch_sharding(self.mesh)
        size = data.sizes[-1] if size is None else size
        shape = (data.decoded, size, size, 3)
        batch = {'image': jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=place)}
        labels = len(self.config.task.labels)
        if labels:
            batch['labels'] = jax.ShapeDtypeStruct((data.decoded, labels), jnp.float32, sharding=place)
        if self.config.task.grouped:
            batch['group'] = jax.ShapeDtypeStruct((data.decoded,), jnp.int32, sharding=place)
        return batch

    def random_batch(self, seed: int = 0) -> dict[str, np.ndarray]:
        """A batch on the host: noise for images, 0 and 1 for labels and groups."""
        rng, like = np.random.default_rng(seed), self.abstract_batch()
        return {name: rng.integers(0, 256 if name == 'image' else 2, leaf.shape).astype(leaf.dtype) for name, leaf in like.items()}

    def rows(self, count: int | None = None) -> np.ndarray:
        """Which rows of a global batch this process reads: those that its devices hold. count: of the batch, if not of training."""
        return rows_here(batch_sharding(self.mesh), self.config.data.decoded if count is None else count)

    def put(self, batch: Mapping[str, np.ndarray], *, count: int | None = None) -> dict[str, jax.Array]:
        """What step and prediction read of this process's rows of a batch, on the devices."""
        place, count = batch_sharding(self.mesh), self.config.data.decoded if count is None else count
        task = self.config.task
        wanted = ('image', 'mask', *(('labels',) if task.labels else ()), *(('group',) if task.grouped else ()))
        return {name: put_rows(batch[name], place=place, count=count) for name in wanted if name in batch}


def make_program(config: TrainConfig, *, devices: Sequence[jax.Device] | None = None) -> Program:
    """Puts a run together for `devices`, all of this machine unless given; they may be those of a topology that is not there.

    Raises:
      UsageError: mesh, schedule or model do not fit.
    """
    mesh = make_mesh(config.mesh, devices=None if devices is None else list(devices))
    spec = model_spec(config.task)
    tx = make_optimizer(
        config.optim,
        params=abstract_params(spec),
        steps=config.steps,
        batch_size=config.data.batch_size,
        depth=config.task.depth,
        trainable=config.task.trainable,
    )
    shardings = state_shardings(spec, tx, mesh=mesh, rules=config.rules, ema=bool(config.optim.ema), zero=config.mesh.zero)
    step = make_step(config, spec=spec, tx=tx, mesh=mesh, shardings=shardings)
    return Program(config=config, mesh=mesh, spec=spec, tx=tx, shardings=shardings, step=step)
