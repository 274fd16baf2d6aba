"""What an image costs an ingest beside the reading of its photograph, and whether that grows with the number of images."""

from __future__ import annotations

import gc
import itertools
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retfound_jax.ingest import hashes, pipeline
from retfound_jax.ingest.beam import job as jobs
from retfound_jax.ingest.beam import run, synthetic, twins
from retfound_jax.ingest.columns import Columns, People
from retfound_jax.ingest.duplicates import NEAR_THRESHOLD
from retfound_jax.ingest.plan import IngestConfig, Plan

FAR = 100_000_000  # [images] that the cost of an image is extrapolated to
# Shares of ones in drawn hashes: random ones, and such as agree in a band as often as those of retinas do (1 in 2**14, of 5,234).
EVEN, UNEVEN = 0.5, 0.28
_SPREAD = ('photographs are read', 'shards are written')  # steps of the workers; the others are of one machine
_NAMES = {'near': 'near pairs', 'share': 'a share of comparing'}


def bench_run(count: int, *, folder: Path, options: Sequence[str]) -> dict[str, Any]:
    """Synthetic photographs through the whole pipeline on Beam's in-process runner: seconds of each step, and of the processors."""
    steps: dict[str, float] = {}
    start = last = time.perf_counter()
    busy = _cpu_seconds()

    def lap(step: str) -> None:
        nonlocal last
        now = time.perf_counter()
        steps[step], last = now - last, now

    content = run.run(_plan(count, folder / f'beam_{count}'), options=options, process=synthetic.process, done=lap)
    seconds = time.perf_counter() - start
    return {
        'kind': 'ingest', 'how': 'beam', 'images': count, 'seconds': seconds, 'us_per_image': seconds / count * 1e6,
        'cpu_us_per_image': (_cpu_seconds() - busy) / count * 1e6,
        'steps_us_per_image': {name: taken / count * 1e6 for name, taken in steps.items()},
        'peak_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 'fingerprint': content['fingerprint'],
        'shards': len(content['shards']), 'duplicates': content['duplicates'],
    }


def bench_local(count: int, *, folder: Path) -> dict[str, Any]:
    """The same photographs by the local pipeline in this process."""
    start, busy = time.perf_counter(), _cpu_seconds()
    content = pipeline.run(_plan(count, folder / f'local_{count}'), process=synthetic.process)
    seconds = time.perf_counter() - start
    return {'kind': 'ingest', 'how': 'local', 'images': count, 'seconds': seconds, 'us_per_image': seconds / count * 1e6,
            'cpu_us_per_image': (_cpu_seconds() - busy) / count * 1e6, 'fingerprint': content['fingerprint']}


