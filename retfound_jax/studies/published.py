"""Numbers that papers print, each with its source and how certain it is that the source says so.

`certainty` is
    repository  read in a public repository: its tables, notebooks or code
    secondary   quoted by a third party who read the paper's full text
    abstract    in an abstract or on a press page
A number of another standing has no place here and is never printed. The numbers lie by family in published_*.py.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

Certainty = Literal['repository', 'secondary', 'abstract']
CERTAINTIES = ('repository', 'secondary', 'abstract')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """The vision transformer behind a number."""

    width: int
    depth: int
    patch: int  # [px]
    image_size: int  # [px]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """One printed number.

    `low` and `high` are the 95 % interval over seeds; where `value` is None they are the ends of a range over several datasets, tasks or
    models, as the source gives no single number.
    """

    study: str
    train_on: str
    test_on: str
    method: str
    adaptation: str  # finetune, probe, green_probe, zero-shot, supervised (from random weights), '' where the source does not say
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    source: str
    certainty: Certainty
    label: str = ''  # of the registry; '' the first one of the test set
    target: str = 'macro'  # of what: macro is the mean over the classes, or the only finding
    shape: Shape | None = None  # None: unknown, or no vision transformer
    weights: tuple[str, ...] = ()  # checkpoints of the registry it was made from; () where the source does not tell, or none
    doubt: str = ''  # why the number itself may be wrong
    note: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedSplit:
    """Images of each part as printed."""

    dataset: str
    classes: int
    train: int
    val: int
    test: int
    total: int
    source: str
    certainty: Certainty
    note: str = ''


def numbers(study: str = '') -> tuple[Published, ...]:
    """Every number, or those of one study, in the order of their papers."""
    from retfound_jax.studies import published_green, published_others, published_retfound

    found = (*published_retfound.NUMBERS, *published_green.NUMBERS, *published_others.NUMBERS)
    return tuple(one for one in found if study in ('', one.study))


def splits(dataset: str = '') -> tuple[PublishedSplit, ...]:
    """Printed split sizes of one dataset or of all; where sources differ there are several."""
    from retfound_jax.studies import published_others, published_retfound

    found = (*published_retfound.SPLITS, *published_others.SPLITS)
    return tuple(one for one in found if dataset in ('', one.dataset))
