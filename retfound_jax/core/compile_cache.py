"""Compiled programs are kept between runs: a second start of the same work compiles nothing.

JAX's persistent cache does the keeping, in a folder of this user and this kind of CPU: XDG_CACHE_HOME/retfound_jax/compiled/KIND. What
lies there is code that will be run, so a folder that others can write to is not used. JAX's own variables win: JAX_COMPILATION_CACHE_DIR
names another folder (kept as its owner likes, without a bound), JAX_ENABLE_COMPILATION_CACHE=0 turns the cache off.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import platform
import re
import stat
import sys
import warnings
from pathlib import Path
from typing import Any, TextIO

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import xdg_cache_home

MOST_BYTES = 4 << 30  # of one kind of CPU; the program not used for longest goes first
_CPU_INFO = Path('/proc/cpuinfo')
_CPU_LINES = ('model name', 'flags', 'Features', 'CPU part')  # x86 and ARM
_OFF = ('0', 'false', 'no', 'off', 'f', 'n')
_TROUBLE = re.compile(r'Error (reading|writing) persistent compilation cache entry')
# What a start is spared is many small programs as much as one large one: JAX would keep only those that took a second.
_SMALL_TOO = {'jax_persistent_cache_min_compile_time_secs': 0.0, 'jax_persistent_cache_min_entry_size_bytes': -1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """Programs this process has asked XLA for."""

    compiled: int
    loaded: int  # from the cache

    def since(self, earlier: Counts) -> Counts:
        """What was added after `earlier`."""
        return Counts(compiled=self.compiled - earlier.compiled, loaded=self.loaded - earlier.loaded)


def enable() -> None:
    """Turns the cache on for this process, before or after JAX is imported. Where it cannot be, one sentence says so and work goes on."""
    if os.environ.get('JAX_ENABLE_COMPILATION_CACHE', '1').lower() in _OFF:
        return
    settings: dict[str, Any] = dict(_SMALL_TOO)
    if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        try:
            made = _own_folder(xdg_cache_home() / 'retfound_jax', 'compiled', kind_of_cpu())
            _tidy(made)
        except (OSError, UserError) as error:
            print(f'retfound: programs are compiled afresh each time ({_reason(error)})', file=sys.stderr)
            return
        settings |= {'jax_compilation_cache_dir': str(made), 'jax_compilation_cache_max_size': MOST_BYTES}
    for name, value in settings.items():
        if name.upper() not in os.environ:
            _set(name, value)
    _say_trouble_once()


@functools.cache
def kind_of_cpu() -> str:
    """A name for what this CPU can run: homes are shared between machines, and code for one CPU may stop another dead."""
    told = sorted({line for line in _read(_CPU_INFO).splitlines() if line.split(':')[0].strip() in _CPU_LINES})
    known = '\n'.join(told) or platform.processor()
    return f'{platform.system()}-{platform.machine()}-{hashlib.sha256(known.encode()).hexdigest()[:12]}'.lower()


def counts() -> Counts:
    """Programs compiled and loaded since the first call of this function."""
    seen = _listen()
    return Counts(compiled=seen['asked'] - seen['loaded'], loaded=seen['loaded'])


@functools.cache
def _listen() -> dict[str, int]:
    import jax

    seen = {'asked': 0, 'loaded': 0}

    def event(name: str, **_: Any) -> None:
        seen['loaded'] += name == '/jax/compilation_cache/cache_hits'

    def duration(name: str, seconds: float, **_: Any) -> None:
        seen['asked'] += name == '/jax/core/compile/backend_compile_duration'  # loading counts as compiling here

    jax.monitoring.register_event_listener(event)
    jax.monitoring.register_event_duration_secs_listener(duration)
    return seen


def _own_folder(root: Path, *inner: str) -> Path:
    """Makes root/inner/..., each level this user's alone.

    Raises:
      UserError: a level is somebody else's, a link, or open to others.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    folder = root
    for name in ('', *inner):
        folder = folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise UserError(f'{folder} holds code that will be run, and others can write to it; make it yours alone with chmod 700')
    return folder


def _tidy(folder: Path) -> None:
    """Removes what a killed run wrote by half: entries without the mark of time that JAX writes after them and cannot do without.

    Raises:
      OSError: the folder cannot be written to.
    """
    import filelock

    with filelock.FileLock(folder / '.lockfile', timeout=10):  # JAX's own lock
        names = set(os.listdir(folder))
        for name in names:
            if name.endswith('-cache') and f'{name.removesuffix("-cache")}-atime' not in names:
                (folder / name).unlink()
        probe = folder / f'.written-{os.getpid()}'
        probe.write_bytes(bytes(1 << 16))  # a full disk takes the lock, and no more
        probe.unlink()


def _set(name: str, value: Any) -> None:
    # The variable for a JAX that is not imported yet and for processes started from here, the option for one that is.
    os.environ[name.upper()] = str(value)
    if 'jax' in sys.modules:
        import jax

        jax.config.update(name, value)


@functools.cache
def _say_trouble_once() -> None:
    """JAX warns of each program it cannot keep; the first says enough."""
    show, said = warnings.showwarning, []

    def once(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
    ) -> None:
        if not _TROUBLE.match(str(message)):
            show(message, category, filename, lineno, file, line)
        elif not said:
            said.append(True)
            print(f'retfound: programs are compiled, but not kept for the next start ({message})', file=sys.stderr)

    warnings.showwarning = once


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8', errors='replace')
    except OSError:  # not Linux
        return ''


def _reason(error: OSError | UserError) -> str:
    return str(error) if isinstance(error, UserError) else f'{error.filename or "the cache"}: {error.strerror or error}'
