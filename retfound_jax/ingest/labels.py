"""A table of labels as people have it: any of the usual encodings and delimiters, read whole or refused with line numbers."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from retfound_jax.core.errors import UserError

_DELIMITERS = {',': 'comma', ';': 'semicolon', '\t': 'tab'}
_SNIFFED_ROWS = 50
_SHOWN_PROBLEMS = 10
_MOST_KNOWN = 10_000
_NUMBER = re.compile(r'[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?', re.ASCII)
_DECIMAL_COMMA = re.compile(r'[-+]?\d+,\d+', re.ASCII)
# 'none' is left out on purpose: it is a class in many tables ("none", "mild", "severe").
_MISSING = frozenset({'', 'na', 'n/a', '#n/a', 'nan', 'null'})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as text, stripped of outer blanks."""

    name: str  # of the file
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]  # where in the file each row begins, from 1
    encoding: str  # in words
    delimiter: str

    def column(self, name: str) -> list[str]:
        """All cells of a column, top to bottom."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def number(self, cell: str) -> float | None:
        """The cell as a finite number, or None. A decimal comma counts where the comma is not the delimiter."""
        if self.delimiter != ',' and _DECIMAL_COMMA.fullmatch(cell):
            cell = cell.replace(',', '.')
        return float(cell) if _NUMBER.fullmatch(cell) and abs(float(cell)) < float('inf') else None


def is_missing(cell: str) -> bool:
    """Whether a cell says that nothing is known."""
    return cell.casefold() in _MISSING


def read_table(path: Path | str) -> Table:
    """Reads a CSV file.

    Raises:
      UserError: the file cannot be read as a table; up to ten problems are named with their lines.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f'the labels {path} cannot be read: {error.strerror}') from error
    text, encoding = _text(data, name=path.name)
    delimiter = _delimiter(text)
    rows, lines = _rows(text, delimiter=delimiter, name=path.name)
    if not rows:
        raise UserError(f'the labels {path.name} are empty: a line with the names of the columns and a row for each image are needed')
    columns, body = _header(rows[0], rows[1:], name=path.name)
    if not body:
        raise UserError(f'the labels {path.name} have column names and no row below them')
    _check_widths(body, lines[1:], width=len(columns), name=path.name)
    return Table(name=path.name, columns=columns, rows=tuple(tuple(row[: len(columns)]) for row in body), lines=tuple(lines[1:]),
                 encoding=encoding, delimiter=delimiter)


def delimiter_word(delimiter: str) -> str:
    """The delimiter's name."""
    return _DELIMITERS[delimiter]


def refuse(problems: Sequence[str], *, what: str, error: Callable[[str], UserError] = UserError) -> None:
    """Raises one error that names the first ten problems; does nothing where there are none."""
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        tail = f'; and {more} more' if more > 0 else ''
        count = f'{len(problems)} problems' if len(problems) > 1 else 'a problem'
        raise error(f'{what}: {count}: {"; ".join(problems[:_SHOWN_PROBLEMS])}{tail}')


def _text(data: bytes, *, name: str) -> tuple[str, str]:
    marks = ((codecs.BOM_UTF8, 'utf-8-sig', 'UTF-8 with a byte order mark'), (codecs.BOM_UTF16_LE, 'utf-16', 'UTF-16'),
             (codecs.BOM_UTF16_BE, 'utf-16', 'UTF-16'))
    tries: Iterable[tuple[str, str]] = [(codec, words) for mark, codec, words in marks if data.startswith(mark)]
    # Plain text has no NUL; a NUL in every other byte of the first line is UTF-16 without its mark.
    if not tries and b'\x00' in data[:200]:
        codec = 'utf-16-be' if data[:1] == b'\x00' else 'utf-16-le'
        tries = [(codec, 'UTF-16 without a byte order mark')]
    # Windows-1252 is what spreadsheets write; Latin-1 reads the five bytes which that leaves undefined.
    fallbacks = [('utf-8', 'UTF-8'), ('cp1252', 'Windows-1252, as it is not UTF-8'), ('latin-1', 'Latin-1, as it is not UTF-8')]
    for codec, words in tries or fallbacks:
        try:
            text = data.decode(codec)
        except UnicodeDecodeError:
            continue
        if '\x00' not in text:
            return text, words
    raise UserError(f'the labels {name} are not a text file; save the table as CSV in UTF-8')


def _delimiter(text: str) -> str:
    best, delimiter = (False, 0), ','
    for candidate in _DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=''), delimiter=candidate)
        rows: list[int] = []
        try:
            for row in reader:
                rows += [len(row)] if any(cell.strip() for cell in row) else []
                if len(rows) == _SNIFFED_ROWS:
                    break
        except csv.Error:
            continue
        if rows and rows[0] > 1 and (len(set(rows)) == 1, rows[0]) > best:
            best, delimiter = (len(set(rows)) == 1, rows[0]), candidate
    return delimiter


def _rows(text: str, *, delimiter: str, name: str) -> tuple[list[list[str]], list[int]]:
    # Strict: an opening quote without its partner would otherwise swallow the rest of the file into one cell.
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
    rows, lines, begin = [], [], 1
    known: dict[str, str] = {}  # the few words that most cells hold, each kept once
    try:
        for row in reader:
            cells = [known.get(cell) or _keep(known, cell) for cell in map(str.strip, row)]
            if any(cells):
                rows.append(cells)
                lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f'the labels {name} cannot be read from line {begin} on: {error}; is a quotation mark left open?') from error
    return rows, lines


def _keep(known: dict[str, str], cell: str) -> str:
    return known.setdefault(cell, cell) if len(known) < _MOST_KNOWN else cell


def _header(header: list[str], body: list[list[str]], *, name: str) -> tuple[tuple[str, ...], list[list[str]]]:
    # Spreadsheets save empty columns at the right; they carry nothing.
    while header and not header[-1] and not any(len(row) >= len(header) and row[len(header) - 1] for row in body):
        header = header[:-1]
    problems = [f'column {place} has no name' for place, column in enumerate(header, start=1) if not column]
    problems += [f'the column "{column}" appears twice' for column in sorted({c for c in header if c and header.count(c) > 1})]
    refuse(problems, what=f'the first line of {name} cannot be used')
    return tuple(header), body


def _check_widths(body: list[list[str]], lines: list[int], *, width: int, name: str) -> None:
    problems = []
    for row, line in zip(body, lines, strict=True):
        if len(row) < width or any(row[width:]):
            problems.append(f'line {line} has {len(row)} {"cell" if len(row) == 1 else "cells"} where the first line has {width}')
    refuse(problems, what=f'the rows of {name} are not all of one length')
