"""`retfound bench ingest`: what an image costs the Beam pipeline at growing numbers of images, beside the local run of the same."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from absl import flags

from retfound_jax.core.errors import UsageError

SUMMARY = 'cost of an image in an ingest of many: [--images 10000,100000] [--near 10000,100000] [--folder DIR] [--json FILE]'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_list('images', ['10000', '100000'], 'numbers of synthetic photographs, each through a whole ingest', flag_values=values)
    flags.DEFINE_list('near', ['10000', '100000', '1000000'], 'numbers of hashes for the search of near pairs alone', flag_values=values)
    flags.DEFINE_list(
        'shares', ['1000000', '10000000', '100000000'], 'numbers of hashes of which one worker compares its share', flag_values=values
    )
    flags.DEFINE_integer('workers', 1, 'processes of the runner', flag_values=values, lower_bound=1)
    flags.DEFINE_integer('cores', 100, 'for which the time of 100 million images is extrapolated', flag_values=values, lower_bound=1)
    flags.DEFINE_string('folder', '', 'for the datasets that are made and removed; left out: the temporary folder', flag_values=values)
    flags.DEFINE_string('json', '', 'file for the results as JSON lines', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Measures, prints a table, and writes JSON lines where asked."""
    from retfound_jax.core import environment
    from retfound_jax.core.files import atomic_write
    from retfound_jax.ingest.beam import bench
    from retfound_jax.ingest.beam.run import require, workers_options

    require()
    images, near, shares = (_numbers(name, getattr(values, name)) for name in ('images', 'near', 'shares'))
    records = []
    with tempfile.TemporaryDirectory(dir=values.folder or None) as folder:
        if images:
            records.append(bench.bench_local(images[0], folder=Path(folder)))
        for count in images:
            records.append(bench.bench_run(count, folder=Path(folder), options=workers_options(values.workers)))
            print(json.dumps(records[-1]), flush=True)
    for ones in (bench.EVEN, bench.UNEVEN):
        records += [bench.bench_near(count, ones=ones) for count in near]
        records += [bench.bench_share(count, ones=ones) for count in shares]
    print(bench.table(records, workers=values.cores))
    if values.json:
        about = {'kind': 'run', **environment.facts(devices='none')}
        atomic_write(values.json, ''.join(json.dumps(record) + '\n' for record in [about, *records]))


def _numbers(name: str, words: list[str]) -> list[int]:
    for word in words:
        if not word.strip().isdecimal() or not int(word):
            raise UsageError(f'--{name} {",".join(words)} has "{word}"; give numbers from 1 up, as in --{name} 10000,100000')
    return sorted({int(word) for word in words})
