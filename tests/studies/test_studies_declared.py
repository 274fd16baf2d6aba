"""Every table that is declared builds, its cells count, its names are the registry's, and its numbers find the published ones."""

from __future__ import annotations

import pytest

from experiments.tables import pretraining_methods as ways
from retfound_jax.cli import _tables
from retfound_jax.core.errors import UsageError
from retfound_jax.registry import catalogue, checkpoints
from retfound_jax.studies import published
from retfound_jax.studies.grid import Method, Study, StudyData
from retfound_jax.studies.rows import Origin, Row
from retfound_jax.studies.verdict import closest
from retfound_jax.train.config import align

NAMES = tuple(_tables.entries())
OWN = ('odir5k', 'eyepacs_1098', 'visits')  # made by experiments/tables/real.py, or by whoever has visits


def row(study: Study, *, train_on: str, method: Method, metric: str, test_on: str = '', label: str = '', target: str = 'macro') -> Row:
    """A row as a finished study would have it, of which only the names matter here."""
    numbers = dict.fromkeys(('mean', 'se_low', 'se_high', 'boot_low', 'boot_high'), 0.5)
    return Row(
        study=study.name, train_on=train_on, test_on=test_on or train_on, method=method.name, adaptation=study.adaptations[0], fraction=1.0,
        metric=metric, n_seeds=1, per_seed=(0.5,), n_images=1, n_patients=1, label=label or study.dataset(train_on).labels[0],
        target=target, origin=Origin(weights=method.checkpoint), **numbers,
    )


@pytest.mark.parametrize('name', NAMES)
def test_a_study_builds_and_its_cells_count(name: str) -> None:
    study = _tables.load(name)
    cells = study.cells()
    assert len(set(cells)) == len(cells) and len({spec.slug for spec in cells}) == len(cells)
    count = 0
    for train_on in study.train_on or [one.name for one in study.data]:
        for method in study.methods:
            if method.only and train_on not in method.only:
                continue
            for adaptation in study.adaptations:
                for fraction in study.fractions:
                    frozen = adaptation != 'finetune' and fraction == 1 and method.weights
                    count += 1 if frozen else len(study.seeds)
    assert len(cells) == count
    assert all(spec.test_on == (tuple(one.name for one in study.data) if study.external else (spec.train_on,)) for spec in cells)
    assert study.judged.reference in ['', *(method.name for method in study.methods)]


@pytest.mark.parametrize('name', [name for name in NAMES if not name.endswith('_phantom')])
def test_datasets_labels_and_checkpoints_are_those_of_the_registry(name: str) -> None:
    study = _tables.load(name)
    assert study.seeds == (0, 1, 2, 3, 4)
    for one in study.data:
        if one.name in OWN:
            continue
        labels = {label.name: label for label in catalogue.find(one.name).labels}
        assert set(one.labels) <= set(labels)
        if one.kind == 'multi':
            assert {len(labels[label].classes) for label in one.labels} == {2}
        elif one.common:
            assert [one.common.place(word, dataset=one.name) for word in labels[one.labels[0]].classes]
    for method in study.methods:
        assert not method.checkpoint or method.checkpoint in checkpoints.checkpoints()


@pytest.mark.parametrize(
    ('name', 'of', 'value'),
    [
        ('retfound_internal', {'train_on': 'aptos2019'}, 0.943),
        ('retfound_internal', {'train_on': 'idrid'}, 0.822),
        ('retfound_internal', {'train_on': 'messidor2'}, 0.884),
        ('retfound_internal_2025', {'train_on': 'retina'}, 0.846),
        ('retfound_internal_2025', {'train_on': 'glaucoma_fundus'}, 0.940),
        ('retfound_external', {'train_on': 'aptos2019', 'test_on': 'messidor2'}, 0.738),
        ('retfound_green', {'train_on': 'brset', 'label': 'amd', 'target': 'amd'}, 0.9482),
        ('retfound_green_grades', {'train_on': 'idrid', 'target': 'mild'}, 0.5609),
        ('retfound_green_moderate', {'train_on': 'brset', 'test_on': 'idrid', 'target': '>=moderate'}, 0.9418),
        ('retfound_green_any_dr', {'train_on': 'idrid', 'target': '>=mild'}, 0.9017),
        ('retfound_green_dme', {'train_on': 'idrid', 'target': 'high'}, 0.8772),
        ('retfound_green_vit_l', {'train_on': 'brset', 'label': 'diabetes', 'target': 'diabetes'}, 0.8575),
    ],
)
def test_a_row_finds_the_published_number(name: str, of: dict[str, str], value: float) -> None:
    """Numbers as RETFound's and RETFound-Green's papers print them, typed from ../shared/reference/retfound.md."""
    study = _tables.load(name)
    metric = study.judged.metrics[0]
    found = closest(row(study, method=study.methods[0], metric=metric, **of), numbers=published.numbers())
    assert found is not None and found.value == value


