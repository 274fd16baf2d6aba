"""From finished cells to the rows of a table: the seeds of one arm become one row, with both intervals.

A table is made from results alone, so the same results give the same bytes. Rows stand in the order of their names, never of the disk.

Letters: S seeds, R replicates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json
from retfound_jax.evals.bootstrap import patient_index, percentile_interval
from retfound_jax.evals.compare import METRICS, Resampled, resampled
from retfound_jax.evals.green_probe import green_median
from retfound_jax.evals.predictions import Predictions, read_predictions
from retfound_jax.evals.stats import seed_mean
from retfound_jax.evals.views import base_targets

RESULT = 'result.json'
AGAIN = 'delete the folder and run the study again'
MACRO = 'macro'
GREEN = 'median AUROC'  # RETFound-Green's, with the interval over patients of the AUROC itself


@dataclasses.dataclass(frozen=True, kw_only=True)
class Key:
    """What the seeds of one row share."""

    study: str
    train_on: str
    test_on: str
    method: str
    adaptation: str
    fraction: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """What a number was made with: all that a verdict must know."""

    weights: str = ''  # name of the checkpoint it began from; '' random
    pretrained_on: tuple[str, ...] = ()
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # width, depth, patch, image_size, parameters
    images: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)  # dataset -> images of train, val, test
    drawn: tuple[str, ...] = ()  # datasets that are drawn by the phantom


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """One finished cell."""

    folder: Path
    train_on: str
    test_on: tuple[str, ...]
    study: str
    method: str
    adaptation: str
    fraction: float
    seed: int
    fingerprint: str
    origin: Origin
    metrics: Mapping[str, Mapping[str, float | None]]  # of each test_on, and of `train` for the overfitting gap
    seconds: float

    def predictions(self, test_on: str) -> Path:
        """The file of one test set."""
        return self.folder / 'predictions' / f'{test_on}.parquet'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One number of a table, over the seeds of one arm. NaN where it is undefined."""

    study: str
    train_on: str
    test_on: str
    method: str
    adaptation: str
    fraction: float
    metric: str
    n_seeds: int
    mean: float
    se_low: float  # mean -/+ 1.96 SE over seeds, as the papers have it
    se_high: float
    boot_low: float  # over patients, the trained models fixed
    boot_high: float
    per_seed: tuple[float, ...]
    n_images: int
    n_patients: int
    label: str = ''  # what is learned: the label, and of several each target itself
    target: str = MACRO
    seeds: tuple[int, ...] = ()
    origin: Origin = Origin()

    @property
    def drawn(self) -> tuple[str, ...]:
        """Of the datasets of this row, those that the phantom drew."""
        return tuple(name for name in dict.fromkeys((self.train_on, self.test_on)) if name in self.origin.drawn)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """What a study's numbers are of, and what they are set against."""

    reference: str = ''  # the method that the others are compared to; '' no comparison
    metrics: tuple[str, ...] = ('AUROC',)
    targets: tuple[str, ...] = ()  # () the macro mean, and of several labels each as well
    level: str = 'image'  # or patient
    by_patient: tuple[str, ...] = ()  # targets that are of a person and judged so, where `level` is image
    replicates: int = 1000
    seed: int = 0

    def level_of(self, target: str) -> str:
        """By what a target is judged: image or patient."""
        return 'patient' if target in self.by_patient else self.level

    @property
    def words(self) -> str:
        """By what is judged, in words."""
        return f'{self.level} ({", ".join(self.by_patient)} by patient)' if self.by_patient else self.level


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """The cells of one row, by seed, read once; the same draws of patients for every arm on the same images."""

    key: Key
    results: tuple[Result, ...]
    judged: Judged
    files: tuple[Predictions, ...]
    _known: dict[tuple[str, str], Resampled] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def seeds(self) -> tuple[int, ...]:
        """In rising order."""
        return tuple(result.seed for result in self.results)

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets asked for that these predictions have."""
        base = base_targets(self.files[0])
        every = (*base, MACRO) if self.files[0].kind == 'multi' and len(base) > 1 else (MACRO,)
        return self.judged.targets or every

    def resampled(self, target: str, metric: str) -> Resampled:
        """The metric of each seed with its replicates."""
        if (target, metric) not in self._known:
            judged = self.judged
            self._known[target, metric] = resampled(
                self.files, target=target, metric=metric, level=judged.level_of(target), replicates=judged.replicates, seed=judged.seed
            )
        return self._known[target, metric]

    def row(self, target: str, metric: str) -> Row:
        """The row of one number."""
        return _row(self, target, metric)

    def train_metric(self, metric: str) -> tuple[float, ...] | None:
        """The metric of each seed on its own training images; None where a cell did not keep it."""
        found = [result.metrics.get('train', {}).get(metric) for result in self.results]
        return None if None in found else tuple(found)


def read_results(study: Path) -> tuple[Result, ...]:
    """Every finished cell of a study directory.

    Raises:
      UserError: there is none, a result is damaged, or two folders hold the same cell.
    """
    paths = sorted((study / 'cells').glob(f'*/{RESULT}'))
    if not paths:
        raise UserError(f'{study} holds no finished cell (cells/*/{RESULT}): run the study first, as in `retfound table NAME --run`')
    results = [_result(path) for path in paths]
    seen: dict[Any, Path] = {}
    for result in results:
        key = (*_spec(result), result.test_on)
        if key in seen:
            raise UserError(
                f'{result.folder} and {seen[key].name} hold the same cell made with different settings: delete the one that is out of date'
            )
        seen[key] = result.folder
    return tuple(results)


def arms(results: Iterable[Result], *, judged: Judged) -> tuple[Arm, ...]:
    """The seeds of each (trained on, tested on, method, adaptation, share of labels), in the order of these names."""
    grouped: dict[Key, list[Result]] = {}
    for result in results:
        for test_on in result.test_on:
            *where, seed = _spec(result)
            names = ('study', 'train_on', 'method', 'adaptation', 'fraction')
            grouped.setdefault(Key(test_on=test_on, **dict(zip(names, where, strict=True))), []).append(result)
    made = []
    for key in sorted(grouped, key=dataclasses.astuple):
        members = tuple(sorted(grouped[key], key=lambda result: result.seed))
        _alike(members)
        files = tuple(read_predictions(result.predictions(key.test_on)) for result in members)
        made.append(Arm(key=key, results=members, judged=judged, files=files))
    return tuple(made)


def make_rows(every: Sequence[Arm]) -> tuple[Row, ...]:
    """A row for each arm, target and metric."""
    return tuple(arm.row(target, metric) for arm in every for target in arm.targets for metric in arm.judged.metrics)


def _alike(members: Sequence[Result]) -> None:
    """A mean over seeds is of one thing: the weights they began from, the model and the test images may not change between them."""
    first = members[0].origin
    for other in members[1:]:
        for what in ('weights', 'model', 'drawn'):
            if getattr(other.origin, what) != getattr(first, what):
                folders = f'{members[0].folder} and {other.folder.name}'
                raise UserError(f'{folders} are seeds of one row but differ in {what}: for the one that is wrong, {AGAIN}')


def _row(arm: Arm, target: str, metric: str) -> Row:
    first = arm.files[0]
    if metric in (*METRICS, GREEN):
        found = arm.resampled(target, 'AUROC' if metric == GREEN else metric)
        per_seed, n_images, n_patients = found.per_seed, found.n_images, found.n_patients
        boot = found.interval()
        if metric == GREEN:
            per_seed = tuple(green_median(one, target=target) for one in arm.files)
    else:  # a number that the cell alone knows, such as one that needs a threshold
        per_seed = tuple(_stored(result, arm.key.test_on, metric) for result in arm.results)
        n_images, n_patients = len(first), patient_index(first.columns['patient'], key=first.columns['key'])[1]
        boot = percentile_interval([], value=math.nan)
    over = seed_mean(per_seed)
    return Row(
        **dataclasses.asdict(arm.key),
        metric=metric,
        label=target if first.kind == 'multi' and target != MACRO else ', '.join(first.labels),
        target=target,
        n_seeds=len(per_seed),
        mean=over.mean,
        se_low=over.low,
        se_high=over.high,
        boot_low=boot.low,
        boot_high=boot.high,
        per_seed=per_seed,
        n_images=n_images,
        n_patients=n_patients,
        seeds=arm.seeds,
        origin=arm.results[0].origin,
    )


def _stored(result: Result, test_on: str, metric: str) -> float:
    value = result.metrics.get(test_on, {}).get(metric, math.nan)
    return math.nan if value is None else float(value)


def _spec(result: Result) -> tuple[Any, ...]:
    return result.study, result.train_on, result.method, result.adaptation, result.fraction, result.seed


def _result(path: Path) -> Result:
    found = read_json(path)
    return _checked(path, lambda: _parsed(path, found))


def _parsed(path: Path, found: Mapping[str, Any]) -> Result:
    cell, datasets, weights = found['cell'], found['datasets'], found['weights']
    test_on = tuple(map(str, cell['test_on']))
    for name in test_on:
        if '/' in name or '\\' in name or name in ('', '.', '..'):
            raise ValueError(f'"{name}" is no name of a dataset')
    return Result(
        folder=path.parent,
        test_on=test_on,
        fraction=float(cell['fraction']),
        seed=int(cell['seed']),
        **{name: str(cell[name]) for name in ('study', 'train_on', 'method', 'adaptation')},
        fingerprint=str(found['fingerprint']),
        origin=Origin(
            weights=str(weights['name']),
            pretrained_on=tuple(map(str, weights['pretrained_on'])),
            model=dict(found['model']),
            images={str(name): {str(split): int(n) for split, n in one['images'].items()} for name, one in datasets.items()},
            drawn=tuple(sorted(str(name) for name, one in datasets.items() if one.get('drawn'))),
        ),
        metrics={str(name): dict(one) for name, one in found['metrics'].items()},
        seconds=float(found['seconds']),
    )


def _checked(path: Path, build: Callable[[], Result]) -> Result:
    try:
        return build()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f'it lacks {error}' if isinstance(error, KeyError) else str(error)
        raise UserError(f'{path} is damaged or of another version ({detail}): {AGAIN}') from error
