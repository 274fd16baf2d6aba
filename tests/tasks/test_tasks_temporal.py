"""Temporal prediction as a run: pairs through loader, step, accumulation and validation, exact resume, and where an encoder goes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from retfound_jax.api.loading import run_weights
from retfound_jax.core.errors import UsageError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader, eval_batches
from retfound_jax.data.pairs import in_pairs
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.validation import validation_for
from retfound_jax.models.heads import Classifier
from retfound_jax.models.mae import MAE, MAEConfig
from retfound_jax.models.temporal import TemporalConfig
from retfound_jax.models.transfer import flat_names, load_encoder
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.mae import MAETask
from retfound_jax.tasks.temporal import TemporalTask
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import TrainConfig, align
from retfound_jax.train.loop import train
from retfound_jax.train.step import _parted

ENCODER = ViTConfig(image_size=32, patch_size=8, width=16, depth=1, heads=2, pool='mean_normed', scan=False)
TASK = TemporalTask(model=TemporalConfig(encoder=ENCODER, decoder_width=16, decoder_depth=1, decoder_heads=2, mask_ratio=0.75))
DATA = DataConfig(phantom=PhantomConfig(patients=12, image_size=48, visits=3), image_size=32, batch_size=12, pairs='visit_years')
CONFIG = TrainConfig(
    name='tiny_temporal', task=TASK, data=DATA, optim=OptimConfig(lr=1e-3), steps=2, log_every=1, checkpoint_every=2
)


def fresh(build: Callable[[], nnx.Module] = lambda: TASK.init(rngs=nnx.Rngs(0)), *, seed: int) -> dict:
    """Parameters of a model, random and without compiling anything."""
    rng = np.random.default_rng(seed)
    shapes = nnx.to_pure_dict(nnx.state(nnx.eval_shape(build)))
    return jax.tree.map(lambda leaf: (0.2 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)


@pytest.fixture(scope='module')
def score() -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(batch of four rows) -> the loss, and that of each row's pair."""
    graph, state = nnx.split(nnx.eval_shape(lambda: TASK.init(rngs=nnx.Rngs(0))))
    nnx.replace_by_pure_dict(state, fresh(seed=0))
    model = nnx.merge(graph, state)
    return jax.jit(lambda **batch: (TASK.loss(model, batch, key=None)[0], TASK.predict(model, batch)['score'][:, 0]))


@pytest.fixture(scope='module')
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp('temporal') / 'straight'
    train(CONFIG, workdir=workdir, validation=validation_for(TASK.kind))
    return workdir


def numbers(workdir: Path) -> list[tuple]:
    return [(row['step'], row['name'], row['value']) for row in read_metrics(workdir)]


@pytest.mark.slow
def test_a_run_cut_after_two_steps_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG, steps=4, optim=dataclasses.replace(CONFIG.optim, accumulate=2))
    real, drawn = Loader.__next__, []

    def dying(self: Loader) -> dict:
        drawn.append(1)
        if len(drawn) == 4:
            raise KeyError('a power cut')
        return real(self)

    train(config, workdir=tmp_path / 'straight', validation=validation_for(TASK.kind))
    with monkeypatch.context() as patch:
        patch.setattr(Loader, '__next__', dying)
        with pytest.raises(KeyError):
            train(config, workdir=tmp_path / 'cut', validation=validation_for(TASK.kind))
    train(config, workdir=tmp_path / 'cut', resume=True, validation=validation_for(TASK.kind))
    one, other = (load_run(tmp_path / name, which='latest') for name in ('straight', 'cut'))
    assert one.step == other.step == 4
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True))
    assert numbers(tmp_path / 'straight') == numbers(tmp_path / 'cut')


def test_validation_is_the_loss_over_the_pairs_of_its_split(straight: Path) -> None:
    run = load_run(straight, which='latest')
    source = in_pairs(open_source(dataclasses.replace(run.config.data, split='val')), by='visit_years')
    years = source.labels.reshape(-1, 2)
    assert len(source) % 12 and (years[:, 1] > years[:, 0]).all()  # the last batch is filled up
    batches = eval_batches(dataclasses.replace(DATA, labels=('visit_years',)), source)
    scores = np.concatenate([run.predict(batch)['score'][batch['mask']].reshape(-1, 2) for batch in batches])
    assert scores.shape == years.shape and (scores[:, 0] == scores[:, 1]).all() and np.ptp(scores) > 0
    (told,) = [value for step, name, value in numbers(straight) if step == 2 and 'val' in name and name.endswith('loss')]
    assert scores.mean() == pytest.approx(told, rel=1e-5)


