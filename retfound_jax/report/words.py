"""Numbers and names as a reader wants them, and the glossary."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

NONE = '–'
# Control characters are not allowed in HTML or SVG text, and direction marks could make a label read as another one.
_UNPRINTABLE = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]')
_BOUNDED = frozenset(
    {
        'AUROC',
        'AUPRC',
        'sensitivity',
        'specificity',
        'F1',
        'kappa_quadratic',
        'accuracy',
        'balanced_accuracy',
        'ECE',
        'Brier',
        'R2',
        'pearson',
    }
)

NAMES = {
    'kappa_quadratic': 'Quadratic kappa',
    'balanced_accuracy': 'Balanced accuracy',
    'MAE': 'Mean absolute error',
    'R2': 'R²',
    'pearson': 'Correlation',
    'ECE': 'Calibration error',
    'Brier': 'Brier score',
    'RMSE': 'Root mean square error',
}

# One line each, for a table; the glossary says more.
BRIEF = {
    'AUROC': 'How often a positive case gets a higher score than a negative one (.5: a coin)',
    'AUPRC': 'How pure the called cases stay as more positive ones are found (useless: the share of positive cases)',
    'sensitivity': 'Share called positive of those who have the finding',
    'specificity': 'Share called negative of those who do not have it',
    'F1': 'Sensitivity and the share of right positive calls in one number',
    'accuracy': 'Share of cases put right',
    'balanced_accuracy': 'Share put right, rare classes counting as much as common ones',
    'kappa_quadratic': 'Agreement on the grade beyond chance, far misses counting more',
    'ECE': 'How far stated probabilities are from what happens (0: never off)',
    'slope': 'How fast the chance of the finding rises with what is stated (1: right; less: too sure; more: too timid)',
    'intercept': 'Whether too much (below 0) or too little is stated, given that slope (0: right)',
    'Brier': 'Squared distance between stated probability and truth (0: perfect)',
    'MAE': 'How far the estimate is off on average, in the unit of the label',
    'RMSE': 'The same, large errors counting more',
    'R2': 'Share of the variation explained (0: no better than the mean)',
    'pearson': 'Linear correlation of estimate and truth',
}

GLOSSARY = {
    'AUROC': 'How often a randomly chosen positive case gets a higher score than a randomly chosen negative one: .5 is a '
    'coin, 1 is perfect. '
    'It needs no threshold and does not depend on how common the finding is.',
    'AUPRC': 'Average precision: how pure the list of called cases stays as more and more of the positive ones are found. '
    'A useless score gives the share of positive cases, so compare it with that share.',
    'sensitivity': 'Of those who have the finding, the share the model calls positive at the chosen threshold.',
    'specificity': 'Of those who do not have the finding, the share the model calls negative at the chosen threshold.',
    'F1': 'The harmonic mean of sensitivity and of the share of positive calls that are right: 1 is perfect.',
    'accuracy': 'The share of cases put into the right class. Misleading when one class is much more common.',
    'balanced_accuracy': 'The mean over the classes of the share put right, so that rare classes count as much as common ones.',
    'kappa_quadratic': 'Agreement on an ordered grade beyond chance; a miss by two grades counts four times a miss by one. 0 '
    'is chance, 1 is perfect.',
    'ECE': 'Mean distance between the probability the model states and how often the finding is there (expected calibration error): 0 is '
    'perfect. Chance can only add to it, more so in resamplings, so its interval may lie above the value itself.',
    'slope': 'Calibration slope: log odds of the finding rise by this much where the stated ones rise by 1. 1 is right, less is too '
    'sure of itself, more too timid.',
    'intercept': 'Calibration intercept: the log odds of the finding where the model states even odds. 0 is right, below it the model '
    'states too much.',
    'Brier': 'Mean squared distance between the stated probability and what was found (0 or 1): 0 is perfect.',
    'MAE': 'How far the estimate is from the true number on average, in its own unit.',
    'RMSE': 'Like the mean absolute error, with large errors counting more.',
    'R2': 'The share of the variation between cases that the estimate explains: 1 is perfect, 0 is no better than always naming the mean.',
    'pearson': 'The linear correlation between estimate and true number: 1 is perfect, 0 is none.',
}


def clean(text: object) -> str:
    """Text without control and direction characters, each replaced by U+FFFD."""
    return _UNPRINTABLE.sub('\ufffd', str(text))


def nice(text: object) -> str:
    """The name of a group or target as it is read aloud."""
    return clean(text).replace('>=', '≥')


def short(text: object, *, limit: int = 28) -> str:
    """Clean text of at most `limit` characters, cut in the middle, for places with no room to wrap."""
    text = nice(text)
    return text if len(text) <= limit else f'{text[: limit - limit // 3 - 1]}…{text[-(limit // 3) :]}'


def metric_name(metric: str) -> str:
    """A metric's name in a table."""
    return NAMES.get(metric, metric[:1].upper() + metric[1:])


