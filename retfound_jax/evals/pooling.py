"""Groups that are told together, where one of them alone would have to be withheld.

To withhold a small group, another has to be withheld too, or the small one follows from the total: often one of which something should be
known, such as the only clinic where a model fails. Told together the two give away no more, as their sum follows from the total in any
case. So in a single column a small group is joined to the smallest other one, an age band to the smaller of its neighbours, and the name
says so (`East or Small`). A `missing` or `declined` group that would have to be withheld joins the largest group, which it changes least
(`F or missing`); a large one stays apart. Intersections are not joined.

Letters: N images, G groups, T targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retfound_jax.core.demographics import NOT_A_GROUP
from retfound_jax.core.suppression import withhold_counts
from retfound_jax.evals.views import View

_HARDLY = 0.2  # of the largest group: blanks of at least the floor join it up to this share
_NAMED = 4  # groups spelled out in a name
Members = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """The groups of one column after joining, in order, and what was joined in each."""

    masks: dict[str, np.ndarray]
    members: Mapping[str, Members]  # of every group, the largest first


def is_blank(group: str) -> bool:
    """Whether a group, or a part of an intersection, is no group of people but a reason why nothing is known."""
    return not NOT_A_GROUP.isdisjoint(group.split(', '))


def pool(by: str, *, masks: Mapping[str, np.ndarray], views: Mapping[str, View], floor: int, positive_floor: int) -> Pooled:
    """Joins groups of the column or intersection `by`: `masks` [N] and `views` by patient of each."""
    sizes = {group: len(view.patient_M) for group, view in views.items()}
    people = [group for group in masks if not is_blank(group)]
    bundles: list[Members] = [(group,) for group in people]
    if '+' not in by:
        found = _neighbours(people, sizes, floor) if by == 'age_band' else _smallest(people, sizes, floor)
        bundles = found if len(found) > 1 else bundles  # all together would be everybody
    blanks = [group for group in masks if is_blank(group) and sizes[group]]
    if people and blanks:
        largest = max(range(len(bundles)), key=lambda at: sum(sizes[group] for group in bundles[at]))
        size = sum(sizes[group] for group in bundles[largest])
        others = [views[one] for one in people]
        few = {one: sizes[one] < floor or (sizes[one] <= _HARDLY * size and _has_few(views[one], others, positive_floor)) for one in blanks}
        bundles[largest] += tuple(one for one in blanks if few[one])
    joined = {group for bundle in bundles for group in bundle}
    bundles += [(group,) for group in masks if group not in joined]
    return Pooled(
        masks={_name(bundle): np.any([masks[group] for group in bundle], axis=0) for bundle in bundles},
        members={_name(bundle): tuple(sorted(bundle, key=lambda group: (is_blank(group), -sizes[group]))) for bundle in bundles},
    )


def _smallest(people: Sequence[str], sizes: Mapping[str, int], floor: int) -> list[Members]:
    """The small groups and the one that would be withheld for them as one; as they are where the small ones hide each other."""
    counts = {group: sizes[group] for group in people}
    together = [group for group in people if group in withhold_counts(counts, floor=floor)]
    if all(sizes[group] < floor for group in together):
        return [(group,) for group in people]
    bundles = [(group,) for group in people if group not in together]
    bundles.insert(people.index(together[0]), tuple(together))
    return bundles


def _neighbours(people: Sequence[str], sizes: Mapping[str, int], floor: int) -> list[Members]:
    """Bands in order, each small one joined to the smaller of its neighbours that has anybody."""
    bundles = [(group,) for group in people]
    while len(bundles) > 1:
        size = [sum(sizes[group] for group in bundle) for bundle in bundles]
        small = [at for at, n in enumerate(size) if 0 < n < floor]
        if not small:
            break
        at = min(small, key=size.__getitem__)
        near = [other for other in (at - 1, at + 1) if 0 <= other < len(bundles)]
        other = min(near, key=lambda one: size[one] or np.inf)
        first, second = sorted((at, other))
        bundles[first : second + 1] = [bundles[first] + bundles[second]]
    return bundles


def _name(bundle: Members) -> str:
    if len(bundle) <= _NAMED:
        return ' or '.join(bundle)
    return f'{bundle[0]} or {len(bundle) - 1} others'


def _has_few(view: View, others: Sequence[View], floor: int) -> bool:
    """Whether it has too few with or without a target by which two of the others can be compared."""
    if view.kind == 'regress':
        return False
    enough_GT = np.stack([np.minimum(*with_and_without(one)) >= floor for one in others])
    return bool(np.any((np.minimum(*with_and_without(view)) < floor) & (enough_GT.sum(axis=0) > 1)))


def with_and_without(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Patients with each target, and without it [T]."""
    return (view.label_MT > 0).sum(axis=0), (view.label_MT == 0).sum(axis=0)
