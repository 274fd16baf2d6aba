"""Bits that flip, on some of this process's devices; run by test_train_integrity.py through many_devices.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import bad_number_cases
import jax
import numpy as np

from retfound_jax.core.errors import Preempted
from retfound_jax.core.mesh import MeshConfig
from retfound_jax.train.config import FaultConfig
from retfound_jax.train.integrity import CorruptedError, Integrity
from retfound_jax.train.program import Program
from retfound_jax.train.state import TrainState

MESHES = {
    'one': (1, MeshConfig()),
    'data2': (2, MeshConfig(data=2)),
    'data4': (4, MeshConfig(data=4)),
    'zero': (2, MeshConfig(data=2, zero=True)),
    'fsdp': (4, MeshConfig(data=2, fsdp=2)),
    'all': (4, MeshConfig(data=2, fsdp=2, zero=True)),
}


def program(mesh: str) -> Program:
    devices, config = MESHES[mesh]
    return bad_number_cases.program(FaultConfig(), devices, steps=60, mesh=config)


def guarded(made: Program, step: Callable[..., Any] | None = None, **faults: int) -> Integrity:
    return Integrity(step or made.step, shardings=made.shardings, mesh=made.mesh, faults=FaultConfig(**faults), name='tiny')


def flipped(array: jax.Array, *, device: jax.Device, place: int, bit: int) -> jax.Array:
    """The same array, but for one bit of one device's copy."""
    parts = []
    for shard in array.addressable_shards:
        data = np.array(shard.data)
        if shard.device == device:
            data.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
        parts.append(jax.device_put(data, shard.device))
    return jax.make_array_from_single_device_arrays(array.shape, array.sharding, parts)


def with_leaf(state: TrainState, name: str, change: Callable[[jax.Array], jax.Array]) -> TrainState:
    """A state whose array of that name is another one."""
    changed = []

    def one(path: tuple, leaf: jax.Array) -> jax.Array:
        if jax.tree_util.keystr(path, simple=True, separator='.') == name:
            changed.append(name)
            return change(leaf)
        return leaf

    state = jax.tree_util.tree_map_with_path(one, state)
    assert changed == [name]
    return state


def told(check: Integrity) -> str:
    try:
        check.verify()
    except CorruptedError as error:
        assert isinstance(error, Preempted)  # start it again
        return str(error)
    return ''


def no_false_alarm(mesh: str) -> None:
    """Fifty steps with both checks at each give what plain steps give, bit for bit, and not a word."""
    made = program(mesh)
    check = guarded(made, repeat_every=1, compare_replicas_every=1)
    checked, plain = bad_number_cases.start(made), bad_number_cases.start(made)
    for number in range(1, 51):
        batch = made.put(bad_number_cases.batch(number))
        checked, numbers = check(number, checked, batch)
        plain, wanted = made.step(plain, batch)
        assert told(check) == '', number
        bad_number_cases.same(jax.device_get(numbers), jax.device_get(wanted))
    bad_number_cases.same(checked, plain)


NAMES = {  # an array of each mesh that devices hold copies of, and the devices that are named where device 1 has another copy
    'data2': ('ema.head.bias', {0, 1}),
    'data4': ('params.encoder.patch_embed.proj.kernel', {1}),
    'zero': ('params.encoder.patch_embed.proj.kernel', {0, 1}),
    'fsdp': ('params.encoder.patch_embed.proj.kernel', {1, 3}),
    'all': ('opt_state.1.mu.encoder.fc_norm.scale', {1, 3}),
}


def names_a_copy_that_differs(mesh: str) -> None:
    """One bit of the copy on device 1, of the lowest or the highest significance, in the first place or the last."""
    made, (name, devices) = program(mesh), NAMES[mesh]
    for place, bit in ((0, 0), (-1, 0), (0, 31), (-1, 31)):

        def change(leaf: jax.Array, place: int = place, bit: int = bit) -> jax.Array:
            return flipped(leaf, device=made.mesh.devices.flat[1], place=place, bit=bit)

        def step(state: TrainState, batch: Any, change: Callable = change) -> Any:
            state, numbers = made.step(state, batch)
            return with_leaf(state, name, change), numbers

        plain, wrong = guarded(made, compare_replicas_every=2), guarded(made, step, compare_replicas_every=2)
        state, _ = plain(1, bad_number_cases.start(made), made.put(bad_number_cases.batch(1)))
        state, _ = plain(2, state, made.put(bad_number_cases.batch(2)))
        assert told(plain) == ''
        state, _ = wrong(3, state, made.put(bad_number_cases.batch(3)))
        assert told(wrong) == ''  # it is not the turn of this step
        wrong(4, bad_number_cases.start(made), made.put(bad_number_cases.batch(4)))
        said = told(wrong)
        assert said.startswith('after step 4 of tiny the copies on cpu') and f'differ in state.{name} from' in said, said
        assert {int(number) for number in re.findall(r'cpu (\d) of process 0', said)} == devices, said
        assert told(wrong) == ''  # said once


def names_a_step_that_went_wrong(mesh: str) -> None:
    """The result of a step has one bit flipped on one device, once: in the first go or in the second."""
    made = program(mesh)
    last = made.mesh.devices.flat[made.mesh.size - 1]
    for wrong in (1, 2):
        calls = []

        def step(state: TrainState, batch: Any, wrong: int = wrong, calls: list = calls) -> Any:
            calls.append(1)
            state, numbers = made.step(state, batch)
            if len(calls) == wrong:
                state = with_leaf(state, 'params.head.kernel', lambda leaf: flipped(leaf, device=last, place=-1, bit=12))
            return state, numbers

        check = guarded(made, step, repeat_every=5)
        check(5, bad_number_cases.start(made), made.put(bad_number_cases.batch(5)))
        said = told(check)
        assert said.startswith(f'step 5 of tiny, done twice, gave other bits the second time on cpu {last.id} of process 0'), said
        assert 'in state.params.head.kernel:' in said and said.count('of process') == 1, said
        assert len(calls) == 2


def the_copy_is_a_copy() -> None:
    """A state that is repeated is consumed once, as without a check, and steps that are not due cost one step."""
    made, calls = program('one'), []

    def step(state: TrainState, batch: Any) -> Any:
        calls.append(1)
        return made.step(state, batch)

    check, state = guarded(made, step, repeat_every=3), bad_number_cases.start(made)
    for number in range(1, 7):
        state, _ = check(number, state, made.put(bad_number_cases.batch(number)))
    assert len(calls) == 6 + 2 and told(check) == ''
    assert int(state.step) == 6
    bad_number_cases.same(state, bad_number_cases.run(made, range(1, 7), bad_number_cases.batch)[0])
