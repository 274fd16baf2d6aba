"""Where the time of a run went, over all its starts: every moment belongs to one phase, and work that was done twice is told apart.

`WORKDIR/goodput.jsonl` holds snapshots: one line at the start of a process, one now and then, one after each checkpoint, one at the
end. A process that is killed leaves its last snapshot, so what it lost is known to within the time between two of them. Durations come
from the monotonic clock; only the gap between two processes is taken from the wall clock.

Goodput is the share of the time that went into steps which count (as Google's "ML productivity goodput" has it).
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import append_line

FILE = 'goodput.jsonl'
Phase = Literal['start', 'restore', 'compile', 'data', 'step', 'validate', 'save', 'other']
PHASES: tuple[str, ...] = get_args(Phase)
LOST, DOWN = 'lost', 'down'  # steps done again after a restart; nobody at work between two starts
_EVERY = 20.0  # [s] between snapshots


class Ledger:
    """Charges the time of one process to phases. `enter` a phase, and the time since the last `enter` goes to the one before."""

    def __init__(
        self,
        workdir: Path | str | None,
        *,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Begins in the phase `start`.

        Args:
          workdir: of the run; None keeps the account and writes nothing (processes other than the first).
          began: when the process began, by `clock`; now unless given.
        """
        self._path = None if workdir is None else Path(workdir) / FILE
        self._clock, self._wall = clock, wall
        now = clock()
        self._began_wall = wall() - (0.0 if began is None else now - began)
        self._since = now if began is None else began
        self._first, self._phase, self._written = self._since, 'start', now
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._step = self._from = None
        self._saves: dict[int, float] = {}

    def enter(self, phase: Phase, *, was: Phase | None = None) -> None:
        """What follows is `phase`; what has just ended was `was`, where that differs from what was said when it began."""
        now = self._clock()
        self.seconds[was or self._phase] += now - self._since
        self._since, self._phase = now, phase
        if now - self._written > _EVERY:
            self.write()

    def at(self, step: int) -> None:
        """The run has done `step` steps; the first call says where this process began."""
        self._step = step
        if self._from is None:
            self._from = step
            self.write()

    def saved(self, step: int) -> None:
        """A checkpoint of `step` is on its way to the disk: what was done until now need not be done again."""
        self._saves[step] = self._worked()
        self.write()

    def begin_again(self) -> None:
        """The run goes back to an earlier step in this very process: a new account begins, as if it had been started again."""
        self.enter('restore')
        self.write()
        self._began_wall = self._wall()
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._step = self._from = None
        self._saves = {}

    def write(self) -> None:
        """Appends a snapshot."""
        self._written = self._clock()
        if self._path is None:
            return
        line = {
            'began': round(self._began_wall, 3),
            'pid': os.getpid(),
            'seconds': {name: round(value, 3) for name, value in self._now().items() if value},
            'from': self._from,
            'step': self._step,
            'saves': {str(step): round(value, 3) for step, value in self._saves.items()},
        }
        append_line(self._path, line)

    def close(self) -> None:
        """Writes the last snapshot."""
        self.enter('other')
        self.write()

    def _now(self) -> dict[str, float]:
        return self.seconds | {self._phase: self.seconds[self._phase] + self._clock() - self._since}

    def _worked(self) -> float:
        return sum(value for name, value in self._now().items() if name in _WORK)


_WORK = ('data', 'step', 'validate', 'save')  # what has to be done again for steps that are lost


@dataclasses.dataclass(frozen=True, kw_only=True)
class Account:
    """Where the time of a run went [s]: by phase, `lost` and `down` included."""

    seconds: Mapping[str, float]
    starts: int
    steps_lost: int  # done, and done again

    @property
    def total(self) -> float:
        """From the beginning of the first process to the last sign of life [s]."""
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Share of the time that went into steps that count; 0 where there was none."""
        return self.seconds['step'] / self.total if self.total else 0.0


def read(workdir: Path | str) -> Account | None:
    """Adds up the starts of a run; None where it kept no account.

    Raises:
      UserError: a line other than the last is damaged.
    """
    path = Path(workdir) / FILE
    if not path.exists():
        return None
    starts = _last_of_each(_lines(path))
    seconds = dict.fromkeys((*PHASES, LOST, DOWN), 0.0)
    steps_lost = 0
    resumed: int | None = None  # the earliest step that a later process began from
    for one, following in zip(reversed(starts), [None, *reversed(starts[1:])], strict=True):
        for name, value in one['seconds'].items():
            seconds[name] += value
        if following is not None:  # the wall clock may have been set meanwhile
            seconds[DOWN] += max(0.0, following['began'] - one['began'] - sum(one['seconds'].values()))
        if one['from'] is None:  # ended before its first step
            continue
        if resumed is not None and resumed < one['step']:
            _move_lost(seconds, one, resumed)
            steps_lost += one['step'] - max(resumed, one['from'])
        resumed = one['from'] if resumed is None else min(resumed, one['from'])
    return Account(seconds=seconds, starts=len(starts), steps_lost=steps_lost)


def _move_lost(seconds: dict[str, float], one: Mapping[str, Any], resumed: int) -> None:
    """Takes the work after the checkpoint that the next process began from out of its phases."""
    worked = {name: one['seconds'].get(name, 0.0) for name in _WORK}
    whole = sum(worked.values())
    kept = min(whole, one['saves'].get(str(resumed), 0.0))
    for name, value in worked.items() if whole else ():
        share = value * (whole - kept) / whole
        seconds[name] -= share
        seconds[LOST] += share


def _last_of_each(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last snapshot of each process, in the order they began."""
    return list({(line['began'], line['pid']): line for line in lines}.values())


def _lines(path: Path) -> list[dict[str, Any]]:
    """The snapshots; a last line that a crash cut is left out."""
    texts = path.read_text(encoding='utf-8').splitlines()
    found = []
    for number, text in enumerate(texts, start=1):
        try:
            found.append(_checked(json.loads(text)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number < len(texts):
                raise UserError(f'{path} line {number} is damaged; remove that line') from error
    return found


def _checked(line: Any) -> dict[str, Any]:
    """A snapshot of ours in the types it was written in; raises ValueError, TypeError or KeyError for anything else."""
    unknown = line['seconds'].keys() - set(PHASES)
    if unknown:
        raise ValueError(f'no such phase: {", ".join(sorted(unknown))}')
    whole = {name: None if line[name] is None else int(line[name]) for name in ('from', 'step')}
    seconds = {name: float(value) for name, value in line['seconds'].items()}
    return {'began': float(line['began']), 'pid': int(line['pid']), 'seconds': seconds, 'saves': dict(line['saves']), **whole}


def process_began() -> float | None:
    """When this process began, by `time.monotonic`; None where the system does not say (it is known on Linux)."""
    stat = Path('/proc/self/stat')
    if not stat.exists():
        return None
    ticks = int(stat.read_text(encoding='utf-8').rpartition(')')[2].split()[19])  # field 22, starttime; the name before may hold anything
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf('SC_CLK_TCK')
    return time.monotonic() - age
