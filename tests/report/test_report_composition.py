"""Counts of people: right by an independent count, and none under the floor to be had from what is given out."""

import collections
import json
import math

import census_datasets
import numpy as np
import pytest
from scipy.optimize import linprog

from retfound_jax.core.demographics import FLOOR
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.report import census, composition


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp('composition')
    return [census_datasets.dataset(root / 'north'), census_datasets.dataset(root / 'south', n=300, seed=1, sites=2)]


@pytest.fixture(scope='module')
def both(folders):
    return composition.compose(folders)


def band(age):
    if math.isnan(age):
        return 'missing'
    edges = (0, 18, 30, 40, 50, 60, 70, 80)
    return census.BANDS[max(place for place, edge in enumerate(edges) if age >= edge)]


def counted(columns, split=''):
    """Field and value to patients and images: one loop over rows, written from the docstrings."""
    names = {'UK': 'United Kingdom', 'USA': 'United States', '': 'missing'}
    patients, images = collections.defaultdict(set), collections.Counter()
    for row in range(len(columns['patient'])):
        if split and columns['split'][row] != split:
            continue
        values = {name: str(columns[name][row]) or 'missing' for name in ('sex', 'ethnicity', 'site', 'camera', 'laterality')}
        values['country'] = names.get(str(columns['country'][row]), str(columns['country'][row]))
        values['age'] = band(columns['age'][row])
        grade = columns['label:dr'][row]
        values['label:dr'] = 'missing' if math.isnan(grade) else ('none', 'mild', 'severe')[int(grade)]
        for field, value in values.items():
            patients[field, value].add(columns['patient'][row])
            images[field, value] += 1
    return {key: (len(who), images[key]) for key, who in patients.items()}


@pytest.mark.parametrize('split', ['', 'train', 'val'])
def test_counts_are_those_of_a_plain_loop(folders, split):
    found = census.read(folders[0])
    want = counted(census_datasets.people(1000), split)
    got = {
        (fields[0], values[0]): (found.patients[key], images) for key, images in found.images.items()
        for place, fields, values in [key] if place == split and len(fields) == 1
    }
    assert got == want


def test_what_is_shown_is_counted_right_and_missing_and_declined_stay_apart(both):
    want, found = counted(census_datasets.people(1000)), both
    shown = 0
    for (field, value), (patients, images) in want.items():
        one = found.count(value, fields=(field,), place=0)
        if not one.hidden:
            shown += 1
            assert (one.patients, one.images) == (patients, images)
    assert shown > 20
    assert found.values('ethnicity')[-2:] == ['declined', 'missing']
    assert 'missing' in found.values('sex') and 'declined' in found.values('sex')


def test_shares_of_draws_follow_the_weights(tmp_path):
    names = ('split', 'patient', 'sex')
    sexes = [{name: census_datasets.people(n)[name] for name in names} for n in (900, 500)]
    found = composition.compose(
        [census_datasets.write(tmp_path / name, columns, labels={}) for name, columns in zip('ab', sexes, strict=True)], weights=[3, 1],
    )
    assert found.weights == (0.75, 0.25)
    sizes = [found.count(place=place).images for place in (0, 1)]
    for value in ('F', 'M'):
        parts = [found.count(value, fields=('sex',), place=place) for place in (0, 1)]
        want = 0.75 * parts[0].images / sizes[0] + 0.25 * parts[1].images / sizes[1]
        assert found.count(value, fields=('sex',)).share == pytest.approx(want)


def rows_of(printed, field):
    """(dataset, split, value) to the patients printed, None where withheld; '' is everybody."""
    found = {}
    for row in printed['counts']:
        if row['fields'] == field or not row['fields']:
            found[row['dataset'], row['split'], row['values'][0] if row['values'] else ''] = row['patients']
    return found


def worlds(printed, field):
    """The equations that whoever reads composition.json has on the people of a field, and the places of its rows."""
    rows = rows_of(printed, [field])
    names = [one['name'] for one in printed['datasets']]
    splits = {one['name']: one['splits'] for one in printed['datasets']}
    values = sorted({value for _, _, value in rows if value})
    by_split = {name: [split for split in splits[name] if any((name, split, value) in rows for value in values)] for name in names}
    places = [(name, split) for name in names for split in by_split[name] or ['all']]
    leaves = [(*place, value) for place in places for value in values if (*place, value) in rows]

    def inside(row):
        return [(row[0] in (leaf[0], 'all')) and row[1] in (leaf[1], 'all') and row[2] in (leaf[2], '') for leaf in leaves]

    of_leaves = {(row, patients) for row, patients in rows.items() if row[1] == 'all' or by_split[row[0]]}
    known = [(inside(row), patients) for row, patients in of_leaves if patients is not None]
    return rows, inside, np.array([row for row, _ in known], float), np.array([patients for _, patients in known], float)


