"""A whole table: rows with verdicts, comparisons between methods with correction, label curves, overfitting gaps.

Made from results alone, in the order of names, so that the same results give the same bytes whenever and in whatever order they were made.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retfound_jax.evals.compare import METRICS
from retfound_jax.evals.labels_needed import LabelRatio, label_ratio, overfitting_gap
from retfound_jax.evals.metrics import LOWER_IS_BETTER
from retfound_jax.evals.stats import SeedMean, Tests, benjamini_hochberg, holm, seed_tests
from retfound_jax.studies import published as facts
from retfound_jax.studies.published import Published
from retfound_jax.studies.rows import MACRO, Arm, Judged, Result, Row, arms
from retfound_jax.studies.verdict import Touched, Verdict, judge

FORMAT = 'retfound study table 1'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method minus the reference, on the same test images; p values of tests over seeds."""

    reference: str
    difference: float
    low: float  # over patients, drawn in pairs; NaN where the metric needs a threshold
    high: float
    tests: Tests
    holm: float = math.nan  # of the paired t test (Welch's where the seeds do not pair), over all comparisons of the table
    benjamini_hochberg: float = math.nan

    @property
    def p(self) -> float:
        """The paired t test's, or Welch's where the seeds are not the same."""
        return self.tests.welch_t if math.isnan(self.tests.paired_t) else self.tests.paired_t


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One row with all that is said of it."""

    row: Row
    verdict: Verdict
    comparison: Comparison | None = None
    gap: SeedMean | None = None  # training minus test


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needed:
    """Labels one method needs for what the reference reaches with all of its labels."""

    train_on: str
    test_on: str
    adaptation: str
    target: str
    metric: str
    method: str
    reference: str
    found: LabelRatio


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """What a study found, ready to be printed."""

    name: str
    title: str
    judged: Judged
    lines: tuple[Line, ...]
    needed: tuple[Needed, ...]
    published: tuple[Published, ...]  # every printed number of the study
    missing: int = 0  # cells of the study that are not made yet
    cells: int = 0  # that are


def make_table(
    name: str,
    *,
    results: Sequence[Result],
    judged: Judged,
    touched: Touched,
    title: str = '',
    missing: int = 0,
    numbers: Iterable[Published] | None = None,
) -> Table:
    """The table of finished cells; `numbers` are the printed ones to judge against, all known ones where left out."""
    known = tuple(facts.numbers() if numbers is None else numbers)
    every = arms(results, judged=judged)
    lines = [line for arm in every for line in _lines(arm, every, touched=touched, numbers=known)]
    studies = {arm.key.study for arm in every}
    return Table(
        name=name,
        title=title or name,
        judged=judged,
        lines=tuple(_corrected(lines)),
        needed=tuple(_needed(every, judged=judged)),
        published=tuple(one for one in known if one.study in studies),
        missing=missing,
        cells=len(results),
    )


def _lines(arm: Arm, every: Sequence[Arm], *, touched: Touched, numbers: tuple[Published, ...]) -> Iterable[Line]:
    for target in arm.targets:
        for metric in arm.judged.metrics:
            row = arm.row(target, metric)
            yield Line(
                row=row,
                verdict=judge(row, touched=touched, numbers=numbers),
                comparison=_comparison(arm, row, every),
                gap=_gap(arm, row),
            )


def _comparison(arm: Arm, row: Row, every: Sequence[Arm]) -> Comparison | None:
    reference = arm.judged.reference
    if not reference or arm.key.method == reference:
        return None
    key = dataclasses.replace(arm.key, method=reference)
    other = next((one for one in every if one.key == key), None)
    if other is None:
        return None
    against = other.row(row.target, row.metric)
    shared = sorted(set(row.seeds) & set(against.seeds))
    paired = len(shared) > 1
    a, b = (_of(one, shared) if paired else one.per_seed for one in (row, against))
    tests = seed_tests(a, b=b) if paired else dataclasses.replace(seed_tests(a, b=b), paired_t=math.nan, wilcoxon=math.nan)
    known = row.metric in METRICS
    drawn = arm.resampled(row.target, row.metric).minus(other.resampled(row.target, row.metric)) if known else None
    low, high = (drawn.low, drawn.high) if drawn else (math.nan, math.nan)
    return Comparison(reference=reference, difference=row.mean - against.mean, low=low, high=high, tests=tests)


def _of(row: Row, seeds: Sequence[int]) -> list[float]:
    return [value for seed, value in zip(row.seeds, row.per_seed, strict=True) if seed in seeds]


def _gap(arm: Arm, row: Row) -> SeedMean | None:
    """Of the overall number only: that is what a cell keeps of its training images."""
    train = arm.train_metric(row.metric) if row.target == MACRO else None
    return None if train is None else overfitting_gap(train, test=row.per_seed)


def _corrected(lines: Sequence[Line]) -> Iterable[Line]:
    compared = [i for i, line in enumerate(lines) if line.comparison is not None]
    p = [lines[i].comparison.p for i in compared]
    found = dict(zip(compared, zip(holm(p), benjamini_hochberg(p), strict=True), strict=True))
    for i, line in enumerate(lines):
        if i not in found:
            yield line
            continue
        by_holm, by_rate = map(float, found[i])
        yield dataclasses.replace(line, comparison=dataclasses.replace(line.comparison, holm=by_holm, benjamini_hochberg=by_rate))


def _needed(every: Sequence[Arm], *, judged: Judged) -> Iterable[Needed]:
    """For each method that has a label curve, against the reference's curve on the same images."""
    if not judged.reference:
        return

    def curve_of(arm: Arm) -> tuple[str, ...]:
        return arm.key.train_on, arm.key.test_on, arm.key.adaptation

    for where, group in itertools.groupby(sorted(every, key=curve_of), key=curve_of):
        members = list(group)
        by_method: dict[str, dict[float, Arm]] = {}
        for arm in sorted(members, key=lambda arm: (arm.key.method, arm.key.fraction)):
            by_method.setdefault(arm.key.method, {})[arm.key.fraction] = arm
        reference = by_method.pop(judged.reference, {})
        for method, curve in by_method.items():
            if min(len(curve), len(reference)) < 2:
                continue
            for target, metric in itertools.product(members[0].targets, judged.metrics):
                if metric in METRICS:
                    yield _ratio(curve, reference, where=where, method=method, target=target, metric=metric, judged=judged)


def _ratio(curve: Mapping[float, Arm], reference: Mapping[float, Arm], *, where: tuple[str, ...], judged: Judged, **of: Any) -> Needed:
    read = [{share: arm.resampled(of['target'], of['metric']) for share, arm in one.items()} for one in (curve, reference)]
    found = label_ratio(read[0], reference=read[1], seed=judged.seed, higher_is_better=of['metric'] not in LOWER_IS_BETTER)
    names = dict(zip(('train_on', 'test_on', 'adaptation'), where, strict=True))
    return Needed(reference=judged.reference, found=found, **names, **of)


def to_json(table: Table) -> dict[str, Any]:
    """JSON-able, for the report: NaN is None, infinity is the text 'inf'."""
    value = dataclasses.asdict(table)
    for line, made in zip(value['lines'], table.lines, strict=True):
        line['verdict'] |= {'contamination': made.verdict.contamination_text, 'mark': made.verdict.mark}
        line['row']['origin'] = {'weights': made.row.origin.weights, 'drawn': list(made.row.drawn)}
        if made.comparison is not None:
            line['comparison']['p'] = made.comparison.p
    value['judged']['level'] = table.judged.words
    return _plain({'format': FORMAT, **value})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else 'inf' if value > 0 else '-inf'
    return value
