"""What was done about gaps between groups, in sentences: in training by the configuration, and after it as an evaluation measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_jax.report.remedies import Remedy
from retfound_jax.report.words import by_name, clean, joined, nice, number

_NAMES = {'threshold_per_group': 'a threshold for each group', 'recalibration_per_group': 'recalibration of each group'}


def in_training(config: Mapping[str, Any]) -> str:
    """What the configuration does for balance or fairness, in a sentence; '' where it does nothing."""
    data, task = (one if isinstance(one, Mapping) else {} for one in (config.get('data'), config.get('task')))
    parts = [_balanced(data.get('balance')), _composed(data.get('compose')), _robust(task.get('robust'), data.get('groups'))]
    said = [part for part in parts if part]
    return f'In training: {"; ".join(said)}.' if said else ''


def measured(remedies: tuple[Remedy, ...] | None) -> str:
    """Which means were measured after training, for a checklist."""
    names = dict.fromkeys(_NAMES.get(one.approach, nice(one.approach)) for one in remedies or () if one.approach != 'none')
    return f'Measured after training, not built in: {joined(names)}.' if names else ''


def _balanced(found: Any) -> str:
    if not isinstance(found, Mapping):
        return ''
    how = 'with given weights' if found.get('weights') else f'at temperature {number(_float(found.get("temperature")))}'
    return f'photographs were drawn by {_by(found)}, {how}'


def _composed(found: Any) -> str:
    if not isinstance(found, Mapping):
        return ''
    shares = ', '.join(f'{nice(name)} {100 * float(share):.0f} %' for name, share in found.get('shares') or ())
    return f'photographs were chosen by {_by(found)} ({shares})'


def _robust(found: Any, groups: Any) -> str:
    if not isinstance(found, Mapping):
        return ''
    how = {'Reweight': 'weighed by how rare their group is', 'GroupDRO': 'weighed by how badly their group does (group-DRO)'}
    kind = str(found.get('type') or '').rpartition(':')[2]
    return f'losses were {how.get(kind, clean(kind))}, groups by {by_name(clean(groups or "")).lower()}'


def _by(found: Mapping[str, Any]) -> str:
    return by_name(clean(found.get('by') or '')).lower()


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
