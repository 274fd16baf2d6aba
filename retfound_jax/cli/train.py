"""`retfound train`: every kind of training, named as an experiment."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from retfound_jax.cli import _experiment, _hosts
from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UsageError

if TYPE_CHECKING:
    from retfound_jax.train.config import TrainConfig
    from retfound_jax.train.loop import Outcome

SUMMARY = 'every kind of training: --experiment module:function --workdir W'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('experiment', None, 'module:function that returns a TrainConfig', flag_values=values, required=True)
    flags.DEFINE_string('workdir', None, 'run directory to make or to go on with', flag_values=values)
    flags.DEFINE_multi_string('set', [], 'path=value, as often as needed', flag_values=values)
    flags.DEFINE_bool('resume', False, 'go on from the latest checkpoint', flag_values=values)
    flags.DEFINE_bool('overwrite', False, 'delete what the run directory holds', flag_values=values)
    flags.DEFINE_bool('print_config', False, 'print the configuration and stop', flag_values=values)
    flags.DEFINE_bool('dry_run', False, 'open the data, count parameters and steps, and stop', flag_values=values)
    _hosts.define(values)


def run(values: flags.FlagValues) -> None:
    """Trains, or prints what would be trained."""
    config = _experiment.load(values.experiment, values.set)
    if values.print_config:
        print(config_lib.to_json(config), end='')
    elif values.dry_run:
        _dry_run(config)
    else:
        _train(config, values)


def _train(config: object, values: flags.FlagValues) -> None:
    from retfound_jax.core.goodput import process_began
    from retfound_jax.evals.validation import validation_for
    from retfound_jax.train.loop import train

    if not values.workdir:
        raise UsageError('--workdir is missing; name the directory the run is to be kept in')
    validation = validation_for(config.task.kind, best_by=config.best_by)
    with _hosts.joined(values) as host:
        done = train(
            config,
            workdir=values.workdir,
            resume=values.resume,
            overwrite=values.overwrite,
            validation=validation,
            read_weights=functools.partial(read_weights, resample=config.task.kind != 'mae'),
            notice=host.notice,
            began=process_began() if sys.argv[1:2] == ['train'] else None,  # `quickstart` does other things before
        )
    if host.first:
        _tell(done, config, values.workdir)


def _tell(done: Outcome, config: TrainConfig, workdir: str) -> None:
    shown = ', '.join(f'{name} {value:.4f}' for name, value in done.metrics.items())
    speed = f', {done.images_per_second:.1f} images/s' if done.images_per_second else ', nothing left to do'
    print(f'{config.name}: {done.step} steps{speed}{"; validation: " + shown if shown else ""}')
    print(f'programs: {done.programs.compiled} compiled, {done.programs.loaded} loaded from an earlier start')
    if done.unreadable:
        print(f'{done.unreadable} records of the data could not be read and were passed over; {workdir}/bad_records lists them')
    print(f'run directory: {workdir}')


def read_weights(source: str, *, image_size: int, resample: bool = True) -> Mapping[str, np.ndarray]:
    """Parameters of other people's weights, positions at `image_size`; a masked autoencoder makes its own for any size."""
    from retfound_jax.interop import read

    return read.read_weights(source, image_size=image_size if resample else None).params


def _dry_run(config: object) -> None:
    import jax

    from retfound_jax.data.sources import open_source
    from retfound_jax.evals.validation import better
    from retfound_jax.train.config import align, resolve
    from retfound_jax.train.state import abstract_params, model_spec

    better(config.task.kind, best_by=config.best_by)  # a metric that there is not is told here, too
    config = align(config)
    source = open_source(config.data)
    config = resolve(config, source=source)
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(model_spec(config.task))))
    print(f'{config.name}: {count / 1e6:.1f} M parameters, {len(source)} images, {config.steps} steps of {config.data.batch_size}')
    print(f'{dataclasses.asdict(config.mesh)} over {jax.device_count()} {jax.devices()[0].device_kind} devices')
