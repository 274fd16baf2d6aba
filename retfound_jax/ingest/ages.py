"""Ages as tables write them, in years."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from retfound_jax.core.demographics import MISSING
from retfound_jax.ingest.vocabulary import AS_GIVEN, CHANGED, NOT_UNDERSTOOD, Read, fold, nothing

OLDEST = 120  # [years] nobody is known to have been older than 122
TOP = 90  # [years] what ages above 89 become where patients are not to be known by them (45 CFR 164.514(b)(2)(i)(C))
WIDEST = 10  # [years] a range no wider stands for its middle
PLACEHOLDER_BELOW = 2  # [years] 0 and 1 stand for unknown in some tables
CHILD = (2, 10)  # [years] from, to below: who has patients of that age has infants as well, and their ages are believed
ADULT = 18  # [years]
_DICOM = re.compile(r'(\d{3})([YMWD])', re.ASCII)  # PS3.5, VR AS, which exports of headers write as it is
_YEARS = {'Y': 1.0, 'M': 1 / 12, 'W': 7 / 365.25, 'D': 1 / 365.25}
_UNIT = re.compile(r'\s*(?:y|yr|yrs|year|years|yo|y/o|y\.o\.|years old|jahre|ans|años|anos|anni|岁|歳|세)$')
_RANGE = re.compile(r'[\[(]?\s*(\d{1,3}(?:\.\d+)?)\s*(?:-|–|—|−|~|〜|\.\.|to|bis|a|à)\s*(\d{1,3}(?:\.\d+)?)\s*[\])]?', re.ASCII)
_INTERVAL = re.compile(r'[\[(]\s*(\d{1,3}(?:\.\d+)?)\s*[,;]\s*(\d{1,3}(?:\.\d+)?)\s*[\])]', re.ASCII)  # as pandas cuts
_OPEN = re.compile(
    r'(?P<above>>|over |above |older than |more than )\s*(?P<a>\d{1,3})'
    r'|(?:>=|≥|at least )\s*(?P<b>\d{1,3})|(?P<c>\d{1,3})\s*(?:\+|plus|and over|and above|and older|or over|or above|or older|or more)',
    re.ASCII,
)
_UNDER = re.compile(r'(?:<|<=|≤|under |below |younger than |up to |less than )\s*\d{1,3}', re.ASCII)


def read(cells: Counter[str], *, number: Callable[[str], float | None], placeholders: bool) -> dict[str, Read]:
    """What each of a column's cells says. number: reads one as a number; placeholders: 0 and 1 may stand for unknown.

    They do where the column has an adult and nobody from 2 to 9; ages that are written in months, weeks or days were measured.
    """
    found = {cell: _one(cell, number) for cell in cells}
    known = [one.value for one in found.values() if one.kind in (AS_GIVEN, CHANGED)]
    if not placeholders or not any(age >= ADULT for age in known) or any(CHILD[0] <= age < CHILD[1] for age in known):
        return found
    return {cell: _unknown(f'{one.value:g}', 'a placeholder: nobody is from 2 to 9') if _placeholder(cell, one) else one
            for cell, one in found.items()}


def _placeholder(cell: str, one: Read) -> bool:
    measured = _DICOM.fullmatch(cell)
    return one.kind in (AS_GIVEN, CHANGED) and one.value in (0, 1) and not (measured and measured[2] != 'Y')


def _one(cell: str, number: Callable[[str], float | None]) -> Read:
    said = nothing(cell)
    if said:
        return replace(said, value=math.nan)
    match = _DICOM.fullmatch(cell)
    if match:
        return _years(int(match[1]) * _YEARS[match[2]], form='DICOM age string')
    age = number(cell)
    if age is not None:
        return _years(age, form='')
    if any(letter.isdigit() and not letter.isdecimal() for letter in cell):
        return _unknown('text', 'no age')  # the mark of a footnote, which is no digit of the age
    word = fold(cell)
    age = number(_UNIT.sub('', word))
    return _in_words(word) if age is None else _years(age, form='number with a unit')


def _in_words(word: str) -> Read:
    """An age that is no single number."""
    plain = _UNIT.sub('', word)
    match = _RANGE.fullmatch(plain) or _INTERVAL.fullmatch(plain)
    if match and float(match[1]) <= float(match[2]):
        low, high = float(match[1]), float(match[2])
        wide = high - low > WIDEST
        return _unknown('range of ages', f'wider than {WIDEST} years') if wide else _years((low + high) / 2, form='range of ages')
    match = _OPEN.fullmatch(plain)
    if match:
        least = int(match['a'] or match['b'] or match['c']) + (match['above'] is not None)
        if least < TOP:
            return _unknown('range of ages without an end', f'it begins below {TOP}')
        return _years(float(least), form='range of ages without an end')
    if _UNDER.fullmatch(plain):
        return _unknown('range of ages without a beginning', 'it has no middle')
    return _unknown('text', 'no age')


def _years(age: float, *, form: str) -> Read:
    if age < 0:
        return _unknown(form or 'number', 'below 0')
    if age > OLDEST:
        return _unknown(form or 'number', f'above {OLDEST}')
    return Read(value=age, kind=CHANGED, said=form, to='years') if form else Read(value=age, kind=AS_GIVEN)


def _unknown(said: str, reason: str) -> Read:
    return Read(value=math.nan, kind=NOT_UNDERSTOOD, said=said, to=MISSING, reason=reason)
