"""Charts as SVG in data URIs: inside an `img` no text of theirs can run or fetch anything, and their ids stay their own."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from retfound_jax.report.blocks import Picture
from retfound_jax.report.collect import Curve
from retfound_jax.report.tables import Calibration, Roc
from retfound_jax.report.words import clean, interval, number, short, together

# Okabe and Ito's colours, told apart with any colour vision.
BLUE, ORANGE, GREEN, GREY = '#0072b2', '#d55e00', '#009e73', '#6b7280'
INK, RULE = '#1f2933', '#cbd2d9'
_FONTS = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
ROC_WORDS = (
    'Up: the share of those with the finding who are found. Right: the share of the others who are called by mistake. Dashed: a coin. '
)
ROC_WORDS += 'Band: {:.0f} % interval over patients.'
CALIBRATION_WORDS = 'On the dashed line the stated probability is right; above it the model states too little, below too much. '
CALIBRATION_WORDS += 'The larger the dot the more cases behind it.'
_POINTS = 400  # of a curve; more would not be seen
_RASTER = 400  # dots of a scatter above which they become one picture

STYLE = {
    'font.family': 'DejaVu Sans',
    'font.size': 10,
    'text.parse_math': False,  # a class named $x$ is text
    'svg.fonttype': 'none',
    'svg.hashsalt': 'retfound',  # equal charts are equal bytes
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': GREY,
    'axes.labelcolor': INK,
    'axes.titlesize': 10.5,
    'axes.titleweight': 'bold',
    'axes.titlelocation': 'left',
    'axes.titlecolor': INK,
    'axes.grid': True,
    'axes.axisbelow': True,
    'grid.color': '#e4e7eb',
    'grid.linewidth': 0.8,
    'xtick.color': GREY,
    'ytick.color': GREY,
    'xtick.labelcolor': INK,
    'ytick.labelcolor': INK,
    'legend.frameon': False,
    'legend.fontsize': 9,
    'lines.linewidth': 1.8,
}


def roc_chart(curve: Roc, *, title: str, level: float) -> Picture:
    """Sensitivity against false alarms, with the pointwise band."""
    with chart(square=True) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        if curve.low:
            axes.fill_between(curve.fpr, curve.low, curve.high, color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(curve.fpr, curve.tpr, color=BLUE)
        shown = interval(curve.auroc, curve.auroc_low, curve.auroc_high, metric='AUROC')
        _unit_axes(axes, x='false alarms (1 − specificity)', y='found (sensitivity)', title=title, aside=f'AUROC {shown}')
        return picture(
            figure,
            alt=f'ROC curve, {title}: AUROC {shown}, {level:.0%} interval in brackets.',
        )


def calibration_chart(curve: Calibration, *, title: str) -> Picture:
    """How often the finding is there against how probable the model said it was; dots as large as their bin."""
    with chart(square=True) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        share = np.asarray(curve.n) / max(1, sum(curve.n))
        axes.scatter(curve.stated, curve.observed, s=18 + 260 * share, color=BLUE, alpha=0.85, linewidth=0, zorder=3)
        _unit_axes(
            axes,
            x='probability the model stated',
            y='share with the finding',
            title=title,
            aside=f'error {number(curve.ece, metric="ECE")}',
        )
        return picture(
            figure,
            alt=f'{title}: expected calibration error {number(curve.ece, metric="ECE")}, Brier {number(curve.brier, metric="Brier")}.',
        )


def agreement_charts(true_N: np.ndarray, *, stated: np.ndarray, name: str) -> tuple[Picture, Picture]:
    """For a number: estimate against truth, and Bland and Altman's difference against mean (Lancet 1986)."""
    difference_N, mean_N = stated - true_N, (stated + true_N) / 2
    bias, spread = float(difference_N.mean()), float(difference_N.std(ddof=1)) if len(difference_N) > 1 else 0.0
    low, high = bias - 1.96 * spread, bias + 1.96 * spread
    shown = together((bias, low, high))
    with chart(square=True) as (figure, axes):
        ends = [float(min(true_N.min(), stated.min())), float(max(true_N.max(), stated.max()))]
        axes.plot(ends, ends, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        _dots(axes, true_N, stated)
        axes.set(xlabel=f'true {short(name)}', ylabel='estimate', title='Estimate against truth')
        first = picture(
            figure,
            alt=f'Scatter of the estimated against the true {name} of {len(true_N)} photographs.',
            caption='One dot a photograph; on the dashed line the estimate is right.',
        )
    with chart(square=True) as (figure, axes):
        _dots(axes, mean_N, difference_N)
        for value, style in ((bias, '-'), (low, (0, (4, 3))), (high, (0, (4, 3)))):
            axes.axhline(value, color=ORANGE, linewidth=1.2, linestyle=style)
        axes.set(xlabel='mean of estimate and truth', ylabel='estimate − truth', title='Difference (Bland and Altman)')
        second = picture(
            figure,
            alt=f'Bland-Altman chart of {name}: mean difference {shown[0]}, limits of agreement {shown[1]} to {shown[2]}.',
            caption=f'Mean difference {shown[0]}; 95 in 100 are expected between {shown[1]} and {shown[2]} (dashed).',
        )
    return first, second


def curve_chart(curves: Sequence[tuple[str, Curve]], *, title: str, y: str, alt: str, caption: str = '') -> Picture:
    """One or two logged numbers over the steps; the first solid, the second with dots."""
    with chart() as (figure, axes):
        for (name, curve), color, marker in zip(curves, (BLUE, ORANGE), ('', 'o'), strict=False):
            steps, values = _thin(curve)
            dots = 'o' if marker or len(steps) <= 20 else ''
            axes.plot(steps, values, color=color, label=clean(name), marker=dots, markersize=4)
        if len(curves) > 1:
            axes.legend(loc='best')
        axes.set(xlabel='step', ylabel=y, title=title)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        if max(np.abs(curve.values).max() for _, curve in curves) < 0.01:
            axes.yaxis.set_major_formatter(lambda value, _: f'{value:.1e}'.replace('e-0', 'e−') if value else '0')
        return picture(figure, alt=alt, caption=caption)


def data_uri(data: bytes, *, mime: str) -> str:
    """Bytes as an address that holds them."""
    return f'data:{mime};base64,{base64.b64encode(data).decode("ascii")}'


@contextmanager
def chart(*, square: bool = False, size: tuple[float, float] | None = None) -> Iterator[tuple[Figure, matplotlib.axes.Axes]]:
    """A figure in the page's style, of `size` [inches] where given; drawn and written inside the context."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='Glyph')  # the reader's own fonts draw what matplotlib's lacks
        figure = Figure(figsize=size or ((4.3, 4.1) if square else (4.3, 3.0)), layout='constrained')
        yield figure, figure.add_subplot()


def picture(figure: Figure, *, alt: str, caption: str = '') -> Picture:
    """The figure as SVG in a data URI; equal figures are equal bytes."""
    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={'Date': None, 'Creator': None, 'Format': None, 'Type': None})
    svg = buffer.getvalue().decode('utf-8')
    svg = svg[svg.index('<svg') :].replace("'DejaVu Sans'", _FONTS)
    return Picture(src=data_uri(svg.encode('utf-8'), mime='image/svg+xml'), alt=clean(alt), caption=caption)


def _unit_axes(axes: matplotlib.axes.Axes, *, x: str, y: str, title: str, aside: str) -> None:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, xticks=ticks, yticks=ticks)
    axes.set_title(short(title, limit=18))
    axes.set_title(aside, loc='right', fontweight='normal')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f'{value:g}'.replace('0.', '.'))


def _dots(axes: matplotlib.axes.Axes, x_N: np.ndarray, y_N: np.ndarray) -> None:
    axes.scatter(x_N, y_N, s=12, color=BLUE, alpha=0.45, linewidth=0, rasterized=len(x_N) > _RASTER)


def _thin(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal runs of points where there are more than can be seen."""
    if len(curve.steps) <= _POINTS:
        return curve.steps, curve.values
    parts = np.array_split(np.arange(len(curve.steps)), _POINTS)
    return np.array([curve.steps[part].mean() for part in parts]), np.array([curve.values[part].mean() for part in parts])
