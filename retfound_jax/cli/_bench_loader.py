"""`retfound bench loader`: reading, decoding, cropping and batching, beside libjpeg-turbo and Pillow on the same records, in one run."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from retfound_jax.cli import _experiment
from retfound_jax.core.errors import UsageError

if TYPE_CHECKING:
    from retfound_jax.train.config import TrainConfig

SUMMARY = 'speed of the loader: --data DATASET or --phantom N [--originals DIR] [--end_to_end] [--json FILE]'
_ORIGINALS = 4  # photographs drawn as a stand-in for those of a camera


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('data', '', 'dataset that ingest wrote', flag_values=values)
    flags.DEFINE_integer('phantom', 0, 'instead of --data: photographs to draw and ingest for this run', flag_values=values, lower_bound=0)
    flags.DEFINE_string(
        'experiment', 'experiments.pretrain_mae:vit_s16', 'module:function that returns a TrainConfig: size, augmentation',
        flag_values=values,
    )
    flags.DEFINE_multi_string('set', [], 'path=value, as often as needed', flag_values=values)
    flags.DEFINE_integer('batch', 256, 'images of a batch', flag_values=values, lower_bound=1)
    flags.DEFINE_list('workers', ['0', '1', '2'], 'numbers of decoding processes; 0: threads of this one; empty: none', flag_values=values)
    flags.DEFINE_float('seconds', 5.0, 'of the loader, over its turns', flag_values=values, lower_bound=0.01)
    flags.DEFINE_integer('turns', 7, 'turns of each stage, limit and peer', flag_values=values, lower_bound=1)
    flags.DEFINE_string('originals', '', 'folder of photographs as they came, for the peer', flag_values=values)
    flags.DEFINE_integer(
        'original_px', 2048, 'without --originals and with --phantom: size of those drawn for the peer; 0: none', flag_values=values,
        lower_bound=0, upper_bound=2048,
    )
    flags.DEFINE_bool('end_to_end', False, 'also train: rate with the loader over that with one synthetic batch', flag_values=values)
    flags.DEFINE_integer('steps', 4, 'training steps of a turn', flag_values=values, lower_bound=1)
    flags.DEFINE_string('json', '', 'file for the results as JSON lines', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Measures, prints a table, and writes JSON lines where asked."""
    from retfound_jax.core.files import atomic_write
    from retfound_jax.data.sources import open_source
    from retfound_jax.speed import loader, pil_loader

    workers = _workers(values.workers)
    config = _config(values)
    originals = pil_loader.photographs(values.originals) if values.originals else []
    with tempfile.TemporaryDirectory() as folder:
        if values.phantom:
            config = _at(config, _draw(Path(folder), values.phantom))
            originals = originals or _draw_originals(Path(folder), values.original_px)
        source = open_source(dataclasses.replace(config.data, labels=()))
        records = loader.bench(
            dataclasses.replace(config.data, labels=(), resolution=()), source, turns=values.turns, seconds=values.seconds,
            workers=workers, originals=originals,
        )
        if values.end_to_end:
            from retfound_jax.speed import end_to_end

            records.append(end_to_end.bench(config, turns=values.turns, steps=values.steps))
    print(loader.table(records))
    if values.json:
        atomic_write(values.json, ''.join(json.dumps(record) + '\n' for record in [_about(config), *records]))


def _workers(words: list[str]) -> list[int]:
    """Numbers of processes, each once.

    Raises:
      UsageError: a word is no number from 0 up.
    """
    for word in words:
        if not word.strip().isdecimal():
            raise UsageError(f'--workers {",".join(words)} has "{word}"; give numbers of processes from 0 up, as in --workers 0,1,2')
    return sorted({int(word) for word in words})


def _config(values: flags.FlagValues) -> TrainConfig:
    """The experiment, on the dataset named.

    Raises:
      UsageError: neither or both of --data and --phantom are given, or the experiment is none.
    """
    if bool(values.data) == bool(values.phantom):
        raise UsageError('give either --data DATASET, which ingest wrote, or --phantom N to draw N photographs')
    config = _experiment.load(values.experiment, [f'data.batch_size={values.batch}', *values.set])
    return _at(config, values.data) if values.data else config


def _at(config: TrainConfig, path: Path | str) -> TrainConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(path), tfds_name='', phantom=None))


def _draw(folder: Path, count: int) -> Path:
    """A dataset of drawn photographs, all for training."""
    from retfound_jax.cli.main import run_verb

    _export(folder / 'photographs', count, size=256)
    with contextlib.redirect_stdout(io.StringIO()):  # what ingest tells of them is not asked here
        words = ['--source', str(folder / 'photographs' / 'images'), '--out', str(folder / 'dataset')]
        run_verb('ingest', [*words, '--val', '0', '--test', '0', '--workers', '0'])
    return folder / 'dataset'


def _draw_originals(folder: Path, size: int) -> list[Path]:
    from retfound_jax.speed.pil_loader import photographs

    if not size:
        return []
    _export(folder / 'originals', _ORIGINALS, size=size)
    return photographs(folder / 'originals' / 'images')


def _export(folder: Path, count: int, *, size: int) -> None:
    """Draws two photographs a patient, `count` of them or one more."""
    from retfound_jax.core.progress import bar
    from retfound_jax.data.phantom.config import PhantomConfig
    from retfound_jax.data.phantom.export import export

    config = PhantomConfig(patients=-(-count // 2), image_size=size)
    with bar(2 * config.patients, desc=f'drawing at {size} px') as progress:
        export(config, folder, tell=progress.update)


def _about(config: TrainConfig) -> dict[str, Any]:
    """What the numbers are of."""
    import importlib.metadata

    import jax

    from retfound_jax.core import environment

    libraries = {name: importlib.metadata.version(name) for name in ('simplejpeg', 'opencv-python-headless', 'pillow', 'array_record')}
    facts = environment.facts(devices=f'{jax.device_count()} {jax.devices()[0].device_kind}')
    return {'kind': 'run', 'experiment': config.name, **facts, 'libraries': libraries}
