"""Training sets of a given composition, checked by plain counts."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.core.config import from_dict, to_dict
from retfound_jax.core.errors import UsageError
from retfound_jax.data import sources
from retfound_jax.data.compose import ComposeConfig, quotas
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source
from retfound_jax.data.store import Contents

# Each person: sex, age ('' and NaN missing), photographs.
Person = tuple[str, float, int]
PEOPLE = st.lists(
    st.tuples(st.sampled_from(['F', 'M', '', 'declined']), st.sampled_from([30.0, 45.0, 72.0, float('nan')]), st.integers(1, 4)),
    min_size=1,
    max_size=60,
)
CROWD: list[Person] = [('FM'[place % 2], 30.0 + place % 50, 1 + place % 3) for place in range(300)]


def opened(people: list[Person], **options: object) -> sources.Source:
    """A source of these people, without files."""
    rows = [(f'P{place}', sex, age) for place, (sex, age, images) in enumerate(people) for _ in range(images)]
    names, sexes, ages = (np.array(column) for column in zip(*rows, strict=True))
    columns = {'key': np.arange(len(rows)).astype(str), 'patient': names, 'group': names, 'sex': sexes, 'age': ages.astype(np.float32)}
    columns['label:ill'] = (np.arange(len(rows)) % 2).astype(np.float32)
    columns['label:thickness'] = np.arange(len(rows), dtype=np.float32) / 8
    contents = Contents(columns=columns, classes={'ill': ['no', 'yes'], 'thickness': None}, words={}, store=None, fingerprint='people')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, '_contents', lambda config: contents)
        return open_source(DataConfig(path='people', **options))


def of(images: int, by: str = 'sex', **shares: float) -> ComposeConfig:
    return ComposeConfig(by=by, shares=tuple(shares.items()), images=images)


@given(PEOPLE, st.integers(0, 40), st.integers(0, 40), st.integers(0, 3))
@settings(max_examples=60)
def test_each_value_has_its_number_and_one_person_at_most_is_cut(people: list[Person], women: int, men: int, draw: int) -> None:
    have = collections.Counter()
    for sex, _, images in people:
        have[sex] += images
    women, men = min(women, have['F']), min(men, have['M'])
    if not women + men:
        return
    source = opened(people, compose=of(women + men, F=women / (women + men), M=men / (women + men)), draw=draw)
    assert collections.Counter(source.table['sex'].tolist()) == {sex: n for sex, n in (('F', women), ('M', men)) if n}
    images = collections.Counter(source.table['patient'].tolist())
    cut = [people[int(name[1:])][0] for name, number in images.items() if number < people[int(name[1:])][2]]
    assert len(cut) == len(set(cut))
    assert source.table['key'].astype(int).tolist() == sorted(source.table['key'].astype(int).tolist())


@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 3))
@settings(max_examples=30)
def test_a_smaller_set_lies_inside_a_larger_one(one: int, other: int, draw: int) -> None:
    few, many = (set(opened(CROWD, compose=of(2 * n, F=0.5, M=0.5), draw=draw).table['key']) for n in sorted((one, other)))
    assert few <= many


def test_where_the_share_of_women_grows_those_who_were_in_it_stay() -> None:
    sets = [opened(CROWD, compose=of(200, F=share, M=1 - share)).table for share in (0, 0.25, 0.5, 0.75, 1)]
    women = [set(table['key'][table['sex'] == 'F']) for table in sets]
    assert [len(one) for one in women] == [0, 50, 100, 150, 200]
    assert all(one < other for one, other in zip(women, women[1:], strict=False))


def test_a_composition_and_a_draw_have_a_fingerprint_of_their_own() -> None:
    half = of(100, F=0.5, M=0.5)
    options = [{}, {'compose': half}, {'compose': half, 'draw': 1}, {'compose': of(100, F=0.6, M=0.4)}, {'compose': of(102, F=0.5, M=0.5)}]
    assert len({opened(CROWD, **option).fingerprint for option in options}) == 5
    other_order = ComposeConfig(by='sex', shares=(('M', 0.5), ('F', 0.5)), images=100)
    assert opened(CROWD, compose=other_order).fingerprint == opened(CROWD, compose=half).fingerprint
    assert set(opened(CROWD, compose=half).table['key']) != set(opened(CROWD, compose=half, draw=1).table['key'])


def test_age_bands_labels_intersections_and_the_unknown_can_be_composed() -> None:
    people = [*CROWD, *[('', 50.0, 1)] * 20, *[('declined', float('nan'), 1)] * 20]
    by_age = opened(people, compose=ComposeConfig(by='age_band', shares=(('<40', 0.25), ('60-69', 0.75)), images=40)).table['age']
    assert ((by_age < 40).sum(), ((by_age >= 60) & (by_age < 70)).sum(), len(by_age)) == (10, 30, 40)
    by_label = opened(people, compose=of(50, by='ill', yes=0.1, no=0.9)).table['label:ill']
    assert by_label.sum() == 5 and len(by_label) == 50
    both = opened(people, compose=ComposeConfig(by='sex+age_band', shares=(('F, <40', 0.5), ('M, >=70', 0.5)), images=20)).table
    assert sorted({(sex, age < 40) for sex, age in zip(both['sex'], both['age'], strict=True)}) == [('F', True), ('M', False)]
    unknown = opened(people, compose=of(16, missing=0.25, declined=0.25, F=0.5)).table['sex']
    assert collections.Counter(unknown.tolist()) == {'': 4, 'declined': 4, 'F': 8}


def test_it_is_made_of_the_fraction_and_evaluation_has_all() -> None:
    some = opened(CROWD, fraction=0.5)
    source = opened(CROWD, fraction=0.5, compose=of(60, F=0.5, M=0.5))
    assert set(source.table['key']) <= set(some.table['key']) and len(source) == 60
    config = DataConfig(path='people', split='train', fraction=0.5, compose=of(60, F=0.5, M=0.5))
    assert config.whole('val') == DataConfig(path='people', split='val')


def test_thirds_of_a_hundred_are_a_hundred() -> None:
    assert sum(quotas(of(100, a=1 / 3, b=1 / 3, c=1 / 3)).values()) == 100
    assert quotas(of(1200, F=0.25, M=0.75)) == {'F': 300, 'M': 900}


def test_the_phantom_can_be_composed_and_the_config_is_kept() -> None:
    config = DataConfig(phantom=PhantomConfig(patients=100, image_size=32), compose=of(40, F=0.25, M=0.75))
    assert collections.Counter(open_source(config).table['sex'].tolist()) == {'F': 10, 'M': 30}
    assert from_dict(DataConfig, to_dict(config)) == config


def test_what_cannot_be_composed_is_said_in_one_sentence() -> None:
    wrong = {
        'takes 4,000 images with sex "F" and there are ': of(8000, F=0.5, M=0.5),
        'value "f" of sex': of(10, f=1.0),
        'names "sexx".*did you mean "sex"': of(10, by='sexx', F=1.0),
        'a number: name a column that has classes': of(10, by='thickness', F=1.0),
    }
    for message, compose in wrong.items():
        with pytest.raises(UsageError, match=message) as caught:
            opened(CROWD, compose=compose)
        assert '\n' not in str(caught.value)
    broken = {
        'sum to 1': {'shares': (('F', 0.5), ('M', 0.4))},
        'twice': {'shares': (('F', 0.5), ('F', 0.5))},
        'at least 1': {'images': 0},
        'must name a column': {'by': ''},
    }
    for message, change in broken.items():
        with pytest.raises(UsageError, match=message):
            dataclasses.replace(of(10, F=0.5, M=0.5), **change)
