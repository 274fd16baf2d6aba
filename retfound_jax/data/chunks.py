"""Chunks of batches: each is computed from its number alone, in whatever thread, process or host is asked for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.core.random import ExampleRng
from retfound_jax.data.config import DataConfig
from retfound_jax.data.decode import DecodeFailure
from retfound_jax.data.order import Order
from retfound_jax.data.pairs import Pairs
from retfound_jax.data.sources import Reader
from retfound_jax.data.store import RecordFailure
from retfound_jax.data.transforms import eval_image, train_image

LARGEST = 64  # [images] at most in what one thread or process makes at a time
STOPPED, REASON = 'stopped_at_row', 'reason'  # of a chunk that cannot be made
UNREADABLE = 'unreadable'  # of a chunk that was made in spite of them: a tuple of `Unreadable`
_STREAM = 0xDA7A  # keeps these random numbers apart from others drawn from the same seed
_Data = bytes | np.ndarray | RecordFailure
Unreadable = tuple[int, str, bool]  # row, reason, and whether it was the row's own place (or it was to stand in for another)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostPart:
    """This host's part of each batch, and the chunks it is made in."""

    batch_size: int  # of all hosts
    places: np.ndarray  # int64, of this host's rows in the batch, rising
    chunks: int
    together: int = 1  # rows that a chunk never parts: 2 for pairs

    @classmethod
    def of(cls, config: DataConfig, *, index: int, count: int, places: np.ndarray | None = None, together: int = 1) -> HostPart:
        """The part of host `index` of `count`, or that of the host whose devices hold the rows `places`.

        Raises:
          UsageError: the hosts cannot share the batch equally, or it parts rows that belong together.
        """
        rows, rest = divmod(config.batch_size, count)
        if rest or not 0 <= index < count:
            raise UsageError(f'data.batch_size is {config.batch_size} and {count} hosts cannot share it equally; use a multiple of it')
        if places is None:
            places = np.arange(index * rows, (index + 1) * rows)
        places = places.astype(np.int64)
        if _parts(places, together):
            told = f'data.batch_size is {config.batch_size} and parts pairs of rows over hosts or batches'
            raise UsageError(f'{told}; use a multiple of 2 x the number of devices')
        return cls(batch_size=config.batch_size, places=places, chunks=-(-len(places) // LARGEST), together=together)

    @property
    def rows(self) -> int:
        """How many rows of a batch are this host's."""
        return len(self.places)

    def positions(self, number: int) -> np.ndarray:
        """Places in the endless stream of the rows of a chunk."""
        step, chunk = divmod(number, self.chunks)
        return step * self.batch_size + self.places[self.span(chunk)]

    def span(self, chunk: int) -> slice:
        """Rows of the host's part of a batch that its chunk of that place holds."""
        whole = self.rows // self.together
        return slice(whole * chunk // self.chunks * self.together, whole * (chunk + 1) // self.chunks * self.together)


class Chunks(Protocol):
    """Chunks by number. They travel to worker processes."""

    config: DataConfig
    host: HostPart

    def size(self, number: int) -> int:
        """Side of the images of the chunk of that number [px]."""
        ...

    def __call__(self, number: int, image: np.ndarray | None = None) -> dict[str, Any]:
        """The chunk of that number, its images written into `image` if given, or where and why it stopped: STOPPED and REASON."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainChunks:
    """Training images. A row that cannot be read is replaced by another, which is a function of seed, epoch and row.

    The one that stands in is cropped by the random numbers of the row it stands in for: it also has a place of its own in the epoch.
    """

    config: DataConfig
    reader: Reader
    labels: np.ndarray
    host: HostPart
    seed: int
    order: Order
    group: np.ndarray | None = None  # int32 [rows], by `config.groups`
    offset: int = 0  # [batches] that the stream is ahead of the steps

    def size(self, number: int) -> int:
        return self.config.size_at(number // self.host.chunks)

    def __call__(self, number: int, image: np.ndarray | None = None) -> dict[str, Any]:
        positions = self.host.positions(number) + self.offset * self.host.batch_size
        epochs, rows = self.order.at(positions)
        size, config, rngs = self.size(number), _at_size(self.config, self.size(number)), ExampleRng(self.seed ^ _STREAM << 40)
        image = np.empty((len(rows), size, size, 3), np.uint8) if image is None else image
        unreadable: list[Unreadable] = []
        for place, (data, epoch, row) in enumerate(zip(_read(self.reader, rows), epochs.tolist(), rows.tolist(), strict=True)):
            reason = _made(data, rng=rngs.at(epoch, row), config=config, out=image[place])
            if reason:
                unreadable.append((row, reason, True))
                other = self._stand_in(row, epoch, rngs, config, image[place], unreadable)
                if other is None:
                    return {STOPPED: row, REASON: f'{reason}; nor can those that were to stand in for it'}
                rows[place] = other
        known = {'index': rows, 'labels': self.labels[rows]} | ({} if self.group is None else {'group': self.group[rows]})
        return {'image': image, **known, UNREADABLE: tuple(unreadable)}

    def _stand_in(
        self, row: int, epoch: int, rngs: ExampleRng, config: DataConfig, out: np.ndarray, unreadable: list[Unreadable]
    ) -> int | None:
        """Writes the first image that can be read in the row's place and gives its row; None where there is none."""
        for other in self.order.stand_ins(row, epoch=epoch).tolist():
            (data,) = _read(self.reader, np.array([other]))
            reason = _made(data, rng=rngs.at(epoch, row), config=config, out=out)
            if not reason:
                return other
            unreadable.append((other, reason, False))
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairChunks:
    """Training images in pairs: rows 2i and 2i+1 are an earlier and a later visit of one eye.

    A pair of which a member cannot be read is replaced whole by another, which is a function of seed, epoch and earlier row. Both members
    are cropped by random numbers of their own, and what stands in by those of the pair it stands in for.
    """

    config: DataConfig
    reader: Reader
    labels: np.ndarray
    host: HostPart
    seed: int
    pairs: Pairs
    offset: int = 0  # [batches] that the stream is ahead of the steps

    def size(self, number: int) -> int:
        return self.config.size_at(number // self.host.chunks)

    def __call__(self, number: int, image: np.ndarray | None = None) -> dict[str, Any]:
        positions = self.host.positions(number) + self.offset * self.host.batch_size
        epochs, which, rows = self.pairs.at(positions[::2] // 2, seed=self.seed)
        size, config, rngs = self.size(number), _at_size(self.config, self.size(number)), ExampleRng(self.seed ^ _STREAM << 40)
        image = np.empty((len(positions), size, size, 3), np.uint8) if image is None else image
        unreadable: list[Unreadable] = []
        stored = _read(self.reader, rows.reshape(-1))
        for place, (epoch, one) in enumerate(zip(epochs.tolist(), which.tolist(), strict=True)):
            span, place_rows = slice(2 * place, 2 * place + 2), rows[place].copy()
            places = (int(place_rows[0]), len(self.labels) + int(place_rows[0]))  # of the random numbers: the later has others
            reasons = self._fill(image[span], stored[span], rngs, epoch, places, config)
            unreadable += [(int(row), reason, True) for row, reason in zip(place_rows, reasons, strict=True) if reason]
            tried = iter(self.pairs.stand_ins(one, epoch=epoch, seed=self.seed))
            while any(reasons):
                other = next(tried, None)
                if other is None:
                    stopped, reason = next((int(row), why) for row, why in zip(place_rows, reasons, strict=True) if why)
                    return {STOPPED: stopped, REASON: f'{reason}; nor can those pairs that were to stand in for it'}
                rows[place] = self.pairs.drawn(np.array([other]), epoch=epoch, seed=self.seed)[0]
                reasons = self._fill(image[span], _read(self.reader, rows[place]), rngs, epoch, places, config)
                unreadable += [(int(row), reason, False) for row, reason in zip(rows[place], reasons, strict=True) if reason]
        rows = rows.reshape(-1)
        return {'image': image, 'index': rows, 'labels': self.labels[rows], UNREADABLE: tuple(unreadable)}

    def _fill(
        self, out: np.ndarray, stored: Sequence[_Data], rngs: ExampleRng, epoch: int, places: tuple[int, int], config: DataConfig
    ) -> list[str]:
        """Writes both images of a pair, and gives for each the reason why there is none, or ''."""
        return [_made(data, rng=rngs.at(epoch, place), config=config, out=to) for data, place, to in zip(stored, places, out, strict=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalChunks:
    """Images for evaluation: a row that cannot be read stops it, since a metric over fewer images is another metric."""

    config: DataConfig
    reader: Reader
    labels: np.ndarray
    host: HostPart

    def size(self, number: int) -> int:
        return self.config.loaded_size

    def __call__(self, number: int, image: np.ndarray | None = None) -> dict[str, Any]:
        places = self.host.positions(number)
        mask = places < len(self.labels)
        rows = places[mask]
        size, share = self.config.loaded_size, 1.0 if self.config.views else self.config.central_share
        image = np.empty((len(places), size, size, 3), np.uint8) if image is None else image
        image[~mask] = 0
        labels = np.full((len(places), self.labels.shape[1]), np.nan, np.float32)
        labels[mask] = self.labels[rows]
        for place, (data, row) in enumerate(zip(_read(self.reader, rows), rows.tolist(), strict=True)):
            if isinstance(data, RecordFailure):
                return {STOPPED: row, REASON: data.reason}
            try:
                image[place] = eval_image(data, size=size, share=share)
            except DecodeFailure as error:
                return {STOPPED: row, REASON: str(error)}
        return {'image': image, 'index': np.where(mask, places, -1), 'labels': labels, 'mask': mask}


def _parts(places: np.ndarray, together: int) -> bool:
    """Whether a group of `together` rows of the batch lies only in part among the places."""
    if len(places) % together:
        return True
    groups = places.reshape(-1, together)
    return bool((groups != groups[:, :1] // together * together + np.arange(together)).any())


def _at_size(config: DataConfig, size: int) -> DataConfig:
    """The configuration of a step whose images have that side [px]."""
    return dataclasses.replace(config, image_size=size, resolution=()) if config.resolution else config


def _read(reader: Reader, rows: np.ndarray) -> Sequence[_Data]:
    """What is stored of each row, or why it cannot be read; where some cannot, halves are read until those are alone."""
    try:
        return reader.read(rows)
    except RecordFailure as failure:
        half = len(rows) // 2
        return [*_read(reader, rows[:half]), *_read(reader, rows[half:])] if half else [failure]


def _made(data: _Data, *, rng: np.random.Generator, config: DataConfig, out: np.ndarray) -> str:
    """Writes the training image into `out`; the reason why there is none, or ''."""
    if isinstance(data, RecordFailure):
        return data.reason
    try:
        train_image(data, rng=rng, config=config, out=out)
    except DecodeFailure as error:
        return str(error)
    return ''
