"""The metric tables that an evaluation wrote, read strictly: a file of another shape is an error, never a half-empty page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json
from retfound_jax.report.group_tables import Between, read_between
from retfound_jax.report.reading import real

MACRO = 'macro'
MISSING = 'missing'
GAP = 'gap (max-min)'
KINDS = ('single', 'multi', 'ordinal', 'regress')
JOINT = frozenset({'accuracy', 'balanced_accuracy', 'kappa_quadratic'})  # under `macro`, of all classes together
LOWER_IS_BETTER = frozenset({'MAE', 'RMSE', 'ECE', 'Brier'})
LEVELS = ('patient', 'image')  # the patient is what a clinician decides about, so it comes first
_T = TypeVar('_T')


@dataclass(frozen=True, kw_only=True)
class Row:
    """One metric of one target in one group."""

    level: str
    by: str
    group: str
    target: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n_images: int | None  # None where withheld, as the next two
    n_patients: int | None
    n_positive: int | None
    note: str

    @property
    def withheld(self) -> bool:
        """Whether it may not be shown, so that no small group is."""
        return self.value is None and self.note.startswith('withheld')


@dataclass(frozen=True, kw_only=True)
class Roc:
    """A receiver operating characteristic with its pointwise band."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    auroc: float | None
    auroc_low: float | None
    auroc_high: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Stated probability against observed share, in bins that hold at least one case."""

    stated: tuple[float, ...]
    observed: tuple[float, ...]
    n: tuple[int, ...]
    ece: float | None
    brier: float | None


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts: rows true, columns predicted."""

    classes: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    target: str  # '' where it is of all classes together
    rule: str


@dataclass(frozen=True, kw_only=True)
class Tables:
    """`tables/metrics_SPLIT.json`; curves and matrices by level, then target."""

    kind: str
    split: str
    fingerprint: str
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    by: tuple[str, ...]
    thresholds: Mapping[str, Mapping[str, Any]]
    replicates: int
    interval: float  # level of the intervals, such as 0.95
    min_n: int
    rows: tuple[Row, ...]
    confusion: Mapping[str, tuple[Confusion, ...]]
    roc: Mapping[str, Mapping[str, Roc]]
    calibration: Mapping[str, Mapping[str, Calibration]]
    notes: tuple[str, ...]
    between: Between  # what was found between groups
    name: str = ''  # of the file: SPLIT, or DATASET-SPLIT for another dataset

    @property
    def external(self) -> bool:
        """Whether another dataset than the run's own was judged."""
        return self.name != self.split and self.name.endswith(f'-{self.split}')

    @property
    def targets(self) -> tuple[str, ...]:
        """Single targets in the order of the file, without `macro`."""
        return tuple(dict.fromkeys(row.target for row in self.rows if row.target != MACRO))

    @property
    def overall(self) -> str:
        """The target that speaks for the whole: the only one, or `macro`."""
        return self.targets[0] if len(self.targets) == 1 else MACRO

    @property
    def level(self) -> str:
        """The level to show first."""
        return next((level for level in LEVELS if any(row.level == level for row in self.rows)), LEVELS[0])

    @property
    def metric(self) -> str:
        """The metric that speaks for the whole."""
        wanted = {'regress': ('MAE',), 'ordinal': ('kappa_quadratic', 'AUROC')}.get(self.kind, ('AUROC',))
        return next((name for name in wanted if self.find(metric=name) is not None), wanted[-1])

    def find(self, *, metric: str, target: str = '', by: str = '', group: str = '', level: str = '') -> Row | None:
        """The row asked for; the overall target and the first level where left out."""
        wanted = (level or self.level, by, group, target or self.overall, metric)
        return next((row for row in self.rows if (row.level, row.by, row.group, row.target, row.metric) == wanted), None)

    def groups(self, by: str) -> tuple[str, ...]:
        """Groups of a column in the order of the file; the gap between them is none."""
        return tuple(dict.fromkeys(row.group for row in self.rows if row.by == by and row.group != GAP))


def read_tables(path: Path) -> Tables:
    """Reads one file.

    Raises:
      UserError: it is damaged or of another shape.
    """
    found = read_json(path)
    return checked(path, lambda: _tables(found, name=path.stem.removeprefix('metrics_')), hint='run `retfound evaluate` again')


