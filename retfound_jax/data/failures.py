"""Records that cannot be read: what is told of them, and when they are too many to go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError

_SURE = 30.0  # [images] that are unreadable beyond what is let through


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A record that could not be read or decoded when it was wanted for a batch, its own place's or one that it stood in for."""

    step: int  # of that batch, counted from 0 as by `Loader.step`
    row: int  # of the source
    key: str
    reason: str

    def line(self) -> str:
        """One line of JSON, without its end."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)


def read_failures(paths: Iterable[Path | str]) -> list[Failure]:
    """The failures that files of such lines list, one a key: the earliest step of all files. Sorted by key.

    A last line that a crash cut is left out.

    Raises:
      UserError: another line is no failure.
    """
    found: dict[str, Failure] = {}
    for path in paths:
        lines = Path(path).read_text(encoding='utf-8').split('\n')
        for number, line in enumerate(lines, start=1):
            failure = _parsed(line)
            if failure is not None and (failure.key not in found or failure.step < found[failure.key].step):
                found[failure.key] = failure
            if failure is None and number < len(lines):
                raise UserError(f'{path} line {number} is not what was written; the file is damaged, remove that line')
    return [found[key] for key in sorted(found)]


def _parsed(line: str) -> Failure | None:
    try:
        return Failure(**json.loads(line))
    except (json.JSONDecodeError, TypeError):
        return None


@dataclasses.dataclass(kw_only=True)
class Tally:
    """Whether too many of the images drawn cannot be read: told soon, and never of a few by bad luck.

    The rule is a cumulative sum (Page, "Continuous inspection schemes", Biometrika 1954). Every image drawn takes half as much again
    as `most_bad` off the sum, every unreadable one adds 1, and at 0 or below counting starts afresh; above 30 there are too many. With
    `most_bad` 0.05, a share of

      0.20 is told after some 240 images, wherever in a run it begins; 0.10 after some 1,200;
      0.05 or less is let through: at 0.05 a false alarm comes about once in 10**10 images, at 0.01 never;
      0.05 to 0.075 may be let through: luck and a true excess cannot be told apart soon.

    One bad record in the first batch adds 1 and no more. With `most_bad` 0 the first unreadable image is one too many.

    It counts images drawn, so that the rule is a function of the stream alone; `seen` and `bad` are its whole state, and a run that
    goes on from them judges as one that never stopped. Each host judges its own part, a fair sample of the same data.
    """

    most_bad: float
    seen: int = 0  # images drawn since counting last started
    bad: int = 0  # of these, unreadable

    def add(self, *, seen: int, bad: int) -> None:
        """Counts the images of a batch."""
        self.seen += seen
        self.bad += bad
        if self._excess() <= 0:
            self.seen = self.bad = 0

    def too_many(self) -> str:
        """The sentence that ends the run, or ''."""
        if self._excess() <= (_SURE if self.most_bad else 0.0):
            return ''
        return (
            f'{self.bad} of the last {self.seen} images drawn for training cannot be read, more than data.most_bad = {self.most_bad:g} '
            'lets pass; the dataset is damaged: copy it again, ingest the images again, or allow more'
        )

    def state(self) -> dict[str, int]:
        """`seen` and `bad`, as JSON values."""
        return {'seen': self.seen, 'bad': self.bad}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state; an empty one starts afresh."""
        self.seen, self.bad = int(state.get('seen', 0)), int(state.get('bad', 0))

    def _excess(self) -> float:
        # Half as much again, but for large shares never so much that even the worst data could not reach it.
        taken = min(1.5 * self.most_bad, (1 + self.most_bad) / 2)
        return self.bad - taken * self.seen
