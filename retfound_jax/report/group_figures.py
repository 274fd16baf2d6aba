"""Small multiples: one little chart a group, all on the same axes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from retfound_jax.report.blocks import Picture
from retfound_jax.report.figures import BLUE, GREY, STYLE, picture
from retfound_jax.report.group_tables import Reliability
from retfound_jax.report.words import number, short

_ACROSS = 4
_PANEL = (2.15, 2.25)  # [inches]


def calibration_panels(groups: Sequence[tuple[str, Reliability, float | None]], *, what: str) -> Picture:
    """Stated against observed of each group: its name, its bins and its calibration error."""
    rows = math.ceil(len(groups) / _ACROSS)
    top = _top([one for _, one, _ in groups])
    with matplotlib.rc_context(STYLE | {'font.size': 8, 'axes.titlesize': 8.5}), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph')  # the reader's own fonts draw what matplotlib's lacks
        figure = Figure(figsize=(_PANEL[0] * min(_ACROSS, len(groups)), _PANEL[1] * rows), layout='constrained')
        grid = figure.subplots(rows, min(_ACROSS, len(groups)), sharex=True, sharey=True, squeeze=False)
        for axes, (name, one, error) in zip(grid.flat, groups, strict=False):
            axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
            axes.plot(one.stated, one.observed, color=BLUE, marker='o', markersize=3, linewidth=1.2)
            axes.set_title(short(name, limit=26))
            axes.text(0.04, 0.96, f'error {number(error, metric="ECE")}', transform=axes.transAxes, va='top', fontsize=7.5)
            axes.set(xlim=(-0.02 * top, 1.03 * top), ylim=(-0.02 * top, 1.03 * top))
        for axes in list(grid.flat)[len(groups) :]:
            axes.set_visible(False)
        figure.supxlabel('probability the model stated', fontsize=8.5)
        figure.supylabel('share with the finding', fontsize=8.5)
        told = '; '.join(f'{name} {number(error, metric="ECE")}' for name, _, error in groups)
        return picture(
            figure,
            alt=f'Calibration by group{what}; expected calibration error: {told}.',
            caption='Dots: as many patients each, 20 or more. Dashed: right; above it the model states too little, below too much.',
        )


def _top(groups: Sequence[Reliability]) -> float:
    """The end of the axes: rare findings have no probabilities near 1."""
    largest = max([value for one in groups for value in (*one.stated, *one.observed)] + [0.05])
    return min(1.0, math.ceil(largest * 20 + 0.4) / 20)
