"""Steps of tasks that compare all images of a batch, on one device and on eight; run by `many_devices`."""

from __future__ import annotations

import jax
import numpy as np
import train_runs

from retfound_jax.core.mesh import MeshConfig
from retfound_jax.data.views_config import ViewsConfig
from retfound_jax.models.contrastive import MoCoConfig, SimCLRConfig
from retfound_jax.models.swav import SwAVConfig
from retfound_jax.tasks.moco import MoCoTask
from retfound_jax.tasks.simclr import SimCLRTask
from retfound_jax.tasks.swav import SwAVTask
from retfound_jax.train.config import TrainConfig, assume
from retfound_jax.train.program import make_program

SIZES = {'encoder': train_runs.ENCODER, 'hidden': 16, 'out': 8}
TASKS = {
    'simclr': SimCLRTask(model=SimCLRConfig(**SIZES)),
    'moco': MoCoTask(model=MoCoConfig(**SIZES)),
    'swav': SwAVTask(model=SwAVConfig(**SIZES, prototypes=6)),
}


def config(name: str, mesh: MeshConfig) -> TrainConfig:
    """Two local views with SwAV, so that what is split over devices is told from what is not."""
    views = ViewsConfig(canvas=40, local_views=2 if name == 'swav' else 0, local_size=16)
    return assume(train_runs.mae(name=name, task=TASKS[name], data=train_runs.data(batch_size=16, views=views), mesh=mesh))


def step_is_that_of_one(name: str, data: int, fsdp: int, tensor: int) -> None:
    """The numbers of a step and what Adam keeps of its gradient; then the loss of a second one.

    Parameters themselves do not compare: where a gradient is nothing but rounding (the biases of keys, which softmax does not see), Adam's
    first steps are as large as elsewhere.
    """
    found = []
    for mesh, devices in ((MeshConfig(), jax.devices()[:1]), (MeshConfig(data=data, fsdp=fsdp, tensor=tensor), None)):
        program = make_program(config(name, mesh), devices=devices)
        state, first = program.step(program.init_state(), program.put(program.random_batch(0)))
        kept = [np.asarray(leaf) for leaf in jax.tree.leaves(state.opt_state)]
        _, second = program.step(state, program.put(program.random_batch(1)))
        found.append((jax.device_get(first), kept, float(second['loss'])))
    (one, moments, loss), (many, split, later) = found
    assert one.keys() == many.keys() and {'embedding_spread', 'grad_norm'} <= one.keys()
    for which, value in one.items():
        np.testing.assert_allclose(many[which], value, rtol=1e-4, atol=1e-5, err_msg=which)
    for leaf, other in zip(moments, split, strict=True):
        np.testing.assert_allclose(other, leaf, rtol=1e-3, atol=2e-5 * float(one['grad_norm']))
    np.testing.assert_allclose(later, loss, rtol=2e-3)
