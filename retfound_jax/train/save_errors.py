"""What is said when a checkpoint cannot be written or read: one sentence, where Orbax and TensorStore have pages."""

from __future__ import annotations

import errno
import logging
import re
import sys
from typing import Any

from retfound_jax.core.errors import UserError

_SYSTEM = re.compile(r"os_error_code='(\d+)'")  # as TensorStore reports what the system refused
_WORDS = {
    errno.ENOSPC: 'the disk is full; free some space',
    errno.EDQUOT: 'the quota of the disk is used up; free some space',
    errno.EFBIG: 'a file would be larger than the system allows; raise the limit (ulimit -f) or free some space',
    errno.EACCES: 'there is no permission to write there; change it',
    errno.EPERM: 'there is no permission to write there; change it',
    errno.EROFS: 'the disk can only be read; have it mounted for writing',
    errno.ENOENT: 'a directory was removed while it was being written; leave it in place',
}


def reason(error: BaseException) -> str:
    """What the system refused, in words and with what to do about it; else the first line of the error."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain:
        chain.append(following)
        following = following.__cause__
    codes = [int(found[1]) if (found := _SYSTEM.search(str(item))) else getattr(item, 'errno', None) for item in chain]
    return next((_WORDS[code] for code in codes if code in _WORDS), f'{_first_line(error)}; mend that')


def damaged(step: object, error: Exception) -> UserError:
    """What is said of a checkpoint that does not read back."""
    return UserError(
        f'checkpoint {step} is damaged or of another model and was not used ({_first_line(error)}); move its directory away to go on'
    )


def quiet() -> None:
    """Has Orbax leave out the tracebacks of what we raise; for the rest of the process, since its threads may end late."""
    logging.getLogger('absl').addFilter(_not_raised_by_us)  # once, however often
    if sys.unraisablehook is not _unraisable:
        _before.append(sys.unraisablehook)
        sys.unraisablehook = _unraisable


_before: list[Any] = []  # hooks that were there


def _not_raised_by_us(record: logging.LogRecord) -> bool:
    return not (record.exc_info and 'orbax' in record.pathname)


def _unraisable(found: Any) -> None:
    # Of several writes that fail, Orbax waits for the first; those behind it report to a loop that is closed by then.
    if not (isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == 'Event loop is closed'):
        _before[-1](found)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
