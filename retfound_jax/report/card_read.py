"""What a card reads besides the report's tables: fairness, failing groups, power, uncertainty, and which weights these are.

An evaluation of an earlier version lacks some of it: then it is None, and the card says that it is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retfound_jax.core.files import read_json
from retfound_jax.report.tables import Tables, checked, read_tables

_AGAIN = 'run `retfound evaluate` again'


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Best minus worst group of a column, beside what chance alone would give."""

    by: str
    target: str
    metric: str
    groups: int
    best: str
    worst: str
    gap: float | None
    low: float | None
    high: float | None
    by_chance: float | None  # expected where no group differs
    p_holm: float | None
    detectable: float | None  # smallest true gap seen with 80 % power


@dataclass(frozen=True, kw_only=True)
class Failing:
    """A group that does worse than the rest, with how far chance explains it."""

    by: str
    group: str
    target: str
    metric: str
    value: float | None
    rest: float | None
    shortfall: float | None
    low: float | None
    high: float | None
    p_holm: float | None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluated split."""

    name: str  # of the file: SPLIT, or DATASET-SPLIT for another dataset
    external: bool  # judged on another dataset than the run's own
    tables: Tables
    step: int | None
    gaps: tuple[Gap, ...] | None
    failing: tuple[Failing, ...] | None
    power: tuple[str, ...] | None  # sentences
    uncertainty: Mapping[str, Any] | None  # tables/uncertainty_SPLIT.json

    @property
    def dataset(self) -> str:
        """The other dataset's name, '' where it is the run's own."""
        return self.name.removesuffix(f'-{self.tables.split}') if self.external else ''


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The checkpoint that was evaluated."""

    step: int
    sha256: str  # of the sorted list of its files with their own SHA-256; '' where the checkpoint keeps no such list
    files: int
    bytes: int


def read_evaluations(workdir: Path) -> tuple[Evaluation, ...]:
    """Every evaluated split: the run's own first, test before the others.

    Raises:
      UserError: a table is damaged or of another shape.
    """
    found = [_evaluation(path) for path in sorted((workdir / 'tables').glob('metrics_*.json'))]
    order = ('test', 'external', 'val', 'train')
    return tuple(sorted(found, key=lambda one: (one.external, order.index(one.name) if one.name in order else 1, one.name)))


def read_weights(workdir: Path, *, step: int | None) -> Weights | None:
    """What the checkpoint of a step consists of; None where there is none, as where the weights were taken away.

    Raises:
      UserError: its list of files is damaged.
    """
    path = workdir / 'checkpoints' / str(step) / 'files.json'
    if step is None or not path.parent.is_dir():
        return None
    if not path.exists():
        return Weights(step=step, sha256='', files=0, bytes=0)
    found = read_json(path)
    return checked(path, lambda: _weights(step, found['files']), hint='copy the checkpoint again')


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration, whatever the order and spacing of its file."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, separators=(',', ':'), ensure_ascii=True).encode()).hexdigest()


def _weights(step: int, files: Mapping[str, Any]) -> Weights:
    lines = ''.join(f'{item["sha256"]}  {name}\n' for name, item in sorted(files.items()))
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return Weights(step=step, sha256=digest, files=len(files), bytes=sum(int(item['bytes']) for item in files.values()))


def _evaluation(path: Path) -> Evaluation:
    tables = read_tables(path)
    raw = read_json(path)
    name = path.stem.removeprefix('metrics_')
    beside = path.with_name(f'uncertainty_{name}.json')
    return checked(
        path,
        lambda: Evaluation(
            name=name,
            external=name != tables.split and name.endswith(f'-{tables.split}'),
            tables=tables,
            step=None if raw.get('step') is None else int(raw['step']),
            gaps=_all(raw.get('fairness'), _gap, level=tables.level),
            failing=_all(raw.get('failing'), _failing, level=tables.level),
            power=_all(raw.get('power'), lambda one: str(one['sentence']), level=tables.level),
            uncertainty=_object(read_json(beside)) if beside.exists() else None,
        ),
        hint=_AGAIN,
    )


def _all(found: Any, make: Any, *, level: str) -> tuple[Any, ...] | None:
    return None if found is None else tuple(make(one) for one in found if one.get('level', level) == level)


def _gap(one: Mapping[str, Any]) -> Gap:
    numbers = {name: _number(one.get(name)) for name in ('gap', 'low', 'high', 'by_chance', 'p_holm', 'detectable')}
    words = {name: str(one.get(name) or '') for name in ('by', 'target', 'metric', 'best', 'worst')}
    return Gap(groups=int(one['groups']), **words, **numbers)


def _failing(one: Mapping[str, Any]) -> Failing:
    numbers = {name: _number(one.get(name)) for name in ('value', 'rest', 'shortfall', 'low', 'high', 'p_holm')}
    return Failing(**{name: str(one[name]) for name in ('by', 'group', 'target', 'metric')}, **numbers)


def _object(found: Any) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise TypeError('its uncertainty table is no JSON object')
    return found


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
