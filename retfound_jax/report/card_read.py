"""What a card reads besides the report's tables: fairness, failing groups, power, uncertainty, and which weights these are.

An evaluation of an earlier version lacks some of it: then it is None, and the card says that it is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from retfound_jax.core.files import read_json
from retfound_jax.report.group_tables import Failing, Gap, Power
from retfound_jax.report.remedies import Remedy, read_remedies
from retfound_jax.report.tables import Tables, checked, read_tables
from retfound_jax.report.uncertainty_tables import Uncertainty, read_uncertainty

_Found = TypeVar('_Found', Failing, Gap, Power)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluated split. What an earlier version did not look for between groups is None, not empty."""

    tables: Tables
    step: int | None
    uncertainty: Uncertainty | None  # tables/uncertainty_SPLIT.json
    remedies: tuple[Remedy, ...] | None  # tables/mitigation_SPLIT.json

    @property
    def name(self) -> str:
        """Of the file: SPLIT, or DATASET-SPLIT for another dataset."""
        return self.tables.name

    @property
    def external(self) -> bool:
        """Whether another dataset than the run's own was judged."""
        return self.tables.external

    @property
    def dataset(self) -> str:
        """The other dataset's name, '' where it is the run's own."""
        return self.name.removesuffix(f'-{self.tables.split}') if self.external else ''

    @property
    def gaps(self) -> tuple[Gap, ...] | None:
        """Best minus worst group of each column, at the level that is shown first, as are the next two."""
        return self._shown(self.tables.between.gaps)

    @property
    def failing(self) -> tuple[Failing, ...] | None:
        """Groups held against all others, the strongest evidence first."""
        return self._shown(self.tables.between.failing)

    @property
    def power(self) -> tuple[Power, ...] | None:
        """What could not have been seen in each group."""
        return self._shown(self.tables.between.power)

    def _shown(self, found: tuple[_Found, ...] | None) -> tuple[_Found, ...] | None:
        return None if found is None else tuple(one for one in found if one.level == self.tables.level)


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
    paths = sorted((workdir / 'tables').glob('metrics_*.json'))
    found = [_evaluation(path) for path in paths if not path.stem.startswith('metrics_ensemble-')]  # a card is of one model
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
    step = read_json(path).get('step')
    return checked(
        path,
        lambda: Evaluation(
            tables=tables,
            step=None if step is None else int(step),
            uncertainty=read_uncertainty(path.with_name(f'uncertainty_{tables.name}.json')),
            remedies=read_remedies(path.with_name(f'mitigation_{tables.name}.json')),
        ),
        hint='run `retfound evaluate` again',
    )
