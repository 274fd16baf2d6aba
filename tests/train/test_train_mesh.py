"""Eight devices give the loss of one: data 8; data 2 x fsdp 4; data 2 x fsdp 2 x tensor 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

_PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from absl import flags
flags.FLAGS.mark_as_parsed()
import train_runs
from retfound_jax.core.mesh import MeshConfig
from retfound_jax.core.runlog import read_metrics
from retfound_jax.train.loop import train

for number, sizes in enumerate(json.loads(sys.argv[3])):
    work = f'{sys.argv[2]}/{number}'
    train(train_runs.mae(steps=12, mesh=MeshConfig(**sizes)), workdir=work)
    print(json.dumps([row['value'] for row in read_metrics(work) if row['name'] == 'loss']))
"""


def losses(tmp_path, meshes, *, devices):
    environment = os.environ | {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu'}
    here = Path(__file__).parent
    call = [sys.executable, '-c', _PROGRAM, str(here), str(tmp_path / str(devices)), json.dumps(meshes)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, cwd=here.parents[1])
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('[')]


def test_meshes_of_eight_devices_give_the_loss_of_one(tmp_path):
    (one,) = losses(tmp_path, [{'data': 1}], devices=1)
    meshes = [{'data': 8}, {'data': 2, 'fsdp': 4}, {'data': 2, 'fsdp': 2, 'tensor': 2}]
    assert len(one) == 12 and one[-1] < one[0]
    for mesh, found in zip(meshes, losses(tmp_path, meshes, devices=8), strict=True):
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-5, err_msg=str(mesh))


