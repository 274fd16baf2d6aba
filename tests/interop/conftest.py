"""The oracle tier's surroundings: two threads for PyTorch at most, a torchvision that imports, and no file opened in vain."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

NEEDS_TORCH = re.compile(r"^(torch = )?pytest\.importorskip\('torch'", re.MULTILINE)
HERE = importlib.util.find_spec('torch') is not None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that needs PyTorch holds oracle tests only: a run that asks for none of those leaves it closed, and skips nothing."""
    unasked = 'not oracle' in config.option.markexpr
    if HERE or not unasked or collection_path.suffix != '.py' or not collection_path.name.startswith('test_'):
        return None
    return True if NEEDS_TORCH.search(collection_path.read_text(encoding='utf-8')) else None


def import_torchvision() -> None:
    """timm and transformers import torchvision, but never use its operators here.

    A torchvision built for CUDA lacks its operators over a CPU build of torch, and stops at declaring how two of them behave.
    Declared empty, they let it import.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError as err:
        if 'torchvision::nms' not in str(err):
            raise
        for name in [name for name in sys.modules if name.split('.')[0] == 'torchvision']:
            del sys.modules[name]
        library = torch.library.Library('torchvision', 'DEF')
        for name in ('nms', 'qnms'):
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        import_torchvision.library = library  # what it declares is taken back when it is collected


if HERE:
    import torch

    torch.set_num_threads(min(2, torch.get_num_threads()))
    import_torchvision()
