"""Token reconstruction as a task: what learns, what does not, where it starts, and that it trains."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from retfound_jax.core.errors import UserError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.token_reconstruction import TokenReconstructionConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig, make_optimizer
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.tasks.token_reconstruction import TokenReconstructionTask
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.loop import train
from retfound_jax.train.state import abstract_params, model_spec

ENCODER = ViTConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, pool='mean_normed', registers=1, layer_scale=0.1)
TASK = TokenReconstructionTask(model=TokenReconstructionConfig(encoder=ENCODER))
PHOTOGRAPHS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)


def params_of(task, *, seed):
    return nnx.to_pure_dict(nnx.state(task.init(rngs=nnx.Rngs(seed))))


def run_config(**changes):
    data = DataConfig(phantom=PhantomConfig(patients=6, image_size=48), image_size=32, batch_size=8)
    base = {'name': 'tiny_token', 'task': TASK, 'data': data, 'optim': OptimConfig(lr=1e-3, clip_norm=1.0), 'steps': 4, 'eval_every': -1}
    return TrainConfig(**base | {'log_every': 1} | changes)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('jit', [jax.jit, lambda function: function])
def test_without_corruption_a_student_that_is_its_teacher_has_no_loss(jit):
    task = TokenReconstructionTask(model=dataclasses.replace(TASK.model, noise=0.0, most_blank=0.0, projector=False))
    model = task.init(rngs=nnx.Rngs(0))
    graph, params = nnx.split(model)
    for key in (None, jax.random.key(0)):
        loss = jit(lambda p, key=key: task.loss(nnx.merge(graph, p), {'image': PHOTOGRAPHS}, key=key)[0])(params)
        assert float(loss) == 0.0
    corrupted = dataclasses.replace(task, model=dataclasses.replace(task.model, noise=0.2))
    assert float(corrupted.loss(corrupted.init(rngs=nnx.Rngs(0)), {'image': PHOTOGRAPHS}, key=None)[0]) > 0


def test_the_teacher_gets_no_gradient_and_every_parameter_of_the_student_gets_one():
    graph, params = nnx.split(TASK.init(rngs=nnx.Rngs(0)))
    grads = jax.grad(lambda p: TASK.loss(nnx.merge(graph, p), {'image': PHOTOGRAPHS}, key=jax.random.key(1))[0])(params)
    grads = nnx.to_pure_dict(grads)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads.pop('teacher')))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_padding_rows_do_not_count_and_score_is_the_loss_of_each_image():
    model = TASK.init(rngs=nnx.Rngs(0))
    mask = jnp.array([True, True, False, False])
    loss, _ = TASK.loss(model, {'image': PHOTOGRAPHS, 'mask': mask}, key=None)
    score = TASK.predict(model, {'image': PHOTOGRAPHS})['score']
    assert score.shape == (4, 1) and float(loss) == pytest.approx(float(score[:2].mean()), rel=1e-6)


def test_chance_comes_from_the_key_alone():
    model = TASK.init(rngs=nnx.Rngs(0))
    losses = [float(TASK.loss(model, {'image': PHOTOGRAPHS}, key=key)[0]) for key in (None, None, *map(jax.random.key, (0, 0, 1)))]
    assert losses[0] == losses[1] and losses[2] == losses[3] != losses[4]


def test_a_run_moves_student_and_projector_and_leaves_the_teacher_where_both_started(tmp_path):
    source = MAETask(model=MAEConfig(encoder=dataclasses.replace(ENCODER, registers=0), decoder_width=16, decoder_depth=1, decoder_heads=2))
    train(run_config(task=source, steps=2), workdir=tmp_path / 'mae')
    task = TokenReconstructionTask(model=dataclasses.replace(TASK.model, encoder=dataclasses.replace(ENCODER, registers=0)))
    train(run_config(task=task, init_from=str(tmp_path / 'mae')), workdir=tmp_path / 'token')
    start, params = (load_run(tmp_path / name, which='latest').params for name in ('mae', 'token'))
    assert_same(params['teacher'], start['encoder'])
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), params['encoder'], start['encoder'])
    assert all(jax.tree.leaves(moved)) and np.any(params['projector']['ls']['gamma'] != np.float32(1e-5))


def test_the_optimiser_keeps_nothing_for_the_teacher():
    params = abstract_params(model_spec(TASK))
    tx = make_optimizer(OptimConfig(), params=params, steps=1, batch_size=1, depth=TASK.depth, trainable=TASK.trainable)
    held = [leaf.size for leaf in jax.tree.leaves(jax.eval_shape(tx.init, params)) if leaf.ndim]
    learned = sum(leaf.size for name in ('encoder', 'projector') for leaf in jax.tree.leaves(params[name]))
    assert sum(held) == 2 * learned


def test_loss_falls_over_a_few_steps(tmp_path):
    task = TokenReconstructionTask(model=dataclasses.replace(TASK.model, noise=1.0))
    data = DataConfig(phantom=PhantomConfig(patients=6, image_size=48), image_size=32, batch_size=8, augment='none')
    train(run_config(task=task, data=data, steps=40, optim=OptimConfig(lr=3e-3)), workdir=tmp_path)
    losses = [row['value'] for row in read_metrics(tmp_path) if row['name'] == 'loss']
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_its_encoder_goes_on_into_a_classifier_and_into_itself():
    source = params_of(TASK, seed=1)
    source['encoder']['cls_token'] = source['encoder']['cls_token'] + 1  # it has learned; its teacher has not
    classify = ClassifyTask(model=ENCODER, labels=('a',), classes=('n', 'y'))
    moved = classify.load_pretrained(params_of(classify, seed=0), source)
    assert_same(moved['encoder'], source['encoder'])
    fresh = params_of(TASK, seed=0)
    again = TASK.load_pretrained(fresh, source)
    assert_same(again['encoder'], source['encoder'])
    assert_same(again['teacher'], source['encoder'])
    assert_same(again['projector'], fresh['projector'])


def test_weights_without_a_final_norm_are_refused():
    mean = ClassifyTask(model=dataclasses.replace(ENCODER, pool='mean'), labels=('a',), classes=('n', 'y'))
    with pytest.raises(UserError, match='lack encoder.norm'):
        TASK.load_pretrained(params_of(TASK, seed=0), params_of(mean, seed=1))
