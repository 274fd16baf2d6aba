"""How well the model does: numbers with intervals, ROC, calibration, confusion; for a number, agreement charts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from retfound_jax.report import figures
from retfound_jax.report.blocks import Cell, Grid, Heading, Pictures, Section, Table, Text
from retfound_jax.report.collect import Collected
from retfound_jax.report.tables import LEVELS, MACRO, Confusion, Row, Tables
from retfound_jax.report.words import BRIEF, NONE, clean, count, joined, metric_name, nice, number, percent, value_and_bounds

_CHARTS = 12  # targets drawn; the tables hold all
_LEVEL_NAMES = {'patient': 'By patient', 'image': 'By image'}
_UNITS = {'patient': 'Patients', 'image': 'Images'}
_BY_TARGET = ('AUROC', 'AUPRC', 'sensitivity', 'specificity', 'F1', 'Brier')


def section(found: Collected) -> Section:
    """The evaluation of one split; says so where there is none."""
    if found.tables is None:
        why = 'This is a pretraining run: there is no task to evaluate.' if found.run is None else 'The run has not been evaluated yet.'
        return Section(id='results', title='How well it does', blocks=(Text(why, 'quiet'),))
    tables = found.tables
    notes = [note for note in tables.notes if 'by_chance' not in note]  # what a gap is, the section on groups says
    blocks: list[Any] = [Text(_intro(tables)), *(Text(note, 'quiet') for note in notes), _overall(tables)]
    if len(tables.targets) > 1:
        blocks += [_by_target(tables)]
    blocks += _thresholds(tables)
    blocks += _agreement(found) if tables.kind == 'regress' else [*_curves(tables), *_confusions(tables)]
    blocks += [_overall(other, other_split=True) for other in found.other_splits]
    return Section(id='results', title='How well it does', blocks=tuple(blocks))


def _intro(tables: Tables) -> str:
    return (
        f'Split “{tables.split}”. In brackets: the {100 * tables.interval:.0f} % interval from {count(tables.replicates)} resamplings '
        'of whole patients, so that two eyes of one person never count as two. By patient: the images of a patient are judged together.'
    )


def _levels(tables: Tables) -> list[str]:
    return [level for level in LEVELS if any(row.level == level for row in tables.rows)]


def _overall(tables: Tables, *, other_split: bool = False) -> Table:
    levels = _levels(tables)
    metrics = dict.fromkeys(row.metric for row in tables.rows if not row.by and row.target == tables.overall)
    rows = []
    for metric in metrics:
        cells = [value_cell(tables.find(metric=metric, level=level)) for level in levels]
        rows.append((Cell(metric_name(metric)), *cells, Cell(BRIEF.get(metric, ''))))
    what = 'mean over the classes, or all classes together' if tables.overall == MACRO else f'“{tables.overall}”'
    flattered = other_split and not tables.external and tables.split in ('train', 'val')
    where = f'elsewhere, “{tables.name}”' if tables.external else f'{"also on split" if other_split else "split"} “{tables.split}”'
    return Table(
        caption=f'Overall, {where}: {what}',
        head=('Metric', *(_LEVEL_NAMES[level] for level in levels), 'In words'),
        rows=tuple(rows),
        words=frozenset({len(levels) + 1}),
        aside=frozenset({len(levels) + 1}),
        note='Numbers of this split may flatter the model.' if flattered else '',
    )


def _by_target(tables: Tables) -> Table:
    metrics = [name for name in _BY_TARGET if any(row.metric == name and row.target != MACRO for row in tables.rows)]
    rows = []
    for target in tables.targets:
        found = [tables.find(metric=metric, target=target) for metric in metrics]
        known = next((row for row in found if row is not None), None)
        rows.append((Cell(nice(target)), positives(known), *(value_cell(row) for row in found), Cell(_threshold(tables, target))))
    return Table(
        caption=f'{_LEVEL_NAMES[tables.level]}, each {"finding" if tables.kind == "multi" else "class against the rest"}',
        head=('Finding' if tables.kind == 'multi' else 'Class', 'Positive', *map(metric_name, metrics), 'Positive from'),
        rows=tuple(rows),
    )


def value_cell(row: Row | None) -> Cell:
    """A value with its interval below; the reason in its place where it is withheld or undefined."""
    if row is None:
        return Cell(number(None), quiet=True)
    if row.value is None:
        why = 'withheld' if row.withheld else row.note if row.n_patients else 'nobody in it'
        return Cell(number(None), small=why, quiet=True)
    shown, bounds = value_and_bounds(row.value, row.low, row.high, metric=row.metric.partition('@')[0])
    return Cell(shown, small=bounds)


def positives(row: Row | None) -> Cell:
    """How many of the patients (or images) have the finding."""
    if row is None or row.n_positive is None:
        return Cell(number(None), quiet=True)
    total = row.n_patients if row.level == 'patient' else row.n_images
    return Cell(f'{row.n_positive} of {total}', small=percent(row.n_positive, total) if total else '')


def _threshold(tables: Tables, target: str) -> str:
    """The score from which a case is called positive."""
    entry = tables.thresholds.get(target, {})
    return number(entry.get('patient_value' if tables.level == 'patient' else 'value'), metric='AUROC')


def _thresholds(tables: Tables) -> list[Text]:
    """Where the threshold was chosen, and which it is where there is one."""
    known = [target for target in tables.targets if _threshold(tables, target) != NONE]
    if not known:
        return []
    entry = tables.thresholds[known[0]]
    rule = {'youden': 'where sensitivity + specificity is highest'}.get(str(entry.get('rule')), f'by the rule {entry.get("rule")}')
    where = f'on the {entry["chosen_on"]} split' if entry.get('chosen_on') else 'beforehand'
    score = f'a score of {_threshold(tables, known[0])}' if len(tables.targets) == 1 else 'the score in the last column'
    return [Text(f'A {_UNITS[tables.level].lower()[:-1]} is called positive from {score}, chosen {where}, {rule}.', 'quiet')]


def _curves(tables: Tables) -> list[Any]:
    alone = len(tables.targets) == 1
    drawn = tables.targets if tables.kind != 'ordinal' else [name for name in tables.targets if name not in tables.classes[:-1]]
    rocs = {target: tables.roc.get(tables.level, {}).get(target) for target in drawn}
    bins = {target: tables.calibration.get(tables.level, {}).get(target) for target in drawn}
    found = [figures.roc_chart(curve, title='ROC' if alone else target, level=tables.interval) for target, curve in _first(rocs)]
    stated = [figures.calibration_chart(curve, title='Calibration' if alone else target) for target, curve in _first(bins)]
    told_roc, told_bins = figures.ROC_WORDS.format(100 * tables.interval), figures.CALIBRATION_WORDS
    if alone:
        pictures = [dataclasses.replace(one, caption=told_roc) for one in found] + [
            dataclasses.replace(one, caption=told_bins) for one in stated
        ]
        blocks: list[Any] = [Heading('ROC curve and calibration'), Pictures(items=tuple(pictures))]
    else:
        blocks = [Heading('ROC curves: finding against false alarms'), Text(told_roc, 'quiet'), Pictures(items=tuple(found))]
        blocks += [Heading('Calibration: stated against observed probability'), Text(told_bins, 'quiet'), Pictures(items=tuple(stated))]
    absent = [nice(target) for target, curve in rocs.items() if curve is None]
    if absent:
        blocks.append(Text(f'No ROC curve for {joined(absent)}: the split lacks positive or negative cases.', 'quiet'))
    if len(rocs) - len(absent) > _CHARTS:
        blocks.append(Text(f'The first {_CHARTS} of {len(rocs)} are drawn; the tables hold all.', 'quiet'))
    return blocks


def _first(curves: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(target, curve) for target, curve in curves.items() if curve is not None][:_CHARTS]


def _confusions(tables: Tables) -> list[Any]:
    found = [_confusion(one, tables) for one in tables.confusion.get(tables.level, ())[:_CHARTS]]
    if not found:
        return []
    return [Heading('Confusion: which cases become which'), found[0] if len(found) == 1 else Grid(tables=tuple(found))]


def _confusion(found: Confusion, tables: Tables) -> Table:
    names = [{'0': 'no', '1': 'yes'}.get(name, name) for name in found.classes] if found.target else found.classes
    rows = []
    for name, counts in zip(names, found.matrix, strict=True):
        total = sum(counts)
        rows.append((Cell(name), *(Cell(count(n), small=percent(n, total), shade=n / total if total else 0.0) for n in counts)))
    rule = {'threshold': '; a case is called at the threshold above', 'most probable class': '; the most probable class is called'}
    return Table(
        caption=f'{_UNITS[tables.level]}{f", “{found.target}”" if found.target else ""}',
        head=('Label ↓ Model →', *names),
        rows=tuple(rows),
        fit=True,
        note=f'Rows: what the label says. Columns: what the model says. Per cent of the row{rule.get(found.rule, "")}.',
    )


def _agreement(found: Collected) -> list[Any]:
    if found.predictions is None:
        return [Text('The predictions file is absent, so the agreement charts cannot be drawn.', 'quiet')]
    true_N, stated = found.predictions.label_NY[:, 0], found.predictions.score_NS[:, 0]
    known_N = np.isfinite(true_N) & np.isfinite(stated)
    if not known_N.any():
        return [Text('No image of the split has a label, so the agreement charts cannot be drawn.', 'quiet')]
    name = clean(found.tables.labels[0]) if found.tables.labels else 'label'
    return [Heading('Agreement, by image'), Pictures(items=figures.agreement_charts(true_N[known_N], stated=stated[known_N], name=name))]
