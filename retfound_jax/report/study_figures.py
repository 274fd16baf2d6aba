"""Figures of a study: curves over the share of labels, the matrix of training against test sets, methods beside each other.

Each is drawn once and comes as SVG for the page and as PNG for a paper; equal tables give equal bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from retfound_jax.core.files import atomic_write
from retfound_jax.report import figures
from retfound_jax.report.blocks import Picture
from retfound_jax.report.figures import BLUE, GREEN, GREY, INK, ORANGE
from retfound_jax.report.study import ADAPTED, MACRO, Line, Needed, Printed, StudyTable, line_place
from retfound_jax.report.words import interval, joined, metric_name, nice, number, short

# Okabe and Ito's colours and a marker each: told apart with any colour vision, and in black and white.
_COLOURS = (BLUE, ORANGE, GREEN, '#cc79a7', '#56b4e9', '#e69f00', INK)
_MARKERS = 'osD^vPX'
_SHADES = LinearSegmentedColormap.from_list('blues', ['#ffffff', '#cfe3f1', '#7fb5d8', '#2f7fb8', '#0b4a7d'])
_DPI = 200
MARKS = {'†': 'the checkpoint has seen the test set, or may have', '‡': 'nobody says whether the checkpoint has seen the test set'}
_CHANCE = {'AUROC': 0.5}
_CURVE = ('train_on', 'test_on', 'target', 'adaptation', 'metric')  # what the lines of one figure share
_BOUNDED = frozenset({'AUROC', 'AUPRC', 'accuracy', 'balanced_accuracy', 'F1', 'sensitivity', 'specificity'})


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure."""

    name: str  # of the file, without its ending
    picture: Picture
    png: bytes


def draw(table: StudyTable) -> tuple[Drawn, ...]:
    """Every figure that the table has the numbers for: curves, then matrices, then methods."""
    return (*label_curves(table), *matrices(table), *forests(table))


def write(table: StudyTable, *, out: Path) -> list[Path]:
    """Writes every figure as PNG into `out`, and all label curves together as one; returns the paths."""
    made = {one.name: one.png for one in draw(table)}
    panels = label_panels(table)
    made |= {slug(table.name, 'labels'): panels} if panels else {}
    for name, png in made.items():
        atomic_write(out / f'{name}.png', png)
    return [out / f'{name}.png' for name in made]


def label_curves(table: StudyTable) -> tuple[Drawn, ...]:
    """A figure for each test set: the metric over the share of labels, a line a method."""
    found = []
    for key, lines in table.groups(*_CURVE).items():
        curves = _curves(lines, reference=table.reference)
        if curves:
            where = dict(zip(_CURVE, key, strict=True))
            needed = [one for one in table.needed if all(getattr(one, name) == value for name, value in where.items())]
            found.append(_label_curve(table, curves, lines[0], needed))
    return tuple(found)


def _curves(lines: Sequence[Line], *, reference: str) -> list[tuple[str, list[Line]]]:
    """Methods with at least two shares of labels, by rising share; the reference last."""
    methods = dict.fromkeys(line.method for line in lines)
    curves = []
    for method in sorted(methods, key=lambda name: name == reference):
        points = [line for line in lines if line.method == method and line.seeds.value is not None]
        if len(points) > 1:
            curves.append((method, sorted(points, key=lambda line: line.fraction)))
    return curves


def _label_curve(table: StudyTable, curves: list[tuple[str, list[Line]]], first: Line, needed: Sequence[Needed]) -> Drawn:
    with figures.chart(size=(6.4, 4.0)) as (figure, axes):
        _curve_axes(axes, table, curves, first, needed)
        axes.set(xlabel='share of the labels used for training (log scale)', ylabel=metric_name(first.metric))
        axes.set_title(short(line_place(first), limit=60))
        ends = {method: points[-1] for method, points in curves}
        return _drawn(
            figure,
            name=slug(table.name, 'labels', first.train_on, first.test_on, first.target, first.adaptation, first.metric),
            alt=f'{metric_name(first.metric)} over the share of labels, {line_place(first)}: with all labels '
            + joined(f'{method} {number(line.seeds.value, metric=line.metric)}' for method, line in ends.items()),
            caption=_curve_words(first, curves, needed, table),
        )


