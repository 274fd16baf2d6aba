"""`retfound bench parity`: loss and gradient on this accelerator against the CPU in float32."""

from __future__ import annotations

import json
import os

from absl import flags

from retfound_jax.cli import _experiment

SUMMARY = 'loss and gradient of an experiment on this device against the CPU in float32: --experiment module:function'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('experiment', None, 'module:function that returns a TrainConfig', flag_values=values, required=True)
    flags.DEFINE_multi_string('set', [], 'path=value, as often as needed', flag_values=values)
    flags.DEFINE_integer('batch', 4, 'images', flag_values=values, lower_bound=1)
    flags.DEFINE_string('json', '', 'file for the results as JSON lines', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Compares, prints a table, and writes JSON lines where asked."""
    if 'cpu' not in os.environ.get('JAX_PLATFORMS', 'cpu').split(','):
        os.environ['JAX_PLATFORMS'] += ',cpu'  # the reference is computed there
    from retfound_jax.core.files import atomic_write
    from retfound_jax.speed import parity
    from retfound_jax.speed.tables import aligned

    config = _experiment.load(values.experiment, values.set)
    records = parity.parity(config, batch=values.batch)
    print(f'{config.name} on {records[0]["device"]}, relative differences from the CPU in float32')
    print('\n'.join(aligned(parity.table(records))))
    if values.json:
        atomic_write(values.json, ''.join(json.dumps(record) + '\n' for record in records))
