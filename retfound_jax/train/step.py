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
from retfound_jax.data.device import prepare_batch
from retfound_jax.train import spikes
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
    """Compiles `(state, batch) -> (state, metrics)`; every random choice comes from (seed, step).

    Metrics are `loss`, `grad_norm`, `bad` (bool, the update was left out), `halted` (bool, and so is every later one), `skipped` (int32,
    updates left out so far) and what the task adds.
    """
    everywhere = replicated(mesh)
    moments = moment_shardings(spec, mesh=mesh, rules=config.rules, zero=config.mesh.zero)

    def step(state: TrainState, batch: Batch, seed: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        with on_mesh(mesh):
            progress = state.step.astype(jnp.float32) / config.steps
            loss, metrics, grads = _gradients(config, spec, state.params, batch, key, progress)
        grads = jax.lax.with_sharding_constraint(grads, moments)  # each device sums the part that it updates
        norm = optax.tree.norm(grads)
        judged = _judge(config, state, loss=loss, norm=norm)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params, ema = optax.apply_updates(state.params, updates), _average(state, updates, decay=config.optim.ema)
        told = {name: metrics.pop(name) for name in list(metrics) if name.startswith('_')}
        params = config.task.after(params, told, progress=progress)
        # A bad step leaves what is trained as it was; one that halts the run leaves everything so, and the state from before it is saved.
        before = (state.params, state.opt_state, state.ema)
        params, opt_state, ema = _kept((params, opt_state, ema), before, where=judged.bad)
        counts, before = (state.step + 1, judged.recent, state.skipped + judged.bad), (state.step, state.recent, state.skipped)
        number, recent, skipped = _kept(counts, before, where=judged.halted)
        after = TrainState(
            step=number, params=params, opt_state=opt_state, ema=ema, halted=judged.halted, recent=recent, skipped=skipped
        )
        verdict = {'bad': judged.bad, 'halted': judged.halted, 'skipped': skipped}
        return after, {'loss': loss, 'grad_norm': norm, **verdict, **metrics}

    places = (shardings, batch_sharding(mesh), everywhere)
    options = compiler_options(list(mesh.devices.flat))
    compiled = jax.jit(step, donate_argnums=0, in_shardings=places, out_shardings=(shardings, everywhere), compiler_options=options)
    return Step(compiled=compiled, seed=config.seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Judged:
    """What is made of a step's numbers."""

    bad: jax.Array  # bool [], its update is left out
    halted: jax.Array  # bool [], and so is every later one's
    recent: jax.Array  # the memory with this step


def _judge(config: TrainConfig, state: TrainState, *, loss: jax.Array, norm: jax.Array) -> _Judged:
    """Whether a loss and a gradient norm are not finite or, where that is asked for, a spike; and whether the run ends with it."""
    faults, measured, recent = config.faults, spikes.measured(loss=loss, norm=norm), state.recent
    changes = [step for step, _ in config.data.resolution[1:]]
    if changes:
        recent = jnp.where(jnp.isin(state.step, jnp.asarray(changes)), spikes.forget(recent), recent)
    bad = ~jnp.isfinite(measured).all()
    if faults.spike_factor:
        bad |= (measured > spikes.limits(recent, factor=faults.spike_factor)).any()
    recent = spikes.remember(recent, measured, left_out=bad)
    ends = bad & (spikes.left_out(recent) > faults.most_skipped) if faults.on_bad_numbers == 'skip' else bad
    halted = state.halted | ends
    return _Judged(bad=bad | halted, halted=halted, recent=recent)


def _kept(fresh: Tree, old: Tree, *, where: jax.Array) -> Tree:
    return jax.tree.map(lambda new, before: jnp.where(where, before, new), fresh, old)


def _gradients(
    config: TrainConfig, spec: ModelSpec, params: Tree, batch: Batch, key: jax.Array, progress: jax.Array
) -> tuple[jax.Array, dict, Tree]:
    """Mean loss, metrics and gradient over `optim.accumulate` equal parts of the batch."""
    parts = config.optim.accumulate

    def loss_of(params: Tree, part: Batch, key: jax.Array) -> tuple[jax.Array, dict]:
        augment_key, task_key = jax.random.split(key)
        part = {name: _repeated(x, config.data.repeat) for name, x in part.items()}
        part = prepare_batch(part, key=augment_key, config=config.data)
        return config.task.loss(spec.merge(params), {**part, 'progress': progress}, key=task_key)

    def gradient(params: Tree, part: Batch, key: jax.Array) -> tuple[tuple[jax.Array, dict], Tree]:
        result, grads = jax.value_and_grad(loss_of, has_aux=True)(_as_summed(params, dtype=config.optim.gradient_dtype), part, key)
        return result, jax.tree.map(lambda grad, param: grad.astype(param.dtype), grads, params)

    if parts == 1:
        (loss, metrics), grads = gradient(params, batch, key)
        return loss, metrics, grads

    def one(total: Tree, item: tuple[Batch, jax.Array]) -> tuple[Tree, None]:
        (loss, metrics), grads = gradient(params, *item)
        return jax.tree.map(jnp.add, total, (loss, metrics, grads)), None

    split = jax.tree.map(lambda x: _parted(x, parts, together=2 if config.data.pairs else 1), batch)
    keys = jax.random.split(key, parts)
    (loss_like, metrics_like), grads_like = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (loss_like, metrics_like, grads_like))
    total, _ = jax.lax.scan(one, zeros, (split, keys))
    return jax.tree.map(lambda x: x / parts, total)


def _parted(x: jax.Array, parts: int, *, together: int) -> jax.Array:
    """[parts, rows, ...]: row i of the batch, or pair i, goes to part i % parts, so that every part stays spread over all devices."""
    pair = (together,) if together > 1 else ()
    x = jnp.moveaxis(x.reshape(len(x) // (parts * together), parts, *pair, *x.shape[1:]), 1, 0)
    return x.reshape(parts, -1, *x.shape[3:]) if pair else x


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
            ready = {**prepare_batch(batch, key=None, config=config.data), 'progress': jnp.ones(())}
            loss, _ = config.task.loss(model, ready, key=None)
            return {**config.task.predict(model, ready), 'loss': loss}

    return jax.jit(predict, out_shardings=replicated(mesh))
