"""What a run was made with: the command, the versions, the hardware. For reports; holds no environment variables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

from retfound_jax.core.files import write_json

FILE = 'environment.json'
_PACKAGES = ('retfound-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


def write(workdir: Path | str, *, devices: str) -> None:
    """Writes `WORKDIR/environment.json`.

    Args:
      devices: in words, such as '8 TPU v5e'.
    """
    write_json(Path(workdir) / FILE, facts(devices=devices))


def facts(*, devices: str) -> dict[str, Any]:
    """Command, versions and hardware, for whatever is kept with a result."""
    return {'command': _command(), 'versions': _versions(), 'hardware': f'{devices}; {_cpu()}'}


def _command() -> str:
    name = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else 'python'
    return shlex.join([name, *sys.argv[1:]])


def _versions() -> dict[str, str]:
    found: dict[str, Any] = {'python': platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = 'not installed as a package'  # run from a source tree
    return found


def _cpu() -> str:
    return f'{os.cpu_count()} CPU cores ({platform.machine()}), {platform.system()}'
