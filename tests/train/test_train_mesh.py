"""Eight devices give the loss of one: data 8; data 2 x fsdp 4; data 2 x fsdp 2 x tensor 2; moments split over data or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

_PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from absl import flags
flags.FLAGS.mark_as_parsed()
import train_runs
from retfound_jax.core.mesh import MeshConfig
from retfound_jax.core.runlog import read_metrics
from retfound_jax.train.loop import train

class Cut(Exception):
    pass

if sys.argv[4] != '0':
    from retfound_jax.data.loader import Loader
    real = Loader.__next__
    def dying(self):
        if self.step == int(sys.argv[4]):
            raise Cut
        return real(self)
    Loader.__next__ = dying

for number, sizes in enumerate(json.loads(sys.argv[3])):
    work = f'{sys.argv[2]}/{number}'
    try:
        train(train_runs.mae(steps=12, checkpoint_every=6, mesh=MeshConfig(**sizes)), workdir=work, resume=True)
    except Cut:
        pass
    print(json.dumps([row['value'] for row in read_metrics(work) if row['name'] == 'loss']))
"""


def losses(workdir, meshes, *, devices, cut=0):
    """The loss of each of 12 steps, a run a mesh; a run that is there already goes on, and `cut` ends it before that step's batch."""
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    here = Path(__file__).parent
    call = [sys.executable, '-c', _PROGRAM, str(here), str(workdir), json.dumps(meshes), str(cut)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, cwd=here.parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('[')]


# Compiling for eight devices takes its time: the mesh with all axes is in the default tier.
@pytest.mark.parametrize(
    'meshes',
    [[{'data': 2, 'fsdp': 2, 'tensor': 2}], pytest.param([{'data': 8}, {'data': 2, 'fsdp': 4}], marks=pytest.mark.slow)],
)
def test_meshes_of_eight_devices_give_the_loss_of_one(tmp_path, meshes):
    (one,) = losses(tmp_path / 'one', [{'data': 1}], devices=1)
    assert len(one) == 12 and one[-1] < one[0]
    for mesh, found in zip(meshes, losses(tmp_path / 'eight', meshes, devices=8), strict=True):
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-5, err_msg=str(mesh))


@pytest.mark.slow
def test_moments_split_over_data_give_the_loss_of_one(tmp_path):
    (one,) = losses(tmp_path / 'one', [{'data': 1}], devices=1)
    meshes = [{'data': 8, 'zero': True}, {'data': 2, 'fsdp': 2, 'tensor': 2, 'zero': True}]
    for mesh, found in zip(meshes, losses(tmp_path / 'eight', meshes, devices=8), strict=True):
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-5, err_msg=str(mesh))


@pytest.mark.slow
def test_a_run_goes_on_where_moments_are_split_over_data(tmp_path):
    (one,) = losses(tmp_path / 'one', [{'data': 1}], devices=1)
    losses(tmp_path / 'cut', [{'data': 8}], devices=8, cut=6)
    (rest,) = losses(tmp_path / 'cut', [{'data': 4, 'fsdp': 2, 'zero': True}], devices=8)
    np.testing.assert_allclose(rest, one, rtol=0, atol=1e-5)
