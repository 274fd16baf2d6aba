"""What the tests of checkpoints run in processes of their own: `python checkpoint_programs.py PROGRAM [argument ...]`."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent / 'core')]


LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {  # devices and mesh
    'one': (1, {}),
    'data2': (2, {'data': 2}),
    'data4': (4, {'data': 4}),
    'data4zero': (4, {'data': 4, 'zero': True}),
    'fsdp2': (2, {'data': 1, 'fsdp': 2}),
    'fsdp4': (4, {'data': 1, 'fsdp': 4}),
    'data2tensor2': (4, {'data': 2, 'tensor': 2}),
    'fsdp2tensor2': (4, {'data': 1, 'fsdp': 2, 'tensor': 2}),
}


def wanted(name: str) -> Any:
    """A small autoencoder's state as shapes, types and shardings."""
    import jax
    import train_runs

    from retfound_jax.core.mesh import MeshConfig
    from retfound_jax.optim import OptimConfig
    from retfound_jax.train.program import make_program

    devices, mesh = LAYOUTS[name]
    config = train_runs.mae(optim=OptimConfig(lr=1e-3, ema=0.9), mesh=MeshConfig(**mesh))
    return make_program(config, devices=jax.devices()[:devices]).abstract_state()


def filled(like: Any, step: int) -> Any:
    """Values that are a function of `step`, on the shardings of `like`."""
    import dataclasses

    import jax
    import numpy as np

    rng = np.random.default_rng(step)
    made = jax.tree.map(lambda leaf: jax.device_put(np.asarray(100 * rng.normal(size=leaf.shape)).astype(leaf.dtype), leaf.sharding), like)
    return dataclasses.replace(made, step=jax.device_put(np.int32(step), like.step.sharding))


def meshes(workdir: str, sources: str, targets: str) -> None:
    """Saves from each of `sources`, and restores every step that is there onto each of `targets`; says what was alike."""
    import jax
    import numpy as np

    from retfound_jax.train.checkpoint_files import steps
    from retfound_jax.train.config import Keep
    from retfound_jax.train.saves import Checkpoints

    with Checkpoints(workdir, keep=Keep(last=99)) as checkpoints:
        first = (checkpoints.latest or 0) + 1
        for step, name in enumerate(sources.split(','), first):
            checkpoints.save(filled(wanted(name), step), data={'step': step}, metrics=None)
        checkpoints.wait()
        for name in targets.split(','):
            like = wanted(name)
            for step in steps(Path(workdir) / 'checkpoints'):
                state, data = checkpoints.restore(step, like=like)
                pairs = list(zip(*map(jax.tree.leaves, (state, filled(like, step))), strict=True))
                same = all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
                ours = all(leaf.sharding == place.sharding for leaf, place in zip(*map(jax.tree.leaves, (state, like)), strict=True))
                split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))
                said = {'onto': name, 'step': step, 'same': same and data == {'step': step}, 'ours': ours, 'split': split}
                print(json.dumps(said), flush=True)


def kill(workdir: str) -> None:
    """Saves one step after the other for ever, and says each that is on disk."""
    from tiny_states import tiny

    from retfound_jax.train.config import Keep
    from retfound_jax.train.saves import Checkpoints

    with Checkpoints(workdir, keep=Keep(last=2, best=0)) as checkpoints:
        for step in itertools.count((checkpoints.latest or 0) + 1):
            checkpoints.save(tiny(step, side=200), data={'step': step}, metrics=None)
            checkpoints.wait()
            print(step, flush=True)


def processes(index: str, count: str, port: str, shared: str, own: str) -> None:
    """Two processes: a directory that only one of them has, then saves, damage to the newest, and one decision for both."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from hosts_programs import join
    from jax.sharding import NamedSharding, PartitionSpec
    from tiny_states import abstract, flip, largest, tiny

    from retfound_jax.core import hosts
    from retfound_jax.core.errors import UserError
    from retfound_jax.train.config import Keep
    from retfound_jax.train.saves import Checkpoints
    from retfound_jax.train.workdir import check_shared

    join(int(index), int(count), int(port))
    told: dict[str, Any] = {}
    check_shared(shared)
    try:
        check_shared(own, patience=0.5)
    except UserError as error:
        told['own'] = str(error)
    mesh = jax.make_mesh((jax.device_count(),), ('data',), axis_types=(jax.sharding.AxisType.Auto,))

    def spread(step: int) -> Any:
        def place(leaf: Any) -> Any:
            split = PartitionSpec('data') if leaf.ndim else PartitionSpec()
            return jax.make_array_from_callback(leaf.shape, NamedSharding(mesh, split), np.asarray(leaf).__getitem__)

        return jax.tree.map(place, tiny(step))

    options = {'keep': Keep(last=3, best=0), 'say': lambda text: None, 'patience': 60.0}
    with Checkpoints(shared, **options) as checkpoints:
        told['first'] = checkpoints.latest
        for step in (1, 2):
            checkpoints.save(spread(step), data={'step': step}, metrics=None)
    hosts.barrier('saved', timeout=60)
    if hosts.is_first():
        flip(largest(Path(shared) / 'checkpoints' / '2'), bit=99)
    with Checkpoints(shared, **options) as checkpoints:
        told |= {'then': checkpoints.latest, 'aside': list(checkpoints.set_aside)}
        state, data = checkpoints.restore(checkpoints.latest, like=abstract(spread(0)))
        same = jax.jit(lambda one, other: jax.tree.reduce(jnp.logical_and, jax.tree.map(lambda a, b: jnp.all(a == b), one, other)))
        told |= {'data': data, 'same': bool(same(state, spread(1)))}
        checkpoints.save(spread(2), data={'step': 2}, metrics=None)
    print(json.dumps(told), flush=True)
    hosts.stop()


def fails(index: str, count: str, port: str, shared: str) -> None:
    """The last of several processes may not write its part: it says so at a step and ends, while the others still wait for it."""
    import os
    import resource
    import time

    import jax
    import numpy as np
    from hosts_programs import join
    from jax.sharding import NamedSharding, PartitionSpec
    from tiny_states import tiny

    from retfound_jax.core.errors import UserError
    from retfound_jax.train.saves import Checkpoints

    join(int(index), int(count), int(port))
    mesh = jax.make_mesh((jax.device_count(),), ('data',), axis_types=(jax.sharding.AxisType.Auto,))

    def place(leaf: Any) -> Any:
        split = PartitionSpec('data') if leaf.ndim else PartitionSpec()
        return jax.make_array_from_callback(leaf.shape, NamedSharding(mesh, split), np.asarray(leaf).__getitem__)

    checkpoints = Checkpoints(shared, patience=60.0)
    if int(index) == int(count) - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    checkpoints.save(jax.tree.map(place, tiny(1, side=600)), data={'step': 1}, metrics=None)
    begun = time.monotonic()
    while time.monotonic() - begun < 60:
        try:
            checkpoints.check()
        except UserError as error:
            print(json.dumps({'said': str(error), 'after': time.monotonic() - begun}), flush=True)
            break
        time.sleep(0.01)
    os._exit(0)  # what a process does about it is the loop's


if __name__ == '__main__':
    {'kill': kill, 'processes': processes, 'meshes': meshes, 'fails': fails}[sys.argv[1]](*sys.argv[2:])
