"""Groups in a study: known slopes are recovered exactly from made predictions, small groups stay unseen, and pretraining is made once.

The end-to-end studies of drawn photographs take minutes and are in the slow tier.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from study_cells import write_cell

from experiments.tables import bias
from retfound_jax.cli import main as cli
from retfound_jax.core.errors import UsageError
from retfound_jax.evals.predictions import Predictions, write_predictions
from retfound_jax.report import group_curves
from retfound_jax.studies import group_tables
from retfound_jax.studies.arms import Ground
from retfound_jax.studies.by_group import GAP, ByGroup, collect
from retfound_jax.studies.grid import GroupQuestion, Method, Study, StudyData
from retfound_jax.studies.rows import Arm, Judged, Key

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
QUESTION = GroupQuestion(by='sex', group='F')
METHODS = {f'{100 * share:g}': share for share in SHARES}
N = 200  # images of each sex with and without


def made(auroc: dict[str, float], *, few: int = 0) -> Predictions:
    """Predictions whose AUROC in each group is exactly that: every positive stands above the same number of negatives."""
    label, score, sex = [], [], []
    for group, value in auroc.items():
        count = few or N
        label += [0] * count + [1] * count
        score += [*range(count), *[round(value * count) - 0.5] * count]
        sex += [group] * 2 * count
    columns = {'key': np.array([f'k{i:05d}' for i in range(len(label))]), 'sex': np.array(sex), 'age': np.full(len(label), 50.0)}
    columns['patient'] = np.array([f'p{i // 2:05d}' for i in range(len(label))])
    scaled = np.array(score, np.float64) / (2 * N)
    return Predictions(
        kind='single', labels=('amd',), classes=('0', '1'), split='test', step=0, fingerprint='f', columns=columns,
        label_NY=np.array(label, np.float64)[:, None], score_NS=np.stack([1 - scaled, scaled], axis=1),
    )


def arm(method: str, files: list[Predictions], *, fraction: float = 1.0) -> Arm:
    key = Key(study='s', train_on='d', test_on='d', method=method, adaptation='probe', fraction=fraction)
    results = tuple(SimpleNamespace(seed=seed) for seed in range(len(files)))
    return Arm(key=key, results=results, judged=Judged(replicates=100), files=tuple(files))


def found(women: float, men: float, *, seeds: int = 3) -> ByGroup:
    """Women rise by so much from none to all, men by so much; each seed is moved by a little that is no slope."""
    def files(share: float) -> list[Predictions]:
        return [made({'F': 0.55 + women * share + 0.01 * seed, 'M': 0.7 + men * share}) for seed in range(seeds)]

    return collect([arm(method, files(share)) for method, share in METHODS.items()], question=QUESTION, compositions=METHODS)


def slopes(one: ByGroup) -> dict[str, object]:
    return {slope.group: slope.found for slope in one.slopes if slope.on == 'composition'}


def test_a_known_slope_of_each_group_and_of_the_gap_is_found() -> None:
    one = found(0.3, -0.1)
    known = slopes(one)
    assert known['F'].value == pytest.approx(0.3) and known['M'].value == pytest.approx(-0.1) and known[GAP].value == pytest.approx(0.4)
    assert (known['F'].verdict, known['M'].verdict, known[GAP].verdict) == ('rises', 'falls', 'rises')
    point = next(point for point in one.points if (point.method, point.group) == ('50', 'F'))
    assert point.found.value == pytest.approx(0.55 + 0.15 + 0.01) and point.target == 'amd'
    assert all(slope.p_holm >= slope.found.p for slope in one.slopes)


def test_where_nothing_moves_nothing_is_shown() -> None:
    rng = np.random.default_rng(0)
    arms = [arm(method, [made(dict(zip('FM', 0.75 + 0.02 * rng.standard_normal(2), strict=True))) for _ in range(3)]) for method in METHODS]
    known = slopes(collect(arms, question=QUESTION, compositions=METHODS))
    assert set(known) == {'F', 'M', GAP}
    assert all(one.low < 0 < one.high and one.verdict == 'not shown' and one.p > 0.05 for one in known.values())
    assert all(0 < one.detectable < 0.3 for one in known.values())


def test_the_patients_part_is_that_of_the_bootstrap_by_group() -> None:
    """Nothing differs between seeds here, so what is left is the patients: it is as large as DeLong's error makes it."""
    one = [arm(method, [made({'F': 0.6 + 0.3 * share, 'M': 0.7})] * 3) for method, share in METHODS.items()]
    known = slopes(collect(one, question=QUESTION, compositions=METHODS))['F']
    assert known.se_seeds == pytest.approx(0, abs=1e-12) and 0.005 < known.se_patients < 0.06


