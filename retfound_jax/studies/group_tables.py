"""What a study says of groups, as files: `bias.*` (the composition of the pretraining) and `learning_by_group.*` (the share of labels).

JSON of both (NaN is null): `format`, `study`, `title`, `by`, `group` (the one whose share varies, '' none), `metric`, `level`, `drawn` (the
phantom drew the images), and
    groups   {target: [{name, n_images, n_patients, n_positive, note}]}; counts are null where one of them could tell a small group
    points   [{adaptation, method, words, composition, fraction, target, group, value, low, high, per_seed, patients_low, patients_high}];
             the last two are the interval over patients, the models fixed; `group` may be 'gap': the varied group minus the mean of the
             others, or, where none varies, best minus worst
    slopes   [{on, adaptation, method, fraction, target, group, value, low, high, p, p_holm, per_seed, seeds, detectable, verdict, blocks,
             sentence}]; `on` 'composition' is per whole, from none of the group to all, `on` 'labels' per doubling of the labels;
             `blocks` is the interval of a regression with seeds as blocks
`low` and `high` are 95 % intervals over seeds and patients (studies/slopes.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.demographics import FLOOR
from retfound_jax.core.files import atomic_write, write_json
from retfound_jax.core.suppression import note
from retfound_jax.studies import render
from retfound_jax.studies.by_group import GAP, METRIC, ByGroup, Point, Slope
from retfound_jax.studies.grid import Study
from retfound_jax.studies.sheets import NONE, Page, Sheet, thousandths

FORMAT = 'retfound by group 1'
ADAPTED = {'finetune': 'fine-tuned', 'probe': 'linear probe', 'knn': 'nearest neighbours', 'green_probe': "RETFound-Green's probe"}
_POINT = ('adaptation', 'method', 'composition', 'fraction', 'target', 'group')
_SLOPE = ('on', 'adaptation', 'method', 'fraction', 'target', 'group')


def write(found: ByGroup, study: Study, *, out: Path, formats: Iterable[str] = render.FORMATS) -> list[Path]:
    """Writes OUT/bias.* where compositions were compared, and OUT/learning_by_group.* where shares of labels were; returns the paths."""
    paths, formats = [], tuple(formats)
    for name, on, make in (('bias', 'composition', bias_page), ('learning_by_group', 'labels', learning_page)):
        if any(slope.on == on for slope in found.slopes):
            paths += _write(name, to_json(found, study, on=on), make(found, study), out=out, formats=formats)
    return paths


def _write(name: str, told: Mapping[str, Any], page: Page, *, out: Path, formats: Sequence[str]) -> list[Path]:
    columns = [*told['slopes'][0]]
    rows = [[_cell(slope[column]) for column in columns] for slope in told['slopes']]
    made = {'md': render.markdown_page(page), 'tex': render.latex_page(page, label=name), 'csv': render.csv_rows([columns, *rows])}
    for suffix in formats:
        atomic_write(out / f'{name}.{suffix}', made[suffix])
    write_json(out / f'{name}.json', told)
    return [*(out / f'{name}.{suffix}' for suffix in formats), out / f'{name}.json']


def to_json(found: ByGroup, study: Study, *, on: str) -> dict[str, Any]:
    """What the module's docstring says."""
    words = {method.name: method.words or method.name for method in study.methods}
    points = [point for point in found.points if on == 'labels' or not math.isnan(point.composition)]
    return _plain({
        'format': FORMAT,
        'study': study.name,
        'title': study.title,
        'by': found.by,
        'group': found.varied,
        'metric': METRIC,
        'level': study.judged.words,
        'drawn': any(one.phantom is not None for one in study.data),
        'groups': {target: _groups(found, target) for target in found.groups},
        'points': [_point(point) | {'words': words[point.method]} for point in points],
        'slopes': [_slope(slope, found) for slope in found.slopes if slope.on == on],
    })


def _groups(found: ByGroup, target: str) -> list[dict[str, Any]]:
    """Where one count is small, none is told: the others and the total would give it away."""
    groups = found.groups[target]
    small = not all(group.shown for group in groups) or 0 < found.unknown[target] < FLOOR
    counts = ('n_images', 'n_patients', 'n_positive')
    return [
        {'name': group.name}
        | {name: None if small else getattr(group, name) for name in counts}
        | {'note': '' if group.shown else note()}
        for group in groups
    ]


def _point(point: Point) -> dict[str, Any]:
    numbers = {name: getattr(point.found, name) for name in ('value', 'low', 'high', 'per_seed')}
    low, high = point.found.of_patients
    return {name: getattr(point, name) for name in _POINT} | numbers | {'patients_low': low, 'patients_high': high}


def _slope(slope: Slope, found: ByGroup) -> dict[str, Any]:
    numbers = {name: getattr(slope.found, name) for name in ('value', 'low', 'high', 'p', 'per_seed', 'detectable', 'verdict')}
    return {name: getattr(slope, name) for name in _SLOPE} | numbers | {
        'blocks': slope.found.blocks, 'p_holm': slope.p_holm, 'seeds': slope.seeds, 'sentence': sentence(slope, found)
    }


