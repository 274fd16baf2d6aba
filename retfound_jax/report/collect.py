"""Reads everything a report shows from the directories it is given. What is absent is None; what is damaged is an error.

Letters: N images, S score columns, Y label columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retfound_jax.core import goodput
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import read_json
from retfound_jax.core.runlog import read_metrics
from retfound_jax.report.tables import Tables, checked, read_tables

_SPLITS = ('test', 'external', 'val', 'train')  # which evaluated split the page is about: the first there is
_STAGES = ('photograph', 'masked', 'reconstruction')
_PNG = b'\x89PNG\r\n\x1a\n'


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One logged number over the steps of a run; steps at which it was not finite are left out."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Triple:
    """A photograph, what the model was shown of it, and what it drew; PNG bytes each."""

    photograph: bytes
    masked: bytes
    reconstruction: bytes


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What a training run left behind."""

    path: Path
    config: Mapping[str, Any]  # {} where there is none
    curves: Mapping[str, Curve]
    account: goodput.Account | None  # where the time went; None where none was kept
    seconds: float | None  # of all its starts, or from the first to the last logged step where no account was kept
    environment: Mapping[str, Any]  # environment.json: command, versions, hardware; {} where there is none
    triples: tuple[Triple, ...]

    @property
    def is_pretraining(self) -> bool:
        """Whether it learned from photographs without labels."""
        return bool(self.task_class) and not self.config['task'].get('labels')

    @property
    def task_class(self) -> str:
        """The name of the task's class, '' where the run recorded none."""
        return _class_name(self.config.get('task'))


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """`predictions/SPLIT.parquet` as arrays; a missing label is NaN."""

    kind: str
    classes: tuple[str, ...]
    labels: tuple[str, ...]
    key: np.ndarray
    label_NY: np.ndarray
    score_NS: np.ndarray
    fingerprint: str
    step: int | None


@dataclass(frozen=True, kw_only=True)
class Collected:
    """All that a report is made from."""

    run: TrainingRun | None  # the adapted model; None where the directory is a pretraining run
    pretrain: TrainingRun | None
    manifest: Mapping[str, Any] | None
    tables: Tables | None
    predictions: Predictions | None
    other_splits: tuple[Tables, ...]


def collect(workdir: Path, *, pretrain: Path | None, dataset: Path | None) -> Collected:
    """Reads a run directory and what belongs to it.

    Raises:
      UsageError: a directory does not exist or is not what it was given as.
      UserError: a file in it is damaged.
    """
    run = read_run(workdir)
    before = read_run(pretrain) if pretrain else None
    if run.is_pretraining and before is None:
        run, before = None, run
    every = _tables(workdir)
    manifest = read_manifest(dataset) if dataset else None
    predictions = read_predictions(workdir / 'predictions' / f'{every[0].name}.parquet') if every else None
    return Collected(
        run=run,
        pretrain=before,
        manifest=manifest,
        tables=every[0] if every else None,
        predictions=predictions,
        other_splits=tuple(every[1:]),
    )


def read_run(path: Path) -> TrainingRun:
    """Reads `config.json`, `metrics.jsonl`, `environment.json` and the reconstruction triples; any of them may be absent."""
    if not path.is_dir():
        raise UsageError(f'{path} is not a directory; give the --workdir of a training run')
    config = _json_object(path / 'config.json')
    if not config and not (path / 'metrics.jsonl').exists() and not (path / 'tables').exists():
        raise UsageError(f'{path} is not a run directory (it has no config.json, metrics or tables); give the --workdir of a training run')
    rows = read_metrics(path)
    account = goodput.read(path)
    logged = checked(path / 'metrics.jsonl', lambda: _seconds(rows), hint='remove the damaged lines')
    return TrainingRun(
        path=path,
        config=config,
        curves=checked(path / 'metrics.jsonl', lambda: _curves(rows), hint='remove the damaged lines'),
        account=account,
        seconds=account.total - account.seconds[goodput.DOWN] if account else logged,
        environment=_json_object(path / 'environment.json'),
        triples=_triples(path / 'figures'),
    )


