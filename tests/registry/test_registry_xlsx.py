"""Workbooks: what ECMA-376 allows is read, what an attacker writes is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from retfound_jax.core.errors import UserError
from retfound_jax.registry.xlsx import read_xlsx, write_xlsx

_SHEET = 'xl/worksheets/sheet1.xml'
_MAIN = 'http://schemas.openxmlformats.org/spreadsheetml/2006/main'


def _book(path: Path, sheet: str, strings: str = '') -> Path:
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_SHEET, sheet)
        if strings:
            archive.writestr('xl/sharedStrings.xml', strings)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_xlsx(tmp_path / 'a.xlsx', [['', 'Age', 'a & <b>'], ['#002', 47, ''], [], ['x', 0.75, 'Age']])
    assert read_xlsx(tmp_path / 'a.xlsx') == [['', 'Age', 'a & <b>'], ['#002', '47', ''], ['', '', ''], ['x', '0.75', 'Age']]


def test_the_forms_that_other_programs_write(tmp_path: Path) -> None:
    strings = f'<sst xmlns="{_MAIN}"><si><r><t>two </t></r><r><t>runs</t></r><rPh sb="0" eb="1"><t>tu</t></rPh></si></sst>'
    # A prefix, inline text, a formula's text, a gap between columns and rows, and a row without references.
    sheet = (f'<x:worksheet xmlns:x="{_MAIN}"><x:sheetData><x:row r="2"><x:c r="B2" t="s"><x:v>0</x:v></x:c>'
             '<x:c r="AA2" t="inlineStr"><x:is><x:t>inline</x:t></x:is></x:c></x:row>'
             '<x:row><x:c t="str"><x:f>A1</x:f><x:v>text</x:v></x:c><x:c><x:v>1.5</x:v></x:c></x:row></x:sheetData></x:worksheet>')
    rows = read_xlsx(_book(tmp_path / 'a.xlsx', sheet, strings))
    assert len(rows) == 3 and len(rows[0]) == 27
    assert (rows[1][1], rows[1][26], rows[2][:2]) == ('two runs', 'inline', ['text', '1.5'])


_BOMB = '<!DOCTYPE b [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
_OUTSIDE = '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(('sheet', 'reason'), [
    (f'{_BOMB}<worksheet><sheetData><row><c><v>&b;</v></c></row></sheetData></worksheet>', 'document type'),
    (f'{_OUTSIDE}<worksheet><sheetData><row><c><v>&a;</v></c></row></sheetData></worksheet>', 'document type'),
    ('<worksheet><sheetData><row><c r="ZZZ9999999"><v>1</v></c></row></sheetData></worksheet>', 'a cell outside'),
    ('<worksheet><sheetData><row><c r="1A"><v>1</v></c></row></sheetData></worksheet>', 'a cell is called "1A"'),
    ('<worksheet><sheetData><row><c t="s"><v>5</v></c></row></sheetData></worksheet>', 'names text 5 of 0'),
    ('<worksheet><sheetData><row r="x"><c><v>5</v></c></row></sheetData></worksheet>', 'where a number must'),
    ('<worksheet><sheetData>', 'cannot be read'),
    ('<worksheet>' + ' ' * (17 << 20) + '</worksheet>', 'larger than 16 MiB'),
])
def test_what_is_no_table_of_labels_is_one_sentence(sheet: str, reason: str, tmp_path: Path) -> None:
    path = _book(tmp_path / 'a.xlsx', sheet)
    with pytest.raises(UserError, match=reason) as caught:
        read_xlsx(path)
    assert str(caught.value).startswith(f'{path} cannot be read as an Excel workbook (') and '\n' not in str(caught.value)


def test_a_file_that_is_no_workbook(tmp_path: Path) -> None:
    (tmp_path / 'a.xlsx').write_bytes(b'PK\x03\x04 but no more')
    with zipfile.ZipFile(tmp_path / 'b.xlsx', 'w') as archive:
        archive.writestr('readme.txt', 'x')
    for name in ('a.xlsx', 'b.xlsx', 'none.xlsx'):
        with pytest.raises(UserError, match=f'{name} cannot be read as an Excel workbook'):
            read_xlsx(tmp_path / name)