def sentence(slope: Slope, found: ByGroup) -> str:
    """What a slope says, in words."""
    what = f'the AUROC of {slope.target} in {slope.group}' if slope.group != GAP else f'{_gap_words(found)} in {slope.target}'
    how = ADAPTED.get(slope.adaptation, slope.adaptation)
    if slope.on == 'composition':
        moves, where = f'From none to all of {found.varied} in the pretraining', f'{how}, {_share(slope.fraction)} of the labels'
    else:
        moves, where = 'With each doubling of the labels', f'{how}, {slope.method}'
    number = f'{slope.found.value:+.3f} ({slope.found.low:+.3f} to {slope.found.high:+.3f})'
    if not math.isfinite(slope.found.low):
        return f'{moves}, {what} moved by {slope.found.value:+.3f}; {where}. More seeds or points are needed to say how surely.'
    if slope.found.verdict == 'not shown':
        return f'{moves}, {what} is not shown to move: {number}; {where}. A change below {slope.found.detectable:.3f} could not be seen.'
    return f'{moves}, {what} {slope.found.verdict} by {number}; {where}.'


def _gap_words(found: ByGroup) -> str:
    return f'the lead of {found.varied}' if found.varied else 'the gap of best and worst'


def bias_page(found: ByGroup, study: Study) -> Page:
    """Slopes on the composition, a row for each number."""
    shares = sorted({point.composition for point in found.points if not math.isnan(point.composition)})
    head = ('target', 'adaptation', 'labels', 'AUROC of', *(f'{_share(share)} {found.varied}' for share in shares), *_TAIL)
    rows = []
    for slope in (one for one in found.slopes if one.on == 'composition'):
        here = [point for point in found.points if _at(point) == _at(slope)]
        values = [next((thousandths(point.found.value) for point in here if point.composition == share), NONE) for share in shares]
        first = (slope.target, ADAPTED[slope.adaptation], _share(slope.fraction), _name(slope.group, found))
        rows.append((*first, *values, *_tail(slope)))
    caption = f'AUROC by the share of {found.varied} in the pretraining, and its slope from none to all'
    return _page(found, study, Sheet(caption=caption, head=head, rows=tuple(rows), numbers=frozenset(range(4, len(head) - 1))))


def learning_page(found: ByGroup, study: Study) -> Page:
    """AUROC over the share of labels, a row for each method and group."""
    shares = sorted({point.fraction for point in found.points})
    words = {method.name: method.words or method.name for method in study.methods}
    head = ('target', 'adaptation', 'pretraining', 'AUROC of', *(_share(share) for share in shares), *_TAIL)
    rows = []
    for slope in (one for one in found.slopes if one.on == 'labels'):
        def same(point: Point, slope: Slope = slope) -> bool:
            names = ('target', 'adaptation', 'method', 'group')
            return all(getattr(point, name) == getattr(slope, name) for name in names)

        here = {point.fraction: point.found.value for point in found.points if same(point)}
        first = (slope.target, ADAPTED[slope.adaptation], words[slope.method], _name(slope.group, found))
        rows.append((*first, *(thousandths(here.get(share, math.nan)) for share in shares), *_tail(slope)))
    caption = 'AUROC by the share of the labels, and its slope for each doubling of them'
    return _page(found, study, Sheet(caption=caption, head=head, rows=tuple(rows), numbers=frozenset(range(4, len(head) - 1))))


_TAIL = ('slope', '95 % interval', 'seeds as blocks', 'p', 'p (Holm)', 'could be seen', 'seeds', 'verdict')


def _tail(slope: Slope) -> tuple[str, ...]:
    one = slope.found
    intervals = (f'{low:+.3f} to {high:+.3f}' if math.isfinite(low) else NONE for low, high in ((one.low, one.high), one.blocks))
    return (f'{one.value:+.3f}', *intervals, _p(one.p), _p(slope.p_holm), thousandths(one.detectable), str(len(slope.seeds)), one.verdict)


def _page(found: ByGroup, study: Study, sheet: Sheet) -> Page:
    counted = [(target, *_counted(group)) for target in found.groups for group in _groups(found, target)]
    people = Sheet(
        caption=f'The test images by {found.by}',
        head=('target', 'group', 'images', 'patients', 'of them with it', ''),
        rows=tuple(counted),
        numbers=frozenset({2, 3, 4}),
    )
    drawn = any(one.phantom is not None for one in study.data)
    lead = ('All images are drawn by the phantom: the numbers are of this program and of no patient.',) if drawn else ()
    meant = f'AUROC of {found.varied} minus the mean of the others' if found.varied else 'never below 0, and above it by chance alone too'
    notes = (
        f'{_gap_words(found)}: {meant}',
        'intervals and p values count the chance of training (over seeds, t) and of the patients (bootstrap), joined',
        'seeds as blocks: the interval where all seeds have one slope and differ by chance alone, which few seeds cannot tell',
        'could be seen: the smallest true slope that such a study finds in four of five cases',
        f'judged by {study.judged.words}, {study.judged.replicates} resamples of patients in each group',
    )
    return Page(title=study.title, lead=lead, sheets=(sheet, people), notes=notes)


def _counted(group: Mapping[str, Any]) -> tuple[str, ...]:
    counts = ('withheld' if group[name] is None else f'{group[name]:,}' for name in ('n_images', 'n_patients', 'n_positive'))
    return (group['name'], *counts, group['note'])


def _at(one: Point | Slope) -> tuple[Any, ...]:
    return one.target, one.adaptation, one.fraction, one.group


def _name(group: str, found: ByGroup) -> str:
    return _gap_words(found) if group == GAP else group


def _share(share: float) -> str:
    return f'{100 * share:g} %'


def _p(value: float) -> str:
    return NONE if not math.isfinite(value) else '<.001' if value < 0.001 else f'{value:.3f}'


def _cell(value: Any) -> Any:
    return ' '.join(map(str, value)) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
