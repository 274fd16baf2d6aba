"""Losses that look at groups of people: weights by inverse frequency, and group-DRO, which weighs the group most that does worst.

Letters: B batch, Y label columns of a loss, G groups, C classes.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.tasks.base import GroupColumn, TargetColumn

WEIGHTS = 'group_weights'  # the name among a model's parameters of what group-DRO keeps
_MOST = 1000  # groups
_MOST_LOGGED = 20  # groups whose weight is written down at every step
_TINY = 1e-30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reweight:
    """Each sample weighs the inverse of how often its group is drawn; the mean weight of the stream is 1."""

    by_label: bool = False  # of its group and class together; a task with one label of classes
    weights: tuple[tuple[float, ...], ...] = ()  # [G][C], or [G][1] without `by_label`; settled from the data


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupDRO:
    """Group distributionally robust optimisation (Sagawa et al., ICLR 2020, arXiv 1911.08731, algorithm 1).

    The weights q of the groups are part of the model's state. At each step q_g is multiplied by exp(step_size * l_g) and q made to sum to
    1; then the model takes a step on the sum of q_g * l_g, where l_g is the mean loss of group g. Algorithm 1 draws the groups equally
    often and one sample a step. Here a batch holds each group with the share pi_g of the stream, so every sample counts 1 / pi_g, and l_g
    is (sum of the group's losses in the batch) / (samples of the batch * pi_g): its mean over batches is the group's loss, however rare
    the group is. With data.balance by the same columns and temperature 0 it is the mean over the group's samples in the batch. Where a step
    is accumulated over parts, each part looks ahead by its own losses, and what is kept is updated once, by those of all parts.
    """

    step_size: float = 0.01  # eta_q of the paper
    adjustment: float = 0.0  # C of section 3.3: each loss of group g is taken as C / sqrt(n_g) larger where q is updated
    shares: tuple[float, ...] = ()  # [G] pi_g, of the stream; settled from the data
    rows: tuple[int, ...] = ()  # [G] n_g, of the training split; settled from the data

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that mean nothing."""
        if self.step_size <= 0 or self.adjustment < 0:
            told = f'task.robust.step_size is {self.step_size:g} and adjustment {self.adjustment:g}'
            raise UsageError(f'{told}; the first must be above 0, the second 0 or more')


Robust = Reweight | GroupDRO


def settle(robust: Robust, *, groups: GroupColumn, label: TargetColumn | None) -> Robust:
    """What only the data know, put in.

    Args:
      label: the one label column, where there is one.

    Raises:
      UserError: there is one group only, or one that is never drawn.
      UsageError: there are more than 1,000 groups, or there is no label of classes to weigh by.
    """
    names = groups.names
    if len(names) < 2:
        raise UserError(f'all images to train on are of one group ("{names[0]}"), and there is nothing to weigh; choose other data.groups')
    if len(names) > _MOST:
        raise UsageError(f'data.groups makes {len(names):,} groups and a loss takes {_MOST:,} at most; name columns with fewer values')
    share_G = np.bincount(groups.index, weights=groups.shares, minlength=len(names))
    if isinstance(robust, GroupDRO):
        if not share_G.all():
            never = names[int(np.flatnonzero(share_G == 0)[0])]
            raise UserError(f'the group "{never}" is never drawn, so that group-DRO cannot weigh it; give it a weight in data.balance')
        rows = np.bincount(groups.index, minlength=len(names))
        return dataclasses.replace(robust, shares=tuple(share_G.tolist()), rows=tuple(rows.tolist()))
    share_GC = _by_class(groups, label) if robust.by_label else share_G[:, None]
    weight_GC = np.divide(1.0, share_GC * np.count_nonzero(share_GC), out=np.zeros_like(share_GC), where=share_GC > 0)
    return dataclasses.replace(robust, weights=tuple(map(tuple, weight_GC.tolist())))


def _by_class(groups: GroupColumn, label: TargetColumn | None) -> np.ndarray:
    if label is None or label.classes is None:
        raise UsageError('task.robust.by_label weighs by group and class, and the task has not one label of classes; set it to false')
    share_GC = np.zeros((len(groups.names), len(label.classes)))
    known = ~np.isnan(label.values)
    np.add.at(share_GC, (groups.index[known], label.values[known].astype(np.int64)), groups.shares[known])
    return share_GC


def mean_loss(each_BY: jax.Array, present_BY: jax.Array) -> jax.Array:
    """The mean of the losses that are there."""
    return jnp.where(present_BY, each_BY, 0.0).sum() / present_BY.sum().clip(1)


def reweighted(
    robust: Reweight, *, each_BY: jax.Array, present_BY: jax.Array, group_B: jax.Array, label_BY: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted mean, and `unweighted_loss`."""
    table_GC = jnp.asarray(robust.weights, jnp.float32)
    weight_B = table_GC[group_B, label_BY[:, 0].astype(jnp.int32) if robust.by_label else 0]
    told = {'unweighted_loss': mean_loss(each_BY, present_BY)}
    return mean_loss(each_BY * weight_B[:, None], present_BY), told


def robust_loss(
    robust: GroupDRO, *, each_BY: jax.Array, present_BY: jax.Array, group_B: jax.Array, weight_G: jax.Array, names: tuple[str, ...]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Group-DRO's loss, and `unweighted_loss`, the groups' weights, and `_group_loss` [G], which `updated` takes."""
    share_G, rows_G = (jnp.asarray(given, jnp.float32) for given in (robust.shares, robust.rows))
    member_BG = jax.nn.one_hot(group_B, len(names), dtype=jnp.float32)
    exact = {'precision': jax.lax.Precision.HIGHEST}
    scale_G = 1.0 / (present_BY.sum().clip(1) * share_G)
    loss_G = jnp.einsum('BG,B->G', member_BG, jnp.where(present_BY, each_BY, 0.0).sum(1), **exact) * scale_G
    count_G = jnp.einsum('BG,B->G', member_BG, present_BY.sum(1).astype(jnp.float32), **exact) * scale_G
    judged_G = jax.lax.stop_gradient(loss_G + robust.adjustment / jnp.sqrt(rows_G) * count_G)
    ahead_G = updated(robust, weight_G=jax.lax.stop_gradient(weight_G), loss_G=judged_G)
    shown = {f'group_weight/{name}': ahead_G[place] for place, name in enumerate(names)} if len(names) <= _MOST_LOGGED else {}
    told = {'unweighted_loss': mean_loss(each_BY, present_BY), 'largest_group_weight': ahead_G.max(), **shown}
    return (ahead_G * loss_G).sum(), {**told, '_group_loss': judged_G}


def updated(robust: GroupDRO, *, weight_G: jax.Array, loss_G: jax.Array) -> jax.Array:
    """q after a step: each times exp(step_size * loss), made to sum to 1."""
    return jax.nn.softmax(jnp.log(weight_G.clip(_TINY)) + robust.step_size * loss_G)
