"""A metrics table as a few lines to read in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_jax.evals.metrics import BINARY_METRICS, REGRESSION_METRICS
from retfound_jax.evals.rows import GAP

_MAIN = ('AUROC', 'AUPRC')
_ALPHA = 0.05


def format_table(result: Mapping[str, Any], *, level: str = 'patient') -> str:
    """Overall metrics of each target, then one line a subgroup with its main metric; `level` is 'patient' or 'image'."""
    rows = [row for row in result['rows'] if row['level'] == level]
    overall = [row for row in rows if not row['by']]
    lines = [_title(result, overall, level=level), *_overall(overall, kind=result['kind'])]
    main = 'MAE' if result['kind'] == 'regress' else 'AUROC'
    lines += _failing(result, level=level)
    for by in result['by']:
        lines += ['', f'{main} by {by}']
        shown = [row for row in rows if row['by'] == by and row['metric'] == main and _is_headline(row, result)]
        lines += _columns([_group_line(row) for row in _worst_first(shown, result, level=level)])
    return '\n'.join(lines + [''] + list(result['notes'])).rstrip() + '\n'


def _failing(result: Mapping[str, Any], *, level: str) -> list[str]:
    """The groups that are worse than the others, the strongest evidence first; without any, what could not have been seen."""
    compared = [row for row in result['failing'] if row['level'] == level]
    if not compared:
        return []
    worse = [row for row in compared if row['p_holm'] < _ALPHA]
    lines = ['', f'Groups that are worse than the others ({len(compared)} comparisons)']
    if worse:
        return lines + _columns([_failing_line(row) for row in worse])
    gaps = [row for row in result['fairness'] if (row['level'], row['metric']) == (level, 'AUROC') and row['detectable'] is not None]
    unseen = [f'{row["detectable"]:.3f} by {row["by"]} ({row["target"]})' for row in gaps]
    return lines + ['  none is shown to be', *([f'  a gap in AUROC can be there unseen below {", ".join(unseen)}'] if unseen else [])]


def _failing_line(row: Mapping[str, Any]) -> list[str]:
    p = f'p {row["p_holm"]:.3f} corrected'
    return [f'  {row["by"]} {row["group"]}', row['target'], f'{row["metric"]} {row["value"]:.3f} against {row["rest"]:.3f}', p]


def _worst_first(rows: list[Mapping[str, Any]], result: Mapping[str, Any], *, level: str) -> list[Mapping[str, Any]]:
    """Groups by the evidence of being worse than the others, what is not compared behind them, the gap last."""
    order: dict[tuple[str, str], int] = {}
    for row in result['failing']:
        if (row['level'], row['metric']) == (level, 'AUROC'):
            order.setdefault((row['by'], row['group']), len(order))
    return sorted(rows, key=lambda row: (row['group'] == GAP, order.get((row['by'], row['group']), len(order))))


def _title(result: Mapping[str, Any], overall: list[Mapping[str, Any]], *, level: str) -> str:
    images, patients = (max((row[name] for row in overall), default=0) for name in ('n_images', 'n_patients'))
    bootstrap = result['bootstrap']
    return (
        f'{result["split"]} split by {level}: {images} images of {patients} patients; '
        f'{bootstrap["level"]:.0%} intervals from {bootstrap["n"]} resamples of the patients'
    )


def _overall(overall: list[Mapping[str, Any]], *, kind: str) -> list[str]:
    """A line a target; AUROC and AUPRC (or all of a regression) with their intervals."""
    metrics = REGRESSION_METRICS if kind == 'regress' else (*BINARY_METRICS, 'kappa_quadratic')
    found = {(row['target'], row['metric']): row for row in overall}
    metrics = [metric for metric in metrics if any(name == metric for _, name in found)]
    table = [['', 'positive' if kind != 'regress' else '', *metrics]]
    for target in dict.fromkeys(row['target'] for row in overall):
        positive = next(row['n_positive'] for row in overall if row['target'] == target)
        values = [_value(found.get((target, metric)), interval=kind == 'regress' or metric in _MAIN) for metric in metrics]
        table.append([target, '' if positive is None else str(positive), *values])
    noted = [row for row in overall if row['note'] and row['metric'] in (*_MAIN, 'sensitivity')]
    notes = [f'{row["target"]} {row["metric"]}: {row["note"]}' for row in noted]
    return _columns(table) + notes


def _value(row: Mapping[str, Any] | None, *, interval: bool) -> str:
    if row is None:
        return ''
    if row['value'] is None:
        return '-'
    bounds = f' [{row["low"]:.3f}, {row["high"]:.3f}]' if interval and row['low'] is not None else ''
    return f'{row["value"]:.3f}{bounds}'


def _is_headline(row: Mapping[str, Any], result: Mapping[str, Any]) -> bool:
    """A subgroup gets one line where there is a macro mean, otherwise one for each target."""
    targets = {other['target'] for other in result['rows'] if other['metric'] == row['metric']}
    return row['target'] == 'macro' if 'macro' in targets else True


def _group_line(row: Mapping[str, Any]) -> list[str]:
    value = _value(row, interval=True) if row['value'] is not None else row['note']
    note = row['note'] if row['group'] == GAP else ''
    patients = '' if row['n_patients'] is None else f'{row["n_patients"]} patients'
    return [f'  {row["group"]}', row['target'], patients, value, note]


def _columns(table: list[list[str]]) -> list[str]:
    """Cells padded to the width of their column."""
    if not table:
        return []
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return ['  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
