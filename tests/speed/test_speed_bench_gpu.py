"""launch/bench_gpu on the CPU: every part at a tiny size, and what its table says of parts that were skipped or that failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / 'launch' / 'bench_gpu'


def call(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), '--out', str(out), '--rehearse', *words]
    return subprocess.run(command, cwd=out.parent, capture_output=True, text=True, check=False, timeout=600)


def test_script_can_be_executed_and_tells_its_flags() -> None:
    assert os.access(SCRIPT, os.X_OK)
    done = subprocess.run([sys.executable, str(SCRIPT), '--help'], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and '--rehearse' in done.stdout


def test_parts_that_the_time_is_too_short_for_are_skipped_by_name(tmp_path: Path) -> None:
    done = call(tmp_path / 'out', '--seconds', '5')
    assert done.returncode == 0, done.stderr
    table = (tmp_path / 'out' / 'table.txt').read_text(encoding='utf-8').splitlines()
    assert table.pop(0).startswith('REHEARSAL')
    assert [line.split(':')[0] for line in table if 'SKIPPED' in line] == [line.split(':')[0] for line in table]
    layout = 'mae, batch 256, remat dots, attention plain, scan'
    for name in ('parity', layout, 'mae beside PyTorch, published', 'finetune beside PyTorch, best', 'loader'):
        assert any(line.startswith(f'{name}: SKIPPED') for line in table), name
    assert (tmp_path / 'out' / 'results.jsonl').read_text(encoding='utf-8') == ''


def test_a_folder_without_wheels_is_one_sentence(tmp_path: Path) -> None:
    done = call(tmp_path / 'out', '--wheels', str(tmp_path))
    assert done.returncode == 1 and 'has no wheels' in done.stderr and 'Traceback' not in done.stderr


@pytest.mark.slow
def test_a_part_that_fails_says_why_and_the_next_one_runs(tmp_path: Path) -> None:
    layout = 'mae, batch 256, remat dots, attention plain, scan'
    done = call(tmp_path / 'out', '--only', layout, 'mae beside', '--peer_python', str(tmp_path / 'nowhere'))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / 'out' / 'table.txt').read_text(encoding='utf-8')
    assert 'mae beside PyTorch, published: FAILED' in table and 'could not be started' in table
    assert 'images/s' in table and 'goal 55 %' in table
    records = [json.loads(line) for line in (tmp_path / 'out' / 'results.jsonl').read_text(encoding='utf-8').splitlines()]
    assert {record['part'] for record in records} == {layout}


@pytest.mark.slow
@pytest.mark.oracle
def test_every_part_runs_at_a_tiny_size(tmp_path: Path) -> None:
    done = call(tmp_path / 'out', '--seconds', '580')
    assert done.returncode == 0, done.stderr
    table = (tmp_path / 'out' / 'table.txt').read_text(encoding='utf-8')
    assert 'FAILED' not in table and 'STOPPED' not in table and 'SKIPPED' not in table
    peers = [f'{task} beside PyTorch, {mode}' for task in ('mae', 'finetune') for mode in ('published', 'best')]
    assert all(name in table for name in ('parity, bfloat16', *peers, 'loader'))
