"""`retfound datasheet`: who is in one dataset or a mixture of several, on one page and for machines."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from absl import flags

from retfound_jax.core.errors import UsageError

SUMMARY = 'who is in a dataset or a mixture: one page, Croissant with RAI, STANDING Together'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_list('dataset', None, 'dataset directories, by commas', flag_values=values)
    flags.DEFINE_string('out', None, 'directory for datasheet.html and the files for machines', flag_values=values)
    flags.DEFINE_list('weights', [], 'how often each is drawn from, in any unit; left out: by the number of images', flag_values=values)
    flags.DEFINE_string('facts', '', "TOML file of what only the owner knows; left out: each dataset's dataset.toml", flag_values=values)
    flags.DEFINE_bool('questions', False, 'print an empty file of facts to fill in, and do nothing else', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Writes the files and prints their paths."""
    from retfound_jax.report import dataset_facts, datasheet

    if values.questions:
        print(dataset_facts.template(), end='')
        return
    if not values.dataset or not values.out:
        raise UsageError('pass --dataset A,B and --out DIR')
    sheet = datasheet.read([_local(address) for address in values.dataset], weights=_numbers(values.weights), facts=values.facts or None)
    for path in datasheet.write(sheet, out=Path(values.out), command=shlex.join(['retfound', *sys.argv[1:]])):
        print(path)


def _local(address: str) -> Path:
    """The directory; of a dataset in an object store the one that its manifest and index are fetched to."""
    from retfound_jax.core.storage import is_remote

    if not is_remote(address):
        return Path(address)
    from retfound_jax.data.remote import open_remote

    return open_remote(address).folder


def _numbers(words: list[str]) -> list[float] | None:
    try:
        return [float(word) for word in words] or None
    except ValueError as error:
        raise UsageError(f'--weights {",".join(words)} are not all numbers; write one for each dataset, as in --weights .7,.3') from error
