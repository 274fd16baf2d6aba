"""SimCLR, MoCo v3 and SwAV as tasks: what learns and what follows, exact resume, padding, where they start and what goes on from them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.views_config import ViewsConfig
from retfound_jax.models.contrastive import MoCoConfig, SimCLRConfig, momentum_at
from retfound_jax.models.swav import SwAVConfig
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAEConfig, MAETask
from retfound_jax.tasks.moco import MoCoTask
from retfound_jax.tasks.simclr import SimCLRTask
from retfound_jax.tasks.swav import SwAVTask
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import TrainConfig, align
from retfound_jax.train.loop import train
from retfound_jax.train.state import abstract_params, model_spec

ENCODER = ViTConfig(image_size=16, patch_size=8, width=8, depth=1, heads=2)
SIZES = {'encoder': ENCODER, 'hidden': 12, 'out': 6}
TASKS = {
    'simclr': SimCLRTask(model=SimCLRConfig(**SIZES)),
    'moco': MoCoTask(model=MoCoConfig(**SIZES)),
    'swav': SwAVTask(model=SwAVConfig(**SIZES, prototypes=5, frozen_prototypes=0.3)),
}
RNG = np.random.default_rng(0)
VIEWS = jnp.asarray(RNG.normal(size=(4, 2, 16, 16, 3)), jnp.float32)
LOCAL = jnp.asarray(RNG.normal(size=(4, 2, 8, 8, 3)), jnp.float32)


def batch_of(name: str) -> dict[str, jax.Array]:
    return {'image': VIEWS, 'progress': jnp.float32(0.5)} | ({'local': LOCAL} if name == 'swav' else {})


def filled(task, *, seed=0):
    """A model's specification and parameters for it, every one random, made without compiling an initialisation."""
    spec, rng = model_spec(task), np.random.default_rng(seed)
    abstract = abstract_params(spec)
    return spec, jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), abstract)


def run_config(name: str, **changes) -> TrainConfig:
    views = ViewsConfig(canvas=20, local_views=2 if name == 'swav' else 0, local_size=8, jitter=(0.4, 0.4, 0.2, 0.0), blur=(0.0,))
    data = DataConfig(phantom=PhantomConfig(patients=6, image_size=32), image_size=16, batch_size=8, views=views)
    base = {'name': f'tiny_{name}', 'task': TASKS[name], 'data': data, 'optim': OptimConfig(lr=1e-2), 'steps': 4, 'log_every': 1}
    return TrainConfig(**base | {'checkpoint_every': 2, 'eval_every': 0} | changes)


@pytest.mark.parametrize('name', TASKS)
def test_what_learns_gets_a_gradient_and_what_follows_gets_none(name):
    task = TASKS[name]
    spec, params = filled(task)
    loss = jax.jit(jax.value_and_grad(lambda p, batch: task.loss(spec.merge(p), batch, key=jax.random.key(1)), has_aux=True))
    (value, scalars), grads = loss(params, batch_of(name))
    assert np.isfinite(value) and {'embedding_spread', 'projection_spread'} <= set(scalars)
    for path, grad in flat_names(grads).items():
        assert np.any(grad) != path.startswith('momentum_'), path
        assert not (path.startswith('momentum_') and task.trainable(path))
    assert task.trainable('encoder.patch_embed.proj.kernel') == (name != 'moco')
    if name == 'swav':  # prototypes wait
        _, early = loss(params, batch_of(name) | {'progress': jnp.float32(0.29)})
        assert not np.any(early['prototypes']) and np.any(early['projector']['fc2']['kernel'])


def test_prototypes_go_back_to_length_one():
    after = TASKS['swav'].after({'prototypes': 3 * jnp.ones((5, 4))}, {}, progress=jnp.float32(0))
    np.testing.assert_allclose(after['prototypes'], 0.5)


def test_copies_start_alike_and_follow():
    task = TASKS['moco']
    params = jax.jit(lambda key: nnx.to_pure_dict(nnx.state(task.init(rngs=nnx.Rngs(key)))))(jax.random.key(0))
    for part in ('encoder', 'projector'):
        jax.tree.map(np.testing.assert_array_equal, params[part], params[f'momentum_{part}'])
    moved = {name: jax.tree.map(lambda x: x + 1.0, params[name]) if name in ('encoder', 'projector') else params[name] for name in params}
    after = task.after(moved, {}, progress=jnp.float32(0.25))
    share = 1 - float(momentum_at(jnp.float32(0.25), start=0.99))
    for part in ('encoder', 'projector'):
        jax.tree.map(lambda copy, old: np.testing.assert_allclose(copy, old + share, atol=1e-6), after[f'momentum_{part}'], params[part])
    jax.tree.map(np.testing.assert_array_equal, after['predictor'], moved['predictor'])


