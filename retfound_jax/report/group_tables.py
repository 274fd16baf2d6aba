"""What an evaluation found between groups, read strictly. A file of an earlier version lacks it: then it is None, not empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from retfound_jax.report.reading import real

_T = TypeVar('_T')


@dataclass(frozen=True, kw_only=True)
class Failing:
    """A group held against all others that are shown, together; a positive shortfall is worse."""

    level: str
    by: str
    group: str
    target: str
    metric: str
    value: float | None
    rest: float | None
    shortfall: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    n_patients: int | None
    n_positive: int | None


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The best against the worst group of a column, and what chance alone would give."""

    level: str
    by: str
    target: str
    metric: str
    groups: int
    best: str
    worst: str
    gap: float | None
    low: float | None
    high: float | None
    by_chance: float | None
    by_chance_high: float | None
    p: float | None
    p_holm: float | None
    detectable: float | None  # smallest true gap that is seen in 4 of 5 studies of this size
    note: str


@dataclass(frozen=True, kw_only=True)
class Odds:
    """How far apart the groups' shares of found and of falsely called cases lie."""

    level: str
    by: str
    target: str
    difference: float | None
    tpr_gap: float | None
    fpr_gap: float | None
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True, kw_only=True)
class Power:
    """What could not have been seen in one group."""

    level: str
    by: str
    target: str
    group: str
    metric: str
    detectable: float | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Stated against observed of one group and target."""

    stated: tuple[float, ...]
    observed: tuple[float, ...]
    n: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Between:
    """All that was found between groups; None where the evaluation did not look."""

    failing: tuple[Failing, ...] | None = None  # of each level, the strongest evidence first
    gaps: tuple[Gap, ...] | None = None
    odds: tuple[Odds, ...] | None = None
    power: tuple[Power, ...] | None = None
    reliability: Mapping[tuple[str, str, str], Reliability] | None = None  # by, group, target
    thresholds: Mapping[tuple[str, str, str], tuple[float | None, str]] | None = None  # by patient, and why it is not the group's own


def read_between(found: Mapping[str, Any]) -> Between:
    """From the parsed file of one evaluation; whatever a wrong shape raises is for `tables.checked`."""
    reliability = found.get('calibration_by')
    thresholds = found.get('threshold_by')
    return Between(
        failing=_all(found.get('failing'), _failing),
        gaps=_all(found.get('fairness'), _gap),
        odds=_all(found.get('equalised_odds'), _odds),
        power=_all(found.get('power'), _power),
        reliability=None if reliability is None else {name: _reliability(entry) for name, entry in _leaves(reliability)},
        thresholds=None if thresholds is None else {name: _threshold(entry) for name, entry in _leaves(thresholds)},
    )


def _all(rows: Any, make: Callable[[Mapping[str, Any]], _T]) -> tuple[_T, ...] | None:
    return None if rows is None else tuple(make(row) for row in rows)


def _failing(row: Mapping[str, Any]) -> Failing:
    numbers = _numbers(row, 'value', 'rest', 'shortfall', 'low', 'high', 'p', 'p_holm')
    counts = {name: None if row.get(name) is None else int(row[name]) for name in ('n_patients', 'n_positive')}
    return Failing(**_words(row, 'level', 'by', 'group', 'target', 'metric'), **numbers, **counts)


def _gap(row: Mapping[str, Any]) -> Gap:
    numbers = _numbers(row, 'gap', 'low', 'high', 'by_chance', 'by_chance_high', 'p', 'p_holm', 'detectable')
    words = _words(row, 'level', 'by', 'target', 'metric', 'best', 'worst')
    return Gap(**words, **numbers, groups=int(row['groups']), note=str(row.get('note') or ''))


def _odds(row: Mapping[str, Any]) -> Odds:
    return Odds(**_words(row, 'level', 'by', 'target'), **_numbers(row, 'difference', 'tpr_gap', 'fpr_gap', 'low', 'high', 'p'))


def _power(row: Mapping[str, Any]) -> Power:
    words = _words(row, 'level', 'by', 'target', 'metric', 'sentence')
    return Power(**words, group=str(row.get('group') or ''), **_numbers(row, 'detectable'))


def _reliability(entry: Mapping[str, Any]) -> Reliability:
    bins = [one for one in entry['bins'] if one['n'] and one['fraction_positive'] is not None]
    return Reliability(
        stated=tuple(float(one['mean_score']) for one in bins),
        observed=tuple(float(one['fraction_positive']) for one in bins),
        n=tuple(int(one['n']) for one in bins),
    )


def _threshold(entry: Mapping[str, Any]) -> tuple[float | None, str]:
    chosen = entry['patient']
    return real(chosen['value']), str(chosen.get('note') or '')


def _leaves(found: Mapping[str, Any]) -> list[tuple[tuple[str, str, str], Mapping[str, Any]]]:
    """What lies under by, group and target."""
    return [
        ((str(by), str(group), str(target)), entry)
        for by, groups in found.items()
        for group, targets in groups.items()
        for target, entry in targets.items()
    ]


def _words(row: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: str(row[name]) for name in names}


def _numbers(row: Mapping[str, Any], *names: str) -> dict[str, float | None]:
    return {name: real(row.get(name)) for name in names}
