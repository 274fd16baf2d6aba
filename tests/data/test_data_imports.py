"""Threads that read import nothing: an import that another thread is in the middle of may give them half a module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import data_sets

CODE = """
import builtins, sys, threading
from absl import flags
flags.FLAGS.mark_as_parsed()
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import open_source

config = DataConfig(path=sys.argv[1], image_size=32, batch_size=4)
loader = Loader(config, open_source(config), seed=0)
real, found = builtins.__import__, []

def watching(name, *rest):
    new = name not in sys.modules
    module = real(name, *rest)
    if new and threading.current_thread() is not threading.main_thread():
        found.append(name)
    return module

builtins.__import__ = watching
for _ in range(8):
    next(loader)
loader.close()
print(sorted(set(found)))
"""


def test_threads_that_read_import_nothing(tmp_path: Path) -> None:
    folder = data_sets.write_dataset(tmp_path / 'dataset', {'train': data_sets.records(12)})
    done = subprocess.run([sys.executable, '-c', CODE, str(folder)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]'
