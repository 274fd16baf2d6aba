"""Losses that look at groups: group-DRO against the algorithm of its paper in float64, weights against plain counts."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.data.balance import BalanceConfig, Balanced
from retfound_jax.data.strata import Strata
from retfound_jax.tasks.base import GroupColumn, TargetColumn
from retfound_jax.tasks.robust import GroupDRO, Reweight, mean_loss, reweighted, robust_loss, settle, updated

GROUPS, WIDTH = 3, 4


def toy(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, WIDTH], labels [N] and groups [N] of a logistic regression whose groups are unlike and not alike in number."""
    rng = np.random.default_rng(seed)
    group = rng.choice(GROUPS, rows, p=[0.6, 0.3, 0.1])
    x = rng.normal(size=(rows, WIDTH))
    y = (x[np.arange(rows), group] + 0.5 * rng.normal(size=rows) > 0).astype(float)
    return x, y, group


def numpy_loss(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each sample's cross-entropy [N] and its gradient [N, WIDTH], float64."""
    z = x @ theta
    return np.logaddexp(0, z) - y * z, (1 / (1 + np.exp(-z)) - y)[:, None] * x


@functools.partial(jax.jit, static_argnames=('robust', 'rate'))
def step(theta: jax.Array, weight_G: jax.Array, batch: tuple[jax.Array, ...], *, robust: GroupDRO, rate: float) -> tuple:
    """A step of ours on that model: plain gradient descent on `robust_loss`, then `updated`."""
    x, y, group = batch

    def loss(theta: jax.Array) -> tuple[jax.Array, dict]:
        z = x @ theta
        each = (jnp.logaddexp(0, z) - y * z)[:, None]
        given = {'present_BY': jnp.ones_like(each, bool), 'group_B': group, 'weight_G': weight_G, 'names': tuple('abc')}
        return robust_loss(robust, each_BY=each, **given)

    grad, told = jax.grad(loss, has_aux=True)(theta)
    return theta - rate * grad, updated(robust, weight_G=weight_G, loss_G=told['_group_loss']), told


def ours(batches: list, *, rate: float, robust: GroupDRO) -> tuple[np.ndarray, np.ndarray]:
    theta, weight = jnp.zeros(WIDTH), jnp.full(GROUPS, 1 / GROUPS)
    for x, y, group in batches:
        theta, weight, told = step(theta, weight, (x.astype(np.float32), y.astype(np.float32), group), robust=robust, rate=rate)
        assert np.allclose([told[f'group_weight/{name}'] for name in 'abc'], weight, rtol=1e-6)
    return np.asarray(theta), np.asarray(weight)


def test_one_sample_a_step_is_algorithm_1_of_the_paper() -> None:
    """Its lines: draw g evenly, draw (x, y) of g; q'_g = q_g exp(eta_q loss); q = q' / sum q'; theta -= eta_theta q_g grad loss."""
    eta_q, eta_theta, adjustment = 0.05, 0.5, 2.0
    x, y, group = toy(400)
    rows = np.bincount(group)
    rng = np.random.default_rng(1)
    drawn = [rng.choice(np.flatnonzero(group == rng.integers(GROUPS))) for _ in range(300)]
    theta, q = np.zeros(WIDTH), np.full(GROUPS, 1 / GROUPS)
    for i in drawn:
        (loss,), (grad,) = numpy_loss(theta, x[[i]], y[[i]])
        q[group[i]] *= np.exp(eta_q * (loss + adjustment / np.sqrt(rows[group[i]])))
        q /= q.sum()
        theta -= eta_theta * q[group[i]] * grad
    # A sample of a stream of equal groups counts GROUPS times, for q as for theta.
    batches = [(x[[i]], y[[i]], group[[i]]) for i in drawn]
    robust = GroupDRO(step_size=eta_q / GROUPS, adjustment=adjustment, shares=(1 / GROUPS,) * GROUPS, rows=tuple(rows.tolist()))
    found = ours(batches, rate=eta_theta / GROUPS, robust=robust)
    assert np.allclose(found[0], theta, atol=2e-5) and np.allclose(found[1], q, atol=2e-5)
    assert np.abs(theta).max() > 0.3 and np.ptp(q) > 0.05


def test_batches_of_equal_groups_are_the_algorithm_with_the_groups_means() -> None:
    x, y, group = toy(600)
    rows, size = np.bincount(group), 8
    rng = np.random.default_rng(2)
    batches = [np.concatenate([rng.choice(np.flatnonzero(group == g), size) for g in range(GROUPS)]) for _ in range(100)]
    theta, q = np.zeros(WIDTH), np.full(GROUPS, 1 / GROUPS)
    for batch in batches:
        loss, grad = numpy_loss(theta, x[batch], y[batch])
        mean = np.array([loss[group[batch] == g].mean() for g in range(GROUPS)])
        q *= np.exp(0.1 * (mean + 1.0 / np.sqrt(rows)))
        q /= q.sum()
        theta -= 0.5 * sum(q[g] * grad[group[batch] == g].mean(0) for g in range(GROUPS))
    robust = GroupDRO(step_size=0.1, adjustment=1.0, shares=(1 / GROUPS,) * GROUPS, rows=tuple(rows.tolist()))
    found = ours([(x[b], y[b], group[b]) for b in batches], rate=0.5, robust=robust)
    assert np.allclose(found[0], theta, atol=2e-5) and np.allclose(found[1], q, atol=2e-5)


def test_in_a_stream_of_unequal_groups_the_mean_over_batches_is_each_groups_loss() -> None:
    x, y, group = toy(600)
    loss, _ = numpy_loss(np.ones(WIDTH), x, y)
    shares = np.bincount(group) / len(group)
    robust = GroupDRO(shares=tuple(shares), rows=(1, 1, 1))

    @jax.jit
    def of(each: jax.Array, group: jax.Array) -> jax.Array:
        given = {'present_BY': jnp.ones_like(each, bool), 'weight_G': jnp.full(3, 1 / 3), 'names': tuple('abc')}
        return robust_loss(robust, each_BY=each, group_B=group, **given)[1]['_group_loss']

    parts = np.random.default_rng(0).permutation(600).reshape(100, 6)
    found = np.mean([of(loss[part][:, None].astype(np.float32), group[part]) for part in parts], axis=0)
    assert np.allclose(found, [loss[group == g].mean() for g in range(GROUPS)], rtol=1e-5)


def column(index: list[int], *, shares: list[float] | None = None, names: str = 'ab') -> GroupColumn:
    given = np.full(len(index), 1 / len(index)) if shares is None else np.array(shares)
    return GroupColumn(names=tuple(names), index=np.array(index, np.int32), shares=given)


def test_weights_are_the_inverse_of_how_often_a_group_is_drawn_and_their_mean_is_one() -> None:
    index, label = [0] * 6 + [1] * 2, TargetColumn(values=np.array([0, 0, 0, 1, 1, 1, 0, 0.0]), classes=('no', 'yes'))
    plain = settle(Reweight(), groups=column(index), label=label)
    assert np.allclose(plain.weights, [[8 / (2 * 6)], [8 / (2 * 2)]])
    both = settle(Reweight(by_label=True), groups=column(index), label=label)
    assert np.allclose(both.weights, [[8 / 9, 8 / 9], [8 / 6, 0]])
    for robust in (plain, both):
        each = [robust.weights[g][int(y) if robust.by_label else 0] for g, y in zip(index, label.values, strict=True)]
        assert np.isclose(np.mean(each), 1)
    # What the loader balances already is not weighed again.
    even = settle(Reweight(), groups=column(index, shares=[1 / 12] * 6 + [1 / 4] * 2), label=None)
    assert np.allclose(even.weights, [[1], [1]])


def test_the_weighted_loss_is_the_weighted_mean() -> None:
    rng = np.random.default_rng(0)
    each, present = rng.random((8, 1)).astype(np.float32), np.array([[True]] * 7 + [[False]])
    group, label = rng.integers(0, 2, 8), rng.integers(0, 2, (8, 1)).astype(np.float32)
    robust = Reweight(by_label=True, weights=((1.0, 2.0), (3.0, 4.0)))
    loss, told = reweighted(robust, each_BY=each, present_BY=present, group_B=group, label_BY=label)
    weight = np.array(robust.weights)[group, label[:, 0].astype(int)]
    assert np.isclose(loss, (each[:7, 0] * weight[:7]).sum() / 7)
    assert np.isclose(told['unweighted_loss'], each[:7].mean()) and np.isclose(mean_loss(each, present), each[:7].mean())


def test_what_cannot_be_weighed_is_said_in_one_sentence() -> None:
    number = TargetColumn(values=np.arange(4.0), classes=None)
    cases = [
        (UserError, 'of one group .*nothing to weigh', Reweight(), column([0, 0], names='a'), None),
        (UserError, 'group "b" is never drawn', GroupDRO(), column([0, 0, 1], shares=[0.5, 0.5, 0]), None),
        (UsageError, 'not one label of classes', Reweight(by_label=True), column([0, 1, 0, 1]), number),
        (UsageError, 'not one label of classes', Reweight(by_label=True), column([0, 1]), None),
        (UsageError, '1,200 groups .*1,000 at most', GroupDRO(), column([*range(1200)], names='x' * 1200), None),
    ]
    for error, message, robust, groups, label in cases:
        with pytest.raises(error, match=message) as caught:
            settle(robust, groups=groups, label=label)
        assert '\n' not in str(caught.value)
    with pytest.raises(UsageError, match='step_size is 0 .*above 0'):
        GroupDRO(step_size=0)


def shortcut(rows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A finding that is hard to see (feature 0) and a camera that is easy to see (1) and that, in 95 % of the rows, goes with it.

    Groups are camera and finding together: 0 and 3 follow the shortcut, 1 and 2 are the few that it fails.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, rows)
    camera = np.where(rng.random(rows) < 0.95, y, 1 - y)
    x = np.stack([(2 * y - 1) + rng.normal(size=rows), (2 * camera - 1) + 0.3 * rng.normal(size=rows)], 1)
    return np.concatenate([x, np.ones((rows, 1))], 1), y.astype(float), 2 * camera + y


@pytest.mark.parametrize('means', ['nothing', 'balance', 'reweight', 'group-DRO'])
def test_each_means_helps_the_group_that_a_shortcut_fails(means: str) -> None:
    x, y, group = shortcut(4000, seed=0)
    order = Balanced.of(
        BalanceConfig(by='group', temperature=0.0 if means == 'balance' else 1.0),
        strata=Strata(names=tuple('0123'), index=group.astype(np.int32)), seed=0,
    )
    robust = {'reweight': Reweight(), 'group-DRO': GroupDRO(step_size=0.1)}.get(means)
    if robust is not None:
        robust = settle(robust, groups=column(group.tolist(), names='0123'), label=None)

    @jax.jit
    def trained(theta: jax.Array, weight: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        def loss(theta: jax.Array) -> tuple[jax.Array, dict]:
            z = x[rows] @ theta
            given = {'each_BY': (jnp.logaddexp(0, z) - y[rows] * z)[:, None], 'present_BY': jnp.ones((len(rows), 1), bool)}
            if robust is None:
                return mean_loss(**given), {}
            given['group_B'] = group[rows]
            if isinstance(robust, Reweight):
                return reweighted(robust, **given, label_BY=y[rows][:, None])
            return robust_loss(robust, **given, weight_G=weight, names=tuple('0123'))

        grad, told = jax.grad(loss, has_aux=True)(theta)
        return theta - 0.3 * grad, updated(robust, weight_G=weight, loss_G=told['_group_loss']) if '_group_loss' in told else weight

    x, y, group = (jnp.asarray(value) for value in (x.astype(np.float32), y.astype(np.float32), group))
    theta, weight = jnp.zeros(3), jnp.full(4, 0.25)
    _, rows = order.at(np.arange(600 * 64))
    for part in rows.reshape(600, 64):
        theta, weight = trained(theta, weight, part)
    test_x, test_y, test_group = shortcut(20_000, seed=1)
    right = (test_x @ np.asarray(theta) > 0) == (test_y > 0)
    accuracy = np.array([right[test_group == g].mean() for g in range(4)])
    gap = np.ptp(accuracy)
    assert gap > 0.45 if means == 'nothing' else gap < 0.15


@pytest.mark.oracle
def test_scikit_learn_balances_by_the_same_weights() -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    index = np.random.default_rng(0).choice(4, 500, p=[0.5, 0.3, 0.15, 0.05])
    label = np.random.default_rng(1).integers(0, 2, 500)
    groups, known = column(index.tolist(), names='abcd'), TargetColumn(values=label, classes=('0', '1'))
    both = settle(Reweight(by_label=True), groups=groups, label=known)
    assert np.allclose(np.array(both.weights)[index, label], compute_sample_weight('balanced', 2 * index + label))
    plain = settle(Reweight(), groups=groups, label=None)
    assert np.allclose(np.array(plain.weights)[index, 0], compute_sample_weight('balanced', index))
