"""What a run does about a step with a bad loss or gradient: leave it out, go back, or stop; and where its data stand after going back.

The step has decided on the device what becomes of the update (`train/step.py`); `judge` reads its numbers and says what the loop does.
To go back is what PaLM did about spikes (Chowdhery et al., arXiv 2204.02311, section 5.1): start again from a checkpoint before the bad
step and leave out the data between the two, since a spike comes of certain data met by a certain state of the model.

Steps and places of the data stream are counted from 1: without a rewind, step k trains on the batch at place k.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.train.config import FaultConfig
from retfound_jax.train.spikes import WINDOW

FILE = 'rewinds.json'
_MOST_KEYS = 64  # of a batch that a sentence names

Action = Literal['go_on', 'note', 'stop', 'rewind']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewind:
    """One return to an earlier checkpoint."""

    from_step: int  # the bad one
    to_step: int  # whose checkpoint the run went on from; 0: the start
    places: tuple[int, int]  # of the stream, first and last of those that are never used again
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewinds:
    """All rewinds of a run. They alone decide its data stream, so a process that reads them goes on in it from any checkpoint."""

    made: tuple[Rewind, ...] = ()

    def position(self, step: int) -> int:
        """The place in the stream of the batch of `step`: that of the step-th batch which was not left out."""
        place = step
        for first, last in self._left_out():
            place += last - first + 1 if first <= place else 0
        return place

    def offset(self, step: int) -> int:
        """How many batches were left out before that of `step`. It never falls from one step to the next."""
        return self.position(step) - step

    def after(self, *, bad: int, to: int, reason: str) -> Rewinds:
        """With one more: from the bad step back to checkpoint `to`, and past all data in between."""
        places = (self.position(to) + 1, self.position(bad))
        return Rewinds(made=(*self.made, Rewind(from_step=bad, to_step=to, places=places, reason=reason)))

    def _left_out(self) -> list[tuple[int, int]]:
        """Ranges of places, ascending, none touching another."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(rewind.places for rewind in self.made):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return merged

    def write(self, workdir: Path | str) -> None:
        """Writes `WORKDIR/rewinds.json`, whole or not at all. Before the run goes back, so that it never goes on in the old stream."""
        write_json(Path(workdir) / FILE, [dataclasses.asdict(rewind) for rewind in self.made])


def read_rewinds(workdir: Path | str) -> Rewinds:
    """Those of a run directory; none where it never went back.

    Raises:
      UserError: the file is damaged.
    """
    path = Path(workdir) / FILE
    if not path.exists():
        return Rewinds()
    said = read_json(path)
    if not isinstance(said, list) or not all(map(_is_rewind, said)):
        raise UserError(f'{path} is not what a run writes, so its data stream is not known; put the file back, or start a new run')
    return Rewinds(made=tuple(Rewind(**{**one, 'places': tuple(one['places'])}) for one in said))


def _is_rewind(said: Any) -> bool:
    if not isinstance(said, dict) or said.keys() != {field.name for field in dataclasses.fields(Rewind)}:
        return False
    places = said['places']
    if not isinstance(places, list) or len(places) != 2 or not isinstance(said['reason'], str):
        return False
    numbers = [said['to_step'], said['from_step'], *places]
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    return whole and 0 <= numbers[0] < numbers[1] and 1 <= places[0] <= places[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the loop does after a step."""

    action: Action
    sentence: str = ''  # for the user; of `stop`, the error
    event: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # for a log, as JSON values
    rewinds: Rewinds | None = None  # of `rewind`: to be written, then to go on by; its last one says to which checkpoint


def judge(
    step: int,
    values: Mapping[str, float],
    *,
    name: str,
    faults: FaultConfig,
    rewinds: Rewinds,
    newest: Callable[[], int],
    keys: Callable[[], Sequence[str]],
) -> Verdict:
    """Reads the numbers of a step, of which every process has the same, and decides.

    Args:
      values: what the step measured: `loss`, `grad_norm`, `bad`, `halted`, `skipped`.
      name: of the run.
      newest: gives the step of the newest complete checkpoint, 0 where there is none; asked only to go back.
      keys: gives the keys of the step's batch; asked only of a bad step.
    """
    if not values['bad']:
        return Verdict(action='go_on')
    reason, what = _reason(values, faults), f'step {step} of {name} gave {_reason(values, faults)}'
    if not values['halted']:
        said = f'{what} and was left out, {values["skipped"]:.0f} so far; its batch: {_listed(keys())}'
        return Verdict(action='note', sentence=said, event=_event('left_out', step, values, reason))
    if faults.on_bad_numbers == 'rewind' and len(rewinds.made) < faults.most_rewinds:
        made = rewinds.after(bad=step, to=newest(), reason=reason)
        return _go_back(step, values, made=made, what=what, reason=reason, most=faults.most_rewinds)
    said = (
        f'{what}: the run stopped{_used_up(faults)}; checkpoint {step - 1} is from before it; '
        f'lower the learning rate or look at the images of its batch: {_listed(keys())}'
    )
    return Verdict(action='stop', sentence=said, event=_event('stopped', step, values, reason))


def _go_back(step: int, values: Mapping[str, float], *, made: Rewinds, what: str, reason: str, most: int) -> Verdict:
    last = made.made[-1]
    where = f'checkpoint {last.to_step}' if last.to_step else 'the start'
    first, final = last.places
    said = f'{what}: back to {where} and past the data of batches {first} to {final} (rewind {len(made.made)} of at most {most})'
    event = _event('rewound', step, values, reason) | {'to_step': last.to_step, 'places': list(last.places)}
    return Verdict(action='rewind', sentence=said, event=event, rewinds=made)


def _reason(values: Mapping[str, float], faults: FaultConfig) -> str:
    numbers = f'a loss of {values["loss"]:.6g} (gradient norm {values["grad_norm"]:.6g})'
    if _is_finite(values):
        return f'{numbers}, a spike of more than {faults.spike_factor:g} deviations above the last {WINDOW} steps'
    return numbers


def _used_up(faults: FaultConfig) -> str:
    if faults.on_bad_numbers == 'skip':
        return f', as more than {faults.most_skipped} of the last {WINDOW} steps were bad (faults.most_skipped)'
    if faults.on_bad_numbers == 'rewind':
        return f', as it went back {faults.most_rewinds} times already (faults.most_rewinds)'
    return ''


def _event(kind: str, step: int, values: Mapping[str, float], reason: str) -> dict[str, Any]:
    numbers = {name: values[name] if math.isfinite(values[name]) else None for name in ('loss', 'grad_norm')}  # JSON has no NaN
    return {'event': kind, 'step': step, 'reason': reason, 'skipped': int(values['skipped']), **numbers}


def _is_finite(values: Mapping[str, float]) -> bool:
    return math.isfinite(values['loss']) and math.isfinite(values['grad_norm'])


def _listed(keys: Sequence[str]) -> str:
    more = f' and {len(keys) - _MOST_KEYS} more' if len(keys) > _MOST_KEYS else ''
    return ', '.join(keys[:_MOST_KEYS]) + more
