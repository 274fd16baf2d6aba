"""Photographs to facts: what each worker does with a part, and the pictures that it found there."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from retfound_jax.ingest import work
from retfound_jax.ingest.beam.job import Job, read_part
from retfound_jax.ingest.items import Item, items

REJECT, KEY = 'reject', 'key'
_LIKE_A_FRAME = re.compile(r'#\d+$', re.ASCII)


def fingerprints(number: int, *, job: Job) -> Iterator[Any]:
    """Reads the photographs of a part. Gives (key, patient, pixel_sha256, phash) of each picture.

    And, as tagged outputs, (file, reason) of each file that gave none, and (key, file, frame) where another picture could have the key.
    """
    from apache_beam.pvalue import TaggedOutput

    job.check_versions()
    for chunk, abouts in read_part(job, number):
        work.ensure(chunk, options=job.pictures, process=job.process)
        pictures, rejects = work.load([chunk])
        for reject in rejects.items():
            yield TaggedOutput(REJECT, reject)
        for file, group in itertools.groupby(pictures, key=lambda picture: picture.file):
            for item in items(list(group), abouts[file], min_age=job.min_age, modality=job.modality):
                record = item.record
                yield record.key, record.patient, record.pixel_sha256, record.phash
                if record.key != abouts[file].name or _LIKE_A_FRAME.search(record.key):
                    yield TaggedOutput(KEY, (record.key, file, record.frame))


def part_items(number: int, *, job: Job) -> Iterator[Item]:
    """The pictures of a part that was read."""
    for chunk, abouts in read_part(job, number):
        pictures, _ = work.load([chunk])
        for file, group in itertools.groupby(pictures, key=lambda picture: picture.file):
            yield from items(list(group), abouts[file], min_age=job.min_age, modality=job.modality)


def same_key(element: tuple[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Of a key and the places that have it: (file, frame, key) of the first, where there is another."""
    key, places = element
    places = sorted(places)
    if len(places) > 1:
        yield (*places[0], key)
