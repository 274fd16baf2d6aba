"""Checks that need several devices, in a process of their own that has them: functions of a module here, each a test's body."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve()


def results(module: str, cases: list[list[Any]], *, devices: int = 4) -> dict[str, str]:
    """What became of each case, `[function, argument...]`: nothing, or the assertion that failed. Keyed by the words of the case."""
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={devices}'
    environment = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    call = [sys.executable, str(_HERE), module, json.dumps(cases)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, cwd=_HERE.parents[2])
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def words(case: list[Any]) -> str:
    """A case as text."""
    return ' '.join(map(str, case))


def _main() -> None:
    module, found = importlib.import_module(sys.argv[1]), {}
    for case in json.loads(sys.argv[2]):
        found[words(case)] = ''
        try:
            getattr(module, case[0])(*case[1:])
        except AssertionError:
            found[words(case)] = traceback.format_exc()
    print(json.dumps(found))


if __name__ == '__main__':
    _main()
