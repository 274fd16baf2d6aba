"""Six ways in which single records of a dataset go bad, done to the files that ingest wrote.

Two damage the shard: the bytes of a record in it, or the header that stands before them. Four are records that are whole as the shard
sees them and hold what is no photograph; for these the shard is written anew with its other records as they were.

The layout is that of Riegeli (its documentation, "Riegeli/records file format specification"): blocks of 64 KiB, each of which begins
with 24 bytes of its own; a signature of 40 bytes; then chunks of a header of 40 bytes and data whose size stands in the header. A
dataset's chunk holds one record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from PIL import Image

from retfound_jax.core.files import read_json, sha256_file, write_json
from retfound_jax.ingest.records import decode, encode

_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 1 << 16, 24, 40
_SIZE_AT, _DATA_HASH_AT = 8, 16  # in the header of a chunk
_FRAME = b'\xff\xc0'  # of a JPEG: marker, length, precision, height, width
_WIDEST = 65500  # [px] of a JPEG that libjpeg reads


def ingest_phantoms(folder: Path, count: int, *, size: int = 64) -> Path:
    """A dataset made by the project's own ingest of drawn photographs, each also turned by quarters (drawing takes longest)."""
    from retfound_jax.cli.main import run_verb
    from retfound_jax.data.phantom.config import PhantomConfig
    from retfound_jax.data.phantom.render import draw_eye

    (folder / 'photographs').mkdir(parents=True)
    config = PhantomConfig(patients=count // 8 + 1, image_size=size)
    for number in range(count):
        if number % 4 == 0:
            drawn = draw_eye(config, number // 4).image
        turned = np.ascontiguousarray(np.rot90(drawn, number % 4))
        Image.fromarray(turned).save(folder / 'photographs' / f'{number:04d}.png')
    words = ['--source', str(folder / 'photographs'), '--out', str(folder / 'eyes'), '--size', str(size)]
    with contextlib.redirect_stdout(io.StringIO()):
        run_verb('ingest', [*words, '--val', '0', '--test', '0', '--workers', '0'])
    return folder / 'eyes'


def zeroed(path: Path, places: Iterable[int]) -> None:
    """The bytes of records in the file are zeros."""
    _in_place(path, places, lambda header, data: (header, bytes(len(data))))


def chunk_header(path: Path, places: Iterable[int]) -> None:
    """The header before a record has a byte that flipped."""
    _in_place(path, places, lambda header, data: (_flipped(header, _DATA_HASH_AT), data))


def flipped_bit(path: Path, places: Iterable[int]) -> None:
    """One bit in the middle of a record flipped, in the entropy-coded data, where most flips give an image that decodes."""
    _in_place(path, places, lambda header, data: (header, _flipped(data, len(data) // 2)))


def truncated_jpeg(path: Path, places: Iterable[int]) -> None:
    """The image ends in its middle."""
    _images(path, places, lambda image, place: image[: len(image) // 2])


def jpeg_header(path: Path, places: Iterable[int]) -> None:
    """The image begins like a JPEG, and then come any bytes."""
    _images(path, places, lambda image, place: image[:3] + random.Random(place).randbytes(300) + image[303:])


def not_a_record(path: Path, places: Iterable[int]) -> None:
    """The bytes are no record of the schema."""
    _rewrite(path, places, lambda data, place: random.Random(place).randbytes(len(data)))


def absurd_size(path: Path, places: Iterable[int]) -> None:
    """The image says that it is 65500 x 65500 px, or is no byte long."""
    _images(path, places, lambda image, place: _huge(image) if place % 2 else b'')


SIX: dict[str, Callable[[Path, Iterable[int]], None]] = {
    way.__name__: way for way in (zeroed, chunk_header, truncated_jpeg, jpeg_header, not_a_record, absurd_size)
}


def corrupt(folder: Path, positions: Iterable[int], way: Callable[[Path, Iterable[int]], None]) -> None:
    """Spoils the records at positions of the training split, and writes into the manifest what the files are like now."""
    manifest = read_json(folder / 'manifest.json')
    start, wanted = 0, set(positions)
    for item in manifest['shards']:
        here = [position - start for position in sorted(wanted) if start <= position < start + item['count']]
        start += item['count']
        if here:
            path = folder / item['file']
            way(path, here)
            item |= {'bytes': path.stat().st_size, 'sha256': sha256_file(path)}
    write_json(folder / 'manifest.json', manifest)


def _huge(image: bytes) -> bytes:
    at = image.index(_FRAME) + 5
    return image[:at] + struct.pack('>HH', _WIDEST, _WIDEST) + image[at + 4 :]


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _images(path: Path, places: Iterable[int], spoil: Callable[[bytes, int], bytes]) -> None:
    def changed(data: bytes, place: int) -> bytes:
        record = decode(data)
        return encode(dataclasses.replace(record, image=spoil(record.image, place)))

    _rewrite(path, places, changed)


def _rewrite(path: Path, places: Iterable[int], change: Callable[[bytes, int], bytes]) -> None:
    reader = ArrayRecordReader(str(path))
    datas, chosen = reader.read_all(), set(places)
    reader.close()
    writer = ArrayRecordWriter(str(path), 'group_size:1')
    for place, data in enumerate(datas):
        writer.write(change(data, place) if place in chosen else data)
    writer.close()


def _in_place(path: Path, places: Iterable[int], change: Callable[[bytes, bytes], tuple[bytes, bytes]]) -> None:
    """Changes chunks by number; the file keeps its size. change: of a header and its data."""
    blocks = bytearray(path.read_bytes())
    starts = range(0, len(blocks), _BLOCK)
    plain = bytearray().join(blocks[start + _BLOCK_HEADER : start + _BLOCK] for start in starts)
    chosen, at = set(places), _CHUNK_HEADER
    for place in range(max(chosen) + 1):
        size = int.from_bytes(plain[at + _SIZE_AT : at + _SIZE_AT + 8], 'little')
        middle, end = at + _CHUNK_HEADER, at + _CHUNK_HEADER + size
        if place in chosen:
            plain[at:middle], plain[middle:end] = change(bytes(plain[at:middle]), bytes(plain[middle:end]))
        at = end
    inside = _BLOCK - _BLOCK_HEADER
    for number, start in enumerate(starts):
        blocks[start + _BLOCK_HEADER : start + _BLOCK] = plain[number * inside : (number + 1) * inside]
    path.write_bytes(blocks)
