"""The most confident mistakes, to be looked at: they tell more about a model than its mean does.

Letters: N images, S score columns, Y label columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from retfound_jax.report.blocks import Picture, Pictures, Section, Text
from retfound_jax.report.collect import Collected, Predictions
from retfound_jax.report.figures import data_uri
from retfound_jax.report.tables import Tables
from retfound_jax.report.words import clean, count, number, plural

Thumbnail = Callable[[str], bytes | None]
_SHOWN = 12
_HEAVIEST = 60_000  # [bytes] of one thumbnail, so that the page stays under 3 MB
_JPEG = b'\xff\xd8\xff'


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One wrong answer."""

    row: int  # in the predictions file
    said: str
    truth: str


def section(found: Collected, *, thumbnail: Thumbnail | None, show_keys: bool) -> Section:
    """The worst mistakes as pictures, or in words what is missing to show them."""
    return Section(id='mistakes', title='Its worst mistakes', blocks=tuple(_blocks(found, thumbnail=thumbnail, show_keys=show_keys)))


def find_mistakes(predictions: Predictions, *, tables: Tables) -> tuple[list[Mistake], int, int]:
    """The worst mistakes first, how many there are in all, and among how many answers."""
    if predictions.kind == 'regress':
        return _numbers(predictions)
    if predictions.kind == 'multi' or (predictions.kind == 'single' and len(predictions.classes) == 2):
        return _findings(predictions, tables=tables)
    return _classes(predictions)


def _blocks(found: Collected, *, thumbnail: Thumbnail | None, show_keys: bool) -> list[Any]:
    if found.tables is None or found.predictions is None:
        return [Text('There are no predictions to look for mistakes in.', 'quiet')]
    mistakes, wrong, total = find_mistakes(found.predictions, tables=found.tables)
    unit = 'answer' if found.predictions.kind == 'multi' else 'labelled image'
    if found.predictions.kind == 'regress':
        words = f'The {len(mistakes)} estimates furthest from the truth, of {plural(total, unit)}.'
    elif not wrong:
        return [Text(f'None of {plural(total, unit)} is wrong.')]
    else:
        which = f'The {len(mistakes)} most confident are shown' if len(mistakes) < wrong else 'All are shown, the most confident first'
        words = f'{count(wrong)} of {plural(total, unit)} {"is" if wrong == 1 else "are"} wrong. {which}. '
        words += 'A wrong label looks like a mistake of the model too.'
    if thumbnail is None:
        return [Text(words), Text('Their pictures are not shown: the report was made without photographs.', 'quiet')]
    items = tuple(_picture(one, i, found.predictions, thumbnail, show_keys) for i, one in enumerate(mistakes, start=1))
    privacy = 'A retinal photograph can identify a person: make the report with --nophotographs before it leaves the study.'
    return [Text(words), Pictures(items=items, size='photograph'), Text(privacy, 'quiet')]


def _picture(mistake: Mistake, place: int, predictions: Predictions, thumbnail: Thumbnail, show_keys: bool) -> Picture:
    key = str(predictions.key[mistake.row])
    data = thumbnail(key)
    name = clean(key) if show_keys else str(place)
    src = data_uri(data, mime='image/jpeg') if data and data.startswith(_JPEG) and len(data) <= _HEAVIEST else ''
    words = f'Model: {mistake.said}. Label: {mistake.truth}.'
    return Picture(src=src, alt=f'Mistake {place}. {words}', caption=f'{name}. {words}{"" if src else " No picture."}')


def _findings(predictions: Predictions, *, tables: Tables) -> tuple[list[Mistake], int, int]:
    """Yes or no at the image threshold (.5 where none was chosen); the further the score is from the label the worse."""
    binary = predictions.kind == 'single'
    names = (predictions.classes[1],) if binary else predictions.labels
    label_NY, score_NS = predictions.label_NY, predictions.score_NS[:, 1:] if binary else predictions.score_NS
    cuts = [tables.thresholds.get(name, {}).get('value') for name in names]
    called_NS = score_NS >= np.array([0.5 if cut is None else cut for cut in cuts])
    classes = [f'“{clean(name)}”' for name in predictions.classes]
    known_NY = np.isfinite(label_NY)
    wrong_NY = known_NY & (called_NS != (label_NY > 0))
    distance_NY = np.where(wrong_NY, np.abs(score_NS - label_NY), -1.0)
    mistakes = []
    for flat in np.argsort(-distance_NY, axis=None, kind='stable')[: min(_SHOWN, int(wrong_NY.sum()))]:
        row, y = np.unravel_index(flat, distance_NY.shape)
        positive, called = label_NY[row, y] > 0, called_NS[row, y]
        if binary:  # the probability of the class it named
            chance = score_NS[row, y] if called else 1 - score_NS[row, y]
            said, truth = f'{100 * chance:.0f}\u202f% {classes[int(called)]}', classes[int(positive)]
        else:
            said, truth = f'“{clean(names[y])}” {100 * score_NS[row, y]:.0f}\u202f%', 'yes' if positive else 'no'
        mistakes.append(Mistake(row=int(row), said=said, truth=truth))
    return mistakes, int(wrong_NY.sum()), int(known_NY.sum())


def _classes(predictions: Predictions) -> tuple[list[Mistake], int, int]:
    """The most probable class is another one; ordered by grades missed (ordinal), then by confidence."""
    label_N, score_NS = predictions.label_NY[:, 0], predictions.score_NS
    known_N = np.isfinite(label_N)
    true_N = np.where(known_N, label_N, 0).astype(int)
    called_N = score_NS.argmax(axis=1)
    wrong_N = known_N & (called_N != true_N)
    missed_N = np.abs(called_N - true_N) if predictions.kind == 'ordinal' else np.ones(len(label_N))
    order = np.lexsort((-score_NS.max(axis=1), -missed_N, ~wrong_N))[: min(_SHOWN, int(wrong_N.sum()))]
    names = [f'“{clean(name)}”' for name in predictions.classes]
    mistakes = [
        Mistake(row=int(row), said=f'{100 * score_NS[row].max():.0f}\u202f% {names[called_N[row]]}', truth=names[true_N[row]])
        for row in order
    ]
    return mistakes, int(wrong_N.sum()), int(known_N.sum())


def _numbers(predictions: Predictions) -> tuple[list[Mistake], int, int]:
    label_N, score_N = predictions.label_NY[:, 0], predictions.score_NS[:, 0]
    known_N = np.isfinite(label_N)
    error_N = np.where(known_N, np.abs(score_N - label_N), -1.0)
    order = np.argsort(-error_N, kind='stable')[: min(_SHOWN, int(known_N.sum()))]
    mistakes = [Mistake(row=int(row), said=f'estimate {number(float(score_N[row]))}', truth=number(float(label_N[row]))) for row in order]
    return mistakes, 0, int(known_N.sum())
