"""What a user reads when a command ends badly: one sentence for each kind of error, and the exit code that goes with it."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from retfound_jax.core.errors import RESTART, Preempted, UsageError, UserError

DONE, FAILED, WRONG_CALL, INTERRUPTED = 0, 1, 2, 130
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def exit_code(error: BaseException) -> int:
    """2 for a wrong call, 130 (128 + SIGINT, as shells have it) for Ctrl-C, 75 to be started again, 1 for everything else."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Preempted):
        return RESTART
    return WRONG_CALL if isinstance(error, UsageError) else FAILED


def sentence(error: BaseException, words: Sequence[str], *, debug: bool = False) -> str:
    """One line that says what is wrong, where, and what to do; `words` is the command line after `retfound`."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return f'interrupted; to go on, run the same command again{_resume(words)}'
    if isinstance(error, OSError) and error.errno is not None:
        return _system(error)
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        return f'out of memory ({_first_line(error)}): lower the batch size or the image size'
    advice = '' if debug else '; run again with --debug for the traceback'
    return f'internal error ({type(error).__name__}: {_first_line(error)}){advice}'


def _resume(words: Sequence[str]) -> str:
    """Training goes on only when told to, lest a finished run be touched by accident; the other verbs pick up by themselves."""
    return ' with --resume' if words and words[0] == 'train' and '--resume' not in words else ''


def _system(error: OSError) -> str:
    where = f' {error.filename}' if error.filename else ''
    if error.errno in _FULL:
        return f'no space left on the disk while writing{where or " a file"}: free some, then run the same command again'
    if error.errno in _FORBIDDEN:
        return f'no permission to use{where or " a file"} ({error.strerror}): choose another path or change its owner'
    return f'the system refused{where or " a file"} ({error.strerror}); run again with --debug for the traceback'


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ['no message'])[0]
