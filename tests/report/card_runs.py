"""Cards of runs made by code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import report_runs

from retfound_jax.core.files import read_json, write_json
from retfound_jax.report.card import Card, collect_card

COMMIT = '0123456789abcdef0123456789abcdef01234567'


def task_card(root: Path, kind: str = 'single', *, facts: str = '', dataset: dict[str, Any] | None = None, **names: Any) -> Card:
    """An evaluated run with its pretraining, its dataset and an owner's file."""
    run = report_runs.evaluated_run(root, kind, by=names.pop('by', ('sex', 'age_band')), replicates=names.pop('replicates', 8), **names)
    seal(run)
    written = None
    if facts:
        written = root / 'facts.toml'
        written.write_text(facts, encoding='utf-8')
    folder = report_runs.dataset_dir(root, **({'name': 'clinic', 'modality': {'CFP': 960}} | (dataset or {})))
    return collect_card(run, pretrain=report_runs.pretrain_run(root), dataset=folder, pretrain_dataset=folder, facts=written)


def seal(run: Path) -> None:
    """A checkpoint's lists and an environment, as training leaves them."""
    step = run / 'checkpoints' / '240'
    write_json(step / 'files.json', {'files': {'state/a': {'bytes': 7, 'sha256': 'a' * 64}, 'state/b': {'bytes': 5, 'sha256': 'b' * 64}}})
    write_json(step / 'origin.json', {'config': {}, 'data': 'c' * 64})
    facts = {'command': 'retfound train', 'hardware': '8 NVIDIA H100 80GB HBM3 device(s); 96 CPU cores', 'versions': {'jax': '0.10.2'}}
    write_json(run / 'environment.json', facts | {'code': {'commit': COMMIT, 'dirty': False}})


def change_table(run: Path, name: str = 'test', **changes: Any) -> dict[str, Any]:
    """Adds to, or changes, what an evaluation wrote."""
    path = run / 'tables' / f'metrics_{name}.json'
    table = read_json(path) | changes
    write_json(path, table)
    return json.loads(json.dumps(table))