def checked(path: Path, build: Callable[[], _T], *, hint: str) -> _T:
    """Runs `build` and turns what a wrong shape raises into one sentence that names the file."""
    try:
        return build()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        detail = f'it lacks {error}' if isinstance(error, KeyError) else str(error)
        raise UserError(f'{path} is damaged or of another version ({detail}); {hint}') from error


def _tables(found: Any, *, name: str) -> Tables:
    kind = found['kind']
    if kind not in KINDS:
        raise ValueError(f'its kind is {kind!r}, not one of {", ".join(KINDS)}')
    rows = tuple(_row(row) for row in found['rows'])
    return Tables(
        kind=kind,
        split=str(found['split']),
        fingerprint=str(found.get('dataset_fingerprint', '')),
        labels=tuple(map(str, found['labels'])),
        classes=tuple(map(str, found.get('classes') or ())),
        by=tuple(dict.fromkeys(row.by for row in rows if row.by)),
        thresholds={str(target): dict(entry) for target, entry in found.get('threshold', {}).items()},
        replicates=int(found['bootstrap']['n']),
        interval=float(found['bootstrap']['level']),
        min_n=int(found['min_n']),
        rows=rows,
        confusion={str(level): _confusions(entry) for level, entry in found.get('confusion', {}).items()},
        roc=_by_level(found.get('roc', {}), _roc),
        calibration=_by_level(found.get('calibration', {}), _calibration),
        notes=tuple(map(str, found.get('notes', ()))),
        between=read_between(found),
        name=name,
    )


def _row(row: Mapping[str, Any]) -> Row:
    numbers = {name: real(row[name]) for name in ('value', 'low', 'high')}
    counts = {name: None if row[name] is None else int(row[name]) for name in ('n_images', 'n_patients')}
    text = {name: str(row[name]) for name in ('level', 'by', 'group', 'target', 'metric', 'note')}
    positive = row.get('n_positive')
    return Row(**text, **numbers, **counts, n_positive=None if positive is None else int(positive))


def _by_level(found: Mapping[str, Any], make: Callable[[Mapping[str, Any]], _T]) -> dict[str, dict[str, _T]]:
    """An entry is of images and may carry the patients' own under `patient`."""
    out: dict[str, dict[str, _T]] = {level: {} for level in LEVELS}
    for target, entry in found.items():
        for level, curve in (('image', entry), ('patient', entry.get('patient'))):
            if curve is not None:
                out[level][str(target)] = make(curve)
    return out


def _roc(entry: Mapping[str, Any]) -> Roc:
    low, high = entry.get('low') or (), entry.get('high') or ()
    band = {'low': _floats(low), 'high': _floats(high)} if None not in (*low, *high) else {'low': (), 'high': ()}
    curve = {name: _floats(entry[name]) for name in ('fpr', 'tpr')} | band
    if len({len(values) for values in curve.values() if values}) > 1:
        raise ValueError('a ROC curve has columns of different length')
    return Roc(**curve, **{name: real(entry.get(name)) for name in ('auroc', 'auroc_low', 'auroc_high')})


def _calibration(entry: Mapping[str, Any]) -> Calibration:
    bins = [one for one in entry['bins'] if one['n'] and one['fraction_positive'] is not None]
    return Calibration(
        stated=_floats(one['mean_score'] for one in bins),
        observed=_floats(one['fraction_positive'] for one in bins),
        n=tuple(int(one['n']) for one in bins),
        ece=real(entry.get('ECE')),
        brier=real(entry.get('Brier')),
    )


def _confusions(entry: Mapping[str, Any]) -> tuple[Confusion, ...]:
    matrices = entry.get('matrices', {'': entry['matrix']} if 'matrix' in entry else {})
    classes, rule = tuple(map(str, entry['classes'])), str(entry.get('rule', ''))
    made = []
    for target, matrix in matrices.items():
        counts = tuple(tuple(int(count) for count in row) for row in matrix)
        if len(counts) != len(classes) or any(len(row) != len(classes) for row in counts):
            raise ValueError(f'a confusion matrix does not fit its {len(classes)} classes')
        made.append(Confusion(classes=classes, matrix=counts, target=str(target), rule=rule))
    return tuple(made)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