def test_seeds_that_are_not_at_every_composition_do_not_count() -> None:
    arms = [arm(method, [made({'F': 0.6 + 0.2 * share, 'M': 0.7})] * (2 if share else 3)) for method, share in METHODS.items()]
    slope = next(one for one in collect(arms, question=QUESTION, compositions=METHODS).slopes if one.on == 'composition')
    assert slope.seeds == (0, 1)


def test_learning_curves_by_group_rise_by_what_was_put_in_for_each_doubling() -> None:
    arms = [
        arm('50', [made({'F': 0.9 + 0.05 * math.log2(share), 'M': 0.9 + 0.01 * math.log2(share)})] * 2, fraction=share)
        for share in (0.25, 0.5, 1.0)
    ]
    known = {slope.group: slope.found.value for slope in collect(arms, question=QUESTION, compositions={'50': 0.5}).slopes}
    assert known == {'F': pytest.approx(0.05), 'M': pytest.approx(0.01), GAP: pytest.approx(0.04)}


def test_groups_can_be_merged() -> None:
    ages = np.array([45.0, 65.0])
    files = {}
    for method, share in METHODS.items():
        one = made({'F': 0.6 + 0.2 * share, 'M': 0.7})
        age = np.where(one.columns['sex'] == 'F', ages[1], ages[0])
        files[method] = dataclasses.replace(one, columns={**one.columns, 'age': age})
    question = GroupQuestion(by='age_band', group='old', merged=(('old', ('60-69', '>=70')), ('young', ('<40', '40-49', '50-59'))))
    known = slopes(collect([arm(method, [one] * 2) for method, one in files.items()], question=question, compositions=METHODS))
    assert known['old'].value == pytest.approx(0.2) and set(known) == {'old', 'young', GAP}


def test_a_small_group_is_nowhere_and_its_size_cannot_be_worked_out(tmp_path: Path) -> None:
    def both(share: float) -> Predictions:
        large, small = made({'F': 0.6 + 0.2 * share, 'M': 0.7}), made({'X': 0.5}, few=8)
        columns = {name: np.concatenate([large.columns[name], small.columns[name]]) for name in large.columns}
        columns['key'] = np.array([f'k{i:05d}' for i in range(len(columns['key']))])
        columns['patient'] = np.array([f'p{i // 2:05d}' for i in range(len(columns['key']))])
        parts = {name: np.concatenate([getattr(large, name), getattr(small, name)]) for name in ('label_NY', 'score_NS')}
        return dataclasses.replace(large, columns=columns, **parts)

    one = collect([arm(method, [both(share)] * 2) for method, share in METHODS.items()], question=QUESTION, compositions=METHODS)
    study = declared()
    paths = group_tables.write(one, study, out=tmp_path)
    told = json.loads((tmp_path / 'bias.json').read_text())
    assert {point['group'] for point in told['points']} == {'F', 'M', GAP}
    assert [group['name'] for group in told['groups']['amd'] if group['note']] == ['X']
    assert all(group['n_patients'] is None and group['n_images'] is None for group in told['groups']['amd'])
    assert {path.suffix for path in paths} == {'.md', '.tex', '.csv', '.json'}


def test_tables_and_figures_are_written_and_say_what_was_found(tmp_path: Path) -> None:
    study = declared()
    paths = group_tables.write(found(0.3, 0.0), study, out=tmp_path)
    text = (tmp_path / 'bias.md').read_text()
    assert '+0.300' in text and 'rises' in text and 'not shown' in text
    told = json.loads((tmp_path / 'bias.json').read_text())
    assert told['format'] == group_tables.FORMAT == group_curves.FORMAT and told['group'] == 'F' and not told['drawn']
    assert 'the AUROC of amd in F rises by +0.300' in told['slopes'][0]['sentence']
    before = {path: path.read_bytes() for path in paths}
    drawn = group_curves.write(tmp_path / 'bias.json', out=tmp_path / 'figures')
    assert [path.name for path in drawn] == ['bias_amd.png'] and drawn[0].read_bytes()[:4] == b'\x89PNG'
    assert group_tables.write(found(0.3, 0.0), study, out=tmp_path) and {path: path.read_bytes() for path in paths} == before


def test_a_group_that_nobody_is_in_is_told() -> None:
    with pytest.raises(UsageError, match='varies the share of sex "X"'):
        arms = [arm('50', [made({'F': 0.6, 'M': 0.7})])]
        collect(arms, question=GroupQuestion(by='sex', group='X'), compositions={'50': 0.5})


def declared() -> Study:
    """The study of drawn photographs as if its images were read."""
    study = bias.bias_phantom()
    return dataclasses.replace(study, data=(dataclasses.replace(study.data[0], phantom=None),))