def read_manifest(dataset: Path) -> Mapping[str, Any]:
    """Reads the manifest of a dataset directory."""
    path = dataset / 'manifest.json'
    if not path.exists():
        raise UsageError(f'{dataset} is not a dataset (it has no manifest.json); give the --out of `retfound ingest`')
    manifest = _json_object(path)
    if not isinstance(manifest.get('splits'), dict) or not all(isinstance(split, dict) for split in manifest['splits'].values()):
        raise UserError(f'{path} is damaged or of another version (it names no splits); run `retfound ingest` again')
    return manifest


def read_predictions(path: Path) -> Predictions | None:
    """Reads one split's predictions; None where the file is absent."""
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f'{path} is not a readable parquet file ({error}); run `retfound evaluate` again') from error
    return checked(path, lambda: _predictions(table), hint='run `retfound evaluate` again')


def _predictions(table: pa.Table) -> Predictions:
    meta = json.loads((table.schema.metadata or {})[b'retfound'])
    kind, labels, classes = meta['kind'], tuple(map(str, meta['labels'])), tuple(map(str, meta['classes'] or ()))
    label_names = [f'label:{name}' for name in labels] if kind == 'multi' else ['label']
    score_names = ['score'] if kind == 'regress' else [f'score:{name}' for name in (classes or labels)]
    label_NY = _columns(table, label_names)
    return Predictions(
        kind=kind,
        classes=classes,
        labels=labels,
        key=np.asarray(table.column('key').to_pylist(), dtype=object),
        label_NY=np.where(label_NY < 0, np.nan, label_NY) if kind in ('single', 'ordinal') else label_NY,
        score_NS=_columns(table, score_names),
        fingerprint=str(meta.get('dataset_fingerprint', '')),
        step=meta.get('step'),
    )


def _columns(table: pa.Table, names: list[str]) -> np.ndarray:
    return np.stack([table.column(name).to_numpy().astype(np.float64) for name in names], axis=1)


def _tables(workdir: Path) -> list[Tables]:
    """Every evaluated split, the one the page is about first: the run's own before those of other datasets."""
    every = [read_tables(path) for path in sorted((workdir / 'tables').glob('metrics_*.json'))]
    order = {split: at for at, split in enumerate(_SPLITS)}
    return sorted(every, key=lambda tables: (tables.external, order.get(tables.split, 1), tables.name))


def _curves(rows: list[dict]) -> dict[str, Curve]:
    points: dict[str, dict[int, float]] = {}
    for row in rows:
        if row['value'] is not None and np.isfinite(float(row['value'])):
            points.setdefault(str(row['name']), {})[int(row['step'])] = float(row['value'])  # a resumed run may log a step twice
    return {name: Curve(steps=np.array(sorted(one)), values=np.array([one[step] for step in sorted(one)])) for name, one in points.items()}


def _seconds(rows: list[dict]) -> float | None:
    times = [float(row['wall_time']) for row in rows]
    return max(times) - min(times) if len(times) > 1 else None


def _triples(folder: Path) -> tuple[Triple, ...]:
    """Only whole triples: a file that is absent or no PNG (a run stopped while drawing) leaves its triple out."""
    made = []
    for first in sorted(folder.glob(f'triple_*_{_STAGES[0]}.png')):
        stem = first.name.removesuffix(f'{_STAGES[0]}.png')
        paths = [folder / f'{stem}{stage}.png' for stage in _STAGES]
        found = [path.read_bytes() for path in paths if path.exists()]
        if len(found) == len(_STAGES) and all(data.startswith(_PNG) for data in found):
            made.append(Triple(**dict(zip(_STAGES, found, strict=True))))
    return tuple(made)


def _json_object(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f'{path} holds no JSON object; it is damaged, or not a file of this library')
    return found


def _class_name(value: Any) -> str:
    return str(value.get('type', '')).rpartition(':')[2] if isinstance(value, Mapping) else ''
