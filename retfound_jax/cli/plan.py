"""`retfound plan`: what an experiment would need and how fast it would be on machines that are not there."""

from __future__ import annotations

import json
from typing import Any

from absl import flags

from retfound_jax.cli import _experiment
from retfound_jax.core.errors import UsageError

SUMMARY = 'compile the step for a pod that is not there: fits or not, collectives, time, cost (modelled, not measured)'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('experiment', None, 'module:function that returns a TrainConfig', flag_values=values, required=True)
    flags.DEFINE_multi_string('set', [], 'path=value, as often as needed', flag_values=values)
    flags.DEFINE_string(
        'topology', None, 'chip:shape, such as v5e:16x16, v5p:4x4x8 or, without libtpu, cpu:8', flag_values=values, required=True
    )
    flags.DEFINE_integer('num_slices', 1, 'slices of that shape, joined by the network', flag_values=values, lower_bound=1)
    flags.DEFINE_float('images', 100e6, 'images to be seen, passes counted each', flag_values=values, lower_bound=1.0)
    flags.DEFINE_list('sweep', [], 'find the best that fits: any of batch, remat, mesh', flag_values=values)
    flags.DEFINE_list('batches', [], 'images a chip that a sweep of batch tries; left out: the own batch, doubled', flag_values=values)
    flags.DEFINE_float('images_per_core', 2500.0, 'images/s that one core of a host decodes', flag_values=values, lower_bound=1.0)
    flags.DEFINE_float('image_kb', 17.0, 'kB of a stored image', flag_values=values, lower_bound=0.1)
    flags.DEFINE_float('hbm_gib', 0.0, 'GiB that a program has of a device; 0: as the chip has', flag_values=values, lower_bound=0.0)
    flags.DEFINE_string('json', '', 'file to write the plan to, too', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Compiles, prints the plan or the table of a sweep, and writes JSON where asked."""
    from retfound_jax.speed import topologies
    from retfound_jax.speed.chips import parse_topology

    topology = parse_topology(values.topology, slices=values.num_slices)
    topologies.prepare(topology)  # before JAX is imported

    import jax

    from retfound_jax.speed.plan import Feed

    # Programs for devices that are not there cannot be read back from the cache.
    jax.config.update('jax_enable_compilation_cache', False)
    config = _experiment.load(values.experiment, values.set)
    devices = topologies.devices_of(topology)
    feed = Feed(images_per_core=values.images_per_core, image_bytes=values.image_kb * 1e3)
    (_sweep if values.sweep else _one)(config, values, topology=topology, devices=devices, feed=feed)


def _one(config: Any, values: flags.FlagValues, *, topology: Any, devices: list[Any], feed: Any) -> None:
    from retfound_jax.speed import show
    from retfound_jax.speed.plan import make_plan

    plan = make_plan(config, topology=topology, devices=devices, capacity=round(values.hbm_gib * 2**30))
    print(show.page(plan, images=values.images, feed=feed))
    _write(values.json, show.to_dict(plan, images=values.images, feed=feed) | {'versions': _versions()})


def _sweep(config: Any, values: flags.FlagValues, *, topology: Any, devices: list[Any], feed: Any) -> None:
    from retfound_jax.speed import show, sweep
    from retfound_jax.speed.plan import Plan, make_plan

    def make(candidate: sweep.Candidate) -> Plan:
        varied = sweep.apply(config, candidate, topology=topology)
        return make_plan(varied, topology=topology, devices=devices, capacity=round(values.hbm_gib * 2**30))

    chains = sweep.candidates(config, topology=topology, varied=values.sweep, batches=_whole_numbers(values.batches))
    plans = []
    for plan in sweep.sweep(chains, make):
        plans.append(plan)
        print(f'{len(plans)}: {show.layout_words(plan)}: {plan.verdict}', flush=True)
    chosen = sweep.best(plans)
    print(f'\n{show.comparison(plans, chosen)}')
    if chosen:
        print(f'\n{show.page(chosen, images=values.images, feed=feed)}')
    table = [show.to_dict(plan, images=values.images, feed=feed) for plan in plans]
    _write(values.json, {'versions': _versions(), 'recommended': plans.index(chosen) if chosen else None, 'layouts': table})


def _whole_numbers(words: list[str]) -> tuple[int, ...]:
    for word in words:
        if not word.strip().isdigit() or int(word) < 1:
            raise UsageError(f'--batches {word} is no whole number of images above 0')
    return tuple(int(word) for word in words)


def _versions() -> dict[str, str]:
    import importlib.metadata

    import jax

    found = {'jax': jax.__version__}
    try:
        found['libtpu'] = importlib.metadata.version('libtpu')
    except importlib.metadata.PackageNotFoundError:
        found['libtpu'] = 'not installed'
    return found


def _write(path: str, content: dict[str, Any]) -> None:
    from retfound_jax.core.files import atomic_write

    if path:
        atomic_write(path, json.dumps(content, indent=1) + '\n')
