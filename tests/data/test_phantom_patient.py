"""Who is in the phantom: pure functions of the seed, prevalences that follow the parameters, eyes that go together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from retfound_jax.core.config import from_dict, override, to_dict
from retfound_jax.core.errors import UsageError
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.patient import draw_patient, table
from retfound_jax.data.phantom.sites import PrevalenceLink

COLUMNS = 'image patient_id eye age sex ethnicity country site camera dr_grade referable_dr glaucoma amd cup_to_disc'.split()


@pytest.fixture(scope='module')
def population() -> dict[str, np.ndarray]:
    return table(PhantomConfig(patients=800, missing_fraction=0.0))


def test_the_table_has_its_columns_and_one_row_an_eye(population: dict[str, np.ndarray]) -> None:
    assert list(population) == COLUMNS
    assert {len(column) for column in population.values()} == {1600}
    assert len(np.unique(population['image'])) == 1600
    assert population['eye'][:4].tolist() == ['R', 'L', 'R', 'L']
    assert (population['referable_dr'] == (population['dr_grade'] >= 2)).all()


def test_a_patient_does_not_depend_on_how_many_there_are_or_who_came_before() -> None:
    few, many = PhantomConfig(patients=5), PhantomConfig(patients=500)
    assert draw_patient(few, 4) == draw_patient(many, 4)
    assert draw_patient(many, 4) != draw_patient(dataclasses.replace(many, seed=1), 4)


def test_the_defaults_suit_a_demonstration(population: dict[str, np.ndarray]) -> None:
    assert 0.33 < population['referable_dr'].mean() < 0.43
    assert 0.15 < population['glaucoma'].mean() < 0.26
    assert 0.15 < population['amd'].mean() < 0.26
    assert set(population['dr_grade']) == {0, 1, 2, 3, 4}
    assert len(np.unique(population['site'])) == 6
    assert population['age'].min() >= 20 and population['age'].max() <= 90


def test_eyes_of_one_patient_go_together_as_far_as_asked() -> None:
    for correlation, low, high in ((0.9, 0.6, 1.0), (0.0, -0.12, 0.2)):
        columns = table(PhantomConfig(patients=500, eye_correlation=correlation, links=(), age_odds=(1.0, 1.0, 1.0)))
        right, left = columns['dr_grade'][0::2], columns['dr_grade'][1::2]
        assert low < np.corrcoef(right, left)[0, 1] < high
        assert low < np.corrcoef(columns['cup_to_disc'][0::2], columns['cup_to_disc'][1::2])[0, 1] < high


def test_a_link_moves_the_odds_of_its_group_and_of_no_other() -> None:
    link = PrevalenceLink(attribute='ethnicity', value='Black', disease='glaucoma', odds=6.0)
    plain = table(PhantomConfig(patients=800, links=(), missing_fraction=0.0))
    linked = table(PhantomConfig(patients=800, links=(link,), missing_fraction=0.0))
    group = plain['ethnicity'] == 'Black'
    assert (plain['glaucoma'][~group] == linked['glaucoma'][~group]).all()
    assert (plain['amd'] == linked['amd']).all()
    before, after = plain['glaucoma'][group].mean(), linked['glaucoma'][group].mean()
    odds = after / (1 - after) / (before / (1 - before))
    assert 3.5 < odds < 10


def test_age_raises_the_odds_only_where_asked() -> None:
    for odds, low, high in ((3.0, 0.20, 1.0), (1.0, -0.1, 0.1)):
        columns = table(PhantomConfig(patients=800, age_odds=(1.0, 1.0, odds), links=(), missing_fraction=0.0))
        old = columns['age'] > 65
        assert low < columns['amd'][old].mean() - columns['amd'][~old].mean() < high


def test_glaucoma_has_the_larger_cup(population: dict[str, np.ndarray]) -> None:
    sick = population['glaucoma'] == 1
    assert population['cup_to_disc'][sick].min() >= 0.56 and population['cup_to_disc'][~sick].max() <= 0.64
    assert population['cup_to_disc'][sick].mean() - population['cup_to_disc'][~sick].mean() > 0.3


def test_missing_demographics_hide_in_the_table_and_not_in_the_truth() -> None:
    config = PhantomConfig(patients=400, missing_fraction=0.25)
    columns = table(config)
    assert 0.18 < np.isnan(columns['age']).mean() < 0.32
    assert 0.18 < (columns['sex'] == '').mean() < 0.32
    hidden = int(np.flatnonzero(np.isnan(columns['age']))[0])
    assert draw_patient(config, hidden // 2).age >= 20
    assert not (columns['site'] == '').any()


def test_near_duplicates_repeat_an_earlier_patient_under_another_name() -> None:
    config = PhantomConfig(patients=200, near_duplicate_fraction=0.2)
    people = [draw_patient(config, i) for i in range(200)]
    twins = [p for p in people if p.source != p.index]
    assert 20 < len(twins) < 60
    for twin in twins:
        assert twin.source < twin.index and people[twin.source].source == twin.source
        assert twin.eyes == people[twin.source].eyes and twin.patient_id != people[twin.source].patient_id
    assert all(p.source == p.index for p in (draw_patient(PhantomConfig(patients=50), i) for i in range(50)))


def test_the_pigment_link_can_be_cut() -> None:
    def gap(config: PhantomConfig) -> float:
        people = [draw_patient(config, i) for i in range(300)]
        mean = {name: np.mean([p.pigment for p in people if p.ethnicity == name]) for name in ('Black', 'White')}
        return mean['Black'] - mean['White']

    assert gap(PhantomConfig()) > 0.4
    assert abs(gap(PhantomConfig(pigment_link=0.0))) < 0.1


def test_the_configuration_survives_json_and_takes_overrides() -> None:
    config = override(PhantomConfig(), ['patients=7', 'near_duplicate_fraction=0.5', 'dr_grades=1,0,0,0,0'])
    assert from_dict(PhantomConfig, to_dict(config)) == config
    assert config.patients == 7 and table(config)['dr_grade'].max() == 0


@pytest.mark.parametrize(
    ('field', 'value', 'words'),
    [
        ('patients', 0, 'at least 1'),
        ('image_size', 8, '32 to 2048'),
        ('dr_grades', (0.5, 0.5, 0.5, 0.0, 0.0), 'sum to 1'),
        ('glaucoma', 1.5, 'between 0 and 1'),
        ('sites', (), 'at least one site'),
        ('links', (PrevalenceLink(attribute='ethnicity', value='Blakc', disease='dr', odds=2.0),), 'did you mean "Black"'),
    ],
)
def test_a_wrong_parameter_is_one_sentence(field: str, value: object, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        PhantomConfig(**{field: value})


def test_there_is_no_patient_beyond_the_last() -> None:
    with pytest.raises(UsageError, match='patients 0 to 4'):
        draw_patient(PhantomConfig(patients=5), 5)