@pytest.mark.parametrize('alone', [True, False])
def test_nobody_can_work_out_a_small_group_from_the_file(folders, both, alone):
    chosen = folders[:1] if alone else folders
    printed = json.loads(json.dumps(composition.to_json(composition.compose(chosen) if alone else both)))
    true = [census.read(folder) for folder in chosen]
    tried = 0
    for field in ('age', 'sex', 'ethnicity', 'country'):
        rows, inside, matrix, known = worlds(printed, field)
        for (name, split, value), patients in rows.items():
            key = ('' if split == 'all' else split, (field,), (value,))
            people = [one.patients.get(key, 0) for one in true if name in (one.name, 'all')]
            if not value or patients is not None or not 0 < sum(people) < FLOOR:
                assert patients is None or patients == 0 or patients >= FLOOR
                continue
            goal = np.array(inside((name, split, value)), float)
            least, most = (sign * linprog(sign * goal, A_eq=matrix, b_eq=known, bounds=(0, None)).fun for sign in (1, -1))
            tried += 1
            assert least < sum(people) <= most and most >= FLOOR - 1e-6
    assert tried > 10


def test_intersections_add_up_to_their_margins_or_are_withheld(both):
    found = both
    assert ('age', 'sex') in found.pairs()
    for value in found.values('age'):
        cells = [found.count(value, sex, fields=('age', 'sex')) for sex in found.values('sex')]
        whole = found.count(value, fields=('age',))
        if whole.hidden:
            assert all(cell.hidden for cell in cells)  # a nobody beside it would say what all of the group are
        elif not any(cell.hidden for cell in cells):
            assert sum(cell.patients for cell in cells) == whole.patients


def test_a_manifest_alone_gives_what_it_holds(tmp_path):
    bands = {'0-17': 3, '18-29': 0, '30-39': 40, '40-49': 60}
    people = {'sex': {'F': 60, 'M': 40, 'declined': 30, 'missing': 0}, 'age': {'bands': bands, 'missing': 27}}
    images = {'sex': {'F': 120, 'M': 80, 'declined': 60, 'missing': 0}, 'camera': {'Topcon': 30, 'Zeiss': 230, 'missing': 0}}
    folder = census_datasets.write(tmp_path / 'old', census_datasets.people(130), index=False, summary=images, summary_patients=people)
    found = composition.compose([folder])
    assert not found.from_index[0]
    assert found.count('F', fields=('sex',)).patients == 60 and found.count('F', fields=('sex',)).images == 120
    assert found.count('0-17', fields=('age',)).hidden and found.count('18-29', fields=('age',)).nobody
    # Of cameras only images are counted: 30 images are 15 patients of two eyes, so they are withheld, and no number of patients is given.
    assert found.count('Topcon', fields=('camera',)).hidden and found.count('Zeiss', fields=('camera',)).patients is None


def test_ten_thousand_sites_and_as_many_words_stay_bounded(tmp_path):
    people = census_datasets.people(10_500, sites=10_000)
    columns = {name: people[name] for name in ('split', 'patient', 'site')}
    columns['camera'] = np.array([f'camera {i % 3000}' for i in range(21_000)])
    found = composition.compose([census_datasets.write(tmp_path / 'many', columns)])
    assert len(found.values('site')) <= 24 and len(found.values('camera')) <= 24
    assert any(value.endswith('other values') for value in found.values('site'))
    assert len(composition.to_csv(found).splitlines()) < 2500


def test_nobody_at_all(tmp_path):
    columns = {name: values[:0] for name, values in census_datasets.people(1).items()}
    found = composition.compose([census_datasets.write(tmp_path / 'empty', columns)])
    assert found.count().nobody and composition.to_csv(found)


@pytest.mark.parametrize(
    ('weights', 'says'),
    [([1.0], '2 datasets and 1 weights'), ([1, -1], 'not all numbers'), ([0, 0], 'sum above 0'), ([math.nan, 1], 'not all numbers')],
)
def test_weights_that_do_not_fit_are_one_sentence(folders, weights, says):
    with pytest.raises(UsageError, match=says):
        composition.compose(folders, weights=weights)


def test_wrong_folders_and_damaged_files_are_one_sentence(folders, tmp_path):
    with pytest.raises(UsageError, match='is not a dataset'):
        composition.compose([tmp_path])
    with pytest.raises(UsageError, match='is given twice'):
        composition.compose([folders[0], folders[0]])
    with pytest.raises(UsageError, match='at least one'):
        composition.compose([])
    broken = census_datasets.dataset(tmp_path / 'broken', n=30)
    (broken / 'index.parquet').write_bytes(b'PAR1 no')
    with pytest.raises(UserError, match='not a readable parquet'):
        composition.compose([broken])
    (broken / 'index.parquet').unlink()
    (broken / 'manifest.json').write_text('{"splits": {"train": {"patients": "many"}}}')
    with pytest.raises(UserError, match='damaged or of another version'):
        composition.compose([broken])
