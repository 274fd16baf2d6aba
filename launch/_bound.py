"""Starts a program that the system ends when its parent ends, however that ends (on Linux): _bound.py PARENT PROGRAM [WORDS]."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Asks for SIGKILL at the parent's end, and becomes the program."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == 'linux':
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it could be asked for
            sys.exit(128 + signal.SIGKILL)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        print(f'{program[0]} cannot be started ({error.strerror})', file=sys.stderr)
        sys.exit(2)


main()
