"""The two pipelines of an ingest: photographs to facts and pairs of twins, then groups, splits and shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from retfound_jax.ingest.beam import job as jobs
from retfound_jax.ingest.beam import place, read, twins
from retfound_jax.ingest.beam.job import Job

if TYPE_CHECKING:
    import apache_beam as beam

PAIR, REJECT, TWICE, SIDES = 'pair', 'reject', 'twice', 'sides'  # kinds of facts
_FILES = 16  # that the facts of one kind are dealt to


def find_facts(root: beam.Pipeline, *, job: Job, parts: int) -> None:
    """Reads the photographs, and leaves pairs of twins, rejects and keys that are there twice in the folder of facts."""
    import apache_beam as beam

    found = _parts(root, parts) | 'read photographs' >> beam.FlatMap(read.fingerprints, job=job).with_outputs(
        read.REJECT, read.KEY, main='images')
    twice = found[read.KEY] | 'by key' >> beam.Map(lambda place: (place[0], place[1:])) | 'places of a key' >> beam.GroupByKey()
    results = {
        REJECT: found[read.REJECT],
        TWICE: twice | 'same key' >> beam.FlatMap(read.same_key),
        PAIR: (_exact(found['images'], job), *_near(found['images'], job)) | 'pairs' >> beam.Flatten(),
    }
    _leave(results, job)


def write_shards(root: beam.Pipeline, *, job: Job, parts: int) -> None:
    """Gives each picture its place and writes the shards, their parts of the index and their counts."""
    import apache_beam as beam

    placed = (
        _parts(root, parts)
        | 'read pictures' >> beam.FlatMap(place.by_patient, job=job)
        | 'pictures of patients' >> beam.GroupByKey()
        | 'place' >> beam.FlatMap(place.place, job=job).with_outputs(place.BINS, place.SIDE, main='items')
    )
    layout = beam.pvalue.AsSingleton(
        placed[place.BINS]
        | 'count bins' >> beam.CombineGlobally(place.add_bins)
        | 'lay out' >> beam.Map(place.Layout.of, shard_bytes=job.shard_bytes)
    )
    _ = (
        placed['items']
        | 'to shards' >> beam.FlatMap(place.to_shards, job=job, layout=layout)
        | 'pictures of shards' >> beam.GroupByKey()
        | 'write shards' >> beam.Map(place.write_shard, job=job, layout=layout)
    )
    sides = placed[place.SIDE] | 'pictures of groups' >> beam.GroupByKey() | 'two sides' >> beam.FlatMap(place.two_sides)
    _leave({SIDES: sides}, job)


def _parts(root: beam.Pipeline, count: int) -> beam.PCollection:
    import apache_beam as beam

    # The graph of the job holds one number, however many parts there are.
    return root | beam.Create([count]) | 'parts' >> beam.FlatMap(_numbers) | 'spread' >> beam.Reshuffle()


def _numbers(count: int) -> list[int]:
    return list(range(count))


def _exact(images: beam.PCollection, job: Job) -> beam.PCollection:
    import apache_beam as beam

    return (
        images
        | 'by pixels' >> beam.Map(twins.by_pixels, job=job)
        | 'same pixels' >> beam.GroupByKey()
        | 'copies' >> beam.FlatMap(twins.copies)
    )


def _near(images: beam.PCollection, job: Job) -> tuple[beam.PCollection, beam.PCollection]:
    import apache_beam as beam

    looks = (
        images
        | 'by look' >> beam.Map(twins.by_look, job=job)
        | 'same look' >> beam.GroupByKey()
        | 'looks' >> beam.FlatMap(twins.looks, job=job).with_outputs(twins.BLOCK, twins.FIRST, main='pairs')
    )
    ends = looks[twins.BLOCK] | 'same band' >> beam.GroupByKey() | 'near' >> beam.FlatMap(twins.near, job=job)
    pairs = (
        {'firsts': looks[twins.FIRST], 'ends': ends}
        | 'ends of pairs' >> beam.CoGroupByKey()
        | 'put ends' >> beam.FlatMap(twins.ends)
        | 'both ends' >> beam.GroupByKey()
        | 'meet' >> beam.FlatMap(twins.meet)
    )
    return looks['pairs'], pairs


def _leave(results: Mapping[str, beam.PCollection], job: Job) -> None:
    """Writes results, which are few beside the photographs, to files for the machine that started the job."""
    import apache_beam as beam

    kinds = [values | f'deal {kind}' >> beam.Map(_deal, kind=kind) for kind, values in results.items()]
    _ = kinds | 'results' >> beam.Flatten() | 'together' >> beam.GroupByKey() | 'leave' >> beam.Map(_write_facts, job=job)


def _deal(value: Sequence[Any], *, kind: str) -> tuple[tuple[str, int], Sequence[Any]]:
    return (kind, jobs.bucket(repr(value), _FILES)), value


def _write_facts(element: tuple[tuple[str, int], Any], *, job: Job) -> None:
    (kind, number), values = element
    jobs.write_lines(job.folder(jobs.FACTS) / f'{kind}-{number:02d}.jsonl', sorted(map(tuple, values)))
