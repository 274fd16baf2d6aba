"""Calls of the launchers as a user makes them, and stand-ins for the programs that they call."""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = ROOT / 'launch'
PATIENCE = 30.0  # [s] for what takes a fraction of a second on a quiet machine

# What breaks quoting: spaces, quotes, newlines, what a shell or Kubernetes puts something else for, what YAML takes for no text.
HOSTILE = [
    'runs/with space',
    "it's",
    'say "so"',
    'line\nbreak',
    'tab\there',
    '$(touch pwned)',
    '`touch pwned`',
    '$HOME ${HOME} $$ $(HOME) $$(HOME)',
    '; touch pwned #',
    '&& touch pwned',
    'back\\slash\\',
    '*?[a-z]',
    '~',
    '!!',
    '-',
    ': {a: [b, "c"]} # - |',
    'null',
    '\u00e9\u2028\u0085\ufeff\U0001f441',
]
hostile = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=40))


@functools.cache
def load(name: str) -> types.ModuleType:
    """A file of launch/ as a module, whatever its ending."""
    if str(LAUNCH) not in sys.path:
        sys.path.append(str(LAUNCH))
    loader = importlib.machinery.SourceFileLoader(f'launch_{name}', str(LAUNCH / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def call(name: str, *words: str, cwd: Path | None = None, path: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs launch/NAME; `path` is a folder whose programs come before all others."""
    found = os.pathsep.join([*([str(path)] if path else []), os.environ['PATH']])
    command = [sys.executable, str(LAUNCH / name), *words]
    environment = {**os.environ, 'PATH': found, **settings}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=4 * PATIENCE)


def refused(done: subprocess.CompletedProcess[str], *, name: str) -> str:
    """The one sentence of a call that was wrong."""
    assert done.returncode == 2 and done.stdout == '', (done.returncode, done.stdout, done.stderr)
    assert done.stderr.count('\n') == 1 and done.stderr.startswith(f'{name}: '), done.stderr
    return done.stderr


def stand_in(folder: Path, name: str, text: str) -> Path:
    """Puts a program of that name in a folder; `text` is Python or, where it says so itself, anything."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text if text.startswith('#!') else f'#!{sys.executable}\n{text}', encoding='utf-8')
    path.chmod(0o755)
    return path


def wait_for(condition: Callable[[], object], what: str, *, patience: float = PATIENCE) -> None:
    """Returns once the condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f'{what} did not come within {patience} s'
        time.sleep(0.01)
