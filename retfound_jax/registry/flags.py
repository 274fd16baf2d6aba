"""Findings that are there or not, as tables write them with numbers, and ages as tables write them."""

from __future__ import annotations

import re

from retfound_jax.core.errors import UserError
from retfound_jax.ingest.labels import is_missing
from retfound_jax.registry.base import NAN, Label

WORDS = ('absent', 'present')
_AGE = re.compile(r'\d{1,3}([.,]\d+)?', re.ASCII)


def finding(name: str, meaning: str) -> Label:
    """A label that says whether something is there."""
    return Label(name=name, classes=WORDS, meaning=meaning)


def coded(cell: str, codes: dict[str, str], *, where: str, column: str) -> str:
    """The word for a code of a table; '' where the cell says that nothing is known.

    Raises:
      UserError: the cell is none of the codes.
    """
    if is_missing(cell):
        return ''
    if cell not in codes:
        raise UserError(f'{where} has "{cell}" in the column {column}, where {" or ".join(codes)} is needed; see to that cell')
    return codes[cell]


def flag(cell: str, *, where: str, column: str) -> str:
    """absent or present for 0 or 1; '' where the cell says that nothing is known."""
    return coded(cell, {'0': WORDS[0], '1': WORDS[1]}, where=where, column=column)


def years(cell: str, *, where: str, placeholder: float = -1.0) -> float:
    """An age [years]; NaN where nothing is known. placeholder: an age that a table writes where it knows none.

    Raises:
      UserError: the cell is no age.
    """
    if is_missing(cell):
        return NAN
    if not _AGE.fullmatch(cell):
        raise UserError(f'{where} has the age "{cell}"; see to that cell')
    value = float(cell.replace(',', '.'))
    return NAN if value == placeholder else value
