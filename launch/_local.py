"""A set of processes that start together and end together: watched, told of signals, ended when one of them ends badly."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import _common
from _common import RESTART

_BOUND = Path(__file__).resolve().with_name('_bound.py')
_POLL = 0.05  # [s]
_DRAIN = 5.0  # [s] for the last output of a process that has ended
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """One process to be."""

    words: list[str]
    environment: dict[str, str]  # besides what is set here


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ends:
    """How a set of processes ended."""

    code: int  # the worst exit code: a failure of the work, else 128 + signal, else 75, else 0
    why: str
    restart: bool  # whether all of them may be started again


class Signals:
    """Collects the signals that are for the processes; the handlers from before are put back after `with`."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self._before: dict[int, object] = {}

    def __enter__(self) -> Signals:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: types.FrameType | None) -> None:
        self.heard.append(number)


class Start:
    """The words of each start: --resume takes the place of --overwrite, or of nothing, once the run has begun."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)
        workdir = _common.value(words, 'workdir')
        self._config = None if '://' in workdir else Path(workdir) / 'config.json'
        self._before = self._stamp()
        self._first = True

    def words(self) -> list[str]:
        """The words for the next start."""
        first, self._first = self._first, False
        if first or (self._config is not None and self._stamp() == self._before):
            return self._words
        return [*_common.without_mode(self._words)[0], '--resume']

    def _stamp(self) -> tuple[int, int] | None:
        """Which config.json is there; a run writes its own as it begins."""
        try:
            found = os.stat(self._config) if self._config else None
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns) if found else None


class _Process:
    """A process of the set, leader of a group that holds the workers it starts."""

    def __init__(self, command: Command, *, index: int, logs: Path | None) -> None:
        self.index = index
        self.code: int | None = None
        self.killed = False  # by us, since it did not end by itself
        self._reader: threading.Thread | None = None
        words = [sys.executable, str(_BOUND), str(os.getpid()), *command.words]
        output = self._output(logs)
        self._process = subprocess.Popen(
            words,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            start_new_session=True,
        )
        if output == subprocess.PIPE:
            self._reader = threading.Thread(target=_copy, args=(self._process.stdout, f'[{index}] '.encode()), daemon=True)
            self._reader.start()
        elif output:
            output.close()

    def _output(self, logs: Path | None) -> BinaryIO | int | None:
        if self.index == 0:
            return None
        return (logs / f'process_{self.index:04d}.log').open('ab') if logs else subprocess.PIPE

    def ended(self) -> bool:
        """Whether it has ended; then its group is cleared, before its number can be given to another."""
        if self.code is None and os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self.tell_group(signal.SIGKILL)
            self.code = self._process.wait()
        return self.code is not None

    def tell(self, number: int) -> None:
        """Sends it a signal, unless it has ended."""
        if self.code is None:
            os.kill(self._process.pid, number)  # not reaped yet, so the number is still its own

    def tell_group(self, number: int) -> None:
        """Sends a signal to it and to all that it has started."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # none left; or, on macOS, only what has ended
            pass

    def kill(self) -> None:
        """Ends it, frozen or not, unless it has ended."""
        if not self.ended():
            self.killed = True
            self.tell_group(signal.SIGKILL)
            self.code = self._process.wait()

    def drain(self) -> None:
        """Waits for its last lines."""
        if self._reader:
            self._reader.join(_DRAIN)


def watch(commands: Sequence[Command], *, signals: Signals, grace: float, logs: Path | None) -> Ends:
    """Starts all, and returns when all have ended; nothing of theirs is left then.

    Where one ends with 75 the others have `grace` [s] to do the same. Where one ends otherwise badly they get SIGTERM first, unless
    a signal has been passed on: retfound takes a second one as an order to end at once, in the middle of a save.
    """
    processes: list[_Process] = []
    passed, deadline = 0, None
    try:
        for index, command in enumerate(commands):
            processes.append(_Process(command, index=index, logs=logs))
        while not all([process.ended() for process in processes]):
            for number in signals.heard[passed:]:
                passed += 1
                for process in processes:
                    process.tell(number)
            bad = [process.code for process in processes if process.code]
            if bad and deadline is None:
                deadline = time.monotonic() + grace
                if RESTART not in bad and not passed:
                    for process in processes:
                        process.tell(signal.SIGTERM)
            if deadline is not None and time.monotonic() >= deadline:
                for process in processes:
                    process.kill()
            time.sleep(_POLL)
    finally:
        for process in processes:
            process.kill()
    for process in processes:
        process.drain()
    return judge([(process.index, process.code) for process in processes if not process.killed])


def judge(codes: Sequence[tuple[int, int]]) -> Ends:
    """The verdict over (number, exit code) of the processes that ended by themselves; a code below 0 is a signal's."""
    shell = [(index, 128 - code if code < 0 else code) for index, code in codes if code]
    failures = [item for item in shell if item[1] != RESTART and not 128 < item[1] < 193]
    signals = [item for item in shell if 128 < item[1] < 193]
    worst = max(failures or signals or shell, key=lambda item: item[1], default=(0, 0))
    restart = bool(shell) and not failures and all(code != _common.INTERRUPTED for _, code in shell)
    return Ends(code=worst[1], why=_why(*worst), restart=restart)


def _why(index: int, code: int) -> str:
    if 128 < code < 193:
        names = {item.value: item.name for item in signal.Signals}
        return f'process {index} was ended by {names.get(code - 128, f"signal {code - 128}")}'
    return f'process {index} ended with code {code}' + (' (start it again)' if code == RESTART else '')


def _copy(source: BinaryIO, prefix: bytes) -> None:
    """Lines to standard error with a prefix, for as long as anybody reads them; the source is drained in any case."""
    heard = True
    while line := source.readline(65536):
        try:
            if heard:
                sys.stderr.buffer.write(prefix + line.rstrip(b'\n') + b'\n')
                sys.stderr.buffer.flush()
        except OSError:
            heard = False
    source.close()
