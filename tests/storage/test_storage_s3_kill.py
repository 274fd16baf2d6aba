"""`retfound train --workdir s3://...` killed with SIGKILL at random moments, on a new disk each time, with a network that fails."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from faulty_proxy import FAULTS, FaultyProxy, seeded
from s3_server import BUCKET, store_at

from retfound_jax.core.mirror import Mirror
from retfound_jax.core.runlog import read_metrics
from retfound_jax.core.storage import Store
from retfound_jax.train.checkpoint import load_run

pytestmark = pytest.mark.oracle

ROOM = Path(__file__).resolve().parent
HOME = f's3://{BUCKET}/runs/killed'
KILLS = 3


def start(workdir: str, *, scratch: Path, endpoint: str) -> subprocess.Popen:
    """The command line in a process of its own."""
    paths = os.pathsep.join([str(ROOM), str(ROOM.parent / 'train'), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': paths, 'RETFOUND_JAX_SCRATCH': str(scratch), 'AWS_ENDPOINT_URL': endpoint}
    words = ['train', '--experiment', 'kill_run:run', '--workdir', workdir, '--resume']
    return subprocess.Popen(
        [sys.executable, '-m', 'retfound_jax', *words], cwd=ROOM.parent.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def newest(home: Store) -> int:
    """The newest step that counts; 0 where there is none."""
    return max((int(name[len('complete/') :].removesuffix('.json')) for name in home.list('complete') if name.endswith('.json')), default=0)


def ends(process: subprocess.Popen) -> None:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said.decode()


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_if_undisturbed(server, proxy, tmp_path):
    ends(start(str(tmp_path / 'plain'), scratch=tmp_path, endpoint=proxy.address))
    home, rng = store_at('runs/killed'), random.Random(0)
    with FaultyProxy(server, seeded(5, share=0.1), delay=0.05) as faulty:
        for kill in range(KILLS):
            before, deadline = newest(home), time.monotonic() + 180
            process = start(HOME, scratch=tmp_path / f'disk{kill}', endpoint=faulty.address)
            while process.poll() is None and newest(home) == before:  # then anything is killed, saves and copies too
                assert time.monotonic() < deadline
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
            process.communicate()
        ends(start(HOME, scratch=tmp_path / 'last', endpoint=faulty.address))
        assert all(faulty.count[fault] for fault in FAULTS), faulty.count
    with Mirror(tmp_path / 'fetched', home) as mirror:
        assert mirror.fetch() == 40
    plain, fetched = tmp_path / 'plain', tmp_path / 'fetched'
    logs = [[(row['step'], row['name'], row['value']) for row in read_metrics(run)] for run in (plain, fetched)]
    assert logs[0] == logs[1] and {row[0] for row in logs[0]} == set(range(1, 41))
    leaves = [jax.tree.leaves(load_run(run, which='latest').params) for run in (plain, fetched)]
    assert [np.asarray(leaf).tobytes() for leaf in leaves[0]] == [np.asarray(leaf).tobytes() for leaf in leaves[1]]
