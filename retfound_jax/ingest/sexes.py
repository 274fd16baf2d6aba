"""Sex as tables write it: words of many languages, and codes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from retfound_jax.core.demographics import DECLINED, MISSING
from retfound_jax.core.errors import UsageError
from retfound_jax.ingest.vocabulary import CHANGED, WORDS_OF_SEX, Read, fold, not_understood, nothing, stored, trimmed

MOST_WORDS = 16  # that are of no list: a column of more is not one of sex
_CODE = re.compile(r'(\d{1,2})(?:\.0+)?', re.ASCII)
_ISO = {'0': '', '1': 'M', '2': 'F', '9': ''}  # ISO/IEC 5218: not known, male, female, not applicable


def read(cells: Counter[str], *, codes: Mapping[str, str], column: str) -> dict[str, Read]:
    """What each of a column's cells says.

    codes: cell to F, M, another word, `missing` or `declined`; it goes before all else. Without it 0, 1, 2 and 9 are those of ISO/IEC 5218
    where there is a 2; with 0 and 1 alone nobody can tell which is which. A word of no list is kept as it is.

    Raises:
      UsageError: the codes or letters are ambiguous, or the column is not one of sex.
    """
    given = {_key(cell): word for cell, word in codes.items()}
    found = {cell: _given(cell, given[_key(cell)]) if _key(cell) in given else nothing(cell) for cell in cells}
    left = [cell for cell, one in found.items() if one is None]
    _check(left, column=column, given=given)
    found |= {cell: _one(cell) for cell in left}
    kept = {fold(cell) for cell in left if not _code(cell)} - WORDS_OF_SEX.keys()
    if len(kept) > MOST_WORDS:
        raise UsageError(f'the column "{column}" is taken as sex and holds {len(kept)} different words that say none; '
                         'pass --column sex=NAME with another one, or --column sex= for none')
    return found


def parse_codes(text: str) -> tuple[tuple[str, str], ...]:
    """`0=F,1=M` as pairs. Raises UsageError where it is no such list."""
    pairs = [part.partition('=') for part in text.split(',') if part.strip()]
    if any(not equals or not cell.strip() or not word.strip() for cell, equals, word in pairs):
        raise UsageError(f'--sex_codes {text} is no list of CELL=WORD: write it as 0=F,1=M, where a word may also be missing or declined')
    return tuple((cell.strip(), word.strip()) for cell, _, word in pairs)


def _key(cell: str) -> str:
    return _code(cell) or fold(cell)


def _code(cell: str) -> str:
    match = _CODE.fullmatch(cell)
    return str(int(match[1])) if match else ''


def _given(cell: str, word: str) -> Read:
    said = trimmed(cell)
    if fold(word) == MISSING:
        return Read(value='', kind=MISSING, said=said, to=MISSING, reason='as --sex_codes says')
    if fold(word) == DECLINED:
        return Read(value=DECLINED, kind=DECLINED, said=said, to=DECLINED, reason='as --sex_codes says')
    return stored(cell, WORDS_OF_SEX.get(fold(word), trimmed(word)), reason='as --sex_codes says')


def _check(cells: list[str], *, column: str, given: Mapping[str, str]) -> None:
    found = {_code(cell) for cell in cells} - {''}
    if found & {'0', '1'} and '2' not in found:
        listed = ' and '.join(sorted(found & {'0', '1'}))
        raise UsageError(f'the sex column "{column}" holds {listed}, which some use for female and male and others the other way round: '
                         'pass --sex_codes 0=F,1=M or --sex_codes 0=M,1=F')
    letters = {fold(cell) for cell in cells} | set(given)
    if 'h' in letters and 'm' in letters and 'h' not in given and 'm' not in given and 'f' not in letters:
        raise UsageError(f'the sex column "{column}" holds H and M and no F, so M may be male or mujer: '
                         'pass --sex_codes H=M,M=F, or what they stand for')


def _one(cell: str) -> Read:
    code = _code(cell)
    if code in _ISO:
        value = _ISO[code]
        kind, to = (CHANGED, value) if value else (MISSING, MISSING)
        return Read(value=value, kind=kind, said=code, to=to, reason='ISO/IEC 5218')
    if code:
        return not_understood(cell, reason='no code of ISO/IEC 5218')
    word = WORDS_OF_SEX.get(fold(cell))
    return stored(cell, word) if word else stored(cell, trimmed(cell), kept=True)
