"""Losses and predictions of the labelled tasks, against scikit-learn and hand-written sums."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, mean_squared_error

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.models.vit import ViTConfig
from retfound_jax.tasks.base import TargetColumn
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.regress import RegressTask

TINY = ViTConfig(image_size=16, patch_size=8, width=8, depth=1, heads=2)


class Fixed:
    """A model whose head outputs are given."""

    def __init__(self, logits):
        self.logits = jnp.asarray(logits, jnp.float32)

    def __call__(self, image, *, key=None):
        return self.logits


def batch(labels, mask=None):
    rows = {'image': jnp.zeros((len(labels), 16, 16, 3)), 'labels': jnp.asarray(labels, jnp.float32)}
    return rows if mask is None else {**rows, 'mask': jnp.asarray(mask)}


def test_single_is_cross_entropy_over_labelled_rows_only():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 4)), rng.integers(0, 4, 20).astype(float)
    task = ClassifyTask(model=TINY, labels=('a',), classes=tuple('wxyz'), label_smoothing=0.0)
    labels[3] = np.nan
    known = np.arange(20) != 3
    score = np.asarray(task.predict(Fixed(logits), batch(labels[:, None]))['score'])
    loss, _ = task.loss(Fixed(logits), batch(labels[:, None]), key=None)
    assert float(loss) == pytest.approx(log_loss(labels[known], score[known], labels=[0, 1, 2, 3]), abs=1e-5)


def test_label_smoothing_is_really_applied():
    logits = np.array([[2.0, -1.0, 0.5]])
    task = ClassifyTask(model=TINY, labels=('a',), classes=tuple('xyz'), label_smoothing=0.1)
    log_p = logits - np.log(np.exp(logits).sum())
    expected = -(log_p * (np.array([1, 0, 0]) * 0.9 + 0.1 / 3)).sum()
    assert float(task.loss(Fixed(logits), batch([[0.0]]), key=None)[0]) == pytest.approx(expected, abs=1e-6)


def test_multi_is_binary_cross_entropy_over_present_entries():
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(12, 3)), rng.integers(0, 2, (12, 3)).astype(float)
    labels[2, 1] = labels[5, 0] = np.nan
    task = ClassifyTask(model=TINY, labels=('a', 'b', 'c'), mode='multi', label_smoothing=0.0)
    score = np.asarray(task.predict(Fixed(logits), batch(labels))['score'])
    present = ~np.isnan(labels)
    loss, _ = task.loss(Fixed(logits), batch(labels), key=None)
    assert float(loss) == pytest.approx(log_loss(labels[present], score[present]), abs=1e-5)


def test_ordinal_scores_are_probabilities_and_follow_the_thresholds():
    rng = np.random.default_rng(2)
    task = ClassifyTask(model=TINY, labels=('grade',), mode='ordinal', classes=tuple('01234'), label_smoothing=0.0)
    logits = rng.normal(size=(50, 4)) * 3
    score = np.asarray(task.predict(Fixed(logits), batch(np.zeros((50, 1))))['score'])
    assert score.shape == (50, 5) and (score >= 0).all() and np.allclose(score.sum(1), 1, atol=1e-6)
    sharp = np.array([[20.0, 20, -20, -20]])
    assert np.asarray(task.predict(Fixed(sharp), batch([[0.0]]))['score']).argmax() == 2
    assert float(task.loss(Fixed(sharp), batch([[2.0]]), key=None)[0]) < 1e-6 < float(task.loss(Fixed(sharp), batch([[3.0]]), key=None)[0])


def test_padding_rows_do_not_count():
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(6, 2)), rng.integers(0, 2, (6, 1)).astype(float)
    task = ClassifyTask(model=TINY, labels=('a',), classes=('n', 'y'))
    mask = np.array([1, 1, 1, 1, 0, 0], bool)
    whole = task.loss(Fixed(logits), batch(labels, mask), key=None)[0]
    cut = task.loss(Fixed(logits[:4]), batch(labels[:4]), key=None)[0]
    assert float(whole) == pytest.approx(float(cut), abs=1e-6)


def test_regression_speaks_the_unit_of_the_column():
    values = np.array([30.0, 50, 70, np.nan])
    task = RegressTask(model=TINY, labels=('age',)).resolve({'age': TargetColumn(values=values, classes=None)})
    assert (task.target_mean, task.target_std) == (50.0, pytest.approx(np.std([30, 50, 70])))
    outputs = np.array([[0.1], [-0.2], [0.4], [9.0]])
    score = np.asarray(task.predict(Fixed(outputs), batch(values[:, None]))['score'])[:, 0]
    loss, _ = task.loss(Fixed(outputs), batch(values[:, None]), key=None)
    assert float(loss) == pytest.approx(mean_squared_error(values[:3], score[:3]) / task.target_std**2, rel=1e-5)


def column(values, classes):
    return TargetColumn(values=np.array(values, float), classes=classes)


@pytest.mark.parametrize(
    ('task', 'columns', 'says'),
    [
        (ClassifyTask(model=TINY, labels=('a',)), {'a': column([1.5], None)}, 'a number, not a class'),
        (ClassifyTask(model=TINY, labels=('a',)), {'a': column([0], ('x',))}, 'one value only'),
        (ClassifyTask(model=TINY, labels=('a',), mode='multi'), {'a': column([0], tuple('xyz'))}, 'yes/no'),
        (ClassifyTask(model=TINY, labels=('a', 'b')), {k: column([0], ('x', 'y')) for k in 'ab'}, 'one label column'),
        (RegressTask(model=TINY, labels=('a',)), {'a': column([5, 5], None)}, 'does not vary'),
        (RegressTask(model=TINY, labels=('a',)), {'a': column([0, 1], ('x', 'y'))}, 'holds classes'),
    ],
)
def test_labels_that_do_not_fit_are_refused(task, columns, says):
    with pytest.raises(UserError, match=says):
        task.resolve(columns)


def test_a_task_without_labels_is_refused():
    with pytest.raises(UsageError, match='no label columns'):
        ClassifyTask(model=TINY)
