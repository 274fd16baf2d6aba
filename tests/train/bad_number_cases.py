"""What bad numbers do to a state, on some of this process's devices; run by test_train_bad_numbers.py through many_devices.py."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import mesh_programs
import numpy as np
import optax
import train_runs

from retfound_jax.core.mesh import MeshConfig
from retfound_jax.data.device import prepare
from retfound_jax.optim import OptimConfig, learning_rate
from retfound_jax.tasks.regress import RegressTask
from retfound_jax.train.bad_numbers import Rewinds, judge, read_rewinds
from retfound_jax.train.config import FaultConfig, TrainConfig, assume
from retfound_jax.train.program import Program, make_program
from retfound_jax.train.state import TrainState

OPTIM = OptimConfig(lr=3e-3, warmup_steps=4, weight_decay=0.1, ema=0.9, clip_norm=1.0)
STEPS = 12
SPIKES = (100, 150, 170)


def config(faults: FaultConfig, *, steps: int = STEPS, mesh: MeshConfig = MeshConfig(), **optim: Any) -> TrainConfig:  # noqa: B008 (frozen)
    encoder = dataclasses.replace(train_runs.ENCODER, depth=1)
    task = RegressTask(model=encoder, labels=('age',), target_mean=50.0, target_std=10.0)
    data = train_runs.data(augment='none')
    made = TrainConfig(name='tiny', task=task, data=data, optim=dataclasses.replace(OPTIM, **optim), steps=steps, faults=faults, mesh=mesh)
    return assume(made)


@functools.cache
def program(faults: FaultConfig, devices: int, **changes: Any) -> Program:
    assert len(jax.devices()) >= devices
    return make_program(config(faults, **changes), devices=jax.devices()[:devices])


@functools.cache
def _start() -> TrainState:
    return jax.device_get(program(FaultConfig(), 1).init_state())


def start(made: Program) -> TrainState:
    """The state before the first step, of which the programs here have one and the same."""
    return jax.device_put(_start(), made.shardings)


def batch(place: int, *, label: float | None = None) -> dict[str, np.ndarray]:
    """That of a place in the stream; `label` is put in place of one image's."""
    rng = np.random.default_rng(place)
    found = {'image': rng.integers(0, 256, (8, 32, 32, 3), np.uint8), 'labels': (50 + 10 * rng.normal(size=(8, 1))).astype(np.float32)}
    if label is not None:
        found['labels'][3] = label
    return found


def inf_at(*places: int) -> Callable[[int], dict[str, np.ndarray]]:
    return lambda place: batch(place, label=np.inf if place in places else None)


def run(
    made: Program, steps: Iterable[int], data: Callable[[int], dict[str, np.ndarray]], state: TrainState | None = None
) -> tuple[TrainState, list[dict]]:
    state, numbers = start(made) if state is None else state, []
    for step in steps:
        state, metrics = made.step(state, made.put(data(step)))
        numbers.append(jax.device_get(metrics))
    return state, numbers


