"""The datasheet: every file it writes, what is open on it, and what no file may say."""

import json
import re

import census_datasets
import pytest

from retfound_jax.cli import main
from retfound_jax.core import countries
from retfound_jax.core.demographics import FLOOR
from retfound_jax.core.errors import UsageError
from retfound_jax.report import composition, coverage, croissant, dataset_facts, datasheet, people, standing


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('datasheet')
    return [census_datasets.dataset(root / 'north'), census_datasets.dataset(root / 'south', n=300, seed=1, sites=2)]


@pytest.fixture(scope='module')
def out(folders, tmp_path_factory):
    facts = tmp_path_factory.mktemp('facts') / 'facts.toml'
    facts.write_text('licence = "https://spdx.org/licenses/CC-BY-4.0"\n[north]\npurpose = "Screening <b>\\u202e"\nmissing = "Not asked."\n')
    made = tmp_path_factory.mktemp('out')
    arguments = ['datasheet', '--dataset', ','.join(map(str, folders)), '--weights', '.7,.3', '--facts', str(facts), '--out', str(made)]
    assert main.main(arguments) == 0
    return made


def test_all_files_are_there_and_say_the_same(out):
    names = {path.name for path in out.iterdir()}
    wanted = {'datasheet.html', 'composition.json', 'composition.csv', 'standing_together.json'}
    assert names == wanted | {'croissant_north_0.json', 'croissant_south_1.json'}
    rows = json.loads((out / 'composition.json').read_text())['counts']
    assert len((out / 'composition.csv').read_text().splitlines()) == len(rows) + 1
    assert [one['weight'] for one in json.loads((out / 'composition.json').read_text())['datasets']] == [0.7, 0.3]


def test_nothing_under_the_floor_and_nobody_is_named(out):
    rows = json.loads((out / 'composition.json').read_text())['counts']
    assert all(row['patients'] is None or row['patients'] == 0 or row['patients'] >= FLOOR for row in rows)
    assert any(row['patients'] is None for row in rows)
    for path in out.iterdir():
        text = path.read_text()
        assert 'patient-0-' not in text and 'Jane Doe' not in text  # a word of one patient may be their name
    page = (out / 'datasheet.html').read_text()
    assert '<b>' not in page and '\u202e' not in page and '&lt;b&gt;' in page
    assert re.search(r'rows of fewer than 20 patients contradict', page)


def test_what_is_open_is_red_and_what_is_answered_is_not(out):
    page = (out / 'datasheet.html').read_text()
    assert re.search(r'class="[^"]*absent[^"]*"[^>]*><span class="value">not provided', page)
    assert 'Not recorded for anybody: type of diabetes and source.' in page
    found = json.loads((out / 'standing_together.json').read_text())
    assert found['recommendations'] == 29 and found['of_documentation'] == 18 == len(found['datasets']['north'])
    assert not found['of_use']['answered']
    by_item = {one['item']: one for one in found['datasets']['north']}
    assert by_item['1.3e']['status'] == 'answered' and 'Not asked.' in by_item['1.3e']['said_by_the_owner']
    assert by_item['1.1f']['status'] == 'not answered' and not by_item['1.1f']['computed'] and by_item['1.1f']['open']
    assert {one['item']: one['status'] for one in found['datasets']['south']}['1.3e'] == 'in part'


def test_the_items_are_the_eighteen():
    numbers = [item.number for item in standing.ITEMS]
    parts = ((1, 'abcdef'), (2, 'abc'), (3, 'abcdef'), (4, 'abc'))
    assert numbers == [f'1.{part}{letter}' for part, letters in parts for letter in letters]
    assert {key for item in standing.ITEMS for key in item.facts} <= set(dataset_facts.QUESTIONS)


def test_the_croissant_has_files_records_and_every_rai_property(folders, out):
    found = json.loads((out / 'croissant_north_0.json').read_text())
    assert found['conformsTo'] == list(croissant.CONFORMS_TO)
    files = {one['@id']: one for one in found['distribution']}
    assert files['train.array_record']['sha256'] == 'a' * 64 and len(files['index.parquet']['sha256']) == 64
    fields = {field['name']: field for field in found['recordSet'][0]['field']}
    assert fields['age']['dataType'] == 'sc:Float' and fields['label:dr']['source']['extract']['column'] == 'label:dr'
    properties = (
        'dataBiases', 'dataCollection', 'dataLimitations', 'dataUseCases', 'dataSocialImpact', 'personalSensitiveInformation',
        'dataCollectionMissingData', 'dataPreprocessingProtocol', 'dataAnnotationProtocol', 'dataReleaseMaintenancePlan',
    )
    assert all(found[f'rai:{name}'] for name in properties)
    assert found['rai:dataUseCases'] == ['Screening <b>\ufffd'] and found['rai:dataSocialImpact'] == croissant.NOT_PROVIDED
    assert 'Not asked.' in found['rai:dataCollectionMissingData'] and found['license'].endswith('CC-BY-4.0')


@pytest.mark.oracle
def test_the_croissant_is_valid_and_read_by_its_own_library(folders, tmp_path):
    import mlcroissant

    sheet = datasheet.read([folders[0]])
    files = {path.name: path for path in datasheet.write(sheet, out=tmp_path)}
    for name in ('index.parquet', 'train.array_record'):
        (tmp_path / name).write_bytes((folders[0] / name).read_bytes())
    read = mlcroissant.Dataset(str(files['croissant.json']))
    assert not read.metadata.ctx.issues.errors
    assert read.metadata.conforms_to == list(croissant.CONFORMS_TO)
    for mine, theirs in (('dataBiases', 'data_biases'), ('dataLimitations', 'data_limitations'), ('dataUseCases', 'data_use_cases')):
        assert getattr(read.metadata, theirs) == sheet_value(files['croissant.json'], mine)
    for mine, theirs in (('dataCollection', 'data_collection'), ('dataSocialImpact', 'data_social_impact')):
        assert getattr(read.metadata, theirs) == sheet_value(files['croissant.json'], mine)
    assert read.metadata.personal_sensitive_information == sheet_value(files['croissant.json'], 'personalSensitiveInformation')
    first = next(iter(read.records('images')))
    columns = census_datasets.people(1000)
    assert first['images/patient'] == columns['patient'][0].encode() and first['images/laterality'] == b'L'


