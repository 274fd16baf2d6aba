"""What was done against a gap between groups, as `fairness.*`.

JSON (NaN is null): `format`, `study`, `title`, `by`, `target`, `level`, `drawn`, `groups`, `seeds`, and
    failing  [{means, words, seed, group, metric, value, rest, p_holm}]: whom an evaluation of each run names first
    means    [{means, words, stage, metric, overall, overall_change, gap, gap_change, by_group, worst}]; each number is null or
             {value, low, high, p, per_seed}; `stage` is 'training' or 'after training', changes are from the plain training
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from retfound_jax.core.files import atomic_write, write_json
from retfound_jax.evals.mitigation import LEVEL, ODDS
from retfound_jax.studies import render
from retfound_jax.studies.grid import Study
from retfound_jax.studies.means import AFTER, Means
from retfound_jax.studies.sheets import NONE, Page, Sheet, thousandths
from retfound_jax.studies.slopes import Estimate

FORMAT = 'retfound means 1'
NAME = 'fairness'
_AFTER = {'threshold_per_group': 'a threshold of each group', 'recalibration_per_group': 'recalibration of each group'}
_METRICS = {ODDS: 'equalised odds'}
_COLUMNS = ('means', 'stage', 'metric', 'worst')
_ESTIMATES = ('overall', 'overall_change', 'gap', 'gap_change')


def write(found: Means, study: Study, *, out: Path, formats: Iterable[str] = render.FORMATS) -> list[Path]:
    """Writes OUT/fairness.* and returns the paths."""
    told, page, formats = to_json(found, study), page_of(found, study), tuple(formats)
    made = {'md': render.markdown_page(page), 'tex': render.latex_page(page, label=NAME), 'csv': render.csv_rows(_csv(found))}
    for suffix in formats:
        atomic_write(out / f'{NAME}.{suffix}', made[suffix])
    write_json(out / f'{NAME}.json', told)
    return [*(out / f'{NAME}.{suffix}' for suffix in formats), out / f'{NAME}.json']


def to_json(found: Means, study: Study) -> dict[str, Any]:
    """What the module's docstring says."""
    words = _words(study)
    return {
        'format': FORMAT,
        'study': study.name,
        'title': study.title,
        'by': found.by,
        'target': found.target,
        'level': LEVEL,
        'drawn': any(one.phantom is not None for one in study.data),
        'groups': list(found.groups),
        'seeds': list(found.seeds),
        'failing': [
            {'means': one.means, 'words': words[one.means], 'seed': one.seed, 'group': one.group, 'metric': one.metric}
            | {name: _finite(getattr(one, name)) for name in ('value', 'rest', 'p_holm')}
            for one in found.failing
        ],
        'means': [
            {name: getattr(one, name) for name in _COLUMNS}
            | {'words': words.get(one.means, one.means)}
            | {name: _told(getattr(one, name)) for name in _ESTIMATES}
            | {'by_group': {group: _told(value) for group, value in one.by_group.items()}}
            for one in found.changes
        ],
    }


def sentences(found: Means, study: Study) -> list[str]:
    """Who is named first, and what each means does to the gap and to everybody."""
    words, plain = _words(study), found.changes[0].means
    told = []
    for means in dict.fromkeys(one.means for one in found.failing):
        named = [one for one in found.failing if one.means == means]
        counts = {group: [one for one in named if one.group == group] for group in dict.fromkeys(one.group for one in named)}
        said = ', '.join(
            f'{group} in {len(ones)} of {len(named)} runs ({ones[0].metric} {ones[0].value:.3f} against {ones[0].rest:.3f} in the first, '
            f'p by Holm up to {max(one.p_holm for one in ones):.3f})'
            for group, ones in counts.items()
        )
        told.append(f'{words[means]}: the evaluation names first {said}.')
    for one in found.changes:
        shown = 'AUROC' if one.stage != AFTER else ODDS
        if one.metric == shown and one.means != plain:
            overall = f', overall {_with(one.overall_change, sign=True)}' if one.overall_change else ''
            gap = f'gap of {_METRICS.get(one.metric, one.metric)} {one.gap.value:.3f}, change {_with(one.gap_change, sign=True)}'
            told.append(f'{words.get(one.means, one.means)}: {gap}{overall}.')
    return told


