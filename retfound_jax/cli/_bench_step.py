"""`retfound bench step`: the training step of any experiment, beside a peer and the device's own limits, in one run."""

from __future__ import annotations

import importlib.util
import json
import os
import sys

from absl import flags

from retfound_jax.cli import _experiment
from retfound_jax.core.errors import UsageError

SUMMARY = 'speed of a training step on synthetic images: --experiment module:function [--peer torch] [--json FILE]'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('experiment', None, 'module:function that returns a TrainConfig', flag_values=values, required=True)
    flags.DEFINE_multi_string('set', [], 'path=value, as often as needed', flag_values=values)
    flags.DEFINE_integer('batch', None, 'images a step; as the experiment has it unless given', flag_values=values, lower_bound=1)
    flags.DEFINE_integer('steps', 20, 'steps of a turn', flag_values=values, lower_bound=1)
    flags.DEFINE_integer('turns', 5, 'turns of each side', flag_values=values, lower_bound=1)
    flags.DEFINE_enum('peer', None, ['torch'], 'library to measure beside ours, in a process of its own', flag_values=values)
    flags.DEFINE_string('peer_python', '', 'Python that has the peer; this one unless given', flag_values=values)
    flags.DEFINE_list('peer_modes', ['published', 'best'], 'published, best, or both', flag_values=values)
    ways = 'what best tries beside eager: default (of torch.compile), onednn+eager, ...; empty: nothing; unless given, by device'
    flags.DEFINE_list('peer_ways', None, ways, flag_values=values)
    flags.DEFINE_string('json', '', 'file for the results as JSON lines', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Measures, prints a table, and writes JSON lines where asked."""
    if values.peer:
        # The peer needs its share of a GPU's memory; JAX would take three quarters at its start.
        os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    from retfound_jax.core.files import atomic_write
    from retfound_jax.speed import step

    config = _experiment.load(values.experiment, [*values.set, *([f'data.batch_size={values.batch}'] if values.batch else [])])
    plan = step.Plan(
        steps=values.steps,
        turns=values.turns,
        peer_modes=tuple(values.peer_modes) if values.peer else (),
        peer_python=_python(values) if values.peer else '',
        peer_ways=None if values.peer_ways is None else tuple(values.peer_ways),
    )
    records = step.bench(config, plan=plan, say=lambda line: print(line, file=sys.stderr))
    print(step.table(records))
    if values.json:
        atomic_write(values.json, ''.join(json.dumps(record) + '\n' for record in records))


def _python(values: flags.FlagValues) -> str:
    """The interpreter of the peer."""
    if values.peer_python or importlib.util.find_spec(values.peer):
        return values.peer_python or sys.executable
    raise UsageError(f'--peer {values.peer} needs a Python that has {values.peer}, and this one has not; name one with --peer_python')
