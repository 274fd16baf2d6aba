"""What finished cells say of groups: the AUROC of each group in each cell, its slope on the composition of the pretraining, and on labels.

Groups are of people, so draws of patients of one group say nothing of another's, and each group is resampled by itself; all models of a
study are judged under the same draws. Groups under the floor (core/demographics.py) are withheld, and what is missing or declined is no
group.

Letters: S seeds, X compositions or shares of labels, G groups, R replicates.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from retfound_jax.core.demographics import FLOOR, FLOOR_POSITIVE, NOT_A_GROUP
from retfound_jax.core.errors import UsageError
from retfound_jax.evals.compare import Resampled, resampled
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.subgroups import group_masks, parse_by
from retfound_jax.studies import slopes
from retfound_jax.studies.grid import GroupQuestion
from retfound_jax.studies.rows import MACRO, Arm
from retfound_jax.studies.slopes import Estimate

GAP = 'gap'
METRIC = 'AUROC'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """A group of the test images for one target."""

    name: str
    n_images: int
    n_patients: int
    n_positive: int  # [patients] with the target
    shown: bool  # at the floor or above it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A number of a group, or the gap, for one method and share of labels."""

    adaptation: str
    method: str
    composition: float  # share of the varied group in the pretraining; NaN where nothing is composed
    fraction: float  # of the labels
    target: str
    group: str  # or GAP: the varied group minus the mean of the others
    found: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slope:
    """How a number moves with what is varied, everything else held."""

    on: str  # 'composition': per whole, from none of the group to all; 'labels': per doubling of the labels
    adaptation: str
    method: str  # of a slope on labels
    fraction: float  # of a slope on the composition
    target: str
    group: str
    found: Estimate
    seeds: tuple[int, ...]
    p_holm: float = math.nan  # over all slopes of the study on the same thing


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByGroup:
    """All of it."""

    by: str
    varied: str
    groups: Mapping[str, tuple[Group, ...]]  # by target
    unknown: Mapping[str, int]  # [patients] by target, whose group is not known
    points: tuple[Point, ...]
    slopes: tuple[Slope, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Cell:
    """One arm's numbers by group."""

    arm: Arm
    composition: float
    seeds: tuple[int, ...]
    value_SG: np.ndarray  # with the gap as the last
    draw_SGR: np.ndarray


def collect(every: Sequence[Arm], *, question: GroupQuestion, compositions: Mapping[str, float]) -> ByGroup:
    """Judges the arms of a study, all on one test set, by the groups of a column.

    Args:
      question: where no group's share varies, the gap is best minus worst and has no slope on it.
      compositions: method to the share of it in the method's pretraining, NaN for none.

    Raises:
      UsageError: the predictions have no such column, or none of the groups can be shown.
    """
    first, by, varied = every[0].files[0], question.by, question.group
    parse_by([by], columns=first.columns)
    masks = masks_of(question, first)
    nobody = ~np.any([*masks.values(), np.zeros(len(first), bool)], axis=0)
    if varied and varied not in masks:
        raise UsageError(f'the study varies the share of {by} "{varied}", and the test images have {", ".join(masks) or "nobody known"}')
    groups, unknown, points, found = {}, {}, [], []
    for target in every[0].targets:
        groups[target] = tuple(_group(first, target, name, mask) for name, mask in masks.items())
        unknown[target] = _group(first, target, '', nobody).n_patients
        shown = [group.name for group in groups[target] if group.shown]
        if len(shown) < 2 or (varied and varied not in shown):
            continue
        cells = [_cell(arm, target, question, shown, composition=compositions[arm.key.method]) for arm in every]
        names, target_name = (*shown, GAP), called(first, target)
        points += [point for cell in cells for point in _points(cell, target_name, names)]
        found += _on_compositions(cells, target_name, names) if varied else []
        found += _on_labels(cells, target_name, names)
    of_target = {called(first, target): (groups[target], unknown[target]) for target in groups}
    return ByGroup(
        by=by,
        varied=varied,
        groups={target: known for target, (known, _) in of_target.items()},
        unknown={target: count for target, (_, count) in of_target.items()},
        points=tuple(points),
        slopes=tuple(_corrected(found)),
    )


def masks_of(question: GroupQuestion, predictions: Predictions) -> dict[str, np.ndarray]:
    """Rows of each group whose members are known, those that are one joined."""
    masks = {name: mask for name, mask in group_masks(question.by, predictions=predictions).items() if name not in NOT_A_GROUP}
    if not question.merged:
        return masks
    nobody = np.zeros(len(predictions), bool)
    return {name: np.any([nobody, *(masks.get(value, nobody) for value in values)], axis=0) for name, values in question.merged}


def called(predictions: Predictions, target: str) -> str:
    """A target's name for people: of a label with two classes the mean over them, and the second one, are that label's."""
    one = len(predictions.labels) == 1 and (target == MACRO or len(predictions.classes) == 2)
    return predictions.labels[0] if one else target


def only(predictions: Predictions, kept_N: np.ndarray) -> Predictions:
    """Some of the rows."""
    columns = {name: values[kept_N] for name, values in predictions.columns.items()}
    return dataclasses.replace(predictions, columns=columns, label_NY=predictions.label_NY[kept_N], score_NS=predictions.score_NS[kept_N])


def positive(predictions: Predictions, target: str) -> np.ndarray:
    """Which rows have what the target asks for: 1, 0 or NaN. Of a label with two classes it is the second; of more, any but the first."""
    if predictions.kind == 'multi' and target in predictions.labels:
        return predictions.label_NY[:, predictions.labels.index(target)]
    if predictions.kind == 'multi':  # any of them
        return np.where(np.isnan(predictions.label_NY).all(axis=1), np.nan, np.nansum(predictions.label_NY, axis=1) > 0)
    label_N = predictions.label_NY[:, 0]
    wanted = predictions.classes.index(target) if target in predictions.classes else None
    return np.where(np.isnan(label_N), np.nan, label_N > 0 if wanted is None else label_N == wanted)


def _group(predictions: Predictions, target: str, name: str, mask_N: np.ndarray) -> Group:
    label_N = positive(predictions, target)
    kept_N = mask_N & ~np.isnan(label_N)
    patients, with_it, without = (len(set(predictions.columns['patient'][rows].tolist())) for rows in (
        kept_N, kept_N & (label_N > 0), kept_N & (label_N == 0)
    ))
    enough = patients >= FLOOR and min(with_it, without) >= FLOOR_POSITIVE
    return Group(name=name, n_images=int(kept_N.sum()), n_patients=patients, n_positive=with_it, shown=enough)


def _cell(arm: Arm, target: str, question: GroupQuestion, shown: Sequence[str], *, composition: float) -> _Cell:
    parts, varied = [_resampled(arm, target, question, group) for group in shown], question.group
    value_SG = np.array([part.per_seed for part in parts]).T
    draw_SGR = np.stack([part.replicates_SR for part in parts], axis=1)
    gaps = [_gap(one, shown=shown, varied=varied) for one in (value_SG, draw_SGR)]
    return _Cell(
        arm=arm,
        composition=composition,
        seeds=arm.seeds,
        value_SG=np.concatenate([value_SG, gaps[0][:, None]], axis=1),
        draw_SGR=np.concatenate([draw_SGR, gaps[1][:, None]], axis=1),
    )


def _resampled(arm: Arm, target: str, question: GroupQuestion, group: str) -> Resampled:
    judged = arm.judged
    files = [only(one, masks_of(question, one)[group]) for one in arm.files]
    # Another group of other people is drawn by itself: its seed is moved, so that no draw is shared by accident of equal sizes.
    seed = judged.seed + int.from_bytes(group.encode()[:6], 'big') % 100_003
    return resampled(files, target=target, metric=METRIC, level=judged.level_of(target), replicates=judged.replicates, seed=seed)


def _gap(value_SGx: np.ndarray, *, shown: Sequence[str], varied: str) -> np.ndarray:
    """Along the second axis."""
    if not varied:
        return value_SGx.max(axis=1) - value_SGx.min(axis=1)
    g = shown.index(varied)
    return value_SGx[:, g] - np.delete(value_SGx, g, axis=1).mean(axis=1)


def _points(cell: _Cell, target: str, names: Sequence[str]) -> list[Point]:
    key = cell.arm.key
    shared = {'adaptation': key.adaptation, 'method': key.method, 'composition': cell.composition, 'fraction': key.fraction}
    found = []
    for g, name in enumerate(names):
        one = slopes.mean(cell.value_SG[:, g], replicates=cell.draw_SGR[:, g])
        found.append(Point(**shared, target=target, group=name, found=one.within(-1.0 if name == GAP else 0.0, 1.0)))
    return found


def _on_compositions(cells: Sequence[_Cell], target: str, names: Sequence[str]) -> list[Slope]:
    """For each adaptation and share of labels, over the methods with a composition."""
    composed = [cell for cell in cells if not math.isnan(cell.composition)]
    found = []
    for where in dict.fromkeys((cell.arm.key.adaptation, cell.arm.key.fraction) for cell in composed):
        line = sorted(
            (cell for cell in composed if (cell.arm.key.adaptation, cell.arm.key.fraction) == where), key=lambda cell: cell.composition
        )
        found += _slopes(line, [cell.composition for cell in line], names, on='composition', target=target, of=(*where, ''))
    return found


def _on_labels(cells: Sequence[_Cell], target: str, names: Sequence[str]) -> list[Slope]:
    """For each adaptation and method, over the logarithm of the share of labels."""
    found = []
    for where in dict.fromkeys((cell.arm.key.adaptation, cell.arm.key.method) for cell in cells):
        line = sorted((one for one in cells if (one.arm.key.adaptation, one.arm.key.method) == where), key=lambda one: one.arm.key.fraction)
        x = [math.log2(cell.arm.key.fraction) for cell in line]
        found += _slopes(line, x, names, on='labels', target=target, of=(where[0], 1.0, where[1]))
    return found


def _slopes(
    line: Sequence[_Cell], x: Sequence[float], names: Sequence[str], *, on: str, target: str, of: tuple[str, float, str]
) -> list[Slope]:
    """Seeds that are not made at every point do not count."""
    seeds = tuple(sorted(set.intersection(*(set(cell.seeds) for cell in line))))
    if len(set(x)) < 2 or not seeds:
        return []
    rows = [[cell.seeds.index(seed) for seed in seeds] for cell in line]
    adaptation, fraction, method = of
    found = []
    for g, name in enumerate(names):
        values = np.stack([cell.value_SG[row, g] for cell, row in zip(line, rows, strict=True)], axis=1)
        draws = np.stack([cell.draw_SGR[row, g] for cell, row in zip(line, rows, strict=True)], axis=1)
        one = slopes.slope(x, values=values, replicates=draws)
        shared = {'adaptation': adaptation, 'fraction': fraction, 'method': method, 'target': target, 'seeds': seeds}
        found.append(Slope(on=on, group=name, found=one, **shared))
    return found


def _corrected(found: Sequence[Slope]) -> list[Slope]:
    from retfound_jax.evals.stats import holm

    out = []
    for on in dict.fromkeys(one.on for one in found):
        part = [one for one in found if one.on == on]
        out += [dataclasses.replace(one, p_holm=float(p)) for one, p in zip(part, holm([one.found.p for one in part]), strict=True)]
    return out