def page_of(found: Means, study: Study) -> Page:
    """Who fails, then a sheet for each metric."""
    words = _words(study)
    failing = Sheet(
        caption=f'Whom an evaluation by {found.by} names first',
        head=('means', 'seed', 'group', 'metric', 'there', 'elsewhere', 'p (Holm)'),
        rows=tuple(
            (words[one.means], str(one.seed), one.group, one.metric, thousandths(one.value), thousandths(one.rest), thousandths(one.p_holm))
            for one in found.failing
        ),
        numbers=frozenset({1, 4, 5, 6}),
    )
    drawn = any(one.phantom is not None for one in study.data)
    lead = ('All images are drawn by the phantom: the numbers are of this program and of no patient.',) if drawn else ()
    notes = (
        'gap: best minus worst group; it is never below 0, and above it by chance alone too, so that the changes tell more',
        'changes are from the plain training, with the same seeds and resamples of patients',
        'intervals are of 95 %, over seeds (t) and patients',
        'after training: fitted on the validation patients to the scores of the plain training',
        f'judged by patient, {study.judged.replicates} resamples',
    )
    metrics = dict.fromkeys(one.metric for one in found.changes)
    sheets = [failing, *(_sheet(found, metric, words) for metric in metrics)]
    return Page(title=study.title, lead=lead, sheets=tuple(sheets), notes=notes)


def _sheet(found: Means, metric: str, words: Mapping[str, str]) -> Sheet:
    head = ('means', 'when', 'everybody', 'change', *found.groups, 'worst', 'gap', 'change of the gap')
    rows = []
    for one in (change for change in found.changes if change.metric == metric):
        groups = (thousandths(one.by_group[group].value) if group in one.by_group else NONE for group in found.groups)
        first = (words.get(one.means, one.means), one.stage, _with(one.overall), _with(one.overall_change, sign=True))
        rows.append((*first, *groups, one.worst or NONE, _with(one.gap), _with(one.gap_change, sign=True)))
    numbers = frozenset(range(2, len(head))) - {4 + len(found.groups)}
    return Sheet(caption=f'{_METRICS.get(metric, metric)} of {found.target}', head=head, rows=tuple(rows), numbers=numbers)


def _csv(found: Means) -> list[list[Any]]:
    head = [*_COLUMNS, *(f'{name}{part}' for name in _ESTIMATES for part in ('', '_low', '_high', '_p')), *found.groups]
    rows = []
    for one in found.changes:
        parts = [part for name in _ESTIMATES for part in _four(getattr(one, name))]
        groups = [one.by_group[group].value if group in one.by_group else math.nan for group in found.groups]
        rows.append([*(getattr(one, name) for name in _COLUMNS), *parts, *groups])
    return [head, *rows]


def _four(one: Estimate | None) -> tuple[float, ...]:
    return (math.nan,) * 4 if one is None else (one.value, one.low, one.high, one.p)


def _words(study: Study) -> dict[str, str]:
    return {method.name: method.words or method.name for method in study.methods} | _AFTER


def _told(one: Estimate | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {name: _finite(getattr(one, name)) for name in ('value', 'low', 'high', 'p')} | {'per_seed': list(map(_finite, one.per_seed))}


def _with(one: Estimate | None, *, sign: bool = False) -> str:
    if one is None or not math.isfinite(one.value):
        return NONE
    value, low, high = (f'{number:+.3f}' if sign else f'{number:.3f}' for number in (one.value, one.low, one.high))
    return f'{value} ({low} to {high})' if math.isfinite(one.low) else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