# The losses of all three are held to this in tests/models; one goes through a whole model in the default tier.
@pytest.mark.parametrize('name', ['swav', *(pytest.param(name, marks=pytest.mark.slow) for name in ('simclr', 'moco'))])
def test_padding_rows_do_not_count_and_score_is_the_loss_of_each_image(name):
    task = TASKS[name]
    spec, params = filled(task)

    @jax.jit
    def both(params, batch):
        model = spec.merge(params)
        return task.loss(model, batch, key=None)[0], task.predict(model, batch)['score']

    mask = jnp.array([True, True, True, False])
    loss, score = both(params, batch_of(name) | {'mask': mask})
    assert score.shape == (4, 1) and float(loss) == pytest.approx(float(score[:3].mean()), rel=1e-5)
    other = jax.tree.map(lambda x: x.at[3:].multiply(-5) if x.ndim else x, batch_of(name))  # other pixels in the row that fills up
    again, scores = both(params, other | {'mask': mask})
    np.testing.assert_allclose(scores[:3], score[:3], rtol=1e-5)
    assert float(again) == pytest.approx(float(loss), rel=1e-5) and not np.allclose(both(params, other | {'mask': mask | True})[0], loss)


def run_straight_and_cut(tmp_path, monkeypatch, name):
    """Parameters of a run in one piece, and of one that ended before its third step's save and went on."""
    config, real = run_config(name), Loader.__next__
    train(config, workdir=tmp_path / 'straight')

    def dying(self):
        if self.step == 3:
            raise InterruptedError
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, '__next__', dying)
        with pytest.raises(InterruptedError):
            train(config, workdir=tmp_path / 'cut')
    train(config, workdir=tmp_path / 'cut', resume=True)
    rows = [[(r['step'], r['name'], r['value']) for r in read_metrics(tmp_path / part)] for part in ('straight', 'cut')]
    return rows, [load_run(tmp_path / part, which='latest').params for part in ('straight', 'cut')]


@pytest.mark.slow
@pytest.mark.parametrize('name', TASKS)
def test_a_run_goes_on_bit_by_bit_and_logs_what_shows_a_collapse(tmp_path, monkeypatch, name):
    rows, (one, other) = run_straight_and_cut(tmp_path, monkeypatch, name)
    assert rows[0] == rows[1]
    jax.tree.map(np.testing.assert_array_equal, one, other)
    logged = {which for _, which, _ in rows[0]}
    assert {'loss', 'embedding_spread', 'projection_spread', 'val/loss'} <= logged
    if name == 'moco':
        names = flat_names(one)
        assert np.any(names['encoder.cls_token'] != names['momentum_encoder.cls_token'])
        for path in ('encoder.patch_embed.proj.kernel', 'encoder.patch_embed.proj.bias'):
            np.testing.assert_array_equal(names[path], names[f'momentum_{path}'])


@pytest.mark.parametrize('name', TASKS)
def test_the_encoder_goes_on_into_a_classifier_and_starts_from_an_autoencoder(name):
    task, source = TASKS[name], filled(TASKS[name], seed=1)[1]  # whose copies, where it has some, are others
    classify = ClassifyTask(model=ENCODER, labels=('a',), classes=('n', 'y'))
    moved = classify.load_pretrained(filled(classify)[1], source)
    jax.tree.map(np.testing.assert_array_equal, moved['encoder'], source['encoder'])
    mae = MAETask(model=MAEConfig(encoder=ENCODER, decoder_width=8, decoder_depth=1, decoder_heads=2))
    start, fresh = filled(mae, seed=2)[1], filled(task)[1]
    begun = task.load_pretrained(fresh, start)
    for part in [part for part in ('encoder', 'momentum_encoder') if part in begun]:
        jax.tree.map(np.testing.assert_array_equal, begun[part]['blocks'], start['encoder']['blocks'])
    jax.tree.map(np.testing.assert_array_equal, begun['projector'], fresh['projector'])


def test_what_would_change_the_loss_is_refused():
    config = run_config('simclr')
    with pytest.raises(UsageError, match=r'optim.accumulate is 2 and each image is compared with all others'):
        align(dataclasses.replace(config, optim=OptimConfig(accumulate=2)))
    with pytest.raises(UsageError, match='the task takes views of each image and data.views is null'):
        align(dataclasses.replace(config, data=dataclasses.replace(config.data, views=None)))
    with pytest.raises(UsageError, match='the task takes single images and data.views is set'):
        align(dataclasses.replace(config, task=ClassifyTask(model=ENCODER, labels=('glaucoma',))))
    with pytest.raises(UsageError, match='SimCLR compares two views'):
        TASKS['simclr'].loss(None, batch_of('swav'), key=None)
