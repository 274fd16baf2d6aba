"""A progress bar for people, and a line now and then for log files."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

_LOG_EVERY = 10.0  # [s] between lines where the output is not a terminal


class Bar:
    """Counts `unit`s up to `total`; a bar on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, total: int, *, desc: str, unit: str = 'images', initial: int = 0) -> None:
        self._live = sys.stderr.isatty()
        options = {'dynamic_ncols': True, 'smoothing': 0.1, 'disable': not self._live}
        self._bar = tqdm(total=total, desc=desc, unit=f' {unit}', initial=initial, **options)
        self._total, self._desc, self._unit = total, desc, unit
        self._done, self._begun, self._initial = initial, time.monotonic(), initial
        self._said, self._text = time.monotonic(), ''

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
        if not self._live and kind is None:
            self._line()

    def update(self, count: int = 1) -> None:
        """Adds `count` to what is done."""
        self._done += count
        self._bar.update(count)
        if not self._live and time.monotonic() - self._said >= _LOG_EVERY:
            self._line()

    def note(self, text: str) -> None:
        """Shows a few words behind the bar, such as the current loss."""
        self._text = text
        self._bar.set_postfix_str(text, refresh=False)

    def _line(self) -> None:
        self._said = time.monotonic()
        spent = max(self._said - self._begun, 1e-9)
        rate = (self._done - self._initial) / spent
        left = (self._total - self._done) / rate if rate > 0 else float('inf')
        tail = f', {self._text}' if self._text else ''
        ahead = f', {left:.0f} s left' if 0 < left < float('inf') else ''
        print(f'{self._desc}: {self._done}/{self._total} {self._unit}, {rate:.1f} {self._unit}/s{ahead}{tail}', file=sys.stderr, flush=True)


def bar(total: int, *, desc: str, unit: str = 'images', initial: int = 0) -> Bar:
    """A context manager that shows progress; see `Bar`."""
    return Bar(total, desc=desc, unit=unit, initial=initial)
