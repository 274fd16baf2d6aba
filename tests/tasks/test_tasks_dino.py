"""DINO and DINOv2 as tasks: what learns, what follows, what goes on from a run, and that a run resumes to the last bit."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.views_config import ViewsConfig
from retfound_jax.models.dino import DINOConfig
from retfound_jax.models.dinov2 import DINOv2Config
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig, layer_scales, make_optimizer
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.dino import DINOTask
from retfound_jax.tasks.dinov2 import DINOv2Task
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import TrainConfig, align
from retfound_jax.train.loop import train
from retfound_jax.train.state import abstract_params, model_spec

ENCODER = ViTConfig(image_size=16, patch_size=8, width=8, depth=1, heads=2, pool='cls')
SMALL = {'encoder': ENCODER, 'hidden': 8, 'bottleneck': 4, 'prototypes': 6}
DINO, DINOV2 = DINOTask(model=DINOConfig(**SMALL)), DINOv2Task(model=DINOv2Config(**SMALL))
BOTH = pytest.mark.parametrize('task', [DINO, DINOV2], ids=['dino', 'dinov2'])
# Compiling is what costs: where DINOv2 goes through all that DINO does, DINO is in the slow tier.
COSTLY = pytest.mark.parametrize('task', [pytest.param(DINO, marks=pytest.mark.slow), DINOV2], ids=['dino', 'dinov2'])
STUDENTS = ('student', 'student_projector', 'student_patch_projector')
TEACHERS = ('encoder', 'projector', 'patch_projector')


def filled(task, *, seed=0):
    """What `nnx.split` gives of the task's model, every number generic."""
    rng = np.random.default_rng(seed)
    graph, abstract = nnx.split(nnx.eval_shape(lambda: task.init(rngs=nnx.Rngs(0))))
    return graph, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, jnp.float32), abstract)


def numbers(task, *, seed):
    """Generic parameters as a nested dict."""
    return nnx.to_pure_dict(filled(task, seed=seed)[1])


def batch(*, seed=0, images=3):
    rng = np.random.default_rng(seed)
    views = {'image': (images, 2, 16, 16, 3), 'local': (images, 1, 8, 8, 3)}
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in views.items()}


def run_config(task, **changes):
    views = ViewsConfig(canvas=24, local_views=1, local_size=8, jitter_probability=0.0, blur=(0.0,), local_blur=0.0, solarize=(0.0,))
    data = DataConfig(phantom=PhantomConfig(patients=6, image_size=32), image_size=16, batch_size=8, views=views)
    optim = OptimConfig(lr=1e-2, weight_decay=0.04, weight_decay_end=0.4)
    base = {'name': 'tiny', 'task': task, 'data': data, 'optim': optim, 'steps': 4, 'log_every': 1, 'checkpoint_every': 2}
    return TrainConfig(**base | changes)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@BOTH
def test_student_and_teacher_start_alike_and_student_alone_learns(task):
    params = nnx.to_pure_dict(nnx.state(task.init(rngs=nnx.Rngs(0))))
    for teacher, student in zip(TEACHERS, STUDENTS, strict=True):
        assert_same(params.get(teacher), params.get(student))
    learns = {name.split('.')[0] for name in flat_names(params) if task.trainable(name)}
    assert learns == {*STUDENTS, 'mask_token'} & set(params)
    kernel = params['student_projector']['last']['kernel']
    assert np.abs(kernel).max() <= 0.5 and 0.2 < kernel.std() < 0.4  # uniform within 1 / sqrt(4)


@COSTLY
def test_what_is_frozen_and_the_teacher_get_no_gradient_and_all_else_does(task):
    graph, state = filled(task)

    @jax.jit
    def slope(state, progress):
        given = {**batch(), 'progress': progress}
        return jax.grad(lambda s: task.loss(nnx.merge(graph, s), given, key=jax.random.key(0))[0])(state)

    for progress, still in ((0.0, ('last.kernel',)), (0.5, ())):
        for name, grad in flat_names(slope(state, jnp.float32(progress))).items():
            moves = task.trainable(name) and not name.endswith(still or ('nothing',))
            assert moves == bool(np.any(grad)), (progress, name)


@BOTH
def test_the_teacher_follows_by_a_cosine_to_nothing(task):
    before, told = numbers(task, seed=1), {'_centre': jnp.arange(6.0)}
    for progress in (0.0, 0.25, 1.0):
        after = jax.jit(lambda p, progress=progress: task.after(p, told, progress=jnp.float32(progress)))(before)
        momentum = 1 - (1 - task.model.momentum) * (math.cos(math.pi * progress) + 1) / 2
        for teacher, student in zip(TEACHERS, STUDENTS, strict=True):
            if teacher in before:
                was, its, now = (flat_names(tree) for tree in (before[teacher], before[student], after[teacher]))
                for name in now:
                    want = momentum * np.asarray(was[name], np.float64) + (1 - momentum) * np.asarray(its[name], np.float64)
                    np.testing.assert_allclose(now[name], want, rtol=1e-5, atol=1e-6, err_msg=name)
                assert_same(after[student], before[student])
    if 'centre' in before:
        np.testing.assert_allclose(after['centre'], 0.9 * before['centre'] + 0.1 * np.arange(6.0), rtol=1e-5)


