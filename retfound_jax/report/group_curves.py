"""Figures of a study that asks of groups, from `tables/bias.json` and `tables/learning_by_group.json` (studies/group_tables.py).

`draw` gives pictures for a page, `write` the same as PNG. AUROC of each group goes up; to the right the share of a group in the
pretraining, or the share of the labels. Bars are 95 % intervals over patients, small dots the seeds, and lines those of least squares.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, PercentFormatter

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, read_json
from retfound_jax.report import figures
from retfound_jax.report.blocks import Picture
from retfound_jax.report.figures import BLUE, GREEN, GREY, INK, ORANGE
from retfound_jax.report.words import short

FORMAT = 'retfound by group 1'
GAP = 'gap'
_COLOURS = (BLUE, ORANGE, GREEN, '#cc79a7', '#56b4e9', '#e69f00', INK)  # Okabe and Ito's, with a marker each
_MARKERS = 'osD^vPX'
_ADAPTED = {'finetune': 'fine-tuned', 'probe': 'linear probe', 'knn': 'nearest neighbours', 'green_probe': "RETFound-Green's probe"}
_DPI = 200
_MOST = 3  # methods with a panel each among the learning curves: the first, the middle and the last composition


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One figure."""

    name: str  # of the file, without its ending
    picture: Picture
    png: bytes


@dataclass(frozen=True, kw_only=True)
class _Panel:
    title: str
    points: list[dict[str, Any]]
    slopes: list[dict[str, Any]]


def read(path: Path) -> dict[str, Any]:
    """One of the two files; a UserError where it is another."""
    told = read_json(path)
    if not isinstance(told, dict) or told.get('format') != FORMAT:
        raise UserError(f'{path} is no table by group of this version: delete it and make the table again')
    return told


def draw(told: Mapping[str, Any]) -> tuple[Drawn, ...]:
    """A figure for each target: composition where that was varied, else learning curves."""
    on = told['slopes'][0]['on'] if told['slopes'] else 'composition'
    targets = dict.fromkeys(point['target'] for point in told['points'])
    found = (_figure(told, target, on=on) for target in targets)
    return tuple(one for one in found if one is not None)


def write(path: Path, *, out: Path) -> list[Path]:
    """Draws the figures of a file as PNG; returns the paths."""
    made = {out / f'{one.name}.png': one.png for one in draw(read(path))}
    for place, png in made.items():
        atomic_write(place, png)
    return list(made)


def _figure(told: Mapping[str, Any], target: str, *, on: str) -> Drawn | None:
    points = [point for point in told['points'] if point['target'] == target and point['value'] is not None]
    slopes = [slope for slope in told['slopes'] if slope['target'] == target]
    panels = _by_composition(points, slopes) if on == 'composition' else _by_labels(points, slopes)
    if not panels:
        return None
    groups = [name for name in dict.fromkeys(point['group'] for point in points) if name != GAP]
    with rc_context(figures.STYLE):
        rows = math.ceil(len(panels) / 3)
        columns = math.ceil(len(panels) / rows)
        figure = Figure(figsize=(3.7 * columns + 0.5, 3.3 * rows + 0.6), layout='constrained')
        limits = _limits(points, lines=len(groups) + 2)
        for axes, panel in zip(figure.subplots(rows, columns, squeeze=False, sharey=True).flat, panels, strict=False):
            _axes(axes, panel, groups, on=on)
            axes.set_ylim(limits)
        for axes in figure.axes[len(panels):]:
            axes.set_axis_off()
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc='outside upper right', ncols=len(labels))
        across = f'share of {told["group"]} in the pretraining' if on == 'composition' else 'share of the labels (log scale)'
        figure.supxlabel(across, fontsize=10)
        figure.supylabel(f'AUROC of {short(target, limit=30)}', fontsize=10)
        kind = 'bias' if on == 'composition' else 'learning_by_group'
        safe = ''.join(letter if letter.isalnum() or letter in '-_' else '_' for letter in target)
        words = ' '.join(slope['sentence'] for slope in slopes if slope['group'] == GAP)
        drawn = ' Drawn by the phantom.' if told['drawn'] else ''
        bars = 'Bars: 95\u202f% intervals over patients; small dots: seeds; lines: least squares.'
        bars += ' Slopes: with 95\u202f% intervals over seeds and patients.'
        caption = f'AUROC of {target} by {told["by"]}.{drawn} {bars}'
        picture = figures.picture(figure, alt=f'AUROC of {target} by {told["by"]}. {words}', caption=caption)
        return Drawn(name=f'{kind}_{safe}', picture=picture, png=_png(figure))


