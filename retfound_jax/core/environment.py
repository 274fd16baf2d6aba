"""What a run was made with: the command, the code, the versions, the hardware. For reports; holds no environment variables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from retfound_jax.core.files import write_json

FILE = 'environment.json'
_ROOT = Path(__file__).resolve().parent.parent.parent  # of the project, where the package is used from a checkout
_GIT_PATIENCE = 10  # [s]
_PACKAGES = ('retfound-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy')


def write(workdir: Path | str, *, devices: str) -> None:
    """Writes `WORKDIR/environment.json`.

    Args:
      devices: in words, such as '8 TPU v5e'.
    """
    write_json(Path(workdir) / FILE, facts(devices=devices))


def facts(*, devices: str) -> dict[str, Any]:
    """Command, code, versions and hardware, for whatever is kept with a result."""
    return {'command': _command(), 'code': code(_ROOT), 'versions': _versions(), 'hardware': f'{devices}; {_cpu()}'}


def code(root: Path) -> dict[str, Any]:
    """`commit` and `dirty` (whether a tracked file differs from it) of a checkout; {} where `root` is none, or git is not there.

    An installed package may lie inside somebody else's checkout, so `root` itself has to be the top of one.
    """
    if not (root / '.git').exists():
        return {}
    commit = _git(root, 'rev-parse', 'HEAD')
    changed = _git(root, 'status', '--porcelain', '--untracked-files=no')
    return {} if commit is None or changed is None else {'commit': commit, 'dirty': bool(changed)}


def _git(root: Path, *words: str) -> str | None:
    command = ['git', '-C', str(root), '--no-optional-locks', '-c', 'core.fsmonitor=false', *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_GIT_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):  # no git here, or a file system that does not answer: a run does not fail for that
        return None
    return done.stdout.strip() if done.returncode == 0 else None


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
