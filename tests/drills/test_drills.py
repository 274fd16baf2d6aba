"""The drills, as far as a test run has time for them; whole, they are programs, such as `python -m tests.drills.kill --n 100`."""

from __future__ import annotations

from pathlib import Path

import cycles
import hosts
import kill
import pytest


def test_a_run_killed_ten_times_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    counts = kill.drill(tmp_path, kills=10, seed=0)
    assert counts['kills'] == 10 and counts['runs'] >= 1


def test_two_processes_that_are_told_to_stop_go_on_bit_by_bit(tmp_path: Path) -> None:
    hosts.notice(hosts.Drill(tmp_path), steps=14, after=3, checkpoint_every=5, eval_every=-1)


@pytest.mark.slow
def test_two_processes_go_on_as_one_and_as_four(tmp_path: Path) -> None:
    hosts.resize(hosts.Drill(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize('rank', [0, 1])
def test_a_frozen_process_ends_the_other(tmp_path: Path, rank: int) -> None:
    limit = 15.0
    assert hosts.frozen(hosts.Drill(tmp_path), rank=rank, limit=limit) < limit + 15


@pytest.mark.slow
@pytest.mark.parametrize('workers', [0, 2])
def test_nothing_is_left_after_many_runs(tmp_path: Path, workers: int) -> None:
    early, late = cycles.drill(tmp_path, cycles=12, workers=workers)
    assert all(late[name] <= early[name] for name in early), (early, late)
