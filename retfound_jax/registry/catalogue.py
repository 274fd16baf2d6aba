"""All datasets of the registry: each file `sets_*.py` of this room declares some, and what it declares is here."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from retfound_jax import registry
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.registry.base import Dataset

_FILES = 'sets_'


@functools.cache
def _all() -> tuple[Dataset, ...]:
    names = sorted(found.name for found in pkgutil.iter_modules(registry.__path__) if found.name.startswith(_FILES))
    return tuple(dataset for name in names for dataset in importlib.import_module(f'{registry.__name__}.{name}').SETS)


def datasets() -> dict[str, Dataset]:
    """Every dataset by its name, sorted."""
    found: dict[str, Dataset] = {}
    for dataset in sorted(_all(), key=lambda dataset: dataset.name):
        if found.setdefault(dataset.name, dataset) is not dataset:
            raise AssertionError(f'two datasets are called "{dataset.name}"')
    return found


def find(name: str) -> Dataset:
    """The dataset of that name.

    Raises:
      UsageError: there is none.
    """
    known = datasets()
    if name not in known:
        raise UsageError(f'there is no dataset "{name}"{nearest(name, known) or "; there are " + ", ".join(known)}')
    return known[name]