IMAGE = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
ALL = np.ones(4, bool)


def times(*years: float) -> np.ndarray:
    return np.array(years, np.float32)[:, None]


def test_rows_that_fill_up_a_batch_weigh_nothing(score: Callable[..., tuple[jax.Array, jax.Array]]) -> None:
    nobody = np.array([True, True, False, False])
    loss, pairs = score(image=IMAGE, labels=times(0, 2, np.nan, np.nan), mask=nobody)
    black = np.where(nobody[:, None, None, None], IMAGE, 0)
    assert np.isfinite(loss) and loss == pairs[0] == score(image=black, labels=times(0, 2, 5, 6), mask=nobody)[0]
    with pytest.raises(UsageError, match='3 rows are no pairs'):
        TASK.loss(None, {'image': IMAGE[:3], 'labels': times(0, 1, 2)}, key=None)


def test_accumulation_keeps_pairs_together() -> None:
    parts = np.asarray(_parted(jnp.arange(24).reshape(12, 2), 3, together=2))
    assert parts.shape == (3, 4, 2)
    assert (parts[:, 1::2] == parts[:, 0::2] + 2).all() and sorted(parts.ravel().tolist()) == list(range(24))
    assert (np.asarray(_parted(jnp.arange(6), 3, together=1)) == [[0, 3], [1, 4], [2, 5]]).all()


def test_the_interval_and_the_earlier_visit_both_matter(score: Callable[..., tuple[jax.Array, jax.Array]]) -> None:
    base = score(image=IMAGE, labels=times(1, 2, 1, 2), mask=ALL)[1]
    later = score(image=IMAGE, labels=times(1, 6, 3, 4), mask=ALL)[1]
    assert later[0] != base[0] and later[2] == base[2]  # only the time between
    swapped = score(image=IMAGE[[2, 1, 0, 3]], labels=times(1, 2, 1, 2), mask=ALL)[1]
    assert (swapped != base).all()


def test_the_encoder_goes_on_to_a_classifier_and_to_other_tools(straight: Path) -> None:
    run = load_run(straight, which='latest')
    classifier = fresh(lambda: Classifier(ENCODER, outputs=1, rngs=nnx.Rngs(0)), seed=1)
    moved, source = flat_names(load_encoder(classifier, run.params)), flat_names(run.params)
    for name, leaf in moved.items():
        assert name.startswith('head') or (leaf == source[name]).all(), name
    weights = run_weights(run)
    assert weights.meaning.kind == 'encoder' and not weights.meaning.labels
    assert set(weights.params) == {name for name in weights.params if name.startswith('encoder.')}


def test_it_starts_from_a_run_of_its_kind_or_from_any_encoder() -> None:
    own, start = fresh(seed=1), fresh(seed=0)
    whole = flat_names(TASK.load_pretrained(start, own))
    assert all((leaf == flat_names(own)[name]).all() for name, leaf in whole.items())
    mae = MAEConfig(encoder=dataclasses.replace(ENCODER, pool='cls'), decoder_width=8, decoder_depth=1, decoder_heads=2)
    source = fresh(lambda: MAE(mae, rngs=nnx.Rngs(0)), seed=2)
    started = TASK.load_pretrained(start, source)
    assert (started['encoder']['cls_token'] == source['encoder']['cls_token']).all()
    assert (started['mask_token'] == start['mask_token']).all()


@pytest.mark.parametrize(
    ('config', 'sentence'),
    [
        (dataclasses.replace(CONFIG, data=dataclasses.replace(DATA, pairs='')), 'the task takes pairs of visits by "visit_years" and data'),
        (dataclasses.replace(CONFIG, data=dataclasses.replace(DATA, batch_size=7)), 'set batch_size to a multiple of 2'),
        (
            dataclasses.replace(CONFIG, task=MAETask(model=MAEConfig(encoder=dataclasses.replace(ENCODER, pool='cls')))),
            'the task takes no pairs of visits and data.pairs is "visit_years"',
        ),
    ],
)
def test_a_task_and_data_that_mean_other_rows_are_refused(config: TrainConfig, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        align(config)


def test_two_times_of_a_visit_are_refused() -> None:
    with pytest.raises(UsageError, match='takes one label, the time of a visit'):
        dataclasses.replace(TASK, labels=('visit_years', 'age'))
