"""Runs whose loss looks at groups, and their steps on one device and on eight; the latter run by `many_devices`."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import train_runs

from retfound_jax.core.mesh import MeshConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.robust import GroupDRO, Reweight
from retfound_jax.tasks.supervised import SupervisedTask
from retfound_jax.train.config import TrainConfig, assume
from retfound_jax.train.program import make_program
from retfound_jax.train.state import TrainState

ROBUST = {'dro': GroupDRO(step_size=0.5, adjustment=1.0), 'reweight': Reweight(by_label=True)}


def task(robust: Any, **changes: Any) -> SupervisedTask:
    return ClassifyTask(model=train_runs.ENCODER, labels=('glaucoma',), robust=robust, **changes)


def config(robust: Any, **changes: Any) -> TrainConfig:
    """Two sexes of sixteen patients, no random crop."""
    data = train_runs.data(phantom=PhantomConfig(patients=16, image_size=48), groups='sex', augment='none')
    return train_runs.classify(**{'task': task(robust), 'data': data, 'eval_every': -1} | changes)


def steps(name: str, mesh: MeshConfig, *, devices: int, **changes: Any) -> tuple[list[dict[str, float]], TrainState]:
    """What three steps measure, and the state after them."""
    program = make_program(assume(config(ROBUST[name], mesh=mesh, **changes)), devices=jax.devices()[:devices])
    state, found = program.init_state(), []
    for place in range(3):
        state, metrics = program.step(state, program.put(program.random_batch(place)))
        found.append({key: float(value) for key, value in metrics.items()})
    return found, jax.device_get(state)


def eight_are_as_one(name: str, data: int, fsdp: int, tensor: int) -> None:
    """The groups' losses and weights are those of the global batch."""
    alone, _ = steps(name, MeshConfig(data=1), devices=1)
    spread, _ = steps(name, MeshConfig(data=data, fsdp=fsdp, tensor=tensor), devices=8)
    shown = {'largest_group_weight', 'group_weight/0', 'group_weight/1'} if name == 'dro' else set()
    assert alone[0].keys() == {'loss', 'grad_norm', 'bad', 'halted', 'skipped', 'unweighted_loss'} | shown
    for number, (one, eight) in enumerate(zip(alone, spread, strict=True)):
        for key in one:
            np.testing.assert_allclose(eight[key], one[key], rtol=2e-4, atol=1e-5, err_msg=f'step {number}: {key}')


def parts_keep_the_weights_of_the_whole(name: str) -> None:
    """Accumulated over two parts, the first step's loss and the weights kept after it are those of the whole batch."""
    found = []
    for parts in (1, 2):
        program = make_program(assume(config(ROBUST[name], optim=OptimConfig(lr=1e-3, accumulate=parts))), devices=jax.devices()[:1])
        batch = program.random_batch(0)
        batch['image'][...] = batch['image'][:1]  # flips are drawn for each part: of one photograph, mirrored
        batch['image'][...] = (batch['image'] // 2 + batch['image'][:, :, ::-1] // 2).astype(np.uint8)
        state, metrics = program.step(program.init_state(), program.put(batch))
        found.append((float(metrics['unweighted_loss']), jax.device_get(state.params).get('group_weights')))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-5)
    if name == 'dro':
        assert abs(found[0][1][0] - 0.5) > 1e-3
        np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5)