def number(value: float | None, *, metric: str = '') -> str:
    """A metric with sensible digits: three without a leading zero where it is bounded (`.943`), three significant ones elsewhere."""
    return together((value,), metric=metric)[0]


def together(values: Sequence[float | None], *, metric: str = '') -> list[str]:
    """Numbers to be read side by side: as many decimals each as the largest one needs."""
    known = [abs(value) for value in values if value is not None and math.isfinite(value)]
    places = _places(max(known, default=0.0))
    shown = []
    for value in values:
        if value is None or not math.isfinite(value):
            shown.append(NONE)
        elif metric in _BOUNDED:
            text = f'{value:.3f}'
            shown.append(_minus(text.replace('0.', '.', 1) if abs(float(text)) < 1 else text))
        else:
            shown.append(_minus(significant(value) if places is None else f'{value:,.{places}f}'.replace(',', '\u202f')))
    return shown


def interval(value: float | None, low: float | None, high: float | None, *, metric: str = '') -> str:
    """`.943 (.921–.962)`; the bounds are joined by `to` where one is negative."""
    return ' '.join(filter(None, value_and_bounds(value, low, high, metric=metric)))


def value_and_bounds(value: float | None, low: float | None, high: float | None, *, metric: str = '') -> tuple[str, str]:
    """The value, and its interval in brackets; the latter is '' where there is none."""
    shown, *pair = together((value, low, high), metric=metric)
    if shown == NONE or NONE in pair:
        return shown, ''
    return shown, f'({" to ".join(pair)})' if '−' in ''.join(pair) else f'({"–".join(pair)})'


def significant(value: float, *, digits: int = 3) -> str:
    """A number with `digits` significant ones and no exponent between a ten-thousandth and a million."""
    if value == 0:
        return '0'
    places = _places(abs(value), digits=digits)
    if places is None:
        mantissa, exponent = f'{value:.{digits - 1}e}'.split('e')
        return _minus(f'{mantissa}e{int(exponent)}')
    return _minus(f'{value:,.{places}f}'.replace(',', '\u202f'))


def count(value: int | float | None) -> str:
    """A count with thin spaces between the thousands."""
    return NONE if value is None else f'{int(value):,}'.replace(',', '\u202f')


def plural(value: int, one: str, many: str = '') -> str:
    """`1 patient`, `2 patients`."""
    return f'{count(value)} {one if value == 1 else many or one + "s"}'


def percent(part: float, whole: float) -> str:
    """A share as whole per cent; `<1 %` rather than a zero that is none."""
    if not whole:
        return NONE
    share = 100 * part / whole
    if 0 < share < 0.5:
        return '<1\u202f%'
    return '>99\u202f%' if 99.5 <= share < 100 else f'{share:.0f}\u202f%'


def duration(seconds: float | None) -> str:
    """A span of time in words."""
    if seconds is None or not math.isfinite(seconds):
        return 'not recorded'
    if seconds < 90:
        return f'{seconds:.0f} seconds'
    if seconds < 90 * 60:
        return f'{seconds / 60:.0f} minutes'
    return f'{seconds / 3600:.1f} hours'


def joined(items: Iterable[object]) -> str:
    """`a, b and c`."""
    items = [str(item) for item in items]
    return ' and '.join([', '.join(items[:-1]), items[-1]]) if len(items) > 1 else ''.join(items)


def by_name(by: str) -> str:
    """A subgroup column as a heading: `sex+age_band` is `Sex and age`."""
    text = joined('age' if part == 'age_band' else part for part in by.split('+')).replace('_', ' ')
    return text[:1].upper() + text[1:]


def _places(largest: float, *, digits: int = 3) -> int | None:
    """Decimals that give a number its significant digits; None where an exponent reads better."""
    if largest == 0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(largest))) if 1e-4 <= largest < 1e6 else None


def _minus(text: str) -> str:
    text = text.lstrip('-') if not any(digit in text for digit in '123456789') else text
    return text.replace('-', '−')