def test_medmnist_finds_both_of_its_metrics() -> None:
    study = _tables.load('medmnist')
    for metric in ('AUROC', 'accuracy'):
        for name in ('retinamnist', 'octmnist'):
            found = closest(row(study, train_on=name, method=study.method('random'), metric=metric), numbers=published.numbers())
            assert found is not None and (found.train_on, found.metric) == (name, metric)


@pytest.mark.parametrize('method', (*ways.METHODS, 'temporal'))
@pytest.mark.parametrize('size', (*ways.SIZES, 'tiny'))
def test_every_way_sees_equal_images_with_one_encoder(method: str, size: str) -> None:
    config = align(ways.pretraining(method, size=size, images=10_240, data='' if size == 'tiny' else 'DATASET'))
    assert config.steps * config.data.batch_size == 10_240
    mine, mae = config.task.model.encoder, ways.pretraining('mae', size=size, images=10_240).task.model.encoder
    for name in ('width', 'depth', 'heads', 'patch_size', 'image_size', 'positions', 'layer_scale', 'registers'):
        assert getattr(mine, name) == getattr(mae, name), name
    study = {'vit_s16': ways.pretraining_methods, 'small_cpu': ways.pretraining_methods_small_cpu, 'tiny': ways.pretraining_methods_phantom}
    tuned = study[size]().recipe.task.model
    assert (tuned.width, tuned.depth, tuned.patch_size, tuned.image_size) == (mine.width, mine.depth, mine.patch_size, mine.image_size)


def test_a_wrong_way_or_size_is_told() -> None:
    with pytest.raises(UsageError, match='no way of pretraining "moco", did you mean'):
        ways.pretraining('moco', size='small_cpu', images=1000)
    with pytest.raises(UsageError, match='no size "vit_s", did you mean'):
        ways.pretraining('mae', size='vit_s', images=1000)
    with pytest.raises(UsageError, match='100 images are not one step of 128'):
        ways.pretraining('dino', size='small_cpu', images=100)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'train_on': ('b',)}, 'trains on "b" and has no such dataset'),
        ({'methods': (Method(name='x', only=('b',)),)}, 'has "x" for "b" and has no such dataset'),
        ({'methods': ()}, 'methods of the study s must be at least one'),
        ({'seeds': (0, 0)}, 'seeds of the study s must be at least one, each once'),
        ({'fractions': (0.0,)}, 'fractions of the study s are shares'),
        ({'fractions': (1.5,)}, 'fractions of the study s are shares'),
    ],
)
def test_a_grid_that_means_nothing_is_refused(changes: dict, said: str) -> None:
    given = {'data': (StudyData(name='a', labels=('l',)),), 'methods': (Method(name='m'),), 'recipe': ways.pretraining_methods().recipe}
    with pytest.raises(UsageError, match=said):
        Study(name='s', title='', **given | changes)


@pytest.mark.parametrize('method', ways.METHODS)
def test_a_way_of_pretraining_at_another_size_keeps_its_views_in_proportion(method):
    config = align(ways.pretraining(method, size='vit_s16', images=512, image_size=112, data='D'))
    assert config.data.image_size == config.task.image_size == 112
    if config.data.views is not None:
        assert config.data.views.canvas == 128 and (not config.data.views.local_views or config.data.views.local_size == 48)
