"""What tables say of people is understood, changed and counted, or missing and counted; nothing is dropped in silence."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ingest_pipeline import _bytes, _folder, _ingest, _records

from retfound_jax.cli import main as front_door
from retfound_jax.core import countries
from retfound_jax.core.demographics import DECLINED, MISSING, NOT_A_GROUP, NOT_IN_SCHEME
from retfound_jax.core.errors import UsageError
from retfound_jax.ingest import ages, demographics, ethnicity, manifest, sexes, vocabulary
from retfound_jax.ingest.demographics import Account, Options, normalise
from retfound_jax.ingest.labels import Table
from retfound_jax.ingest.process import Processed, process
from retfound_jax.ingest.vocabulary import Read

_number = Table(name='', columns=(), rows=(), lines=(), encoding='', delimiter=';').number


def _read(field: str, cells: list[str], *, patients: list[str] | None = None, **options: object) -> tuple[list[Read], Account]:
    patients = [''] * len(cells) if patients is None else patients
    reads, account = normalise({field: cells}, patients=patients, number=_number, columns={}, options=Options(**options))
    return reads[field], account


def _values(field: str, cells: list[str], **options: object) -> list[str | float | None]:
    return [None if one.value != one.value else one.value for one in _read(field, cells, **options)[0]]


@pytest.mark.parametrize(
    ('cell', 'age'),
    [('61', 61), ('61.5', 61.5), ('61,5', 61.5), ('061Y', 61), ('018M', 1.5), ('61 years', 61), ('61y', 61), ('６１岁', 61), ('61歳', 61),
     ('60-70', 65), ('60–70', 65), ('60 to 70', 65), ('60—69', 64.5), ('60-70 years', 65), ('[60, 70)', 65), ('60 - 70', 65), ('0-10', 5),
     ('90+', 90), ('>89', 90), ('≥90', 90), ('> 89', 90), ('90 or older', 90), ('90 and over', 90), ('95+', 95),
     ('120', 120), ('150', None), ('121', None), ('-1', None), ('-0.5', None), ('999Y', None), ('60-80', None), ('70-60', None),
     ('80+', None), ('<18', None), ('sixty', None), ('61-', None), ('1e2', 100), ('inf', None), ('nan', None), ('NA', None), ('', None),
     ('declined', None), ('2024-01-01', None), ('60-70-80', None), ('²', None), ('6²', None)],
)
def test_an_age_is_years_or_missing(cell: str, age: float | None) -> None:
    assert _values('age', [cell]) == [age]


def test_ages_of_the_bad_input_are_each_accounted_for() -> None:
    cells = ['0', '1', '150', '60-70', 'prefer not to say', '61']
    column, account = _read('age', cells, patients=list('abcdef'))
    assert [None if math.isnan(one.value) else one.value for one in column] == [None, None, None, 65.0, None, 61.0]
    told = {(one.said, one.to, one.reason): (one.cells, one.patients) for one in account.changes}
    assert told == {
        ('0', MISSING, 'a placeholder: nobody is from 2 to 9'): (1, 1), ('1', MISSING, 'a placeholder: nobody is from 2 to 9'): (1, 1),
        ('number', MISSING, 'above 120'): (1, 1), ('range of ages', 'years', ''): (1, 1),
        ('prefer not to say', DECLINED, ''): (1, 1),
    }
    assert [one.kind for one in column].count(DECLINED) == account.fields['age'][DECLINED] == 1


@pytest.mark.parametrize(
    ('cells', 'options', 'kept'),
    [(['0', '1', '40'], {}, False),  # adults and no child
     (['0', '1', '40'], {'placeholders': False}, True),  # somebody said that they are ages
     (['0', '1', '5', '40'], {}, True),  # a hospital that sees children
     (['0', '1', '15', '40'], {}, False),  # its youngest is 15, as in ODIR-5K
     (['0', '1', '1'], {}, True),  # infants alone
     (['000Y', '001Y', '40'], {}, False), (['012M', '000D', '40'], {}, True)],  # months and days were measured
)
def test_zero_and_one_are_ages_where_children_are(cells: list[str], options: dict, kept: bool) -> None:
    assert [one.value == one.value for one in _read('age', cells, **options)[0][:2]] == [kept, kept]


@pytest.mark.parametrize(
    ('cells', 'sexes'),
    [(['M', 'F', '女', '男', 'male', 'FEMALE', ' Frau', 'Mann', 'homme', 'femme'], 'MFFMMFFMMF'),
     (['hombre', 'mujer', 'masculino', 'Femenino', 'feminino', 'женский', 'мужской', '여', '남', 'w'], 'MFMFFFMFMF'),
     (['1', '2', '2.0', '1.0'], 'MFFM'), (['H', 'F'], 'MF' if 'h' in vocabulary.WORDS_OF_SEX else ['H', 'F'])],
)
def test_words_and_codes_of_sex(cells: list[str], sexes: str | list[str]) -> None:
    assert _values('sex', cells) == list(sexes)


def test_codes_of_iso_5218_are_counted_and_others_are_missing() -> None:
    column, account = _read('sex', ['0', '1', '2', '9', '3', '1'])
    assert [one.value for one in column] == ['', 'M', 'F', '', '', 'M']
    assert {(one.said, one.to, one.cells) for one in account.changes if one.reason == 'ISO/IEC 5218'} == {
        ('0', MISSING, 1), ('1', 'M', 2), ('2', 'F', 1), ('9', MISSING, 1)}
    assert account.fields['sex'][vocabulary.NOT_UNDERSTOOD] == 1


@pytest.mark.parametrize(
    ('cells', 'sentence'),
    [(['0', '1'], 'holds 0 and 1, which some use for female and male and others the other way round: pass --sex_codes 0=F,1=M'),
     (['M', 'F', '0', '1', '女'], 'holds 0 and 1'), (['1', '1'], 'holds 1, which'), (['0', 'F'], 'holds 0'),
     (['H', 'M'], 'M may be male or mujer'), ([f'name {n}' for n in range(17)], 'holds 17 different words that say none')],
)
def test_a_column_that_could_mean_two_things_is_refused_in_a_sentence(cells: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        _read('sex', cells)


def test_a_map_of_codes_goes_before_all_else() -> None:
    codes = sexes.parse_codes('0=F, 1=male,8=missing,7=declined,K=woman')
    assert _values('sex', ['0', '1.0', '8', '7', 'k', 'M', '女'], sex_codes=codes) == ['F', 'M', '', DECLINED, 'F', 'M', 'F']
    assert _values('sex', ['H', 'M'], sex_codes=(('H', 'M'), ('M', 'F'))) == ['M', 'F']
    assert sexes.parse_codes('') == ()
    for wrong in ('0', '0=', '=F'):
        with pytest.raises(UsageError, match='write it as 0=F,1=M'):
            sexes.parse_codes(wrong)


def test_other_words_of_sex_are_kept_and_counted() -> None:
    column, account = _read('sex', ['Intersex', 'other', 'O', 'F'])
    assert [one.value for one in column] == ['Intersex', 'other', 'other', 'F'] and account.fields['sex'][vocabulary.KEPT] == 1


def test_declined_and_missing_are_never_the_same() -> None:
    declined = ['declined', 'Prefer not to say', 'REFUSED', 'not stated', 'asked-declined', 'prefiero no decirlo', '拒绝回答']
    missing = ['unknown', 'NA', 'N/A', '?', 'not recorded', '未知', 'desconocido', '']
    for field in ('sex', 'ethnicity', 'country', 'diabetes_type', 'site', 'camera', 'source'):
        assert _values(field, declined) == [DECLINED] * len(declined), field
        assert _values(field, missing) == [''] * len(missing), field
    account = _read('ethnicity', [*declined, *missing])[1]
    assert (account.fields['ethnicity'][DECLINED], account.fields['ethnicity'][MISSING], account.fields['ethnicity']['empty']) == (7, 7, 1)


@pytest.mark.parametrize(
    ('scheme', 'cells', 'expected'),
    [
        ('', ['White', 'white ', 'WHITE', 'White', 'han  chinese'], ['White', 'White', 'White', 'White', 'han chinese']),
        ('ONS2021', ['Asian or Asian British - Indian', 'Any other White background', 'White: Irish', 'Roma', 'Black African', 'Klingon',
                     'Any other ethnic group', 'English, Welsh, Scottish, Northern Irish or British', 'Chinese', 'Mixed'],
         ['Indian', 'Other White', 'White Irish', 'Roma', 'African', NOT_IN_SCHEME, 'Other ethnic group', 'White British', 'Chinese',
          'Mixed']),
        ('NHS2001', ['A', 'H', 'r', 'Z', '99', 'M', 'S', 'White - British', '7'],
         ['White British', 'Indian', 'Chinese', DECLINED, '', 'Caribbean', 'Other ethnic group', 'White British', NOT_IN_SCHEME]),
        ('OMB1997', ['caucasian', 'Black/African American', 'Hispanic', 'Asian', 'Two or more races', 'Arab'],
         ['White', 'Black or African American', 'Hispanic or Latino', 'Asian', 'Two or more races', NOT_IN_SCHEME]),
        ('OMB2024', ['Arab', 'MENA', 'Native Hawaiian or Other Pacific Islander', 'multiracial'],
         ['Middle Eastern or North African'] * 2 + ['Native Hawaiian or Pacific Islander', 'Multiracial or multiethnic']),
        ('own:CMIO of Singapore', ['Malay', 'malay', 'Malay'], ['Malay'] * 3),
    ],
)
def test_ethnicity_is_said_in_the_words_of_its_scheme(scheme: str, cells: list[str], expected: list[str]) -> None:
    assert _values('ethnicity', cells, ethnicity_scheme=scheme) == expected


@pytest.mark.parametrize('scheme', ethnicity.SCHEMES)
def test_every_category_of_a_scheme_is_read_as_itself(scheme: str) -> None:
    known = ethnicity.SCHEMES[scheme]
    names = [*known.groups, *(part for parts in known.parts.values() for part in parts)]
    assert _values('ethnicity', names, ethnicity_scheme=scheme) == names
    broad = {known.group_of(name) for name in names} - {''}
    assert broad <= known.groups.keys() and ethnicity.check_scheme(scheme) == scheme and ethnicity.title(scheme) == known.title


def test_free_text_is_no_ethnicity_and_a_wrong_scheme_is_answered_with_the_nearest() -> None:
    free = [f'words {n}' for n in range(65)]
    with pytest.raises(UsageError, match='holds 65 different words, and more than 64 are free text: pass --ethnicity_scheme'):
        _read('ethnicity', free)
    assert len(set(_values('ethnicity', free[:64]))) == 64
    column, account = _read('ethnicity', free, ethnicity_scheme='OMB2024')
    assert {one.value for one in column} == {NOT_IN_SCHEME} and NOT_IN_SCHEME in NOT_A_GROUP
    assert account.to_json()['changes'] == [{'field': 'ethnicity', 'from': '65 words of no list', 'to': NOT_IN_SCHEME, 'cells': 65,
                                             'patients': 65, 'reason': f'no category of {ethnicity.title("OMB2024")}'}]
    with pytest.raises(UsageError, match='did you mean "ONS2021"'):
        ethnicity.check_scheme('ONS2011')


@pytest.mark.parametrize(
    ('cells', 'expected'),
    [(['CN', 'NA', 'gb'], ['China', 'Namibia', 'United Kingdom']), (['China', 'NA'], ['China', '']), (['NA'], ['']),
     (['CHN', 'NAM', 'Namibia', 'USA', 'Atlantis'], ['China', 'Namibia', 'Namibia', 'United States', 'Atlantis'])],
)
def test_na_is_a_country_among_codes_and_missing_among_names(cells: list[str], expected: list[str]) -> None:
    assert _values('country', cells) == expected


def test_types_of_diabetes() -> None:
    cells = ['T2DM', '1', 'Type II', 'none', 'MODY', 'mody', 'mody', 'gdm', '2.0', 'NA']
    assert _values('diabetes_type', cells) == ['type 2', 'type 1', 'type 2', 'none', 'mody', 'mody', 'mody', 'gestational', 'type 2', '']


@pytest.mark.parametrize(
    ('field', 'cells', 'torn'),
    [('sex', ['F', 'M', 'female', 'F'], 1), ('sex', ['F', 'female', '', 'declined'], 0), ('country', ['China', 'Brazil', 'China', ''], 1),
     ('age', ['30', '51', '30', ''], 1), ('age', ['30', '50', '30', ''], 0), ('diabetes_type', ['T1', 'T2', 'T1', ''], 1),
     ('site', ['north', 'south', 'north', ''], 0), ('camera', ['a', 'b', 'a', ''], 0), ('source', ['a', 'b', 'a', ''], 0)],
)
def test_rows_of_one_patient_that_contradict_each_other_say_nothing(field: str, cells: list[str], torn: int) -> None:
    whose = ['p', 'p', 'q', 'p']
    column, account = _read(field, cells, patients=whose)
    assert account.contradictions == ({field: torn} if torn else {}) and column[2].kind != vocabulary.CONTRADICTED
    assert [one.kind == vocabulary.CONTRADICTED for one in column] == [
        bool(torn) and patient == 'p' and cell not in ('', 'declined') for cell, patient in zip(cells, whose, strict=True)]
    alone = _read(field, cells, patients=[''] * 4)[1]
    assert not alone.contradictions


def test_a_broad_group_and_a_category_in_it_do_not_contradict() -> None:
    scheme = {'ethnicity_scheme': 'ONS2021', 'patients': ['p', 'p']}
    assert not _read('ethnicity', ['Asian', 'Indian'], **scheme)[1].contradictions
    assert _read('ethnicity', ['Indian', 'Chinese'], **scheme)[1].contradictions == {'ethnicity': 1}
    assert _read('ethnicity', ['Black', 'Indian'], **scheme)[1].contradictions == {'ethnicity': 1}
    assert not _read('ethnicity', ['Klingon', 'Indian'], **scheme)[1].contradictions


_free = st.text(alphabet=st.characters(exclude_categories=['Cs']), max_size=8).map(str.strip)
_cells = {
    'age': st.one_of(_free, st.integers(-5, 160).map(str), st.sampled_from(['60-70', '90+', '061Y', '>89', 'sixty', 'declined', '1', '0'])),
    'sex': st.one_of(_free.filter(lambda cell: not any(letter.isdecimal() for letter in cell)),
                     st.sampled_from(['M', 'F', '女', '1', '2', '9', 'Frau', 'intersex', 'not stated'])),
    'ethnicity': st.one_of(_free, st.sampled_from(['White', 'white', 'Z', '99', 'Indian', 'Asian', 'A', 'prefer not to say'])),
    'country': st.one_of(_free, st.sampled_from(['NA', 'CN', 'China', 'GBR', 'unknown', 'Korea'])),
    'diabetes_type': st.one_of(_free, st.sampled_from(['1', 'T2', 'none', 'MODY', 'NA'])),
    'site': _free,
}


@settings(max_examples=120, deadline=None)
@given(data=st.data(), rows=st.integers(1, 25), scheme=st.sampled_from(['', 'own', *ethnicity.SCHEMES]), seed=st.integers(0, 99))
def test_every_cell_is_understood_or_counted_and_the_counts_add_up(data: st.DataObject, rows: int, scheme: str, seed: int) -> None:
    cells = {name: data.draw(st.lists(column, min_size=rows, max_size=rows), label=name) for name, column in _cells.items()}
    patients = data.draw(st.lists(st.sampled_from(['', 'p', 'q', 'r']), min_size=rows, max_size=rows))
    options = Options(ethnicity_scheme=scheme, sex_codes=(('0', 'F'), ('1', 'M'), ('h', 'M'), ('m', 'M')))
    try:
        reads, account = normalise(cells, patients=patients, number=_number, columns={}, options=options)
    except UsageError as error:
        assert '\n' not in str(error) and 'different words' in str(error)
        return
    for name, column in reads.items():
        counts = account.fields[name]
        assert counts == {kind: sum(one.kind == kind for one in column) for kind in vocabulary.KINDS} and sum(counts.values()) == rows
        changed = sum(change.cells for change in account.changes if change.field == name)
        assert changed == rows - counts['as_given'] - counts['kept'] - counts['empty']
        _check_values(name, cells[name], column)
        for patient in {'p', 'q', 'r'} if name in ('sex', 'country', 'diabetes_type') else ():
            assert len({one.value for one, whose in zip(column, patients, strict=True) if whose == patient} - {'', DECLINED}) <= 1
    order = random.Random(seed).sample(range(rows), rows)
    turned = {name: [column[row] for row in order] for name, column in cells.items()}
    again, other = normalise(turned, patients=[patients[row] for row in order], number=_number, columns={}, options=options)
    assert other == account and other.to_json() == account.to_json()
    assert all(repr(again[name][place]) == repr(reads[name][row]) for name in reads for place, row in enumerate(order))
    listed = account.to_json()['changes']
    assert sum(one['cells'] for one in listed) == sum(one.cells for one in account.changes)
    assert all(0 < one['patients'] <= one['cells'] for one in listed)


def _check_values(name: str, cells: list[str], column: list[Read]) -> None:
    for cell, one in zip(cells, column, strict=True):
        known = one.kind in (vocabulary.AS_GIVEN, vocabulary.CHANGED, vocabulary.KEPT)
        if name == 'age':
            assert 0 <= one.value <= ages.OLDEST if known else math.isnan(one.value)
            assert one.kind != vocabulary.AS_GIVEN or one.value == _number(cell)
        elif known:
            assert one.value and (one.value == cell) == (one.kind != vocabulary.CHANGED)
        else:
            assert one.value == {DECLINED: DECLINED, vocabulary.NOT_UNDERSTOOD: one.value}.get(one.kind, '')
            assert one.value in ('', DECLINED, NOT_IN_SCHEME)
        assert (cell == '') <= (one.kind == vocabulary.EMPTY)


def test_the_fields_are_those_that_records_and_sources_have() -> None:
    from retfound_jax.data import store
    from retfound_jax.evals import predictions
    from retfound_jax.ingest.records import Record

    assert set(demographics.NAMES) == set(store.DEMOGRAPHICS) - {'laterality'}
    assert set(demographics.NAMES) - {'age'} == set(predictions.TEXT_COLUMNS) - {'laterality'}
    assert all(hasattr(Record(image=b'', key='', patient='', group=''), name) for name in (*demographics.NAMES, 'age_word'))
    assert all(one.meaning and one.words for one in demographics.FIELDS)
    for country in countries.countries().values():
        assert _values('country', [country.name])[0] == country.name


_MESSY = (
    'image,patient,age,sex,ethnicity,country,diabetes type,source\n'
    '0_left,a,0,1,White,GB,2,screening\n0_right,a,1,2,white,GB,2,screening\n'
    '1_left,b,60-70,2,Z,NA,T1,clinic\n1_right,b,declined,2,Jane Doe,NA,T1,clinic\n2_left,c,150,9,A,DE,none,\n2_right,c,44,1,A,DE,none,\n'
)


def test_what_an_ingest_changed_is_in_its_manifest_and_declined_reaches_the_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _folder(tmp_path / 'in', patients=3)
    (source / 'labels.csv').write_text(_MESSY)
    words = ['ingest', '--source', str(source), '--labels', str(source / 'labels.csv'), '--workers', '0', '--size', '48']
    assert front_door.main([*words, '--out', str(tmp_path / 'out'), '--ethnicity_scheme', 'NHS2001']) == 0
    said = capsys.readouterr().out
    assert 'sex: "2" becomes F in 2 rows of 1 patients (ISO/IEC 5218)' in said and '"Jane Doe" becomes not in scheme in 1 rows' in said
    content = manifest.read(tmp_path / 'out')
    told = content['demographics']
    assert told['schema'] == 1 and told['rows'] == 6 and told['contradictions'] == {'sex': 1} and told['header_ages'] == 0
    assert told['ethnicity_scheme'] == ethnicity.title('NHS2001') and 'Jane' not in (tmp_path / 'out' / 'manifest.json').read_text()
    assert all(sum(counts.values()) == 6 for counts in told['fields'].values()) and set(told['fields']) == {
        'age', 'sex', 'ethnicity', 'country', 'diabetes_type', 'source'}
    rows = {row.key: row for row in _records(tmp_path / 'out')}
    assert (rows['0_left'].sex, rows['1_left'].sex, rows['2_left'].sex, rows['2_right'].sex) == ('', 'F', '', 'M')
    assert (rows['1_left'].age, rows['1_right'].age_word, rows['2_right'].age) == (65.0, DECLINED, 44.0)
    assert math.isnan(rows['1_right'].age) and rows['1_left'].age_word == ''
    assert (rows['1_left'].ethnicity, rows['1_right'].ethnicity, rows['2_left'].ethnicity) == (DECLINED, NOT_IN_SCHEME, 'White British')
    assert (rows['1_left'].country, rows['0_left'].country, rows['0_left'].source) == ('Namibia', 'United Kingdom', 'screening')
    assert content['summary']['age'] | {'bands': {}, 'mean': 0} == {
        'min': 44, 'max': 65, 'mean': 0, 'missing': 3, 'declined': 1, 'bands': {}}
    assert content['summary']['diabetes_type'] == {'type 1': 2, 'type 2': 2, 'none': 2, 'missing': 0}
    _ingest(source, tmp_path / 'again', ethnicity_scheme='NHS2001')
    assert _bytes(tmp_path / 'again')['manifest.json'] == _bytes(tmp_path / 'out')['manifest.json']


def test_a_header_does_not_say_what_the_rows_of_a_patient_contradict_or_declined(tmp_path: Path) -> None:
    from test_ingest_pipeline import _header

    source = _folder(tmp_path / 'in', patients=2)
    (source / 'labels.csv').write_text('image,patient,sex,age\n0_left,p,F,20\n0_right,p,M,61\n1_left,q,declined,refused\n1_right,r,,\n')
    content = _ingest(source, tmp_path / 'out', process=_header)
    rows = {row.key: row for row in _records(tmp_path / 'out')}
    assert rows['0_left'].sex == '' and math.isnan(rows['0_left'].age) and content['demographics']['contradictions'] == {'age': 1, 'sex': 1}
    assert rows['1_left'].sex == DECLINED and math.isnan(rows['1_left'].age) and rows['1_left'].age_word == DECLINED
    assert (rows['1_right'].sex, rows['1_right'].age, rows['1_right'].age_word) == ('F', 40.0, '')


def _odd(path: Path, **options: int) -> list[Processed]:
    words = {'0_left.png': ('O', 300.0), '0_right.png': ('FEMALE', 61.0), '1_left.png': ('UNKNOWN', -1.0), '1_right.png': ('M', math.nan)}
    sex, age = words[path.name]
    return [dataclasses.replace(process(path, **options)[0], sex=sex, age=age, patient=path.name)]


def test_what_headers_say_is_written_as_tables_are_and_counted(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in', patients=2)
    (source / 'labels.csv').unlink()
    content = _ingest(source, tmp_path / 'out', process=_odd)
    rows = {row.key.removeprefix('images/'): row for row in _records(tmp_path / 'out')}
    assert [rows[name].sex for name in sorted(rows)] == ['other', 'F', '', 'M'] and rows['0_right.png'].age == 61.0
    assert np.isnan([rows[name].age for name in ('0_left.png', '1_left.png', '1_right.png')]).all()
    assert (content['demographics']['header_ages'], content['demographics']['header_sexes']) == (2, 3)
    assert content['demographics']['rows'] == 0 and content['demographics']['fields'] == {}


@pytest.mark.parametrize('option', [['--sex_codes', '1'], ['--ethnicity_scheme', 'OMB1998'], []])
def test_what_needs_a_word_from_the_user_stops_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    source = _folder(tmp_path / 'in', patients=2)
    (source / 'labels.csv').write_text('image,sex\n0_left,0\n0_right,1\n1_left,0\n1_right,1\n')
    words = ['ingest', '--source', str(source), '--labels', str(source / 'labels.csv'), '--workers', '0', '--out', str(tmp_path / 'out')]
    assert front_door.main([*words, *option]) == 2 and not (tmp_path / 'out').exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert front_door.main([*words, '--sex_codes', '0=F,1=M', '--size', '48']) == 0
    assert manifest.read(tmp_path / 'out')['summary']['sex'] == Counter(F=2, M=2, missing=0)
    assert manifest.read(tmp_path / 'out')['demographics']['sex_codes'] == {'0': 'F', '1': 'M'}
