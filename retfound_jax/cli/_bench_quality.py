"""`retfound bench quality`: an experiment with and without a change, side by side, and whether its loss bears it."""

from __future__ import annotations

import json
import sys

from absl import flags

from retfound_jax.cli import _experiment
from retfound_jax.core import environment
from retfound_jax.core.errors import UserError

SUMMARY = 'what a cheaper step costs in loss: --experiment module:function --change path=value [--steps 500] [--limit 0.005]'

_PHANTOM = '{"patients": 60, "image_size": 128}'
_SMALL = ('data.path=', f'data.phantom={_PHANTOM}', 'data.batch_size=32', 'epochs=20', 'warmup_epochs=2')


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    small = 'left out: a small masked autoencoder on the phantom'
    flags.DEFINE_string('experiment', '', f'module:function that returns a TrainConfig; {small}', flag_values=values)
    flags.DEFINE_multi_string('set', [], 'path=value of both sides, as often as needed', flag_values=values)
    flags.DEFINE_multi_string('change', [], 'path=value of the changed side, as often as needed', flag_values=values)
    flags.DEFINE_integer('steps', 500, 'steps of each side', flag_values=values, lower_bound=1)
    flags.DEFINE_integer('seeds', 1, 'runs of both sides, each with a seed of its own', flag_values=values, lower_bound=1)
    flags.DEFINE_float('limit', 0.005, 'how much higher the changed loss may be, as a share', flag_values=values, lower_bound=0.0)
    flags.DEFINE_string('json', '', 'file for the result as a JSON line', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Trains, prints a table, writes JSON where asked; fails where the changed side is worse than the limit."""
    import jax

    from retfound_jax.core.files import atomic_write
    from retfound_jax.speed import quality

    name, small = (values.experiment, ()) if values.experiment else ('experiments.pretrain_mae:small_cpu', _SMALL)
    config = _experiment.load(name, [*small, *values.set])
    verdict = quality.compare(
        config,
        values.change,
        steps=values.steps,
        seeds=values.seeds,
        limit=values.limit,
        say=lambda line: print(line, file=sys.stderr),
    )
    print(quality.table(verdict))
    if values.json:
        devices = f'{jax.device_count()} {jax.devices()[0].device_kind} device(s)'
        record = {'experiment': config.name, 'set': list(values.set), **verdict.record(), **environment.facts(devices=devices)}
        atomic_write(values.json, json.dumps(record) + '\n')
    if not verdict.passed:
        raise UserError(f'{" ".join(values.change)} ends {verdict.excess:+.2%} above, more than {values.limit:+.2%}: do not use it')