def sheet_value(path, name):
    return json.loads(path.read_text())[f'rai:{name}']


def test_the_map_has_every_member_state_and_says_who_is_absent(tmp_path):
    columns = census_datasets.people(1000)
    columns = {name: columns[name] for name in ('split', 'patient', 'country', 'age')}
    found = composition.compose([census_datasets.write(tmp_path / 'world', columns, labels={})])
    picture = coverage.world(found)
    assert picture is not None and picture.src.startswith('data:image/svg+xml') and 'United Kingdom' in picture.alt
    import base64

    svg = base64.b64decode(picture.src.partition(',')[2]).decode()
    drawn = set(re.findall(r'>([A-Z]{2})<', svg))
    assert drawn == {code for code, country in countries.countries().items() if country.member} | {'HK', 'TW'}
    gaps = {gap.what: gap for gap in coverage.gaps(found)}
    populous = gaps['Countries of more than 50 million people']
    assert 'Indonesia' in populous.absent and 'India' not in populous.absent + populous.few
    assert 'Africa' in gaps['WHO regions'].absent
    assert coverage.world(found).src == picture.src  # equal data give equal bytes


def test_a_field_that_one_dataset_does_not_record_is_not_said_to_be_of_nobody(tmp_path):
    columns = census_datasets.people(400)
    parts = [{name: columns[name] for name in names} for names in (('split', 'patient', 'sex'), ('split', 'patient', 'age'))]
    found = composition.compose([census_datasets.write(tmp_path / name, part, labels={}) for name, part in zip('ab', parts, strict=True)])
    rows = {row[0].text: [cell.text for cell in row] for row in people.field_table(found, 'sex').rows}
    assert rows['F'][2] == 'not recorded' and rows['F'][1].isdigit() and rows['missing'][2] == '400'


def test_a_dataset_that_says_nothing_of_people(tmp_path):
    columns = census_datasets.people(200)
    bare = {name: columns[name] for name in ('split', 'patient')}
    folder = census_datasets.write(tmp_path / 'bare', bare, labels={}, demographics={})
    assert main.main(['datasheet', '--dataset', str(folder), '--out', str(tmp_path / 'out')]) == 0
    page = (tmp_path / 'out' / 'datasheet.html').read_text()
    assert 'There is no map' in page and 'not known who is absent' in page
    assert 'Nothing is recorded about the patients.' in (tmp_path / 'out' / 'croissant.json').read_text()


def test_ten_thousand_sites_fit_a_page(tmp_path):
    columns = census_datasets.people(10_500, sites=10_000)
    columns = {name: columns[name] for name in ('split', 'patient', 'site', 'sex')}
    folder = census_datasets.write(tmp_path / 'many', columns, labels={})
    datasheet.write(datasheet.read([folder]), out=tmp_path / 'out')
    assert len((tmp_path / 'out' / 'datasheet.html').read_text()) < 400_000


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('purpse = "a"', 'did you mean "purpose"'), ('purpose = 3', 'purpose is no text'), ('purpose = " "', 'purpose is no text'),
        ('purpose = ', 'is no TOML'), ('[noth]\npurpose = "a"', 'did you mean "north"'),
        (f'purpose = "{"a" * 3000}"', 'no text of 1 to 2000'),
    ],
)
def test_facts_that_are_wrong_are_one_sentence(tmp_path, text, says):
    path = tmp_path / 'facts.toml'
    path.write_text(text)
    with pytest.raises(UsageError, match=says):
        dataset_facts.read(path, folders={'north': tmp_path})


def test_facts_lie_beside_the_dataset_and_the_empty_file_is_valid(tmp_path, capsys):
    assert main.main(['datasheet', '--questions']) == 0
    empty = capsys.readouterr().out
    (tmp_path / 'dataset.toml').write_text(empty)
    assert dataset_facts.read(None, folders={'a': tmp_path}) == {'a': {}}
    (tmp_path / 'dataset.toml').write_text(empty.replace('# purpose = ""', 'purpose = "why"'))
    assert dataset_facts.read(None, folders={'a': tmp_path})['a']['purpose'] == 'why'
    with pytest.raises(KeyError):
        dataset_facts.Facts()['purpse']


def test_calls_that_are_wrong_are_one_sentence(folders, tmp_path, capsys):
    for arguments, says in (
        (['--out', 'x'], 'pass --dataset'), (['--dataset', str(folders[0]), '--out', str(tmp_path), '--weights', 'a'], 'not all numbers'),
        (['--dataset', str(folders[0]), '--out', str(tmp_path), '--weights', '.5,.5'], '1 datasets and 2 weights'),
        (['--dataset', str(tmp_path), '--out', str(tmp_path)], 'is not a dataset'),
    ):
        assert main.main(['datasheet', *arguments]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count('\n') == 1


def test_the_section_of_a_run_reads_a_manifest_alone(folders):
    manifest = json.loads((folders[0] / 'manifest.json').read_text())
    alone, whole = (people.section(manifest, dataset=folder) for folder in (None, folders[0]))
    assert alone.id == whole.id == 'people' and len(whole.blocks) > len(alone.blocks)
    assert people.section(None).blocks[0].tone == 'absent'
