"""Notices that this machine is about to be taken away: a signal, or what the cloud's metadata server says."""

from __future__ import annotations

import os
import signal
import types
from collections.abc import Sequence


class Notice:
    """`given` is '' until a notice comes, then what was heard, such as 'SIGTERM'.

    Signals are taken inside `with` only, and the handlers from before are put back after it. A second notice by the same signal has its
    default effect: the process ends at once. Must be entered by the main thread.
    """

    def __init__(self, *, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGUSR1)) -> None:
        self._signals = tuple(signals)
        self._given = ''
        self._before: dict[signal.Signals, object] = {}

    @property
    def given(self) -> str:
        """What was heard first, or ''."""
        return self._given

    def __enter__(self) -> Notice:
        for number in self._signals:
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _hear(self, number: int, frame: types.FrameType | None) -> None:
        if self._given:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._given = self._given or signal.Signals(number).name
