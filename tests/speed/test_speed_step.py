"""`retfound bench step`: its records say what was done, its table is read off them, its calls fail in one sentence."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.speed import flops, step
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
# A peer that answers as PyTorch's does, at once and always the same.
STAND_IN = """
import json, sys
for line in sys.stdin:
    do = json.loads(line)['do']
    about = {'gpu': False, 'dtype': 'float32', 'way': 'eager', 'tried': {}, 'setup_seconds': 1.0, 'parameters': 1, 'loss': 1.0}
    turn = {'seconds': 6.0, 'loss': 0.5, 'memory': 1000}
    print(json.dumps({'setup': about, 'turn': turn, 'matmul': {'rate': 1e9}}[do]), flush=True)
"""


def config(**optim: Any) -> TrainConfig:
    encoder = ViTConfig(image_size=32, patch_size=8, width=32, depth=2, heads=2)
    task = MAETask(model=MAEConfig(encoder=encoder, decoder_width=16, decoder_depth=1, decoder_heads=2))
    data = DataConfig(path='DATASET', image_size=32, batch_size=8)
    return TrainConfig(name='small', task=task, data=data, optim=OptimConfig(lr=1e-3, **optim), steps=100)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device's limits from small pieces: what they are is measured in another test."""
    monkeypatch.setattr(step.measure, '_MATMUL_SIZES', dict.fromkeys(('cpu', 'gpu', 'tpu'), (128,)))
    monkeypatch.setattr(step.measure, '_COPY_BYTES', dict.fromkeys(('cpu', 'gpu', 'tpu'), 2**16))


def test_records_hold_the_run_and_our_side() -> None:
    run, ours = step.bench(config(), plan=step.Plan(steps=2, turns=3))
    assert run['kind'] == 'run' and run['batch'] == 8 and run['dtype'] == 'float32' and run['versions']['jax'] == jax.__version__
    counted = flops.count(config().task)
    assert run['flops_per_image'] == {'forward': counted.forward, 'training': counted.training}
    assert len(ours['samples']) == 3 and ours['images_per_second'] == pytest.approx(8 / ours['step_seconds']['median'])
    assert ours['model_flops_per_second'] == pytest.approx(ours['images_per_second'] * counted.training)
    full = run['limits']['matmul_flops_per_second'] * run['devices']
    assert ours['mfu'] == pytest.approx(ours['model_flops_per_second'] / full)
    assert ours['memory']['bytes'] > 12 * run['parameters'] and ours['compile']['seconds'] > 0  # parameters and two moments, float32
    json.dumps([run, ours], allow_nan=False)


def test_a_peer_stands_beside_ours_with_a_ratio(tmp_path: Path) -> None:
    records = _beside(tmp_path, STAND_IN, modes=('published', 'best'))
    assert [record['kind'] for record in records] == ['run', 'side', 'side', 'side', 'ratio', 'ratio']
    ours, published, ratio = records[1], records[2], records[4]
    assert published['step_seconds']['median'] == 3.0 and published['memory'] == {'bytes': 1000, 'source': 'peak of the process'}
    ratios = sorted(3.0 / sample for sample in ours['samples'])
    assert ratios[0] <= ratio['ours_over_side']['low'] <= ratio['ours_over_side']['median'] <= ratios[-1]
    text = step.table(records)
    assert 'PyTorch as published' in text and 'PyTorch at its best' in text and 'times as fast as' in text
    assert records[0]['limits']['matmul_flops_per_second'] == max(records[0]['limits']['matmul_by_library'].values())
    assert max(map(len, text.splitlines())) < 160


def test_on_an_accelerator_peers_come_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each notes in a file when it begins and ends; ours takes its turns with either."""
    diary = tmp_path / 'diary'
    noted = f'print("+", file=open({str(diary)!r}, "a"), flush=True)' + STAND_IN
    monkeypatch.setattr(step, '_all_at_once', lambda: False)
    monkeypatch.setattr(step.Peer, 'close', _noting(step.Peer.close, diary))
    records = _beside(tmp_path, noted, modes=('published', 'best'))
    assert diary.read_text(encoding='utf-8').split() == ['+', '-', '+', '-']
    assert len(records[1]['samples']) == 4 and len(records[2]['samples']) == len(records[3]['samples']) == 2


def _noting(close: Any, diary: Path) -> Any:
    def noted(peer: Any) -> None:
        close(peer)
        with diary.open('a', encoding='utf-8') as file:
            file.write('-\n')

    return noted


def _beside(folder: Path, script: str, *, modes: tuple[str, ...]) -> list[step.Record]:
    """A bench whose peer is `script`: the interpreter it is started with runs that and not what it is given."""
    (folder / 'peer.py').write_text(script, encoding='utf-8')
    python = folder / 'python'
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/peer.py\n', encoding='utf-8')
    python.chmod(0o755)
    return step.bench(config(), plan=step.Plan(steps=2, turns=2, peer_modes=modes, peer_python=str(python)))


def test_a_step_that_diverges_is_no_measure() -> None:
    with pytest.raises(UserError, match='the loss is no longer finite'):
        step.bench(dataclasses.replace(config(), optim=OptimConfig(lr=1e30)), plan=step.Plan(steps=5, turns=1))


@pytest.mark.parametrize(
    ('changes', 'told'), [({'steps': 0}, 'measure nothing'), ({'peer_modes': ('fastest',)}, 'no mode "fastest"; it has published, best')]
)
def test_a_plan_that_makes_no_sense_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        step.Plan(**changes)


def retfound(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, '-m', 'retfound_jax', 'bench', 'step', *words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_verb_prints_a_table_and_writes_json_lines(tmp_path: Path) -> None:
    small = ['depth=1', 'width=32', 'heads=2']
    words = [word for change in small for word in ('--set', f'task.model.encoder.{change}')]
    file = tmp_path / 'out' / 'step.jsonl'
    words += ['--set', 'task.model.decoder_width=16', '--set', 'task.model.decoder_heads=2', '--batch', '4', '--steps', '1', '--turns', '2']
    done = retfound('--experiment', 'experiments.pretrain_mae:small_cpu', *words, '--json', str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('pretrain_mae_small_cpu: 4 images a step, float32, ') and 'matmul in float32' in done.stdout
    records = [json.loads(line) for line in file.read_text(encoding='utf-8').splitlines()]
    assert [record['kind'] for record in records] == ['run', 'side'] and records[0]['command'].endswith(f'--json {file}')


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['--experiment', 'experiments.pretrain_mae:no_such'], 'has no experiment "no_such"'),
        (['--experiment', 'experiments.pretrain_mae:small_cpu', '--batch', '0'], '--batch'),
        (['--experiment', 'experiments.pretrain_mae:small_cpu', '--peer', 'torch', '--peer_python', 'x', '--peer_modes', 'x'], 'no mode'),
    ],
)
def test_a_wrong_call_is_one_sentence(words: list[str], told: str) -> None:
    done = retfound(*words)
    assert done.returncode in (1, 2) and told in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr
