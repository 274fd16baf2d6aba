"""Train, validation and test by group of patients: a hash of the group's name and nothing else, so added data moves nobody."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Mapping

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest.labels import refuse

SPLITS = ('train', 'val', 'test')
_ALIASES = {'training': 'train', 'validation': 'val', 'valid': 'val', 'testing': 'test'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Shares of the groups; what is left is train."""

    val: float = 0.1
    test: float = 0.2
    salt: str = 'retfound'  # another salt, another draw
    val_of_train: bool = False  # where a column gives the splits: the share `val` of what it calls train is val, by the same hash

    def __post_init__(self) -> None:
        """Raises UsageError where the shares leave nothing to train on."""
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UsageError(f'--val {self.val} and --test {self.test} are shares: each at least 0, and together below 1')


class Leak(UserError):
    """Splits that a table gives put one group of patients on two sides."""

    def __init__(self, sentence: str, *, keys: Iterable[str]) -> None:
        super().__init__(sentence)
        self.keys = tuple(keys)  # of the images without which no group is on two sides; test keeps its own before val, val before train


def split_of(group: str, *, config: SplitConfig) -> str:
    """The split of a group, a pure function of its name, the salt and the shares."""
    digest = hashlib.sha256(f'{config.salt}:{group}'.encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    # Test comes first: changing the share of validation leaves the test set as it is.
    return 'test' if place < config.test else 'val' if place < config.test + config.val else 'train'


def placed(given: str, group: str, *, config: SplitConfig) -> str:
    """The split of a group that a table puts into `given`: that, unless a part of train is to be val."""
    if given != 'train' or not config.val_of_train:
        return given
    return split_of(group, config=dataclasses.replace(config, test=0.0))


def split_word(cell: str) -> str:
    """The split that a table's cell names, or '' where it names none."""
    word = cell.casefold()
    return word if word in SPLITS else _ALIASES.get(word, '')


def given_splits(rows: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """Splits as a table gives them. rows: (group, split, a name for people to find the row).

    Raises:
      Leak: one group stands in two splits, which would leak patients from one to the other.
    """
    groups: dict[str, list[tuple[str, str]]] = collections.defaultdict(list)
    for group, split, name in rows:
        groups[group].append((split, name))
    problems, keys = [], []
    for members in groups.values():
        known, by = members[0]
        problems += [f'{name} is in {split}, and {by} of the same patient or with the same image is in {known}'
                     for split, name in members if split != known]
        last = max((split for split, _ in members), key=SPLITS.index)
        keys += [name for split, name in members if split != last]
    refuse(problems, what='the split column puts one patient on two sides', error=functools.partial(Leak, keys=keys))
    return {group: members[0][0] for group, members in groups.items()}


def class_balance(labels: Mapping[str, tuple[str, ...] | None], values: Mapping[str, list[float]]) -> dict[str, dict[str, int]]:
    """How often each class occurs: {label: {class: count, 'missing': count}}; for numbers {'known': count, 'missing': count}."""
    return {name: balance(count_values(values[name], classes=classes), classes=classes) for name, classes in labels.items()}


def count_values(values: Iterable[float], *, classes: tuple[str, ...] | None) -> collections.Counter[str]:
    """Counts by place of the class; all numbers together under '0'; what is missing under ''."""
    def key(value: float) -> str:
        return '' if math.isnan(value) else str(int(value)) if classes else '0'

    return collections.Counter(map(key, values))


def balance(counted: Mapping[str, int], *, classes: tuple[str, ...] | None) -> dict[str, int]:
    """What `count_values` counted, by the names of the classes."""
    counts = {word: counted.get(str(place), 0) for place, word in enumerate(classes)} if classes else {'known': counted.get('0', 0)}
    return counts | {'missing': counted.get('', 0)}
