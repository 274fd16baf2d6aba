"""The first sheet of an Excel workbook as text, for the one dataset that gives its labels so, and a workbook for its fixture.

A workbook is a ZIP of XML files (ECMA-376). Both are read with limits and without any document type, so neither a ZIP bomb nor an entity
that expands a million times nor a reference to another file does anything.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TypeVar
from xml.parsers import expat
from xml.sax.saxutils import escape

from retfound_jax.core.errors import UserError

_SHEET, _STRINGS = 'xl/worksheets/sheet1.xml', 'xl/sharedStrings.xml'
_MOST_BYTES = 16 << 20  # of an XML file, unpacked
_MOST_COLUMNS, _MOST_ROWS = 512, 100_000
_REFERENCE = re.compile(r'([A-Z]{1,3})(\d{1,7})')
_MAIN = 'http://schemas.openxmlformats.org/spreadsheetml/2006/main'
_OFFICE = 'http://schemas.openxmlformats.org/officeDocument/2006/relationships'
_PACKAGE = 'http://schemas.openxmlformats.org/package/2006'
_TYPE = 'application/vnd.openxmlformats-officedocument.spreadsheetml'


class _Refused(ValueError):
    """Why a workbook is not read, in a few words."""


def read_xlsx(path: Path) -> list[list[str]]:
    """Cells of the first sheet as text, row by row, '' where empty; numbers as they are written.

    Raises:
      UserError: the file is no workbook, or asks for more than a table of labels can.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            strings = _parse(_unpacked(archive, _STRINGS), _Strings()).found if _STRINGS in archive.namelist() else []
            return _parse(_unpacked(archive, _SHEET), _Cells(strings)).table()
    except (OSError, zipfile.BadZipFile, KeyError, _Refused, expat.ExpatError, RuntimeError, NotImplementedError) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f'{path} cannot be read as an Excel workbook ({reason}); download it again') from error