def bench_near(count: int, *, ones: float) -> dict[str, Any]:
    """The steps that seek near pairs, on drawn hashes and without Beam: seconds of the processor. ones: share of bits that are set."""
    rng = np.random.default_rng(count)
    drawn = [np.packbits(rng.random((min(1 << 14, count - begin), hashes.BITS)) < ones, axis=1) for begin in range(0, count, 1 << 14)]
    images = [(str(place), str(place), str(place), row.tobytes().hex()) for place, row in enumerate(itertools.chain(*drawn))]
    job = jobs.make_job(_plan(count, Path('none')), partial=Path('none'), process=synthetic.process)
    gc.collect()
    gc.freeze()  # the drawn hashes are not of the pipeline, and would be gone through with each collection
    start = time.process_time()
    looks: dict[int, list] = defaultdict(list)
    for image in images:
        number, plain = twins.by_look(image, job=job)
        looks[number].append(plain)
    blocks: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for group in looks.items():
        for found in twins.looks(group, job=job):
            if getattr(found, 'tag', None) == twins.BLOCK:
                blocks[found.value[0]].append(found.value[1])
    dealt = time.process_time()
    pairs = sum(len(list(twins.near(block, job=job))) // 2 for block in blocks.items())
    end = time.process_time()
    gc.unfreeze()
    return {'kind': 'near', 'ones': ones, 'images': count, 'cpu_us_per_image': (end - start) / count * 1e6, 'pairs': pairs,
            'compare_cpu_us_per_image': (end - dealt) / count * 1e6, **_sizes(list(blocks.values()), threshold=job.near_threshold)}


def bench_share(count: int, *, ones: float, shares: int = 4) -> dict[str, Any]:
    """One worker's share of the comparing of `count` hashes, drawn by itself: the largest bucket of the last band, and a few others.

    Which bits of the band lead to a bucket is known, and so is how many of `count` hashes have them: the share of a hundred
    million can be compared without the rest. Each image is in one such share for each band.
    """
    band = NEAR_THRESHOLD
    width = len(range(band, hashes.BITS, band + 1))
    values = np.arange(1 << width, dtype=np.uint32)
    places = twins.places_of(np.packbits(_bits(values, width), axis=1), count=twins.buckets(count))
    expected = count * ones ** np.bitwise_count(values) * (1 - ones) ** (width - np.bitwise_count(values).astype(float))
    totals = np.bincount(places, weights=expected)
    rng = np.random.default_rng(count)
    chosen = {int(totals.argmax()), *rng.integers(0, len(totals), shares).tolist()}
    seconds = rows = largest = 0
    for place in chosen:
        there = np.flatnonzero(places == place)
        sizes = rng.poisson(expected[there])
        planes = rng.random((sizes.sum(), hashes.BITS)) < ones
        planes[:, band::band + 1] = np.repeat(_bits(values[there], width), sizes, axis=0)
        packed = np.packbits(planes, axis=1)
        start = time.process_time()
        hashes.near_in_band(packed, band=band, threshold=band)
        seconds, rows, largest = seconds + time.process_time() - start, rows + len(packed), max(largest, int(sizes.max()))
    return {'kind': 'share', 'ones': ones, 'images': count, 'cpu_us_per_image': seconds / rows * (band + 1) * 1e6,
            'largest_bucket': largest, 'shares': len(chosen), 'most_for_one_worker': int(totals.max())}


def _bits(values: np.ndarray, width: int) -> np.ndarray:
    return (values[:, None] >> np.arange(width - 1, -1, -1, dtype=np.uint32) & 1).astype(np.uint8)


def table(records: Sequence[dict[str, Any]], *, workers: int) -> str:
    """The records for people, and how long very many images would take: extrapolated from the cost of the most that were run."""
    lines = [f'{"what":32}{"images":>11}{"CPU us/image":>14}{"of first":>10}{"us/image":>10}{"largest bucket":>16}']
    first: dict[str, float] = {}
    for record in records:
        name = record.get('how') or f'{_NAMES[record["kind"]]}, {record["ones"]:.0%} ones'
        cost = record['cpu_us_per_image']
        waited = f'{record["us_per_image"]:10.1f}' if 'us_per_image' in record else f'{record["largest_bucket"]:26,}'
        lines.append(f'{name:32}{record["images"]:11,}{cost:14.1f}{cost / first.setdefault(name, cost):10.2f}{waited}')
    runs = [record for record in records if record.get('how') == 'beam']
    if runs:
        lines.append(_extrapolated(runs[-1], workers=workers))
    return '\n'.join(lines)


def _extrapolated(run: dict[str, Any], *, workers: int) -> str:
    serial = sum(cost for step, cost in run['steps_us_per_image'].items() if step not in _SPREAD)
    alone, spread = (cost * FAR / 60e6 for cost in (serial, (run['cpu_us_per_image'] - serial) / workers))
    return (f'extrapolated, not run: {FAR:,} images on {workers} such cores, {spread:.1f} minutes, and {alone:.1f} of the one that '
            'starts it; beside listing and reading photographs')


def _plan(count: int, out: Path) -> Plan:
    listing = synthetic.listing(count)
    config = IngestConfig(source=str(out.parent), out=str(out), shard_bytes=4 << 20)  # tiny pictures: as many to a shard as of real ones
    columns = Columns(roles={}, labels=(), passed_over={})
    return Plan(config=config, listing=listing, table=None, columns=columns, rows={}, people=People(),
                files=tuple(file.path for file in listing.files))


def _sizes(blocks: list[list[bytes]], *, threshold: int) -> dict[str, int]:
    """The largest set of hashes that agree in a band, of the first band's; and the most that one worker gets."""
    most = max(sum(map(len, block)) for block in blocks) // (hashes.BITS // 8)
    rows = np.frombuffer(b''.join(blocks[0]), np.uint8).reshape(-1, hashes.BITS // 8)
    _, counts = np.unique(hashes.band_keys(rows, band=0, threshold=threshold), axis=0, return_counts=True)
    return {'largest_bucket': int(counts.max()), 'most_for_one_worker': most}


def _cpu_seconds() -> float:
    found: Callable[[int], Any] = resource.getrusage
    return sum(getattr(found(who), name) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN) for name in ('ru_utime', 'ru_stime'))
