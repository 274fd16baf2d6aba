"""What was done about gaps between groups: in training, by the configuration, and after it, as `tables/mitigation_SPLIT.json` measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retfound_jax.core.files import read_json
from retfound_jax.report.blocks import Cell, Table
from retfound_jax.report.tables import MACRO, checked
from retfound_jax.report.words import by_name, clean, joined, nice, number, value_and_bounds

_NAMES = {'threshold_per_group': 'A threshold for each group', 'recalibration_per_group': 'Recalibration of each group'}
_GAP, _COST = 'equalised_odds', 'balanced_accuracy'
_ROWS = 12


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a means does to one gap, and to everybody; changes are after minus before."""

    approach: str
    by: str
    target: str
    metric: str
    before: float | None
    after: float | None
    change: tuple[float | None, float | None, float | None]  # value, low, high
    overall: tuple[float | None, float | None, float | None]
    note: str


def read_effects(path: Path) -> tuple[Effect, ...] | None:
    """Every means that was measured after training; None where none was.

    Raises:
      UserError: the file is damaged or of another shape.
    """
    if not path.exists():
        return None
    found = read_json(path)
    return checked(
        path, lambda: tuple(_effect(row) for row in found['rows'] if row['approach'] != 'none'), hint='run `retfound evaluate` again'
    )


def in_training(config: Mapping[str, Any]) -> str:
    """What the configuration does for balance or fairness, in a sentence; '' where it does nothing."""
    data, task = (one if isinstance(one, Mapping) else {} for one in (config.get('data'), config.get('task')))
    parts = [_balanced(data.get('balance')), _composed(data.get('compose')), _robust(task.get('robust'), data.get('groups'))]
    said = [part for part in parts if part]
    return f'In training: {"; ".join(said)}.' if said else ''


def table(effects: tuple[Effect, ...], *, target: str) -> Table | None:
    """What each means does to the difference between groups in cases found and called wrongly, and what it costs everybody."""
    wanted = [one for one in effects if one.metric == _GAP and one.target == target]
    rows = []
    for one in wanted[:_ROWS]:
        cost = next((other for other in effects if (other.approach, other.by, other.target, other.metric) == _place(one, _COST)), None)
        ends = [number(value, metric='AUROC') for value in (one.before, one.after)]
        name = Cell(_NAMES.get(one.approach, nice(one.approach)), small=by_name(one.by).lower())
        rows.append((name, *map(Cell, ends), _bounded(one.change), _bounded(cost.overall if cost else (None, None, None))))
    if not rows:
        return None
    notes = list(dict.fromkeys(one.note for one in wanted if one.note))
    return Table(
        caption='What could be done about gaps after training, learned on validation patients',
        head=('Means', 'Gap before', 'Gap after', 'Change of the gap', 'Change of balanced accuracy, everybody'),
        rows=tuple(rows),
        note='Gap: the wider of the differences between groups in the share found and in the share falsely called (equalised odds). '
        f'The model itself is left as it is.{f" {clean(notes[0]).capitalize()}." if notes else ""}',
    )


def words(effects: tuple[Effect, ...] | None) -> str:
    """Which means were measured, for a checklist."""
    names = dict.fromkeys(_NAMES.get(one.approach, nice(one.approach)).lower() for one in effects or ())
    return f'Measured after training, not built in: {joined(names)}.' if names else ''


def main_target(targets: tuple[str, ...], overall: str) -> str:
    """The target that a card shows: means are of single targets."""
    return overall if overall != MACRO else next(iter(targets), '')


def _place(one: Effect, metric: str) -> tuple[str, str, str, str]:
    return one.approach, one.by, one.target, metric


def _bounded(values: tuple[float | None, float | None, float | None]) -> Cell:
    shown, bounds = value_and_bounds(*values, metric='AUROC')
    return Cell(shown, small=bounds)


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


def _effect(row: Mapping[str, Any]) -> Effect:
    def three(name: str) -> tuple[float | None, float | None, float | None]:
        found = [row[f'{name}_change'], row[f'{name}_change_low'], row[f'{name}_change_high']]
        return tuple(None if value is None else float(value) for value in found)  # type: ignore[return-value]

    ends = {name: None if row[f'gap_{name}'] is None else float(row[f'gap_{name}']) for name in ('before', 'after')}
    text = {name: str(row.get(name) or '') for name in ('approach', 'by', 'target', 'metric', 'note')}
    return Effect(**text, **ends, change=three('gap'), overall=three('overall'))