def _unpacked(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as file:
        data = file.read(_MOST_BYTES + 1)  # what the directory says of the size may be a lie
    if len(data) > _MOST_BYTES:
        raise _Refused(f'{name} is larger than {_MOST_BYTES >> 20} MiB')
    return data


class _Reader:
    """What is called while an XML file is read; `text` collects what stands in the element that is open."""

    def __init__(self) -> None:
        self.text: list[str] | None = None

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        raise NotImplementedError

    def end(self, tag: str) -> None:
        raise NotImplementedError

    def data(self, text: str) -> None:
        if self.text is not None:
            self.text.append(text)


_R = TypeVar('_R', bound=_Reader)


class _Strings(_Reader):
    """The shared strings, each of one or more runs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._parts: list[str] = []
        self._phonetic = False  # how a text is pronounced is none of it

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == 'si':
            self._parts = []
        elif tag == 'rPh':
            self._phonetic = True
        elif tag == 't' and not self._phonetic:
            self.text = []

    def end(self, tag: str) -> None:
        if tag == 't' and self.text is not None:
            self._parts.append(''.join(self.text))
            self.text = None
        elif tag == 'rPh':
            self._phonetic = False
        elif tag == 'si':
            self.found.append(''.join(self._parts))


class _Cells(_Reader):
    """The cells of a sheet by row and column."""

    def __init__(self, strings: list[str]) -> None:
        super().__init__()
        self._strings, self._cells = strings, dict[tuple[int, int], str]()
        self._place, self._kind, self._row, self._column = (0, 0), '', -1, -1

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == 'row':
            self._row, self._column = self._row + 1, -1
            self._row = _number(attributes['r']) - 1 if 'r' in attributes else self._row
        elif tag == 'c':
            self._column += 1
            self._place, self._kind = (self._row, self._column), attributes.get('t', '')
            if 'r' in attributes:
                self._place = _place(attributes['r'])
                self._column = self._place[1]
            if not (0 <= self._place[0] < _MOST_ROWS and self._place[1] < _MOST_COLUMNS):
                raise _Refused(f'it has a cell outside {_MOST_ROWS} rows and {_MOST_COLUMNS} columns')
        elif tag in ('v', 't'):
            self.text = []

    def end(self, tag: str) -> None:
        if tag not in ('v', 't') or self.text is None:
            return
        value, self.text = ''.join(self.text), None
        if self._kind == 's':
            place = _number(value)
            if place >= len(self._strings):
                raise _Refused(f'a cell names text {place} of {len(self._strings)}')
            value = self._strings[place]
        self._cells[self._place] = self._cells.get(self._place, '') + value

    def table(self) -> list[list[str]]:
        """All rows to the last that has a cell, all of one length."""
        height = 1 + max((row for row, _ in self._cells), default=-1)
        width = 1 + max((column for _, column in self._cells), default=-1)
        return [[self._cells.get((row, column), '').strip() for column in range(width)] for row in range(height)]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise _Refused(f'"{text[:20]}" stands where a number must')
    return int(text)


def _place(reference: str) -> tuple[int, int]:
    match = _REFERENCE.fullmatch(reference)
    if not match:
        raise _Refused(f'a cell is called "{reference[:20]}"')
    column = 0
    for letter in match[1]:
        column = 26 * column + ord(letter) - ord('A') + 1
    return int(match[2]) - 1, column - 1


def _parse(data: bytes, reader: _R) -> _R:
    parser = expat.ParserCreate(namespace_separator=' ')

    def refuse(*_: object) -> None:
        raise _Refused('it declares a document type, which a workbook has not')

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler = lambda tag, attributes: reader.start(tag.rpartition(' ')[2], attributes)
    parser.EndElementHandler = lambda tag: reader.end(tag.rpartition(' ')[2])
    parser.CharacterDataHandler = reader.data
    parser.Parse(data, True)
    return reader


def write_xlsx(path: Path, rows: list[list[str | float]]) -> None:
    """Writes a workbook of one sheet; text goes to the shared strings, as Excel has it."""
    strings: dict[str, int] = {}
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = ''.join(_cell(value, f'{_letters(column)}{number}', strings) for column, value in enumerate(row) if value != '')
        lines.append(f'<row r="{number}">{cells}</row>')
    shared = ''.join(f'<si><t xml:space="preserve">{escape(text)}</t></si>' for text in strings)
    override = '<Override PartName="/{}" ContentType="' + _TYPE + '.{}+xml"/>'
    parts = {
        '[Content_Types].xml': f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="rels" ContentType='
                               '"application/vnd.openxmlformats-package.relationships+xml"/>'
                               + override.format('xl/workbook.xml', 'sheet.main') + override.format(_SHEET, 'worksheet')
                               + override.format(_STRINGS, 'sharedStrings') + '</Types>',
        '_rels/.rels': _relations(('officeDocument', 'xl/workbook.xml')),
        'xl/workbook.xml': f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets>'
                           '</workbook>',
        'xl/_rels/workbook.xml.rels': _relations(('worksheet', 'worksheets/sheet1.xml'), ('sharedStrings', 'sharedStrings.xml')),
        _SHEET: f'<worksheet xmlns="{_MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>',
        _STRINGS: f'<sst xmlns="{_MAIN}" count="{len(strings)}" uniqueCount="{len(strings)}">{shared}</sst>',
    }
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), f'<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n{text}')


def _cell(value: str | float, reference: str, strings: dict[str, int]) -> str:
    if isinstance(value, str):
        return f'<c r="{reference}" t="s"><v>{strings.setdefault(value, len(strings))}</v></c>'
    return f'<c r="{reference}"><v>{value:g}</v></c>'


def _letters(column: int) -> str:
    high, low = divmod(column, 26)
    return (_letters(high - 1) if high else '') + chr(ord('A') + low)


def _relations(*targets: tuple[str, str]) -> str:
    body = ''.join(f'<Relationship Id="rId{number}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
                   for number, (kind, target) in enumerate(targets, start=1))
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{body}</Relationships>'