def same(one: Any, other: Any) -> None:
    """The same to the last bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), jax.tree_util.keystr(path)


def trained(state: TrainState) -> dict[str, Any]:
    return {'params': state.params, 'opt_state': state.opt_state, 'ema': state.ema}


def halts(policy: str, devices: int) -> None:
    """A bad step ends it: the state is the one from before, whatever is dispatched after."""
    made = program(FaultConfig(on_bad_numbers=policy), devices)
    before, _ = run(made, range(1, 5), batch)
    after, numbers = run(made, range(1, 10), inf_at(5))
    assert [bool(row['bad']) for row in numbers] == [bool(row['halted']) for row in numbers] == [False] * 4 + [True] * 5
    assert np.isinf(numbers[4]['loss']) and int(after.skipped) == 0
    same(dataclasses.replace(after, halted=before.halted), before)


def halts_at_too_high_a_rate(devices: int) -> None:
    made = program(FaultConfig(), devices, lr=1e30, warmup_steps=0)
    after, numbers = run(made, range(1, 7), batch)
    bad = [bool(row['bad']) for row in numbers]
    assert any(bad) and bad == sorted(bad)
    assert int(after.step) == bad.index(True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained(after)))


def skips(devices: int) -> None:
    """A bad step is left out: what is trained is what a run has that never made its update, to the last bit."""
    made = program(FaultConfig(on_bad_numbers='skip'), devices)
    left_out, numbers = run(made, range(1, STEPS + 1), inf_at(5, 6, 9))
    assert [step for step, row in enumerate(numbers, 1) if row['bad']] == [5, 6, 9]
    assert [int(row['skipped']) for row in numbers] == [0] * 4 + [1] + [2] * 3 + [3] * 4
    assert not any(row['halted'] for row in numbers)
    assert (int(left_out.step), int(left_out.skipped)) == (STEPS, 3)
    state, _ = run(made, range(1, 5), batch)
    for step in range(5, STEPS + 1):
        if step in (5, 6, 9):
            state = dataclasses.replace(state, step=state.step + 1)
        else:
            state, _ = run(made, [step], batch, state)
    same(trained(left_out), trained(state))
    counts = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(left_out.opt_state) if 'count' in jax.tree_util.keystr(path)]
    assert counts and all(int(count) == STEPS - 3 for count in counts)


def skips_as_optax_by_hand(devices: int) -> None:
    """The same against updates put together from optax's own AdamW, with gradients of the task's loss."""
    made = program(FaultConfig(on_bad_numbers='skip'), devices)
    rate = learning_rate(made.config.optim, steps=STEPS, batch_size=8)

    def decays(tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', tree)

    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b1=OPTIM.b1, b2=OPTIM.b2, weight_decay=0.1, mask=decays))

    @jax.jit
    def update(params: Any, moments: Any, mean: Any, given: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            ready = {'image': prepare(given['image'], key=None, config=made.config.data), 'labels': given['labels']}
            return made.config.task.loss(made.spec.merge(params), ready, key=None)[0]

        updates, moments = tx.update(jax.grad(loss)(params), moments, params)
        params = optax.apply_updates(params, updates)
        return params, moments, jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, mean, params)

    params = _start().params
    mean, moments = params, tx.init(params)
    for step in range(1, STEPS + 1):
        if step not in (5, 9):
            params, moments, mean = update(params, moments, mean, batch(step))
    state, _ = run(made, range(1, STEPS + 1), inf_at(5, 9))
    for found, wanted in ((state.params, params), (state.ema, mean)):
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
            if jax.tree_util.keystr(path, simple=True, separator='.').endswith('qkv.bias'):
                a, b = (np.delete(x, 1, axis=1) for x in (a, b))  # keys' bias cancels: its gradient is rounding, which Adam enlarges
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5, err_msg=str(path))


def skips_up_to_a_limit(devices: int) -> None:
    made = program(FaultConfig(on_bad_numbers='skip', most_skipped=2), devices)
    before, _ = run(made, range(1, 6), inf_at(3, 4))
    after, numbers = run(made, range(1, 9), inf_at(3, 4, 6))
    assert [bool(row['bad']) for row in numbers] == [False, False, True, True, False, True, True, True]
    assert [bool(row['halted']) for row in numbers] == [False] * 5 + [True] * 3
    assert (int(after.step), int(after.skipped)) == (5, 2)
    same(dataclasses.replace(after, halted=before.halted), before)


def decides_alike_after_a_resume(devices: int) -> None:
    """Spikes in a run of 180 steps: the steps left out are those with a spike, and a state that is read back decides as the first did."""
    made = program(FaultConfig(on_bad_numbers='skip', spike_factor=8.0), devices, steps=180, lr=1e-3)

    def data(place: int) -> dict[str, np.ndarray]:
        return batch(place, label=400.0 if place in SPIKES else None)

    straight, numbers = run(made, range(1, 181), data)
    assert tuple(step for step, row in enumerate(numbers, 1) if row['bad']) == SPIKES
    half, first = run(made, range(1, 131), data)
    read = jax.device_put(jax.device_get(half), made.shardings)
    end, second = run(made, range(131, 181), data, read)
    same(end, straight)
    same(first + second, numbers)


def changes_policy(devices: int) -> None:
    """A state stopped by one policy goes on under another."""
    stopped, _ = run(program(FaultConfig(), devices), range(1, 6), inf_at(5))
    state = dataclasses.replace(stopped, halted=jnp.zeros((), bool))
    made = program(FaultConfig(on_bad_numbers='skip'), devices)
    state, _ = run(made, range(5, STEPS + 1), inf_at(5), jax.device_put(state, made.shardings))
    assert (int(state.step), int(state.skipped)) == (STEPS, 1)


class Killed(Exception):
    """Stands for the end of a process."""


def loop(made: Program, workdir: str, saved: dict[int, Any], *, data: Callable, kill: int = 0) -> tuple[TrainState, list[int]]:
    """A training loop as small as it can be: checkpoints in `saved` every 3 steps, numbers read a step late. Places it used, too."""
    rewinds, used = read_rewinds(workdir), []
    newest = max(saved, default=0)
    state, step, pending, draws = jax.device_put(saved.get(newest, _start()), made.shardings), newest, None, 0
    while step < STEPS or pending:
        if step < STEPS:
            step, draws = step + 1, draws + 1
            if draws == kill:
                raise Killed
            place = rewinds.position(step)
            state, numbers = made.step(state, made.put(data(place)))
            used.append(place)
        if pending and (verdict := _judged(made, rewinds, pending, saved)).action == 'rewind':
            rewinds, pending = verdict.rewinds, None
            rewinds.write(workdir)
            step = rewinds.made[-1].to_step
            state = jax.device_put(saved.get(step, _start()), made.shardings)
            continue
        pending = (step, jax.device_get(numbers)) if pending is None or pending[0] != step else None
        if pending and step % 3 == 0 and not pending[1]['bad']:
            saved[step] = jax.device_get(state)
    return state, used


def _judged(made: Program, rewinds: Rewinds, pending: Any, saved: dict[int, Any]) -> Any:
    step, numbers = pending
    values, newest = {name: float(value) for name, value in numbers.items()}, max(saved, default=0)
    return judge(step, values, name='tiny', faults=made.config.faults, rewinds=rewinds, newest=lambda: newest, keys=lambda: ['a'])


def rewinds(devices: int) -> None:
    """Bad data at places 2, 8 and 9 of the stream: the run ends as one whose stream has neither them nor what came after a checkpoint."""
    made, data = program(FaultConfig(on_bad_numbers='rewind'), devices), inf_at(2, 8, 11)
    with tempfile.TemporaryDirectory() as folder:
        end, used = loop(made, folder, {}, data=data)
        made_by_it = [(one.from_step, one.to_step, one.places) for one in read_rewinds(folder).made]
    # Step 2 back to the start; step 6 (place 8) back to 3 past 6 to 8; step 6 (place 11) back to 3 again, past 9 to 11 as well.
    assert made_by_it == [(2, 0, (1, 2)), (6, 3, (6, 8)), (6, 3, (6, 11))], made_by_it
    places = [3, 4, 5, *range(12, 12 + STEPS - 3)]
    wanted, _ = run(made, range(STEPS), lambda step: batch(places[step]))
    same(end, wanted)
    for kill in range(2, len(used) + 1, 3):
        with tempfile.TemporaryDirectory() as folder:
            saved: dict[int, Any] = {}
            try:
                loop(made, folder, saved, data=data, kill=kill)
            except Killed:
                pass
            again, _ = loop(made, folder, saved, data=data)
            assert [(one.from_step, one.to_step, one.places) for one in read_rewinds(folder).made] == made_by_it, kill
        same(again, wanted)


def sends_no_more(devices: int) -> None:
    """Whatever is asked for, the compiled step has the collectives of the default."""

    def sent(faults: FaultConfig) -> list[Any]:
        made = program(faults, devices, mesh=MeshConfig(data=2, fsdp=2))
        text = made.step.lower(made.abstract_state(), made.abstract_batch()).compile().as_text()
        return sorted(map(str, mesh_programs.collectives(text)))

    jax.config.update('jax_enable_compilation_cache', False)  # what is loaded has no text
    plain = sent(FaultConfig())
    assert plain and sent(FaultConfig(on_bad_numbers='skip', spike_factor=6.0)) == plain
