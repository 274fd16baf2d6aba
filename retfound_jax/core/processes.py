"""What a worker process owes to the process that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def follow_parent() -> None:
    """Makes this process, one of `multiprocessing`, end with the one that started it, and with nothing else: signals are for that one.

    Ctrl-C and the SIGTERM of a scheduler reach every process of a job; workers go on, so that the parent can end as it means to.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Makes this process, one of `multiprocessing`, end with the one that started it, even where that is killed.

    A parent that was killed cannot tell its workers; they would wait for work, or for room in a full queue, for ever. A thread waits for
    the parent's end. The kernel's own way (`prctl` with PR_SET_PDEATHSIG) will not do: it fires when the THREAD ends that started the
    process, and pools start processes from threads that come and go.
    """
    threading.Thread(target=_end_with_parent, name='follow-parent', daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
