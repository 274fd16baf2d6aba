"""PyTorch's own files without PyTorch, and without running a line of what is pickled in them.

A file of `torch.save` (1.6 and later) is a ZIP archive of a pickle, `data.pkl`, that describes tensors, and one uncompressed
entry for each storage. The pickle is read by an unpickler that knows the few names a checkpoint needs and refuses every
other; what it knows either describes a tensor or is an inert box (arguments, devices, numpy scalars), so nothing of the
file's choosing is ever called. Tensors are views into the memory-mapped file.
"""

from __future__ import annotations

import dataclasses
import io
import math
import mmap
import pickle
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from retfound_jax.core.errors import UserError

_LARGEST_PICKLE = 64 * 2**20  # [bytes]; that of a ViT-L with its optimiser has under one
_LOCAL_HEADER = 30  # [bytes] of a ZIP entry before its name
_STORAGES = {
    'FloatStorage': np.float32, 'DoubleStorage': np.float64, 'HalfStorage': np.float16, 'BFloat16Storage': ml_dtypes.bfloat16,
    'LongStorage': np.int64, 'IntStorage': np.int32, 'ShortStorage': np.int16, 'CharStorage': np.int8, 'ByteStorage': np.uint8,
    'BoolStorage': np.bool_,
}  # fmt: skip
_DTYPES = ('float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool')
# Names that a checkpoint's arguments, counters and devices are made of. They become boxes that hold what was said of them.
_INERT = {
    ('argparse', 'Namespace'), ('torch', 'device'), ('torch', 'Size'), ('pathlib', 'PosixPath'), ('pathlib', 'Path'),
    ('pathlib', 'PurePosixPath'), ('pathlib', 'WindowsPath'), ('numpy', 'dtype'), ('numpy.core.multiarray', 'scalar'),
    ('numpy._core.multiarray', 'scalar'), ('_codecs', 'encode'), ('collections', 'defaultdict'), ('builtins', 'set'),
    ('__builtin__', 'set'), ('torch.serialization', '_get_layout'),
}  # fmt: skip
# What pickles of protocols 2 to 4 are made of, less what is for other kinds of objects or asks for memory in advance.
_OPCODES = frozenset(
    'PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD NEWOBJ BINPERSID NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT '
    'BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST '
    'APPEND APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS BINPUT LONG_BINPUT BINGET LONG_BINGET MEMOIZE'.split()
)


class Box(dict):
    """Something the file holds beside tensors: its name, its arguments as they stood, and the fields set on it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__()
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)

    def append(self, item: Any) -> None:
        """A list's items are let by."""

    def extend(self, items: Any) -> None:
        """As above."""


class _Dict(dict):
    """A dictionary that takes no attributes from the file (PyTorch puts `_metadata` on its own)."""

    def __setstate__(self, state: Any) -> None:
        pass


@dataclasses.dataclass(frozen=True, slots=True)
class _Storage:
    name: str


class _Call:
    """A function the pickle may call and may not touch."""

    __slots__ = ('_function',)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError('it sets fields of a function')


class _Refused(pickle.UnpicklingError):
    """The pickle names something that is not on the list."""


def read(path: Path) -> Any:
    """What `torch.save` put into the file, tensors as read-only numpy views (bfloat16 as `ml_dtypes.bfloat16`).

    Raises:
      UserError: the file is truncated or damaged, would have to run code, or is none of `torch.save`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except zipfile.BadZipFile as error:
        raise UserError(f'{path} is truncated or damaged ({error}): copy or download it again') from error
    except _Refused as error:
        raise UserError(
            f'{path} asks to call {error} while it is read, which could run anything, so it was not read: '
            'have its owner save the weights alone, as safetensors'
        ) from error
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        raise UserError(f'{path} is damaged ({type(error).__name__}: {error}): copy or download it again') from error


def _read(path: Path, archive: zipfile.ZipFile) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    described = [name for name in entries if name.endswith('/data.pkl') and name.count('/') == 1]
    root = described[0].removesuffix('data.pkl') if described else ''
    if len(described) != 1 or f'{root}constants.pkl' in entries:
        what = 'a TorchScript program' if described else 'a ZIP archive'
        raise UserError(f'{path} is {what}, not the weights of a model: give the file that torch.save wrote of its state_dict')
    if entries[described[0]].file_size > _LARGEST_PICKLE:
        raise UserError(f'{path} describes its tensors in more than {_LARGEST_PICKLE >> 20} MB, which no model needs; it was not read')
    order = f'{root}byteorder'
    if order in entries and archive.read(order) != b'little':
        raise UserError(f'{path} was written on a big-endian machine, which is not supported: save it again on another')
    with open(path, 'rb') as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    pickled = archive.read(described[0])
    _check_opcodes(pickled)
    return _Reader(pickled, storages=_Storages(path, mapped, entries, root)).load()


def _check_opcodes(pickled: bytes) -> None:
    """Refuses, before it is read, a pickle that asks for more memory than its length explains, or does what no checkpoint does."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f'it uses the instruction {opcode.name}')
        if opcode.name in ('BINPUT', 'LONG_BINPUT') and argument > len(pickled):
            raise pickle.UnpicklingError('it numbers more objects than it can hold')


