"""Charts of selective referral."""

from __future__ import annotations

from collections.abc import Sequence

from retfound_jax.report.blocks import Picture
from retfound_jax.report.figures import BLUE, GREEN, ORANGE, chart, picture
from retfound_jax.report.uncertainty_tables import Kept
from retfound_jax.report.words import interval, short

_PAIRS = (('sensitivity', 'specificity', 'caught'), ('AUROC', 'accuracy'), ('MAE',))
_NAMES = {'caught': 'found or referred'}


def referral_charts(rows: Sequence[Kept], *, title: str, level: float, both: bool) -> list[Picture]:
    """Performance of the kept against the share referred: sensitivity, specificity and who is found or referred; AUROC and accuracy.

    With `both` every pair there is, otherwise the first.
    """
    known = {name for row in rows for name, value in row.metrics.items() if value.value is not None}
    pairs = [tuple(name for name in pair if name in known) for pair in _PAIRS]
    return [_chart(rows, pair, title=title, level=level) for pair in [pair for pair in pairs if pair][: None if both else 1]]


def _chart(rows: Sequence[Kept], names: Sequence[str], *, title: str, level: float) -> Picture:
    told = []
    with chart() as (figure, axes):
        for name, color, style in zip(names, (BLUE, ORANGE, GREEN), ('-', '--', ':'), strict=False):
            points = [(row.referred, row.metrics[name]) for row in rows if name in row.metrics and row.metrics[name].value is not None]
            x = [100 * referred for referred, _ in points]
            banded = [(at, value) for at, (_, value) in zip(x, points, strict=True) if value.low is not None and value.high is not None]
            axes.fill_between(
                [at for at, _ in banded], [v.low for _, v in banded], [v.high for _, v in banded], color=color, alpha=0.15, linewidth=0
            )
            word, values = _NAMES.get(name, name), [value.value for _, value in points]
            axes.plot(x, values, color=color, linestyle=style, marker='o', markersize=3.5, label=word)
            first = points[0][1]
            told.append(f'{word} {interval(first.value, first.low, first.high, metric=name)} without referral, {values[-1]:.3f} at the end')
        axes.legend(loc='best')
        axes.set(xlabel='referred to a person [% of patients]', ylabel='of those who are kept', title=short(title, limit=24))
        axes.set_xlim(-2, 100 * max(row.referred for row in rows) + 2)
        return picture(
            figure,
            alt=f'Referral curve, {title}: {"; ".join(told)}.',
            caption=f'Band: {100 * level:.0f}\u202f% interval over patients.',
        )
