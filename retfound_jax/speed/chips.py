"""Accelerators by their published figures, and topologies by name: `v5e:16x16`, `cpu:8`.

Sources, read 2026-11:
  TPU: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}, the tables of key specifications. Interconnect there is "bidirectional, per
    chip", so half of it goes each way. The network between slices is given per chip for v5p, v6e and tpu7x, per pod of 256 for v5e.
  H100, H200, A100 (SXM): NVIDIA's data sheets as third parties quote them; the sheets themselves could not be read. Peaks are without
    sparsity, half of what the sheets of H100 and H200 print.
  `free`: libtpu 0.0.42.1's own words when a program was too large for one device.
Numbers that no source of these gives are named in `assumed`, and whoever prints one says so.
"""

from __future__ import annotations

import dataclasses
import math
import re

from retfound_jax.core.errors import UsageError, nearest

GIB = 2**30
_TOPOLOGY = re.compile(r'([a-z]\w*):(\d+(?:x\d+)*)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """What one chip can do at best; figures of a chip, not of a core."""

    name: str
    kinds: tuple[str, ...]  # `jax.Device.device_kind` of it
    flops: float  # [FLOP/s] bfloat16 matrix products
    hbm: int  # [bytes] of main memory, as sold
    hbm_bandwidth: float  # [bytes/s]
    link: float  # [bytes/s] out of the chip into the fast interconnect, all its links together
    network: float  # [bytes/s] out of the chip into the network between slices or hosts
    host: int  # chips of a host
    axes: int = 0  # dimensions of the torus; 0: every chip of a host reaches every other
    cores: int = 1  # devices that JAX shows of one chip
    free: float = 0.0  # [GiB] of a device that libtpu leaves to a program, as it says where one is too large; 0: not known
    assumed: tuple[str, ...] = ()  # fields without a source

    @property
    def is_tpu(self) -> bool:
        """Whether a topology of it can be compiled for by libtpu."""
        return bool(self.axes)

    @property
    def capacity(self) -> int:
        """[bytes] that a program has of one device."""
        return round(self.free * GIB) if self.free else self.hbm // self.cores


def _tpu(name: str, kind: str, **figures: object) -> Chip:
    return Chip(name=name, kinds=(kind,), **figures)


CHIPS = {
    chip.name: chip
    for chip in (
        _tpu(
            'v4',
            'TPU v4',
            flops=275e12,
            hbm=32 * GIB,
            hbm_bandwidth=1200e9,
            link=300e9,
            network=6.25e9,
            host=4,
            free=15.25,
            axes=3,
            cores=2,
            assumed=('link', 'network', 'host'),
        ),
        _tpu(
            'v5e',
            'TPU v5 lite',
            flops=197e12,
            hbm=16 * GIB,
            hbm_bandwidth=819e9,
            link=200e9,
            network=3.125e9,
            host=8,
            free=15.75,
            axes=2,
        ),
        _tpu(
            'v5p',
            'TPU v5',
            flops=459e12,
            hbm=95 * GIB,
            hbm_bandwidth=2765e9,
            link=600e9,
            network=6.25e9,
            host=4,
            free=95.74,
            axes=3,
        ),
        _tpu(
            'v6e',
            'TPU v6 lite',
            flops=918e12,
            hbm=32 * GIB,
            hbm_bandwidth=1638e9,
            link=400e9,
            network=12.5e9,
            host=8,
            free=31.25,
            axes=2,
        ),
        _tpu(
            'tpu7x',
            'TPU7x',
            flops=2307e12,
            hbm=192 * GIB,
            hbm_bandwidth=7380e9,
            link=600e9,
            network=12.5e9,
            host=4,
            free=94.75,
            axes=3,
            cores=2,
        ),
        Chip(
            name='h100',
            kinds=('NVIDIA H100 80GB HBM3',),
            flops=989e12,
            hbm=80 * GIB,
            hbm_bandwidth=3350e9,
            link=450e9,
            network=50e9,
            host=8,
            assumed=('network',),
        ),
        Chip(
            name='h200',
            kinds=('NVIDIA H200',),
            flops=989e12,
            hbm=141 * 10**9,
            hbm_bandwidth=4800e9,
            link=450e9,
            network=50e9,
            host=8,
            assumed=('network',),
        ),
        Chip(
            name='a100',
            kinds=('NVIDIA A100-SXM4-80GB',),
            flops=312e12,
            hbm=80 * GIB,
            hbm_bandwidth=2039e9,
            link=300e9,
            network=25e9,
            host=8,
            assumed=('network',),
        ),
        # A core pair of the machine that this project is developed on: 200 GFLOP/s of float32 products measured, the rest round numbers, so
        # that a plan can be tried without libtpu. Not a statement about anybody's CPU.
        Chip(
            name='cpu',
            kinds=('cpu',),
            flops=200e9,
            hbm=16 * GIB,
            hbm_bandwidth=20e9,
            link=5e9,
            network=1e9,
            host=8,
            assumed=('hbm', 'hbm_bandwidth', 'link', 'network', 'host'),
        ),
    )
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls by this `device_kind`, or None where its figures are not known."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.kinds), None)


# Slices that the vendor's tables and libtpu know; others of the same chip are answered with the nearest of these.
_FLAT = ('2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_SOLID = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16', '8x16x16', '16x16x16')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """A slice of chips, or several of the same shape joined by the slower network."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        """As it is written: `v5e:16x16`."""
        return f'{self.chip.name}:{"x".join(map(str, self.shape))}'

    @property
    def chips(self) -> int:
        """Chips of all slices."""
        return math.prod(self.shape) * self.slices

    @property
    def hosts(self) -> int:
        """Hosts of all slices."""
        return max(1, self.chips // self.chip.host)


def parse_topology(text: str, *, slices: int = 1) -> Topology:
    """`v5e:16x16`, `v5p:4x4x8`, `cpu:8`.

    Raises:
      UsageError: there is no such chip or no such slice of it; the nearest is named.
    """
    names = [name for name, chip in CHIPS.items() if chip.is_tpu or name == 'cpu']
    found = _TOPOLOGY.fullmatch(text.strip().lower())
    if not found:
        raise UsageError(f'--topology {text} is not of the form chip:shape, such as v5e:16x16 or cpu:8{nearest(text, _examples())}')
    if found[1] not in names:
        known = f'; known are {", ".join(names)}'
        raise UsageError(f'--topology {text}: no plan can be made for the chip "{found[1]}"{nearest(found[1], names) or known}')
    chip, shape = CHIPS[found[1]], tuple(int(size) for size in found[2].split('x'))
    if slices < 1 or (slices > 1 and not chip.is_tpu):
        raise UsageError(f'--num_slices {slices} does not fit {text}: only slices of TPU are joined, one or more of them')
    known = slices_of(chip)
    if (known and shape not in known) or math.prod(shape) < 1 or (not known and len(shape) > 1):
        raise UsageError(f'--topology {text}: {chip.name} has no such slice, did you mean "{_nearest_slice(chip, shape)}"?')
    return Topology(chip=chip, shape=shape, slices=slices)


def slices_of(chip: Chip) -> tuple[tuple[int, ...], ...]:
    """Shapes that a slice of this chip can have; none for what has no torus."""
    names = {2: _FLAT, 3: _SOLID}.get(chip.axes, ())
    return tuple(tuple(int(size) for size in name.split('x')) for name in names)


def _nearest_slice(chip: Chip, shape: tuple[int, ...]) -> str:
    """Of the shapes of this chip the one whose number of chips is nearest, then the one most alike."""
    count = max(1, math.prod(shape))
    options = slices_of(chip) or ((count,),)
    padded = sorted(shape)[::-1] + [1] * 3

    def distance(option: tuple[int, ...]) -> tuple[float, float]:
        sides = sorted(option)[::-1]
        return abs(math.log2(math.prod(option) / count)), sum(abs(a - b) for a, b in zip(sides, padded, strict=False))

    best = min(options, key=distance)
    return f'{chip.name}:{"x".join(map(str, best))}'


def _examples() -> list[str]:
    return [f'{chip.name}:{"x".join(map(str, shape))}' for chip in CHIPS.values() for shape in slices_of(chip)] + ['cpu:8']