def _by_composition(points: Sequence[dict[str, Any]], slopes: Sequence[dict[str, Any]]) -> list[_Panel]:
    """A panel for each adaptation and share of labels."""
    panels = []
    for adaptation, fraction in dict.fromkeys((point['adaptation'], point['fraction']) for point in points):
        def here(one: Mapping[str, Any], adaptation: str = adaptation, fraction: float = fraction) -> bool:
            return (one['adaptation'], one['fraction']) == (adaptation, fraction)

        title = f'{_ADAPTED.get(adaptation, adaptation)}, {100 * fraction:g} % of labels'
        chosen = [point | {'x': point['composition']} for point in points if here(point) and point['composition'] is not None]
        panels.append(_Panel(title=title, points=chosen, slopes=[slope for slope in slopes if here(slope)]))
    return panels


def _by_labels(points: Sequence[dict[str, Any]], slopes: Sequence[dict[str, Any]]) -> list[_Panel]:
    """A panel for each adaptation and method, of many compositions the first, the middle and the last."""
    methods = {point['method']: point for point in points}
    ordered = sorted(methods, key=lambda name: (methods[name]['composition'] is None, methods[name]['composition'] or 0))
    if len(ordered) > _MOST:
        ordered = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    panels = []
    for adaptation in dict.fromkeys(point['adaptation'] for point in points):
        for method in ordered:
            def here(one: Mapping[str, Any], adaptation: str = adaptation, method: str = method) -> bool:
                return (one['adaptation'], one['method']) == (adaptation, method)

            chosen = [point | {'x': point['fraction']} for point in points if here(point)]
            title = f'{_ADAPTED.get(adaptation, adaptation)}, {short(methods[method]["words"], limit=24)}'
            panels.append(_Panel(title=title, points=chosen, slopes=[slope for slope in slopes if here(slope)]))
    return [panel for panel in panels if len(panel.points) > len({point['group'] for point in panel.points})]


def _axes(axes: Axes, panel: _Panel, groups: Sequence[str], *, on: str) -> None:
    shares = sorted({point['x'] for point in panel.points})
    slopes = {slope['group']: slope for slope in panel.slopes}
    for i, group in enumerate(groups):
        points = sorted((point for point in panel.points if point['group'] == group), key=lambda point: point['x'])
        if not points:
            continue
        shift = (i - (len(groups) - 1) / 2) * 0.022
        x = np.array([point['x'] for point in points])
        x = x + shift if on == 'composition' else x * (1 + 2 * shift)
        value = np.array([point['value'] for point in points])
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        ends = [[point['value'] if point[end] is None else point[end] for point in points] for end in ('patients_low', 'patients_high')]
        style = {'markersize': 5, 'elinewidth': 1.2, 'capsize': 2, 'zorder': 3}
        axes.errorbar(x, value, yerr=np.abs(np.array(ends) - value), fmt=marker, color=colour, label=short(group, limit=24), **style)
        for at, point in zip(x, points, strict=True):
            axes.plot([at] * len(point['per_seed']), point['per_seed'], '.', color=colour, markersize=5, alpha=0.5)
        _line(axes, x - shift if on == 'composition' else x / (1 + 2 * shift), value, colour=colour, log=on == 'labels')
    axes.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_title(panel.title)
    if on == 'labels':
        axes.set_xscale('log')
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(shares, [f'{100 * share:g}\u202f%' for share in shares])
    else:
        axes.set_xticks(shares)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _say(axes, slopes)


def _limits(points: Sequence[dict[str, Any]], *, lines: int) -> tuple[float, float]:
    """Of the axis that all panels share, with room for that many lines of words below."""
    shown = [point for point in points if point['group'] != GAP]
    low = min(0.5, *(value for point in shown for value in (point['patients_low'], *point['per_seed']) if value is not None))
    high = min(1.0, max(value for point in shown for value in (point['patients_high'], *point['per_seed']) if value is not None))
    span = max(high - low, 0.05)
    return low - span * 0.075 * lines, high + 0.05 * span


def _line(axes: Axes, x: np.ndarray, value: np.ndarray, *, colour: str, log: bool) -> None:
    if len(x) > 1:
        along = np.log2(x) if log else x
        axes.plot(x, np.polyval(np.polyfit(along, value, 1), along), color=colour, linewidth=1.6, zorder=2)


def _say(axes: Axes, slopes: Mapping[str, Any]) -> None:
    """Each slope with its interval, in the corner where the fewest points are."""
    lines = [
        f'{short(group, limit=18)} {slope["value"]:+.3f} ({slope["low"]:+.3f} to {slope["high"]:+.3f})'
        for group, slope in slopes.items()
        if slope['low'] is not None
    ]
    if lines:
        axes.annotate('slope\n' + '\n'.join(lines), (0.02, 0.02), xycoords='axes fraction', fontsize=7.5, color=INK, va='bottom')


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format='png', dpi=_DPI, metadata={'Software': None})
    return buffer.getvalue()
