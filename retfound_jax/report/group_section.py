"""What a study says of groups, on its page: who was pretrained on and whom that serves, learning curves by group, means against a gap.

Reads `tables/bias.json`, `tables/learning_by_group.json` and `tables/fairness.json` of a study directory, each where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json
from retfound_jax.report import group_curves
from retfound_jax.report.blocks import Block, Cell, Pictures, Section, Table, Text
from retfound_jax.report.tables import checked
from retfound_jax.report.words import joined, plural

MEANS_FORMAT = 'retfound means 1'
NONE = '–'
_HINT = 'make it again with `retfound table`'
_DRAWN = 'All images are drawn by the phantom: the numbers are of this program and of no patient.'
_ADAPTED = {'finetune': 'fine-tuned', 'probe': 'linear probe', 'knn': 'nearest neighbours', 'green_probe': "RETFound-Green's probe"}
_METRICS = {'equalised_odds': 'equalised odds'}
_PARTS = (
    ('bias', 'composition', 'Who was pretrained on, and whom it serves'),
    ('learning_by_group', 'learning-by-group', 'How much data each group needs'),
)


def sections(folder: Path) -> tuple[Section, ...]:
    """Those that the directory has the tables for.

    Raises:
      UserError: one of the tables is damaged or of another version.
    """
    found = []
    for name, place, title in _PARTS:
        path = folder / 'tables' / f'{name}.json'
        if path.is_file():
            told = group_curves.read(path)
            found.append(checked(path, lambda told=told, place=place, title=title: _slopes(told, place=place, title=title), hint=_HINT))
    path = folder / 'tables' / 'fairness.json'
    if path.is_file():
        told = read_json(path)
        if not isinstance(told, dict) or told.get('format') != MEANS_FORMAT:
            raise UserError(f'{path} is no table of means of this version: delete it and make the table again')
        found.append(checked(path, lambda: _means(told), hint=_HINT))
    return tuple(found)


def _slopes(told: Mapping[str, Any], *, place: str, title: str) -> Section:
    """What is shown to move in words, then the figures, then every slope."""
    slopes = told['slopes']
    shown = [slope for slope in slopes if slope['verdict'] != 'not shown']
    still = len(slopes) - len(shown)
    blocks: list[Block] = [Text(_DRAWN, 'warning')] if told['drawn'] else []
    blocks += [Text(slope['sentence']) for slope in shown[:8]]
    if still:
        blocks.append(Text(f'{still} of {len(slopes)} slopes are not shown to differ from 0; what each could have shown is in the table.'))
    blocks.append(Pictures(items=tuple(one.picture for one in group_curves.draw(told)), size='full'))
    blocks.append(_slope_table(slopes, told))
    return Section(id=place, title=title, blocks=tuple(blocks))


def _slope_table(slopes: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> Table:
    on = slopes[0]['on'] if slopes else 'composition'
    what = f'from none to all of {told["group"]} in the pretraining' if on == 'composition' else 'for each doubling of the labels'
    second = 'labels' if on == 'composition' else 'pretraining'
    words = {point['method']: point['words'] for point in told['points']}
    rows = []
    for slope in slopes:
        where = f'{100 * slope["fraction"]:g} %' if on == 'composition' else words.get(slope['method'], slope['method'])
        how = _ADAPTED.get(slope['adaptation'], slope['adaptation'])
        first = (Cell(slope['target'], small=how), Cell(where), Cell(slope['group']))
        numbers = (_interval(slope), Cell(_p(slope['p_holm'])), Cell(_number(slope['detectable'])))
        rows.append((*first, *numbers, Cell(slope['verdict'])))
    head = ('target', second, 'group', 'slope of AUROC', 'p (Holm)', 'could be seen', 'verdict')
    note = 'Intervals count the chance of training and of the patients. Could be seen: the smallest true slope found in four of five times.'
    return Table(caption=f'Slopes {what}', head=head, rows=tuple(rows), words=frozenset({1, 2, 6}), note=note)


def _means(told: Mapping[str, Any]) -> Section:
    """Whom an evaluation names first, then a table for each metric."""
    blocks: list[Block] = [Text(_DRAWN, 'warning')] if told['drawn'] else []
    by_means: dict[str, list[Mapping[str, Any]]] = {}
    for one in told['failing']:
        by_means.setdefault(one['words'], []).append(one)
    blocks += [Text(_named(words, runs)) for words, runs in by_means.items()]
    for metric in dict.fromkeys(one['metric'] for one in told['means']):
        blocks.append(_means_table([one for one in told['means'] if one['metric'] == metric], told, metric=metric))
    return Section(id='means', title='Means against the gap', blocks=tuple(blocks))


def _named(words: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """Which group comes first in how many runs, and in how many of them beyond chance."""
    told = []
    for group in dict.fromkeys(run['group'] for run in runs):
        sure = sum(run['group'] == group and run['p_holm'] is not None and run['p_holm'] < 0.05 for run in runs)
        told.append(f'{group} in {sum(run["group"] == group for run in runs)} (p < .05 after Holm in {sure})')
    return f'{words[0].upper()}{words[1:]}: of {plural(len(runs), "run")} the evaluation names first {joined(told)}.'


def _means_table(rows: Sequence[Mapping[str, Any]], told: Mapping[str, Any], *, metric: str) -> Table:
    cells = []
    for one in rows:
        groups = (Cell(_number(one['by_group'][group]['value']) if group in one['by_group'] else NONE) for group in told['groups'])
        numbers = (_estimate(one['overall'], sign=False), _estimate(one['overall_change']), *groups)
        gap = (_estimate(one['gap'], sign=False), _estimate(one['gap_change']))
        cells.append((Cell(one['words'], small=one['stage']), *numbers, *gap))
    head = ('means', 'everybody', 'change', *told['groups'], 'gap', 'change of the gap')
    note = 'The gap is best minus worst: never below 0, and above it by chance alone too. Changes are from the plain training, in pairs.'
    return Table(caption=f'{_METRICS.get(metric, metric)} of {told["target"]}', head=head, rows=tuple(cells), note=note)


def _interval(one: Mapping[str, Any], *, sign: bool = True) -> Cell:
    form = '{:+.3f}' if sign else '{:.3f}'
    bounds = '' if one['low'] is None else f'({form.format(one["low"])} to {form.format(one["high"])})'
    return Cell(form.format(one['value']), small=bounds)


def _estimate(one: Mapping[str, Any] | None, *, sign: bool = True) -> Cell:
    return Cell(NONE) if one is None or one['value'] is None else _interval(one, sign=sign)


def _number(value: float | None) -> str:
    return NONE if value is None else f'{value:.3f}'


def _p(value: float | None) -> str:
    return NONE if value is None else '<.001' if value < 0.001 else f'{value:.3f}'