def _curve_axes(
    axes: matplotlib.axes.Axes, table: StudyTable, curves: list[tuple[str, list[Line]]], first: Line, needed: Sequence[Needed]
) -> None:
    colours = _colours([method for method, _ in curves], reference=table.reference)
    for i, (method, points) in enumerate(curves):
        shares, values = [line.fraction for line in points], [line.seeds.value for line in points]
        low, high = ([getattr(line.patients, end) for line in points] for end in ('low', 'high'))
        if None not in (*low, *high):
            axes.fill_between(shares, low, high, color=colours[method], alpha=0.15, linewidth=0)
        style = (0, (5, 2)) if method == table.reference else '-'
        axes.plot(shares, values, color=colours[method], marker=_MARKERS[i % len(_MARKERS)], markersize=5, linestyle=style, zorder=3)
    ticks = sorted({line.fraction for _, points in curves for line in points})
    axes.set_xscale('log')
    axes.set_xlim(ticks[0] / 1.12, ticks[-1] * 1.06)
    axes.set_xticks(ticks, [f'{100 * tick:g}\u202f%' for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    _reached(axes, needed, colours)
    _metric_axis(axes.yaxis, first.metric)
    _end_labels(axes, [(points[-1].seeds.value, method, colours[method]) for method, points in curves])


def label_panels(table: StudyTable) -> bytes | None:
    """All label curves of one metric as one PNG, a row for each adaptation, a column for each target; None where there are not several."""
    groups = table.groups(*_CURVE)
    found = {key: _curves(lines, reference=table.reference) for key, lines in groups.items()}
    found = {key: curves for key, curves in found.items() if curves and key[-1] == next(iter(groups))[-1]}
    rows, columns = (list(dict.fromkeys(tuple(key[i] for i in places) for key in found)) for places in ((3,), (0, 1, 2)))
    if len(found) < 2 or len(found) != len(rows) * len(columns):
        return None
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(3.4 * len(columns) + 0.4, 2.7 * len(rows) + 0.3), layout='constrained')
        grid = figure.subplots(len(rows), len(columns), squeeze=False)
        for key, curves in found.items():
            axes = grid[rows.index(key[3:4])][columns.index(key[:3])]
            needed = [one for one in table.needed if (one.train_on, one.test_on, one.target, one.adaptation, one.metric) == key]
            _curve_axes(axes, table, curves, groups[key][0], needed)
            axes.set_title(short(line_place(groups[key][0]), limit=40))
        figure.supxlabel('share of the labels used for training (log scale)', fontsize=10)
        figure.supylabel(metric_name(next(iter(found))[-1]), fontsize=10)
        return _png(figure)


def _reached(axes: matplotlib.axes.Axes, needed: Sequence[Needed], colours: dict[str, str]) -> None:
    """A line at what the reference reaches with all labels, and where each method crosses it."""
    if not needed:
        return
    level, left = needed[0].level_reached, axes.get_xlim()[0]
    axes.hlines(level, left, 1.0, color=GREY, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
    words = f'{short(needed[0].reference, limit=18)} with all labels'
    place = {'xycoords': ('axes fraction', 'data'), 'xytext': (4, 3), 'textcoords': 'offset points'}
    axes.annotate(words, (0.0, level), fontsize=8, color=GREY, **place)
    for one in needed:
        if one.ratio.value is not None and one.smallest < one.ratio.value < math.inf:
            tick = {'marker': '|', 'markersize': 16, 'markeredgewidth': 2, 'color': colours[one.method]}
            axes.plot([one.ratio.value], [one.level_reached], zorder=4, **tick)


def _curve_words(first: Line, curves: list[tuple[str, list[Line]]], needed: Sequence[Needed], table: StudyTable) -> str:
    """The caption."""
    seeds = sorted({line.n_seeds for _, points in curves for line in points})
    shown = f'{seeds[0]}' if len(seeds) == 1 else f'{seeds[0]} to {seeds[-1]}'
    words = [f'Band: 95\u202f% interval over {_unit(first)}. Points: mean over {shown} seed{"" if seeds[-1] == 1 else "s"}.']
    words += ['Bands may overlap where the difference, drawn in pairs, is clear: see the table.'] if table.reference else []
    for one in needed:
        bounds = f'{one.words(one.ratio.low)} to {one.words(one.ratio.high)}'
        bounds = one.words(one.ratio.low) if one.ratio.low == one.ratio.high else bounds
        what = f'What {nice(one.reference)} reaches with all labels (dotted), {nice(one.method)} reaches with'
        words.append(f'{what} {one.words(one.ratio.value)} of them (95\u202f% interval: {bounds}).')
    return ' '.join(words)


def matrices(table: StudyTable) -> tuple[Drawn, ...]:
    """A heat map for each method: trained on (down) against tested on (across), all methods of a metric in the same shades."""
    found = []
    for key, lines in table.groups('method', 'adaptation', 'target', 'metric').items():
        whole = [line for line in lines if line.fraction == 1]
        rows, columns = (list(dict.fromkeys(getattr(line, name) for line in whole)) for name in ('train_on', 'test_on'))
        if len(rows) < 2 or len(columns) < 2:
            continue
        every = [line.seeds.value for line in table.lines if line.metric == key[3] and line.fraction == 1 and line.seeds.value is not None]
        low = _CHANCE.get(key[3], min(every, default=0.0))
        found.append(_matrix(table, whole, rows, columns, shades=(min([low, *every]), max([low, *every]))))
    return tuple(found)


def _matrix(table: StudyTable, lines: Sequence[Line], rows: list[str], columns: list[str], *, shades: tuple[float, float]) -> Drawn:
    by_cell = {(line.train_on, line.test_on): line for line in lines}
    columns = sorted(columns, key=lambda name: (name not in rows, rows.index(name) if name in rows else 0))
    size = (2.0 + 1.28 * len(columns), 1.25 + 0.72 * len(rows))
    with figures.chart(size=size) as (figure, axes):
        values = np.full((len(rows), len(columns)), np.nan)
        for (i, train), (j, test) in ((a, b) for a in enumerate(rows) for b in enumerate(columns)):
            line = by_cell.get((train, test))
            values[i, j] = np.nan if line is None or line.seeds.value is None else line.seeds.value
        axes.imshow(values, cmap=_SHADES, vmin=shades[0], vmax=max(shades[1], shades[0] + 1e-9), aspect='auto')
        axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
        middle = shades[0] + 0.55 * (shades[1] - shades[0])
        for (i, train), (j, test) in ((a, b) for a in enumerate(rows) for b in enumerate(columns)):
            _matrix_cell(axes, by_cell.get((train, test)), at=(j, i), dark=values[i, j] > middle)
            if train == test:
                edge = '#ffffff' if values[i, j] > middle else INK
                axes.add_patch(Rectangle((j - 0.46, i - 0.43), 0.92, 0.86, fill=False, edgecolor=edge, linewidth=1.4, zorder=3))
        axes.set_xticks(range(len(columns)), [short(name, limit=16) for name in columns])
        axes.set_yticks(range(len(rows)), [short(name, limit=16) for name in rows])
        axes.tick_params(which='both', length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
        axes.xaxis.set_label_position('top')
        axes.set(xlabel='tested on', ylabel='trained on')
        axes.grid(False)
        axes.grid(which='minor', color='#ffffff', linewidth=3)
        axes.set_axisbelow(False)
        axes.spines[:].set_visible(False)
        first = lines[0]
        title = f'{metric_name(first.metric)} of {first.method}, {ADAPTED.get(first.adaptation, first.adaptation)}'
        axes.set_title(short(title, limit=14 + 14 * len(columns)), pad=10)
        return _drawn(
            figure,
            name=slug(table.name, 'matrix', first.method, first.adaptation, first.target, first.metric),
            alt=f'{metric_name(first.metric)} of {first.method}: '
            + joined(f'{a} to {b} {number(line.seeds.value, metric=line.metric)}' for (a, b), line in by_cell.items()),
            caption=f'{metric_name(first.metric)}{_of(first)}, mean over seeds; below it the 95\u202f% interval over {_unit(first)}. '
            'Outlined: tested on held-out images of the set it was trained on. '
            + ''.join(f'{mark}: {MARKS[mark]}. ' for mark in dict.fromkeys(line.mark for line in lines if line.mark))
            + 'The darker the better, alike in all matrices of this table.',
        )


def _matrix_cell(axes: matplotlib.axes.Axes, line: Line | None, *, at: tuple[int, int], dark: bool) -> None:
    x, y = at
    if line is None or line.seeds.value is None:
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor='#f5f7fa', edgecolor='#cbd2d9', hatch='///', linewidth=0))
        return
    colour = '#ffffff' if dark else INK
    place = {'ha': 'center', 'va': 'center', 'color': colour}
    axes.text(x, y - 0.08, f'{number(line.seeds.value, metric=line.metric)}{line.mark}', fontsize=12, **place)
    if line.patients.low is not None and line.patients.high is not None:
        bounds = interval(line.seeds.value, line.patients.low, line.patients.high, metric=line.metric).partition(' ')[2].strip('()')
        axes.text(x, y + 0.22, bounds, fontsize=8, **place)


def forests(table: StudyTable) -> tuple[Drawn, ...]:
    """Methods beside each other on each test set: a dot, a thick line over seeds, a thin one over patients, and what is published.

    Where a matrix shows the sets that a model was not trained on, only the others stand here.
    """
    crossed = bool(matrices(table))
    found = []
    for lines in table.groups('metric').values():
        whole = [line for line in lines if line.fraction == 1 and line.seeds.value is not None]
        whole = [line for line in whole if line.train_on == line.test_on or not crossed]
        if len(whole) > 1:
            found.append(_forest(table, whole))
    return tuple(found)


def _forest(table: StudyTable, lines: Sequence[Line]) -> Drawn:
    first = lines[0]
    several = len({line.adaptation for line in lines}) > 1
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line_place(line, adaptation=several), []).append(line)
    printed = {where: _printed(members) for where, members in groups.items()}
    rows = sum(len(groups[where]) + len(printed[where]) + 1.3 for where in groups)
    colours = _colours(list(dict.fromkeys(line.method for line in lines)), reference=table.reference)
    markers = {method: _MARKERS[i % len(_MARKERS)] for i, method in enumerate(colours)}
    with figures.chart(size=(6.4, 0.8 + 0.25 * rows)) as (figure, axes):
        y, ticks = 0.0, {}
        for where, members in groups.items():
            head = {'transform': axes.get_yaxis_transform(), 'va': 'center', 'fontweight': 'bold', 'color': INK}
            axes.text(-0.01, y, short(where, limit=30), ha='right', **head)
            for line in sorted(members, key=lambda one: one.method == table.reference):
                y += 1
                _forest_row(axes, line, y=y, colour=colours[line.method], marker=markers[line.method])
                ticks[y] = short(line.method, limit=26) + line.mark
            for one in printed[where]:
                y += 1
                _printed_row(axes, one, y=y)
                ticks[y] = f'{short(one.method, limit=18)}, published'
            y += 1.3
        axes.set_yticks(list(ticks), list(ticks.values()))
        axes.tick_params(axis='y', length=0)
        axes.set(ylim=(y - 0.5, -0.7), xlabel=metric_name(first.metric))
        axes.grid(axis='y', visible=False)
        _metric_axis(axes.xaxis, first.metric)
        axes.spines['left'].set_visible(False)
        words = 'Thick line: ±\u202f1.96 standard errors over seeds, as papers print it. '
        words += f'Thin line: 95\u202f% interval over {_unit(first)}.'
        if any(printed.values()):
            words += ' Hollow diamond: the published number; the table says whether the two may be compared.'
        return _drawn(
            figure,
            name=slug(table.name, 'methods', first.metric),
            alt=f'{metric_name(first.metric)} of each method: '
            + joined(f'{line.method} on {line.test_on} {number(line.seeds.value, metric=line.metric)}' for line in lines),
            caption=words,
        )


