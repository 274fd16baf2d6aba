"""A table of labels is read whole, or refused with the lines that are wrong."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest import columns, labels, source

_TEXT = 'image,patient_id,eye,age,sex,grade\na.jpg,1,left,61,Female,0\nb.jpg,2,OD,abc,m,2\n'


def _table(folder: Path, content: str | bytes) -> labels.Table:
    path = folder / 'labels.csv'
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return labels.read_table(path)


@pytest.mark.parametrize(
    ('codec', 'words'),
    [('utf-8', 'UTF-8'), ('utf-8-sig', 'UTF-8 with'), ('utf-16', 'UTF-16'), ('utf-16-le', 'UTF-16 without'),
     ('utf-16-be', 'UTF-16 without'), ('cp1252', 'Windows-1252')],
)
def test_every_usual_encoding_gives_the_same_table_and_is_named(tmp_path: Path, codec: str, words: str) -> None:
    table = _table(tmp_path, _TEXT.replace('Female', 'Fräulein').encode(codec))
    assert table.columns == ('image', 'patient_id', 'eye', 'age', 'sex', 'grade')
    assert table.column('sex') == ['Fräulein', 'm'] and table.encoding.startswith(words)


_cells = st.text(alphabet=st.characters(codec='utf-8', exclude_categories=['Cc', 'Cs']), max_size=8).map(str.strip)


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(_cells.filter(bool), min_size=2, max_size=4, unique=True),
    rows=st.lists(st.lists(_cells, min_size=4, max_size=4), min_size=1, max_size=5),
    delimiter=st.sampled_from([',', ';', '\t']), end=st.sampled_from(['\n', '\r\n']),
)
def test_what_a_spreadsheet_quotes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], rows: list[list[str]], delimiter: str, end: str
) -> None:
    rows = [['k', *row[1 : len(names)]] for row in rows]
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([names, *rows])
    table = _table(tmp_path_factory.mktemp('labels'), text.getvalue())
    assert table.columns == tuple(names) and [list(row) for row in table.rows] == rows and table.delimiter == delimiter


def test_ragged_rows_are_named_by_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'line 3 has 1 cell where the first line has 2; line 5 has 3 cells'):
        _table(tmp_path, 'image,grade\na,1\nb\n\nc,2,3\n')


def test_a_cell_over_two_lines_does_not_shift_the_numbering(tmp_path: Path) -> None:
    assert _table(tmp_path, 'image,note\na,"one\ntwo"\nb,x\n').lines == (2, 4)


def test_empty_columns_and_rows_of_a_spreadsheet_are_nothing(tmp_path: Path) -> None:
    table = _table(tmp_path, 'image;grade;;\na;1;;\n;;;\n')
    assert table.columns == ('image', 'grade') and table.rows == (('a', '1'),)


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [('', 'are empty'), ('image,grade\n', 'no row below'), ('image,image\na,b\n', '"image" appears twice'),
     ('image,\na,b\n', 'column 2 has no name'), ('image,note\na,"open\nb,c\n', 'quotation mark left open'),
     (bytes(range(256)), 'not a text file')],
)
def test_what_is_no_table_is_one_sentence(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        _table(tmp_path, content)


def test_roles_are_recognised_and_the_rest_are_labels(tmp_path: Path) -> None:
    table = _table(tmp_path, _TEXT.replace('patient_id', 'Patient ID').replace('sex', 'Gender'))
    found = columns.assign(table, given={})
    assert found.roles == {'key': 'image', 'patient': 'Patient ID', 'laterality': 'eye', 'sex': 'Gender', 'age': 'age'}
    assert [(label.name, label.kind, label.classes) for label in found.labels] == [('grade', 'class', ('0', '2'))]
    assert columns.label_values(table, found.labels[0]) == [0.0, 1.0]


def test_a_role_can_be_given_and_taken_away(tmp_path: Path) -> None:
    found = columns.assign(_table(tmp_path, _TEXT), given={'site': 'grade', 'sex': ''})
    assert found.roles['site'] == 'grade' and 'sex' not in found.roles and [label.name for label in found.labels] == ['sex']


def test_words_of_people_are_normalised_and_the_odd_ones_counted(tmp_path: Path) -> None:
    table = _table(tmp_path, 'image,eye,age,sex\na,Left,61,Female\nb,OS,abc,7\nc,both,,divers\nd,,032Y,NaN\n')
    found = columns.people(table, columns.assign(table, given={}))
    people = found.of_rows
    assert [person.laterality for person in people] == ['L', 'L', '', ''] and [person.sex for person in people] == ['F', '', 'divers', '']
    assert people[0].age == 61 and math.isnan(people[1].age) and people[3].age == 32 and found.odd == {'age': 1, 'laterality': 1}


@pytest.mark.parametrize(
    ('cells', 'kind', 'classes'),
    [(['1.0', '0', 'NA'], 'class', ('0', '1')), (['10', '9', ''], 'class', ('9', '10')), (['none', 'mild'], 'class', ('mild', 'none')),
     (['0.5', '1', '2'], 'number', None), ([str(value) for value in range(65)], 'number', None),
     (['1_0', 'inf', '2'], 'class', ('1_0', '2', 'inf'))],
)
def test_a_label_is_a_class_or_a_number_by_its_values(tmp_path: Path, cells: list[str], kind: str, classes: tuple | None) -> None:
    table = _table(tmp_path, 'image,x\n' + ''.join(f'i{place},{cell}\n' for place, cell in enumerate(cells)))
    (label,) = columns.assign(table, given={}).labels
    assert (label.kind, label.classes) == (kind, classes)
    for cell, value in zip(cells, columns.label_values(table, label), strict=True):
        if labels.is_missing(cell):
            assert math.isnan(value)
        elif classes is None:
            assert value == float(cell)
        else:
            assert classes[int(value)] in (cell, cell.removesuffix('.0'))


def test_a_decimal_comma_is_a_number_where_semicolons_separate(tmp_path: Path) -> None:
    table = _table(tmp_path, 'image;thickness\na;0,5\nb;1,25\n')
    (label,) = columns.assign(table, given={}).labels
    assert label.kind == 'number' and columns.label_values(table, label) == [0.5, 1.25]


def test_free_text_and_empty_columns_are_no_labels_unless_asked_for(tmp_path: Path) -> None:
    table = _table(tmp_path, 'image,report,empty,x\n' + ''.join(f'i{n},words {n},,1\n' for n in range(1001)))
    found = columns.assign(table, given={})
    assert [label.name for label in found.labels] == ['x'] and set(found.passed_over) == {'report', 'empty'}
    assert [label.name for label in columns.assign(table, given={}, labels=('report',)).labels] == ['report']
    with pytest.raises(UserError, match='"empty" of labels.csv holds no value'):
        columns.assign(table, given={}, labels=('empty',))


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [({'given': {}, 'labels': ('grad',)}, 'did you mean "grade"'), ({'given': {'sexx': 'sex'}}, 'did you mean "sex"'),
     ({'given': {'patient': 'patient'}}, 'did you mean "patient_id"'), ({'given': {'key': ''}}, 'pass --key with one of image')],
)
def test_a_column_that_is_not_there_is_answered_with_the_nearest(tmp_path: Path, arguments: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        columns.assign(_table(tmp_path, _TEXT), **arguments)


def _files(*paths: str) -> list[source.SourceFile]:
    return [source.SourceFile(path=path, size=1, modified=1) for path in paths]


@pytest.mark.parametrize('key', ['x/a.jpg', 'x/a', 'a.jpg', 'a', './x/a.jpg', 'x\\a.jpg', '/data/x/a.jpg'])
def test_a_key_may_be_a_path_or_a_name_with_or_without_suffix(key: str) -> None:
    assert source.match([key], [2], _files('x/a.jpg', 'y/b.jpg'), name='labels.csv') == {'x/a.jpg': 0}


def test_names_match_in_either_unicode_form() -> None:
    assert source.match(['Mu\u0308ller.jpg'], [2], _files('M\u00fcller.jpg'), name='labels.csv') == {'M\u00fcller.jpg': 0}


def test_all_that_does_not_fit_is_listed_at_once_with_lines() -> None:
    files = _files('x/a.jpg', 'y/a.jpg', 'b.jpg', 'b.png', 'c.jpg')
    with pytest.raises(UserError) as error:
        source.match(['a.jpg', 'b', 'c.jpg', 'c', '', 'd.jpg'], [2, 3, 4, 5, 6, 7], files, name='labels.csv')
    text = str(error.value)
    assert '5 problems' in text and '"a.jpg" (line 2) fits two files, x/a.jpg and y/a.jpg' in text
    assert '"b" (line 3) fits two files' in text and '"c" (line 5) is named twice, first in line 4' in text
    assert 'line 6 names no image' in text and '"d.jpg" (line 7) has no file' in text


def test_long_lists_of_problems_end_after_ten() -> None:
    with pytest.raises(UserError, match=r'30 problems.*; and 20 more$'):
        source.match([f'k{n}' for n in range(30)], list(range(30)), _files('a.jpg'), name='labels.csv')


def test_rows_without_a_file_can_be_passed_over() -> None:
    assert source.match(['a', 'b'], [2, 3], _files('a.jpg'), name='labels.csv', allow_missing=True) == {'a.jpg': 0}
    with pytest.raises(UserError, match='no row has a file'):
        source.match(['b'], [2], _files('a.jpg'), name='labels.csv', allow_missing=True)