def ground(study: Study, root: Path) -> Ground:
    return Ground(study=study, root=root, paths={'drawn': ''}, fingerprints={'drawn': 'data'})


def test_every_pretraining_has_as_many_images_and_its_share_of_the_group(tmp_path: Path) -> None:
    from retfound_jax.data.sources import open_source

    study = bias.bias_phantom()
    drawn = dataclasses.replace(study.data[0].phantom, patients=400)
    study = dataclasses.replace(study, data=(dataclasses.replace(study.data[0], phantom=drawn),))
    here = ground(study, tmp_path)
    small = {}
    for spec in study.cells():
        data = here.pretraining(spec).config.data
        compose = dataclasses.replace(data.compose, images=200)
        if spec.seed == 0 and spec.method not in small:
            small[spec.method] = open_source(dataclasses.replace(data, compose=compose)).table
    assert {len(table['key']) for table in small.values()} == {200}
    assert {name: float((table['sex'] == 'F').mean()) for name, table in small.items()} == METHODS


def test_cells_of_one_method_and_seed_share_a_pretraining_and_others_do_not(tmp_path: Path) -> None:
    study = bias.bias_phantom()
    here = ground(study, tmp_path)
    places = {spec: here.pretraining(spec) for spec in study.cells()}
    assert len({place.folder for place in places.values()}) == len(SHARES) * len(study.seeds)
    for spec, place in places.items():
        assert here.weights(spec) == str(place.folder) and here.weights_fingerprint(spec) == place.fingerprint
        assert place.config.seed == spec.seed == place.config.data.draw
    other = dataclasses.replace(here, fingerprints={'drawn': 'other data'})
    spec = study.cells()[0]
    assert other.pretraining(spec).fingerprint != places[spec].fingerprint


def test_adaptation_is_on_the_same_even_images_whatever_the_pretraining(tmp_path: Path) -> None:
    study = bias.bias_phantom()
    tuned = [spec for spec in study.cells() if spec.seed == 1 and spec.adaptation == 'finetune']
    configs = {spec: ground(study, tmp_path).config(spec).data for spec in tuned}
    assert {(spec.fraction, config.compose.images) for spec, config in configs.items()} == {(0.25, 50), (1.0, 200)}
    assert {config.compose.shares for config in configs.values()} == {(('F', 0.5), ('M', 0.5))}
    assert {config.draw for config in configs.values()} == {1}


@pytest.mark.parametrize(('change', 'told'), [
    ({'weights': 'W'}, 'has weights and a pretraining of its own'),
    ({'pretraining': dataclasses.replace(bias.bias_phantom().methods[0].pretraining, on='drown')}, 'did you mean "drawn"'),
    ({'recipe': bias.bias_odir_sex().recipe}, 'another encoder or image size'),
])
def test_what_does_not_go_together_is_refused(change: dict[str, object], told: str) -> None:
    study = bias.bias_phantom()
    with pytest.raises(UsageError, match=told):
        dataclasses.replace(study, methods=(dataclasses.replace(study.methods[0], **change),))


def test_plain_studies_are_as_they_were() -> None:
    study = Study(name='s', title='', data=(StudyData(name='d', labels=('a',)),), methods=(Method(name='random'),),
                  recipe=bias.bias_odir_sex().recipe)
    assert study.groups is None and math.isnan(study.methods[0].share(('F',))) and not study.methods[0].starts


def test_the_verb_writes_tables_figures_and_says_what_moves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for method, share in METHODS.items():
        for seed in (0, 1):
            names = {'train_on': 'drawn', 'test_on': ['drawn'], 'method': method, 'adaptation': 'probe'}
            cell = {'study': 'bias_phantom', 'fraction': 1.0, 'seed': seed, **names}
            folder = write_cell(tmp_path, **{**names, 'test_on': ('drawn',)}, seed=seed, cell=cell)
            one = made({'F': 0.6 + 0.3 * share + 0.01 * seed * share, 'M': 0.8})
            write_predictions(one, path=folder / 'predictions' / 'drawn.parquet')
    chosen = ['--set', 'seeds=[0,1]', '--set', 'adaptations=["probe"]', '--set', 'fractions=[1.0]', '--set', 'judged.replicates=50']
    assert cli.main(['table', 'bias_phantom', '--workdir', str(tmp_path), *chosen]) == 0
    printed = capsys.readouterr().out
    assert 'From none to all of F in the pretraining, the AUROC of amd in F rises by +0.305' in printed
    assert {path.name for path in (tmp_path / 'tables').iterdir()} >= {'bias.md', 'bias.tex', 'bias.csv', 'bias.json', 'bias_phantom.md'}
    assert (tmp_path / 'figures' / 'bias_amd.png').is_file() and not (tmp_path / 'tables' / 'learning_by_group.json').exists()