def _printed(lines: Sequence[Line]) -> list[Printed]:
    """The published numbers that these lines are set against, each once."""
    found = {line.printed: None for line in lines if line.printed is not None and line.printed.number.value is not None}
    return list(found)


def _forest_row(axes: matplotlib.axes.Axes, line: Line, *, y: float, colour: str, marker: str) -> None:
    seeds, patients = line.seeds, line.patients
    if seeds.low is not None and seeds.high is not None:
        axes.plot([seeds.low, seeds.high], [y, y], color=colour, linewidth=6, solid_capstyle='butt', alpha=0.4, zorder=2)
    if patients.low is not None and patients.high is not None:
        axes.plot([patients.low, patients.high], [y, y], color=colour, linewidth=1.4, zorder=3)
    axes.plot([seeds.value], [y], color=colour, marker=marker, markersize=6.5, markeredgecolor='#ffffff', zorder=4)


def _printed_row(axes: matplotlib.axes.Axes, one: Printed, *, y: float) -> None:
    if one.number.low is not None and one.number.high is not None:
        axes.plot([one.number.low, one.number.high], [y, y], color=INK, linewidth=1, zorder=2)
    axes.plot([one.number.value], [y], marker='D', markersize=6, markerfacecolor='#ffffff', markeredgecolor=INK, linestyle='', zorder=3)


