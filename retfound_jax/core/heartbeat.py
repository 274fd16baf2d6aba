"""Each process of a run says now and then that it lives and what it does; one that falls silent, or is behind, has a name.

What is told goes through the table of process 0 (core/host_store.py). Process 0 alone reads what everybody says, so that the cost
grows with the number of processes and not with its square, and tells the others who is gone. Ages are counted by the reader's own
monotonic clock.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from retfound_jax.core import host_store
from retfound_jax.core.errors import RESTART
from retfound_jax.core.watchdog import kill_children

SILENCE = 60.0  # [s] after which a process that says nothing is given up; JAX itself aborts all others, nameless, later (hosts.HEARTBEAT)
LINGER = 15.0  # [s] that process 0 stays for the others to say their last word, since they are aborted when it goes
LAST = 30.0  # [s] that a process which has said why it ends may still take
_GRACE = 5.0  # [s] between another process' end and ours, for the main thread to end by itself
_ANSWER = 3.0  # [s] for one question; half the length of what `behind` may take
_ROOT = 'retfound'
_LEFT = 'left'
_known: dict[str, str] = {}  # by number, how a person finds each process; what was known stays true where nobody answers any more


class _Word(NamedTuple):
    """What a process says of itself."""

    beat: int  # how often it has spoken
    doing: str
    step: int


class Heart:
    """The thread that speaks and listens; one for a process."""

    def __init__(self, *, index: int, count: int, silence: float = SILENCE, end: Callable[[str, int], None] | None = None) -> None:
        """Starts the thread.

        Args:
          silence: [s] without a word after which a process is given up; 0 is never.
          end: called with a sentence and an exit code where this process is to end because of another one; by default, it ends.
        """
        self.doing = ''  # what the process is at, in words
        self.step = -1
        self.gone = False  # whether `farewell` was said
        self._index, self._count, self._silence = index, count, silence
        self._end = end or end_process
        # A second for small runs; longer where a thousand processes would keep process 0 busy.
        self._period = max(min(1.0, silence / 8) if silence else 1.0, count / 100)
        self._beats = 0
        self._begin_anew()
        self._mute = False  # whether process 0 was found not to answer
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name='heartbeat', daemon=True)
        self._thread.start()
        atexit.register(self._leave)

    def close(self) -> None:
        """Says that this process leaves on purpose, and ends the thread."""
        atexit.unregister(self._leave)
        self._closed.set()
        self._thread.join(3 * _ANSWER)
        with contextlib.suppress(host_store.NoAnswer):
            self._say(_LEFT)

    def ended(self) -> tuple[str, int] | None:
        """Why another process ended and with which code, where one has left word.

        Raises:
          NoAnswer: process 0 does not answer.
        """
        for rank, text in sorted(host_store.folder(f'{_ROOT}/ended', timeout=_ANSWER).items()):
            if int(rank) != self._index:
                code, sentence = json.loads(text)
                return f'{names([int(rank)])} ended: {sentence}', code
        return None

    def behind(self) -> str:
        """Who has ended, is silent, or is behind the others, in words; '' where nobody is. Takes 2.5 periods and a few questions."""
        try:
            if time.monotonic() - self._heard > _ANSWER + self._period:
                raise host_store.NoAnswer
            if word := self.ended():
                return word[0]
            before = _words()
            time.sleep(2.5 * self._period)
            after = _words()
        except host_store.NoAnswer:
            self._mute = True
            return f'{names([0])} does not answer'
        others = [rank for rank in range(self._count) if rank != self._index and not _left(after, rank)]
        silent = [rank for rank in others if after.get(rank) == before.get(rank)]
        if silent:
            return f'{names(silent)} {_is(silent)} silent: frozen or gone'
        return _slowest(after)

    def farewell(self, sentence: str, *, code: int = RESTART) -> None:
        """Leaves the reason of this process' end for the others; process 0 then waits up to LINGER [s] until they have ended.

        Whatever is in the way of the end, such as devices that still wait for each other, it comes within LINGER + LAST [s].
        """
        self.gone = True
        last = threading.Timer(LINGER + LAST, os._exit, (code,))
        last.daemon = True
        last.start()
        if self._mute:
            return
        with contextlib.suppress(host_store.NoAnswer):  # where process 0 is the one that is gone
            host_store.put(f'{_ROOT}/ended/{self._index:05d}', json.dumps([code, sentence]), timeout=_ANSWER)
            self._linger()

    def _linger(self) -> None:
        """At process 0: waits until nobody else speaks."""
        end = time.monotonic() + LINGER
        while self._index == 0 and time.monotonic() < end:
            self._listen()
            now = time.monotonic()
            seen = [(word, since) for rank, (word, since) in self._seen.items() if rank != 0]
            if not any(word.doing != _LEFT and now - since < 3 * self._period for word, since in seen):
                return
            time.sleep(0.1)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(self._period):
            now = time.monotonic()
            if now - last > 4 * self._period + _ANSWER:  # this process was itself frozen: nobody else fell silent meanwhile
                self._begin_anew()
            last = now
            sentence, code = self._beat()
            if sentence and not self.gone and not self._closed.wait(_GRACE) and not self.gone:
                with contextlib.suppress(host_store.NoAnswer):
                    self._linger()
                self._end(sentence, code)
                return

    def _leave(self) -> None:
        """At the very end of the process: process 0 need not wait for it any longer."""
        if not self._closed.is_set() and not self._mute:
            self.close()

    def _begin_anew(self) -> None:
        now = time.monotonic()
        self._seen = {rank: (_Word(0, '', -1), now) for rank in range(self._count)}  # the last word of each, and when it was new
        self._heard = now  # when process 0 last answered

    def _beat(self) -> tuple[str, int]:
        """Speaks and listens once; returns why this process has to end, '' where it need not, and with which code."""
        try:
            self._say(self.doing)
            if self._index == 0:
                self._listen()
            ended = self.ended()
        except host_store.NoAnswer:
            if self._silence and time.monotonic() - self._heard > self._silence:
                return f'{names([0])} has not answered for {self._silence:g} s; all processes end, to be started again', RESTART
            return '', 0
        self._heard = time.monotonic()
        return ended or (self._give_up() if self._index == 0 else '', RESTART)

    def _say(self, word: str) -> None:
        self._beats += 1
        host_store.put(f'{_ROOT}/beat/{self._index:05d}', json.dumps([self._beats, word, self.step]), timeout=_ANSWER)

    def _listen(self) -> None:
        now = time.monotonic()
        for rank, word in _words().items():
            if self._seen[rank][0] != word:
                self._seen[rank] = (word, now)

    def _give_up(self) -> str:
        """At process 0: why all have to end, where one was silent too long."""
        now = time.monotonic()
        quiet = [rank for rank, (word, since) in self._seen.items() if now - since > self._silence and word.doing != _LEFT]
        gone = sorted(quiet) if self._silence else []
        if not gone:
            return ''
        sentence = f'{names(gone)} {_was(gone)} silent for {self._silence:g} s: frozen or gone; all processes end, to be started again'
        with contextlib.suppress(host_store.NoAnswer):  # our own table: at most this process is leaving just now
            host_store.put(f'{_ROOT}/ended/{self._index:05d}', json.dumps([RESTART, sentence]), timeout=_ANSWER)
        return sentence


def introduce(index: int, me: str, *, timeout: float) -> None:
    """Tells the others how a person finds this process, and learns it of process 0, which may not be there to be asked later.

    Raises:
      NoAnswer: process 0 does not answer within `timeout` [s].
    """
    host_store.put(f'{_ROOT}/name/{index:05d}', me, timeout=timeout)
    _known['00000'] = host_store.wait_for(f'{_ROOT}/name/00000', timeout=timeout)


def names(ranks: Sequence[int]) -> str:
    """`process 3 (node07, pid 4711)`, or several of them; the bare numbers where process 0 can no longer say."""
    with contextlib.suppress(host_store.NoAnswer):
        _known.update(host_store.folder(f'{_ROOT}/name', timeout=1.0))
    told = [f'{rank} ({_known[f"{rank:05d}"]})' if f'{rank:05d}' in _known else str(rank) for rank in ranks]
    return f'process{"es" if len(told) > 1 else ""} {", ".join(told)}'


def end_process(sentence: str, code: int) -> None:
    """Says why, and ends this process and those it started, whatever the main thread is stuck in."""
    try:
        print(sentence, file=sys.stderr, flush=True)
        kill_children()
    finally:
        os._exit(code)


def _words() -> dict[int, _Word]:
    return {int(name): _Word(*json.loads(word)) for name, word in host_store.folder(f'{_ROOT}/beat', timeout=_ANSWER).items()}


def _left(words: dict[int, _Word], rank: int) -> bool:
    return rank in words and words[rank].doing == _LEFT


def _slowest(words: dict[int, _Word]) -> str:
    """Who has done fewer steps than the others or, where all have done the same, who is at something that most are not at."""
    steps = {rank: word.step for rank, word in words.items() if word.doing != _LEFT}
    slow = [rank for rank, step in steps.items() if step == min(steps.values())]
    if len(slow) == len(steps):
        usual = _usual(words, ())
        slow = [rank for rank in steps if words[rank].doing != usual]
    if not slow:
        return ''
    first, most = words[slow[0]], max(steps.values())
    return f'{names(slow)} {_is(slow)} at {_at(first.doing, first.step)} while others are at {_at(_usual(words, slow), most)}'


def _usual(words: dict[int, _Word], slow: Sequence[int]) -> str:
    return collections.Counter(word.doing for rank, word in words.items() if rank not in slow).most_common(1)[0][0]


def _at(doing: str, step: int) -> str:
    return f'"{doing}"' if step < 0 else f'"{doing}" of step {step + 1}'


def _is(ranks: Sequence[int]) -> str:
    return 'are' if len(ranks) > 1 else 'is'


def _was(ranks: Sequence[int]) -> str:
    return 'were' if len(ranks) > 1 else 'was'
