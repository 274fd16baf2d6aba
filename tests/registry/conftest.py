"""The fixtures of the registry, each drawn once a session where a test asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a dataset's fixture by the dataset's name, in a data folder that may hold others; it is only to be read."""
    from retfound_jax.registry.catalogue import find

    root = tmp_path_factory.mktemp('data')

    def folder(name: str) -> Path:
        if not (root / name).exists():
            (root / name).mkdir()
            find(name).draw(root / name)
        return root / name

    return folder
