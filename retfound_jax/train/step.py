"""One optimiser step and one prediction, as pure functions of their arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from retfound_jax.core.mesh import batch_sharding, on_mesh, replicated
from retfound_jax.core.xla_flags import compiler_options
from retfound_jax.data.device import prepare
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.state import ModelSpec, TrainState, moment_shardings, path_string

Batch = dict[str, jax.Array]
Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A compiled step: call it with a state, which it consumes, and a batch; or `lower` it for shapes alone."""

    compiled: Any  # jitted (state, batch, seed)
    seed: int

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        # The seed is an argument, not a constant: runs that differ in it alone share one compiled program.
        return self.compiled(state, batch, np.uint32(self.seed))

    def lower(self, state: TrainState, batch: Any) -> jax.stages.Lowered:
        """The program for abstract arguments (`jax.ShapeDtypeStruct` with shardings), not yet compiled."""
        return self.compiled.lower(state, batch, jax.ShapeDtypeStruct((), jnp.uint32))


def make_step(
    config: TrainConfig, *, spec: ModelSpec, tx: optax.GradientTransformation, mesh: jax.sharding.Mesh, shardings: TrainState
) -> Step:
    """Compiles `(state, batch) -> (state, metrics)`; every random choice comes from (seed, step)."""
    everywhere = replicated(mesh)
    moments = moment_shardings(spec, mesh=mesh, rules=config.rules, zero=config.mesh.zero)

    def step(state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        with on_mesh(mesh):
            loss, metrics, grads = _gradients(config, spec, state.params, batch, key)
        grads = jax.lax.with_sharding_constraint(grads, moments)  # each device sums the part that it updates
        norm = optax.tree.norm(grads)
        halted = state.halted | ~jnp.isfinite(loss) | ~jnp.isfinite(norm)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        fresh = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            opt_state=opt_state,
            ema=_average(state, updates, decay=config.optim.ema),
            halted=halted,
        )
        # A bad step leaves everything as it was, so the state that is saved is the one from before it.
        kept = jax.tree.map(lambda new, old: jnp.where(halted, old, new), fresh, state)
        kept = TrainState(step=kept.step, params=kept.params, opt_state=kept.opt_state, ema=kept.ema, halted=halted)
        return kept, {'loss': loss, 'grad_norm': norm, **metrics}

    places = (shardings, batch_sharding(mesh), everywhere)
    options = compiler_options(list(mesh.devices.flat))
    compiled = jax.jit(step, donate_argnums=0, in_shardings=places, out_shardings=(shardings, everywhere), compiler_options=options)
    return Step(compiled=compiled, seed=config.seed)


def _gradients(config: TrainConfig, spec: ModelSpec, params: Tree, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict, Tree]:
    """Mean loss, metrics and gradient over `optim.accumulate` equal parts of the batch."""
    parts = config.optim.accumulate

    def loss_of(params: Tree, part: Batch, key: jax.Array) -> tuple[jax.Array, dict]:
        augment_key, task_key = jax.random.split(key)
        part = {name: _repeated(x, config.data.repeat) for name, x in part.items()}
        image = prepare(part['image'], key=augment_key, config=config.data)
        return config.task.loss(spec.merge(params), {**part, 'image': image}, key=task_key)

    def gradient(params: Tree, part: Batch, key: jax.Array) -> tuple[tuple[jax.Array, dict], Tree]:
        result, grads = jax.value_and_grad(loss_of, has_aux=True)(_as_summed(params, dtype=config.optim.gradient_dtype), part, key)
        return result, jax.tree.map(lambda grad, param: grad.astype(param.dtype), grads, params)

    if parts == 1:
        (loss, metrics), grads = gradient(params, batch, key)
        return loss, metrics, grads

    def one(total: Tree, item: tuple[Batch, jax.Array]) -> tuple[Tree, None]:
        (loss, metrics), grads = gradient(params, *item)
        return jax.tree.map(jnp.add, total, (loss, metrics, grads)), None

    # Row i of the batch goes to part i % parts, so that every part stays spread over all devices.
    split = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0), batch)
    keys = jax.random.split(key, parts)
    (loss_like, metrics_like), grads_like = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss_like, metrics_like, grads_like))
    total, _ = jax.lax.scan(one, zeros, (split, keys))
    return jax.tree.map(lambda x: x / parts, total)


def _repeated(x: jax.Array, times: int) -> jax.Array:
    """Each row `times` over, next to itself: on a mesh, where it is."""
    if times == 1:
        return x
    return jnp.broadcast_to(x[:, None], (len(x), times, *x.shape[1:])).reshape(len(x) * times, *x.shape[1:])


def _as_summed(params: Tree, *, dtype: str) -> Tree:
    """The kernels of blocks in the dtype that their gradients are summed over devices in: a gradient has the dtype of its parameter.

    A block that computes in this dtype rounds its kernels to it anyway, so the loss is the same to the last bit.
    """

    def cast(path: tuple, param: jax.Array) -> jax.Array:
        names = path_string(path).split('.')
        return param.astype(dtype) if names[-1] == 'kernel' and any(name.endswith('blocks') for name in names) else param

    return params if dtype == 'float32' else jax.tree_util.tree_map_with_path(cast, params)


def _average(state: TrainState, updates: Tree, *, decay: float) -> Tree:
    if not decay:
        return {}
    return jax.tree.map(lambda mean, old, update: decay * mean + (1 - decay) * (old + update), state.ema, state.params, updates)


def make_predict(config: TrainConfig, *, spec: ModelSpec, mesh: jax.sharding.Mesh) -> Callable[[Tree, Batch], dict[str, jax.Array]]:
    """Compiles `(params, batch) -> predictions`, plus the batch's mean loss under `loss`."""

    def predict(params: Tree, batch: Batch) -> dict[str, jax.Array]:
        model = spec.merge(params)
        with on_mesh(mesh):
            ready = {**batch, 'image': prepare(batch['image'], key=None, config=config.data)}
            loss, _ = config.task.loss(model, ready, key=None)
            return {**config.task.predict(model, ready), 'loss': loss}

    return jax.jit(predict, out_shardings=replicated(mesh))
