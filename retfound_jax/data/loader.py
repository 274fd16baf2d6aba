"""Batches. Which images stand in the batch of a step, in which order and how augmented, is a pure function of (seed, step).

Grain runs the decoding: in threads, or in worker processes. Its elements are chunks of a batch, numbered from 0, and every chunk is
computed from its number alone; so the stream is the same for any number of workers, it resumes anywhere, and the hosts' parts of a
batch join to the same global batch whatever their number.

A record that cannot be read does not end training: another row stands in for it, which is a function of seed, epoch and row, so that the
stream stays that of (seed, step) and the data; the Loader lists such records and says when they are too many. What no decoder can see is
damage that still decodes: a bit that flipped in the JPEG data before ingest wrote the record gives wrong pixels and no error. From then
on each record of a dataset has a checksum, and no damage passes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.data.chunks import EvalChunks, HostPart, PairChunks, TrainChunks
from retfound_jax.data.config import DataConfig
from retfound_jax.data.failures import Failure, Tally
from retfound_jax.data.pairs import training_pairs
from retfound_jax.data.sources import Source, training_order
from retfound_jax.data.stream import Batch, Made, Stream


class Loader:
    """Endless batches for training. Iterate it, or save `state()` and go on from it with `restore`.

    A batch is a dict of `image` uint8 [b, S, S, 3], `index` int64 [b] (row of the source) and `labels` float32 [b, Y] (NaN missing), S
    being the size of its step (`config.size_at`) and b this host's part of the `config.decoded` images: host h has rows h*b to (h+1)*b.
    With `config.groups` there is also `group` int32 [b], an index into the names of `source.strata(config.groups)`.
    With `config.pairs` rows 2i and 2i+1 of the whole batch are an earlier and a later visit of one eye (data/pairs.py). Epochs follow
    each other without a gap, so that a batch may hold the end of one and the start of the next, and a source smaller than
    a batch works.
    """

    def __init__(
        self,
        config: DataConfig,
        source: Source,
        *,
        seed: int,
        process_index: int = 0,
        process_count: int = 1,
        places: np.ndarray | None = None,
    ) -> None:
        """Opens nothing yet; the first `next` starts the workers.

        Args:
          places: of the rows that this host reads in each batch, where its devices hold others than the part of `process_index`.

        Raises:
          UserError: the source is empty, or has no pairs where they are asked for.
          UsageError: the hosts cannot share the batch equally, or only by parting pairs; or a column to balance or group by is unknown.
        """
        if len(source) == 0:
            raise UserError(f'the split "{config.split}" has no image to train on')
        self._source, self._seed = source, seed
        whole = dataclasses.replace(config, batch_size=config.decoded, repeat=1)
        together = 2 if config.pairs else 1
        self._host = HostPart.of(whole, index=process_index, count=process_count, places=places, together=together)
        given = {'config': config, 'reader': source.reader, 'labels': source.labels, 'host': self._host, 'seed': seed}
        if config.pairs:
            self._chunks = PairChunks(**given, pairs=training_pairs(config, source))
        else:
            group = source.strata(config.groups, field='data.groups').index if config.groups else None
            self._chunks = TrainChunks(**given, order=training_order(config, source, seed=seed), group=group)
        self._step = 0
        self._stream: Stream | None = None
        self._failures: list[Failure] = []
        self._tally = Tally(most_bad=config.most_bad)

    @property
    def step(self) -> int:
        """Batches given so far; the next batch is that of this step, counted from 0."""
        return self._step

    @property
    def offset(self) -> int:
        """[batches] that the stream is ahead of the steps: the batch of step k is that of stream position k + offset."""
        return self._chunks.offset

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch. After an error nothing is left running, and the next call tries the same batch again.

        Raises:
          UserError: an image cannot be decoded, nor can those that were to stand in for it: its key is named; a shard cannot be read; or
            a worker ended.
        """
        if self._stream is None:
            self._stream = Stream(self._chunks, source=self._source, first=self._step, end=None)
        try:
            made = self._stream.next()
        except BaseException:  # an interruption too leaves no worker behind
            self.close()
            raise
        self._note(made)
        self._step += 1
        return made.batch

    def _note(self, made: Made) -> None:
        self._tally.add(seen=len(made.batch['index']), bad=sum(own for _, _, own in made.unreadable))
        keys, reasons = self._source.table['key'], {row: reason for row, reason, _ in made.unreadable}
        self._failures += [Failure(step=self._step, row=row, key=str(keys[row]), reason=reasons[row]) for row in sorted(reasons)]

    def take_failures(self) -> list[Failure]:
        """The records that could not be read for the batches given since the last call: by batch, then by row, each once a batch."""
        taken, self._failures = self._failures, []
        return taken

    def too_many(self) -> str:
        """The sentence that ends the run where more records cannot be read than `data.most_bad` lets pass, or ''. See `Tally`.

        Each host judges its own part of the batches given so far: hosts agree before they stop.
        """
        return self._tally.too_many()

    def skip(self, count: int) -> None:
        """Leaves out the next `count` batches of the stream; steps, and the sizes that follow them, go on as before."""
        if count < 0:
            raise ValueError(f'{count} batches cannot be skipped')
        self._set(step=self._step, offset=self.offset + count)

    def state(self) -> dict[str, Any]:
        """Where the stream stands, which stream it is, and what `too_many` counts, as JSON values."""
        where = {'step': self._step, 'offset': self.offset, 'unreadable': self._tally.state()}
        return {**where, 'seed': self._seed, 'fingerprint': self._source.fingerprint, 'batch_size': self._host.batch_size}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a saved state.

        Raises:
          UserError: the state belongs to another seed, other data or another batch size.
        """
        here = self.state()
        for name, what in (('fingerprint', 'other data'), ('seed', 'another seed'), ('batch_size', 'another batch size')):
            if state.get(name) != here[name]:
                raise UserError(
                    f'the saved position in the data belongs to {what} ({name} {state.get(name)}, here {here[name]}); '
                    'go on with the same configuration or start a new run'
                )
        self._tally.restore(state.get('unreadable', {}))  # states of before have none, and no offset
        self._set(step=int(state['step']), offset=int(state.get('offset', 0)))

    def _set(self, *, step: int, offset: int) -> None:
        self.close()
        self._step, self._chunks = step, dataclasses.replace(self._chunks, offset=offset)

    def close(self) -> None:
        """Stops threads and workers; a later `next` starts them again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def eval_batches(
    config: DataConfig, source: Source, *, process_index: int = 0, process_count: int = 1, places: np.ndarray | None = None
) -> Iterator[Batch]:
    """Every row once, in order, by the evaluation transform, plus `mask` bool [b]: False for the rows that fill up the last batch.

    Filling rows have `index` -1, black pixels and NaN labels. All hosts get the same number of batches. places: as in `Loader`.

    Raises:
      UserError: an image cannot be decoded; its key is named.
      UsageError: the hosts cannot share the batch equally.
    """
    host = HostPart.of(config, index=process_index, count=process_count, places=places)
    chunks = EvalChunks(config=config, reader=source.reader, labels=source.labels, host=host)
    batches = -(-len(source) // config.batch_size)
    stream = Stream(chunks, source=source, first=0, end=batches)
    try:
        for _ in range(batches):
            yield stream.next().batch
    finally:
        stream.close()
