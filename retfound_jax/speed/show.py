"""Plans as text for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from retfound_jax.speed.collectives import Collective
from retfound_jax.speed.plan import LABEL, Feed, Plan, gib
from retfound_jax.speed.roofline import StepTime, weak_scaling
from retfound_jax.speed.tables import aligned

# Assumptions about collectives, by what a reader is told.
TOTALS = {
    'without overlap': lambda time: time.serial,
    'as compiled': lambda time: time.compiled,
    'with overlap': lambda time: time.overlapped,
}


def rows(collectives: Sequence[Collective]) -> list[dict[str, Any]]:
    """Collectives summed by kind, dtype and whether they overlap: runs a step, buffer and sent bytes a device."""
    table: dict[tuple[str, str, bool], dict[str, Any]] = {}
    for one in collectives:
        buffer = sum(one.bytes.values())
        for dtype, size in one.bytes.items():
            row = table.setdefault(
                (one.kind, dtype, one.overlapped),
                {'kind': one.kind, 'dtype': dtype, 'overlapped': one.overlapped, 'count': 0, 'bytes': 0, 'sent_bytes': 0.0},
            )
            row['count'] += one.count
            row['bytes'] += one.count * size
            row['sent_bytes'] += one.wire_bytes * size / buffer if buffer else 0.0
    return sorted(table.values(), key=lambda row: -row['sent_bytes'])


def to_dict(plan: Plan, *, images: float, feed: Feed) -> dict[str, Any]:
    """A plan as JSON values."""
    chip, topology = plan.topology.chip, plan.topology
    found: dict[str, Any] = {
        'label': LABEL,
        'experiment': plan.experiment,
        'topology': topology.name,
        'slices': topology.slices,
        'chips': topology.chips,
        'layout': dataclasses.asdict(plan.layout),
        'fits': plan.fits,
        'verdict': plan.verdict,
        'needed_bytes': plan.needed,
        'compile_seconds': plan.compile_seconds,
        'parameters': plan.parameters,
        'memory_bytes': dataclasses.asdict(plan.memory) | {'total': plan.memory.total} if plan.memory else None,
        'chip': {field.name: getattr(chip, field.name) for field in dataclasses.fields(chip)},
    }
    if plan.time is None:
        return found
    return found | {
        'collectives': rows(plan.collectives),
        'gradient_bytes': plan.gradient_bytes,
        'gradient_bytes_over_parameter_bytes': plan.gradient_bytes / (4 * plan.parameters),
        'model_flops_per_image': plan.model_flops,
        'program_flops_per_image': plan.program_flops,
        'loops_of_unknown_length': plan.unknown_loops,
        'stages': [dataclasses.asdict(stage) for stage in plan.time.stages],
        'step_seconds': {'device alone': plan.time.device} | {name: total(plan.time) for name, total in TOTALS.items()},
        'mfu': {name: plan.mfu(total(plan.time)) for name, total in TOTALS.items()},
        'weak_scaling': {name: weak_scaling(plan.time, total) for name, total in TOTALS.items()},
        'images_per_second': plan.images_per_second,
        'images': images,
        'hours': plan.hours(images),
        'chip_hours': plan.hours(images) * topology.chips,
        'feed': _feed(plan, feed),
    }


def page(plan: Plan, *, images: float, feed: Feed) -> str:
    """A plan as a page of text."""
    topology, layout = plan.topology, plan.layout
    slices = f' x {topology.slices} slices' if topology.slices > 1 else ''
    lines = [
        f'{plan.experiment} on {topology.name}{slices}: {topology.chips} chips, {topology.hosts} hosts ({LABEL})',
        f'  {layout_words(plan)}; {layout.batch} images a step, {layout.compute_dtype}',
        f'  {plan.verdict}',
        f'  compiled in {plan.compile_seconds:.0f} s; {plan.parameters / 1e6:.1f} M parameters',
    ]
    if plan.memory:
        lines += ['', 'memory of a device', *_memory_lines(plan)]
    if plan.time:
        lines += ['', 'collectives of a step, each device', *_collective_lines(plan), '', 'time of a step', *_time_lines(plan, plan.time)]
        lines += ['', f'{images:g} images', *_cost_lines(plan, images=images, feed=feed)]
    if topology.chip.assumed:
        lines += [
            '',
            f"no published figure stands behind {topology.chip.name}'s {', '.join(topology.chip.assumed)}: taken as in speed/chips.py",
        ]
    return '\n'.join(lines)


def layout_words(plan: Plan) -> str:
    """Mesh, batch and remat in words."""
    layout = plan.layout
    mesh = ' x '.join(f'{name} {size}' for name, size in layout.mesh.items() if size > 1) or 'one device'
    zero = ', moments split over data' if layout.zero else ''
    return f'mesh {mesh}{zero}; {layout.batch_per_chip:g} images a chip; remat {layout.remat or "unknown"}'


def comparison(plans: Sequence[Plan], chosen: Plan | None) -> str:
    """One line a layout, the recommended one marked."""
    head = ['', 'mesh', 'batch a chip', 'remat', 'memory', 'images/s', 'MFU', 'scaling', 'compiled']
    table = [head]
    for plan in plans:
        sizes = [f'{name}={size}' for name, size in plan.layout.mesh.items() if size > 1] + ['zero'] * plan.layout.zero
        mesh = ' '.join(sizes) or '-'
        start = ['*' if plan is chosen else '', mesh, f'{plan.layout.batch_per_chip:g}', plan.layout.remat or '-']
        if plan.time:
            rates = [
                f'{plan.images_per_second:,.0f}',
                f'{plan.mfu(plan.time.compiled):.1%}',
                f'{weak_scaling(plan.time, TOTALS["as compiled"]):.1%}',
            ]
            table.append([*start, gib(plan.memory.total), *rates, f'{plan.compile_seconds:.0f} s'])
        else:
            table.append(
                [*start, f'too large: {gib(plan.needed)}' if plan.needed else 'too large', '-', '-', '-', f'{plan.compile_seconds:.0f} s']
            )
    words = 'no layout fits' if chosen is None else '* recommended: the fastest that fits'
    return '\n'.join([f'layouts ({LABEL})', *aligned(table), words])


def _memory_lines(plan: Plan) -> list[str]:
    memory = plan.memory
    kinds = {
        'parameters': memory.parameters,
        'optimiser': memory.optimizer,
        'moving average': memory.ema,
        'batch': memory.batch,
        'activations and gradients': memory.temporaries,
        'program and padding': memory.other,
        'together': memory.total,
    }
    return aligned([[f'  {name}', gib(size), f'{size / memory.capacity:.1%}'] for name, size in kinds.items() if size])


def _collective_lines(plan: Plan) -> list[str]:
    table = [['  kind', 'dtype', 'runs', 'buffers', 'sent', 'beside work']]
    for row in rows(plan.collectives):
        beside = 'yes' if row['overlapped'] else 'no'
        table.append([f'  {row["kind"]}', row['dtype'], str(row['count']), gib(row['bytes']), gib(row['sent_bytes']), beside])
    share = plan.gradient_bytes / (4 * plan.parameters)
    sums = f'  sums over devices send {gib(plan.gradient_bytes)}, {share:.2f} x the parameters in float32'
    unknown = [f'  {plan.unknown_loops} loops of unknown length are counted once'] if plan.unknown_loops else []
    return [*aligned(table), sums, *unknown] if plan.collectives else ['  none']


def _time_lines(plan: Plan, time: StepTime) -> list[str]:
    table = [['  collectives', 'step', 'MFU', 'images/s', 'of a chip alone']]
    for name, total in TOTALS.items():
        seconds = total(time)
        rate = f'{plan.layout.batch / seconds:,.0f}'
        table.append([f'  {name}', f'{seconds * 1e3:.2f} ms', f'{plan.mfu(seconds):.1%}', rate, f'{weak_scaling(time, total):.1%}'])
    compute, memory = (sum(getattr(stage, name) for stage in time.stages) * 1e3 for name in ('compute', 'memory'))
    links = time.communication * 1e3
    more = f'{plan.program_flops / plan.model_flops - 1:+.1%}' if plan.model_flops else ''
    return [
        *aligned(table),
        f'  at published rates: arithmetic {compute:.2f} ms (recomputation {more}), memory {memory:.2f} ms, links {links:.2f} ms',
    ]


def _cost_lines(plan: Plan, *, images: float, feed: Feed) -> list[str]:
    need = _feed(plan, feed)
    stored, moved = need['storage_bytes_per_second_per_host'] / 1e6, need['to_device_bytes_per_second_per_host'] / 1e6
    return [
        f'  {plan.hours(images):,.2f} h, {plan.hours(images) * plan.topology.chips:,.0f} chip-hours, at the rate as compiled',
        f'  a host decodes {need["images_per_second_per_host"]:,.0f} images/s: {need["cores_per_host"]:.1f} cores at '
        f'{feed.images_per_core:,.0f} images/s a core',
        f'  a host reads {stored:,.0f} MB/s of JPEG, all together {need["storage_bytes_per_second"] / 1e9:,.2f} GB/s, and sends its chips '
        f'{moved:,.0f} MB/s',
        '  images a core and bytes an image are reference figures of another machine: `retfound bench loader` gives your own',
    ]


def _feed(plan: Plan, feed: Feed) -> dict[str, float]:
    rate, hosts = plan.images_per_second, plan.topology.hosts
    devices = plan.topology.chips * plan.topology.chip.cores
    to_device = plan.memory.batch * devices / plan.layout.batch
    return {
        'images_per_second_per_host': rate / hosts,
        'cores_per_host': rate / hosts / feed.images_per_core,
        'storage_bytes_per_second': rate * feed.image_bytes,
        'storage_bytes_per_second_per_host': rate * feed.image_bytes / hosts,
        'to_device_bytes_per_second_per_host': rate * to_device / hosts,
        'images_per_core': feed.images_per_core,
        'image_bytes': feed.image_bytes,
    }