class _Storages:
    """The raw bytes of each storage, checked once against the archive's own checksum."""

    def __init__(self, path: Path, mapped: np.ndarray, entries: dict[str, zipfile.ZipInfo], root: str) -> None:
        self._path, self._mapped, self._entries, self._root = path, mapped, entries, root
        self._checked: dict[str, np.ndarray] = {}

    def get(self, key: str) -> np.ndarray:
        if key not in self._checked:
            self._checked[key] = self._raw(self._entries[f'{self._root}data/{key}'])
        return self._checked[key]

    def _raw(self, info: zipfile.ZipInfo) -> np.ndarray:
        if info.compress_type != zipfile.ZIP_STORED:
            raise UserError(f'{self._path} was compressed after torch.save: unpack and save it again')
        head = self._mapped[info.header_offset : info.header_offset + _LOCAL_HEADER].tobytes()
        start = info.header_offset + _LOCAL_HEADER + int.from_bytes(head[26:28], 'little') + int.from_bytes(head[28:30], 'little')
        raw = self._mapped[start : start + info.file_size]
        if len(raw) != info.file_size or zlib.crc32(raw) != info.CRC:
            raise UserError(f'{self._path} is damaged in {info.filename}: copy or download it again')
        return raw


class _Reader(pickle.Unpickler):
    """An unpickler that only ever builds dictionaries, numbers, text, tensors and boxes."""

    def __init__(self, data: bytes, *, storages: _Storages) -> None:
        super().__init__(io.BytesIO(data), encoding='utf-8')
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('collections', 'OrderedDict'):
            return _Dict
        if (module, name) in (('torch._utils', '_rebuild_tensor_v2'), ('torch._utils', '_rebuild_tensor')):
            return _Call(_tensor)
        if (module, name) == ('torch._utils', '_rebuild_parameter'):
            return _Call(_parameter)
        if module in ('torch', 'torch.storage') and name in (*_STORAGES, 'UntypedStorage'):
            return _Storage(name)
        if (module, name) in _INERT or (module == 'torch' and name in _DTYPES) or module == 'numpy.dtypes':
            return Box
        raise _Refused(f'{module}.{name}')

    def persistent_load(self, pid: Any) -> np.ndarray:
        tag, kind, key, _, count = pid
        if tag != 'storage' or not isinstance(kind, _Storage) or kind.name not in _STORAGES:
            raise pickle.UnpicklingError(f'a storage of a kind not known ({kind})')
        raw, dtype = self._storages.get(str(key)), np.dtype(_STORAGES[kind.name])
        if int(count) * dtype.itemsize > len(raw):
            raise pickle.UnpicklingError(f'storage {key} is shorter than it should be')
        return raw[: int(count) * dtype.itemsize].view(dtype)


def _tensor(storage: np.ndarray, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> np.ndarray:
    """A tensor as a view of its storage; a view that would reach outside is refused."""
    if not isinstance(storage, np.ndarray) or len(shape) != len(stride) or min((offset, *shape, *stride)) < 0:
        raise pickle.UnpicklingError(f'a tensor of shape {tuple(shape)} and stride {tuple(stride)} at {offset}')
    if 0 in shape:
        return np.zeros(tuple(shape), storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if last >= len(storage):
        raise pickle.UnpicklingError(f'a tensor of shape {tuple(shape)} reaches outside its storage')
    if math.prod(shape) > len(storage):
        raise pickle.UnpicklingError(f'a tensor of shape {tuple(shape)} is larger than its storage')
    size = storage.itemsize
    return np.lib.stride_tricks.as_strided(storage[offset:], tuple(shape), tuple(step * size for step in stride), writeable=False)


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data