def _end_labels(axes: matplotlib.axes.Axes, ends: Iterable[tuple[float, str, str]]) -> None:
    """Names at the ends of the lines, moved apart where they would lie upon each other."""
    low, high = axes.get_ylim()
    step = (high - low) * 0.062
    placed: list[float] = []
    for value, method, colour in sorted(ends):
        placed.append(max(value, placed[-1] + step) if placed else value)
        style = {'color': colour, 'fontsize': 9, 'va': 'center', 'fontweight': 'bold', 'annotation_clip': False}
        at = (1.0, placed[-1])
        axes.annotate(short(method, limit=26), at, xycoords=('axes fraction', 'data'), xytext=(5, 0), textcoords='offset points', **style)


def _metric_axis(axis: matplotlib.axis.Axis, metric: str) -> None:
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if metric in _BOUNDED:
        axis.set_major_formatter(lambda value, _: f'{value:.2f}'.replace('0.', '.', 1) if value < 1 else f'{value:.2f}')


def _colours(methods: Sequence[str], *, reference: str) -> dict[str, str]:
    others = [method for method in methods if method != reference]
    colours = {method: _COLOURS[i % len(_COLOURS)] for i, method in enumerate(others)}
    return colours | ({reference: GREY} if reference in methods else {})


def _of(line: Line) -> str:
    return ' (mean over the classes)' if line.target == MACRO else f' of {nice(line.target)}'


def _unit(line: Line) -> str:
    return 'patients' if line.n_patients < line.n_images else 'images (each its own patient)'


def _drawn(figure: Figure, *, name: str, alt: str, caption: str) -> Drawn:
    png = _png(figure)
    return Drawn(name=name, picture=figures.picture(figure, alt=alt, caption=caption), png=png)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format='png', dpi=_DPI, metadata={'Software': None})
    return buffer.getvalue()


def slug(*parts: str) -> str:
    """A file name made of letters, digits and hyphens alone."""
    return '-'.join(filter(None, (re.sub('[^A-Za-z0-9]+', '-', part).strip('-') for part in parts)))[:150]
