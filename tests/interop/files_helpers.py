"""Tiny weights for the tests of interop, and files of torch.save made by hand: no PyTorch is needed to write one."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retfound_jax.interop import timm_names
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig

TINY = ViTConfig(image_size=32, patch_size=16, width=64, depth=2, heads=1, positions='learned', pool='cls')
TINY_MAE = MAEConfig(encoder=ViTConfig(image_size=32, patch_size=16, width=64, depth=2, heads=1, pool='cls'), decoder_width=32,
                     decoder_depth=1, decoder_heads=16)  # fmt: skip


def random_tensors(config: ViTConfig | MAEConfig, *, outputs: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor of the network by timm's names, in random numbers; fixed tables as they are."""
    rng = np.random.default_rng(seed)
    out = {name: np.array(table) for name, table in timm_names.tables(config).items()}
    for entry in timm_names.entries(config, outputs=outputs):
        out[entry.theirs] = (0.1 * rng.normal(size=entry.source)).astype(np.float32)
    return out


class _Global:
    """Pickled as a name alone, whatever module it is said to be of."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Call:
    def __init__(self, function: _Global, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class _Pickler(pickle._Pickler):  # the one in Python, whose opcodes can be written one by one
    def __init__(self, file: io.BytesIO, storages: list[np.ndarray]) -> None:
        super().__init__(file, protocol=2)
        self.storages = storages

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Global):
            self.write(pickle.GLOBAL + f'{value.module}\n{value.name}\n'.encode())
        elif isinstance(value, _Call):
            self.save(value.function)
            self.save(value.arguments)
            self.write(pickle.REDUCE)
        elif isinstance(value, np.ndarray):
            self._tensor(value)
        else:
            super().save(value, save_persistent_id)

    def _tensor(self, array: np.ndarray) -> None:
        kinds = {'float32': 'FloatStorage', 'float16': 'HalfStorage', 'int64': 'LongStorage', 'bfloat16': 'BFloat16Storage'}
        self.save(_Global('torch._utils', '_rebuild_tensor_v2'))
        self.write(pickle.MARK)
        self.save(('storage', _Global('torch', kinds[array.dtype.name]), str(len(self.storages)), 'cpu', array.size))
        self.write(pickle.BINPERSID)
        self.storages.append(np.ascontiguousarray(array))
        strides = tuple(stride // array.itemsize for stride in np.ascontiguousarray(array).strides)
        for item in (0, array.shape, strides, False, OrderedDict()):
            self.save(item)
        self.write(pickle.TUPLE + pickle.REDUCE)


def call(module: str, name: str, *arguments: Any) -> _Call:
    """What is pickled as a call of `module.name`."""
    return _Call(_Global(module, name), *arguments)


def save_torch(path: Path, value: Any) -> Path:
    """Writes what torch.save would, of nested dictionaries of arrays and `call`s."""
    storages: list[np.ndarray] = []
    described = io.BytesIO()
    _Pickler(described, storages).dump(value)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', described.getvalue())
        archive.writestr('archive/byteorder', 'little')
        for key, array in enumerate(storages):
            archive.writestr(f'archive/data/{key}', array.tobytes())
        archive.writestr('archive/version', '3\n')
    return path


def wrapped(tensors: Mapping[str, np.ndarray], **beside: Any) -> dict[str, Any]:
    """As MAE's and RETFound's training code saves a model."""
    return {'model': dict(tensors), **beside}
