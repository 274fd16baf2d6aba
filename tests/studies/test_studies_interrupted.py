"""A study killed at random moments and gone on with gives the same table, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import made_cells
import pytest

from retfound_jax.studies import arms, run

HERE = Path(__file__).parent


@pytest.mark.parametrize(('seed', 'times'), [(0, 12), *(pytest.param(seed, 40, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_a_killed_study_gives_the_same_table(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, seed: int, times: int) -> None:
    monkeypatch.setattr(arms, 'make', made_cells.make)
    whole = tmp_path / 'whole'
    run.run(made_cells.study(), workdir=whole, data=tmp_path)
    killed = tmp_path / 'killed'
    command = [sys.executable, str(HERE / 'made_cells.py'), str(killed), str(seed), str(times)]
    path = os.pathsep.join([str(root), str(HERE)])
    done = subprocess.run(command, env=os.environ | {'PYTHONPATH': path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 1  # the first one always strikes
    study = made_cells.study()
    assert made_cells.table_bytes(study, folder=killed) == made_cells.table_bytes(study, folder=whole)
    assert set(made_cells.table_bytes(study, folder=whole)) >= {f'{study.name}.{suffix}' for suffix in ('md', 'tex', 'csv', 'json')}
