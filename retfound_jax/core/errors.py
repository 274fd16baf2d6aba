"""The errors a user is meant to read: each is one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Exit code: nothing is lost, start the same command again. EX_TEMPFAIL of sysexits.h, which no shell or runtime gives another meaning.
RESTART = 75


class UserError(Exception):
    """The work failed for a reason outside the code (exit code 1)."""


class UsageError(UserError):
    """The call was wrong (exit code 2)."""


class Preempted(UserError):
    """The work stopped where it can go on, since this machine is wanted back or another one is gone (exit code RESTART)."""


def nearest(word: str, options: Iterable[str]) -> str:
    """The tail of an error sentence: `', did you mean "x"?'`, or nothing where no option is close."""
    found = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f', did you mean "{found[0]}"?' if found else ''
