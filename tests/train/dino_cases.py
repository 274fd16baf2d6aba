"""Steps of DINO and DINOv2 on one device and on eight; run by test_train_dino.py through many_devices.py."""

from __future__ import annotations

import functools

import jax
import numpy as np
import train_runs

from retfound_jax.core.mesh import MeshConfig
from retfound_jax.data.views_config import ViewsConfig
from retfound_jax.models.dino import DINOConfig
from retfound_jax.models.dinov2 import DINOv2Config
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.base import Task
from retfound_jax.tasks.dino import DINOTask
from retfound_jax.tasks.dinov2 import DINOv2Task
from retfound_jax.train.config import TrainConfig, assume
from retfound_jax.train.program import make_program

STEPS = 3
VIEWS = ViewsConfig(canvas=32, local_views=1, local_size=16, jitter_probability=0.0, blur=(0.0,), local_blur=0.0, solarize=(0.0,))
WEIGHED = ('loss', 'grad_norm', 'teacher_entropy', 'kl', 'prototypes_used', 'embedding_spread')


def task_of(name: str) -> Task:
    encoder = ViTConfig(image_size=32, patch_size=8, width=16, depth=1, heads=2, pool='cls')
    small = {'encoder': encoder, 'hidden': 16, 'bottleneck': 8, 'prototypes': 12, 'frozen_last': 0.0}
    return DINOTask(model=DINOConfig(**small)) if name == 'dino' else DINOv2Task(model=DINOv2Config(**small))


@functools.cache
def steps(name: str, mesh: MeshConfig, *, devices: int) -> list[dict[str, float]]:
    """What each step measures, from the same start over the same photographs."""
    data = train_runs.data(views=VIEWS, batch_size=16)
    optim = OptimConfig(lr=1e-3, weight_decay_end=0.4, clip_norm=3.0)
    config = assume(TrainConfig(name='tiny', task=task_of(name), data=data, optim=optim, steps=STEPS, mesh=mesh))
    program = make_program(config, devices=jax.devices()[:devices])
    state, found = program.init_state(), []
    for place in range(STEPS):
        state, metrics = program.step(state, program.put(program.random_batch(place)))
        found.append({key: float(metrics[key]) for key in WEIGHED})
    return found


def eight_are_as_one(name: str, data: int, fsdp: int, tensor: int) -> None:
    """Centre, Sinkhorn and Knopp, neighbours, masks and the teacher's steps are those of the global batch."""
    alone = steps(name, MeshConfig(data=1), devices=1)
    spread = steps(name, MeshConfig(data=data, fsdp=fsdp, tensor=tensor), devices=8)
    for number, (one, eight) in enumerate(zip(alone, spread, strict=True)):
        for key in one:
            np.testing.assert_allclose(eight[key], one[key], rtol=2e-4, atol=1e-5, err_msg=f'step {number}: {key}')