@COSTLY
def test_rows_that_fill_up_do_not_count_and_a_score_is_the_loss_of_an_image(task):
    graph, state = filled(task)
    mask = jnp.array([True, True, False])

    @jax.jit
    def run(state, given):
        model = nnx.merge(graph, state)
        loss, told = task.loss(model, given, key=None)
        return loss, told, task.predict(model, given)['score']

    given = {**batch(), 'mask': mask}
    loss, told, score = run(state, given)
    other_loss, other_told, _ = run(state, {name: x.at[2].set(3 * x[0]) if name != 'mask' else x for name, x in given.items()})
    assert score.shape == (3, 1) and float(loss) == pytest.approx(float(score[:2].mean()), rel=1e-5)
    assert float(other_loss) == pytest.approx(float(loss), rel=1e-6)
    for name in told:
        np.testing.assert_allclose(other_told[name], told[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.slow
@BOTH
def test_a_run_resumes_to_the_last_bit_validates_and_hands_on_its_teacher(task, tmp_path):
    whole = train(run_config(task), workdir=tmp_path / 'whole')
    assert math.isfinite(whole.metrics['loss'])
    end = load_run(tmp_path / 'whole', which='latest').params
    shutdown = tmp_path / 'cut'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('retfound_jax.train.loop._Trainer._evaluates', lambda self, step: False)
        cut(run_config(task), workdir=shutdown, before=4)
    train(run_config(task), workdir=shutdown, resume=True)
    assert_same(load_run(shutdown, which='latest').params, end)
    moved = [np.any(a != b) for a, b in zip(*(jax.tree.leaves(end[name]) for name in ('encoder', 'student')), strict=True)]
    assert all(moved)
    logged = {row['name'] for row in read_metrics(tmp_path / 'whole')}
    assert {'teacher_entropy', 'kl', 'prototypes_used', 'embedding_spread', 'val/loss'} <= logged and '_centre' not in logged

    classify = ClassifyTask(model=ENCODER, labels=('a',), classes=('n', 'y'))
    assert_same(classify.load_pretrained(numbers(classify, seed=0), end)['encoder'], end['encoder'])


class Cut(Exception):
    """Stands for a machine that goes away."""


def cut(config, *, workdir, before):
    from retfound_jax.data.loader import Loader

    real = Loader.__next__

    def dying(self):
        if self.step == before - 1:
            raise Cut
        return real(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cut):
        patch.setattr(Loader, '__next__', dying)
        train(config, workdir=workdir)


def test_other_weights_start_both_and_those_of_its_kind_go_on_whole():
    classify = ClassifyTask(model=ENCODER, labels=('a',), classes=('n', 'y'))
    fresh, source = numbers(DINOV2, seed=0), numbers(classify, seed=1)
    moved = DINOV2.load_pretrained(fresh, source)
    assert_same([moved['encoder'], moved['student']], [source['encoder']] * 2)
    assert_same({**moved, 'encoder': 0, 'student': 0}, {**fresh, 'encoder': 0, 'student': 0})
    own = numbers(DINOV2, seed=2)
    assert_same(DINOV2.load_pretrained(fresh, own), own)
    dino = numbers(DINO, seed=3)  # has a student, but no heads for patches: it is the teacher that goes on
    moved = DINOV2.load_pretrained(fresh, dino)
    assert_same([moved['encoder'], moved['student']], [dino['encoder']] * 2)
    assert_same(moved['projector'], fresh['projector'])


def test_the_optimiser_holds_nothing_for_the_teacher_and_layers_of_the_student_have_their_rates():
    params = abstract_params(model_spec(DINO))
    tx = make_optimizer(OptimConfig(), params=params, steps=1, batch_size=1, depth=DINO.depth, trainable=DINO.trainable)
    held = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(tx.init, params)) if leaf.ndim)
    assert held == 2 * sum(leaf.size for name in ('student', 'student_projector') for leaf in jax.tree.leaves(params[name]))
    scales = flat_names(layer_scales(params, depth=1, decay=0.5))
    assert scales['student.cls_token'] == 0.25 and scales['student.blocks.norm1.scale'].item() == 0.5
    assert scales['student_projector.last.kernel'] == 1.0


@pytest.mark.parametrize(
    ('task', 'changes', 'sentence'),
    [
        (DINOV2, {'optim': OptimConfig(accumulate=2)}, 'optim.accumulate is 2'),
        (DINO, {'data': DataConfig(phantom=PhantomConfig(), image_size=16)}, 'set data.views'),
    ],
)
def test_what_does_not_fit_is_refused_before_a_step(task, changes, sentence):
    with pytest.raises(UsageError, match=sentence):
        align(dataclasses.replace(run_config(task), **changes))


def test_learned_positions_and_local_views_are_refused():
    encoder = dataclasses.replace(ENCODER, positions='learned')
    task = DINOTask(model=dataclasses.replace(DINO.model, encoder=encoder))
    with pytest.raises(UsageError, match='learned positions are for one size'):
        task.loss(task.init(rngs=nnx.Rngs(0)), batch(), key=None)
