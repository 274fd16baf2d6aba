"""`tables/uncertainty_SPLIT.json`, read strictly: when the model should stay silent, as an evaluation measured it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retfound_jax.core.files import read_json
from retfound_jax.report.reading import real
from retfound_jax.report.tables import checked

METRICS = ('AUROC', 'sensitivity', 'specificity', 'accuracy')


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """A value with its interval; None where there is none."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """One number that divides the logits, and what it does to the judged images."""

    value: float | None
    before: Mapping[str, float | None]  # ECE, NLL, Brier
    after: Mapping[str, float | None]
    change: Mapping[str, Bounded]
    note: str


@dataclass(frozen=True, kw_only=True)
class Covered:
    """How often the sets of some patients hold the truth."""

    level: str
    target: str
    method: str
    alpha: float
    kind: str  # whose validation patients set the threshold: overall, by_group, by_class
    by: str
    group: str
    n: int | None
    coverage: Bounded
    expected: tuple[float, float] | None  # where chance alone puts it; None where nothing is promised
    mean_size: float | None
    empty: float | None
    both: float | None
    p_holm: float | None  # of so low a coverage by chance; None where it was not tested
    note: str


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Performance of those who are not referred."""

    referred: float
    n: int
    metrics: Mapping[str, Bounded]


@dataclass(frozen=True, kw_only=True)
class Order:
    """How well an uncertainty puts wrong decisions last: the area under risk and coverage between those of a perfect and a random order."""

    area: Bounded
    best: float | None
    random: float | None
    merit: float | None


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of a group's patients; `rest` and the corrected p value where everybody else was compared."""

    method: str
    by: str
    group: str
    n: int | None
    share: Bounded
    rest: float | None
    p_holm: float | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Strange:
    """Photographs unlike those of training."""

    false_alarm: float
    n_train: int
    rows: tuple[Share, ...]


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """The whole file; mappings are by target."""

    level: float
    min_n: int
    temperature: Mapping[str, Temperature]
    conformal: tuple[Covered, ...]
    referral: Mapping[str, tuple[Kept, ...]]
    ordered_by: Mapping[str, str]
    orders: Mapping[str, Mapping[str, Order]]
    single: Mapping[str, Kept]
    referred_by: Mapping[str, tuple[Share, ...]]
    strange: Strange | None

    @property
    def targets(self) -> tuple[str, ...]:
        """Of the conformal sets, in the order of the file."""
        return tuple(dict.fromkeys(row.target for row in self.conformal))

    @property
    def alpha(self) -> float:
        """The share that may miss the truth, of the sets to show first."""
        return self.conformal[0].alpha

    def method(self, target: str) -> str:
        """The score to show first."""
        return next(row.method for row in self.conformal if row.target == target)

    def covered(self, target: str, *, kind: str, by: str = '', group: str = '', level: str = 'patient') -> Covered | None:
        """The row asked for, of the first score and share."""
        wanted = (level, target, self.method(target), self.alpha, kind, by, group)
        rows = (row for row in self.conformal if (row.level, row.target, row.method, row.alpha, row.kind, row.by, row.group) == wanted)
        return next(rows, None)

    def groups(self, by: str) -> tuple[str, ...]:
        """Groups of a column in the order of the file."""
        return tuple(dict.fromkeys(row.group for row in self.conformal if row.by == by))


def read_uncertainty(path: Path) -> Uncertainty | None:
    """Reads one file; None where it is absent.

    Raises:
      UserError: it is damaged or of another shape.
    """
    if not path.exists():
        return None
    found = read_json(path)
    return checked(path, lambda: _uncertainty(found), hint='run `retfound evaluate` again')


def _uncertainty(found: Any) -> Uncertainty:
    return Uncertainty(
        level=float(found['level']),
        min_n=int(found['min_n']),
        temperature={str(target): _temperature(entry) for target, entry in found['temperature'].items()},
        conformal=tuple(_covered(row) for row in found['conformal']),
        referral={str(target): tuple(map(_kept, rows)) for target, rows in found['referral'].items()},
        ordered_by={str(target): str(name) for target, name in found['ordered_by'].items()},
        orders={str(target): {str(name): _order(one) for name, one in every.items()} for target, every in found['risk_coverage'].items()},
        single={str(target): _kept(entry) for target, entry in found['single'].items() if entry},
        referred_by={str(target): tuple(_share(row, 'referred') for row in rows) for target, rows in found['referred_by'].items()},
        strange=_strange(found['ood']) if found['ood'] else None,
    )


def _bounded(entry: Mapping[str, Any], name: str = 'value') -> Bounded:
    return Bounded(value=real(entry[name]), low=real(entry['low']), high=real(entry['high']))


def _temperature(entry: Mapping[str, Any]) -> Temperature:
    names = [name.removesuffix('_before') for name in entry if name.endswith('_before')]
    return Temperature(
        value=real(entry['T']),
        before={name: real(entry[f'{name}_before']) for name in names},
        after={name: real(entry[f'{name}_after']) for name in names},
        change={name: _bounded(entry[f'{name}_change']) for name in names if f'{name}_change' in entry},
        note=str(entry['note']),
    )


def _covered(row: Mapping[str, Any]) -> Covered:
    low, high = real(row['expected_low']), real(row['expected_high'])
    return Covered(
        coverage=_bounded(row, 'coverage'),
        expected=None if low is None or high is None else (low, high),
        alpha=float(row['alpha']),
        n=_count(row['n']),
        **{name: real(row[name]) for name in ('mean_size', 'empty', 'both', 'p_holm')},
        **{name: str(row[name]) for name in ('level', 'target', 'method', 'kind', 'by', 'group', 'note')},
    )


def _kept(row: Mapping[str, Any]) -> Kept:
    names = [name for name in row['low'] if name in row]
    metrics = {name: Bounded(value=real(row[name]), low=real(row['low'][name]), high=real(row['high'][name])) for name in names}
    return Kept(referred=float(row['referred']), n=int(row['kept_n']), metrics=metrics)


def _order(entry: Mapping[str, Any]) -> Order:
    best, random, merit = (real(entry[name]) for name in ('best', 'random', 'share_of_best'))
    return Order(area=_bounded(entry), best=best, random=random, merit=merit)


def _share(row: Mapping[str, Any], name: str) -> Share:
    return Share(
        share=_bounded(row, name),
        n=_count(row['n']),
        rest=real(row.get('rest')),
        p_holm=real(row.get('p_holm')),
        method=str(row.get('method', '')),
        **{word: str(row[word]) for word in ('by', 'group', 'note')},
    )


def _strange(entry: Mapping[str, Any]) -> Strange:
    rows = tuple(_share(row, 'flagged') for row in entry['rows'])
    return Strange(false_alarm=float(entry['false_alarm']), n_train=int(entry['n_train']), rows=rows)


def _count(value: Any) -> int | None:
    return None if value is None else int(value)
