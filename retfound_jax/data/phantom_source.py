"""The phantom as a source: a photograph is drawn when it is first asked for."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retfound_jax.core.config import to_dict
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.store import DEMOGRAPHICS, LABEL, SPLITS, TEXT_COLUMNS, Contents, classes_of, label_column, text_column, words_of

_GIVEN = {'key': 'image', 'patient': 'patient_id', 'laterality': 'eye'}
_KEPT = {64: 8192, 256: 512}  # up to that side [px], so many images that a process keeps: 100 MB of each at most
_SOURCE = 'phantom'  # where its photographs come from
_SHARES = (('train', 0.70), ('val', 0.15), ('test', 0.15))


def open_phantom(config: PhantomConfig, *, split: str) -> Contents:
    """Opens one split of the phantom population. Patients, joined where their photographs repeat, are split 70 : 15 : 15 by hash.

    Raises:
      UsageError: there is no such split.
    """
    from retfound_jax.data.phantom.patient import draw_patient, table

    if split not in SPLITS:
        raise UsageError(f'the phantom has no split "{split}"{nearest(split, SPLITS)}; it has {", ".join(SPLITS)}')
    given = table(config)
    sources = [draw_patient(config, index).source for index in range(config.patients)]
    each = 2 * config.visits  # photographs of a patient
    groups = np.repeat([f'P{source:06d}' for source in sources], each)
    rows = np.flatnonzero(np.repeat([_split_of(source) == split for source in sources], each))
    text = {name: _text(given, name) for name in TEXT_COLUMNS} | {'group': groups}
    labels = {name: values for name, values in given.items() if name not in {*text, *_GIVEN.values(), 'age'}}
    classes = {name: classes_of(values) for name, values in labels.items()}
    columns = text | {'age': given['age'].astype(np.float32)}
    columns |= {LABEL + name: label_column(values, classes[name]) for name, values in labels.items()}
    return Contents(
        columns={name: values[rows] for name, values in columns.items()},
        classes=classes,
        words={name: words_of(text[name]) for name in DEMOGRAPHICS if name in text},
        store=PhantomStore(config=config, numbers=rows),
        fingerprint=_fingerprint(config),
    )


def _text(given: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    values = given.get(_GIVEN.get(name, name))
    return text_column([_SOURCE if name == 'source' else ''] * len(given['image']) if values is None else values)


def _fingerprint(config: PhantomConfig) -> str:
    told = to_dict(config)
    if config.visits == 1:  # what says nothing about one visit changes nothing: runs begun before there were more go on
        for name in ('visits', 'visit_years', 'progressing'):
            del told[name]
    for name in ('shortcut', 'visibility'):
        if not told[name]:
            del told[name]
    return hashlib.sha256((json.dumps(told, indent=1, ensure_ascii=False) + '\n').encode()).hexdigest()


def _split_of(source: int) -> str:
    share = int.from_bytes(hashlib.sha256(f'phantom:{source}'.encode()).digest()[:8]) / 2**64
    for name, size in _SHARES:
        if share < size:
            return name
        share -= size
    return _SHARES[-1][0]


@dataclass(frozen=True, kw_only=True)
class PhantomStore:
    """Draws the photograph of a position."""

    config: PhantomConfig
    numbers: np.ndarray

    def read(self, positions: Sequence[int]) -> list[bytes | np.ndarray]:
        """uint8 [H, W, 3] for each position, not to be written to."""
        draw = next((kept for side, kept in _kept.items() if self.config.image_size <= side), _drawn)
        return [draw(self.config, int(self.numbers[position])) for position in positions]


def _drawn(config: PhantomConfig, number: int) -> np.ndarray:
    from retfound_jax.data.phantom.render import draw_eye

    image = draw_eye(config, number).image
    image.flags.writeable = False
    return image


# To draw a photograph takes longer than a small model trains on it, and every epoch asks for the same ones.
_kept = {side: functools.lru_cache(maxsize=count)(_drawn) for side, count in _KEPT.items()}
