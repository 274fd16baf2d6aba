"""What a compiled step sends between devices: kind, dtype, bytes, groups, how often, and whether something is computed meanwhile."""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import numpy as np

from retfound_jax.speed.hlo import Array, Instruction, Module, Run

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute', 'collective-broadcast', 'ragged-all-to-all')
BETWEEN_SLICES = ' between slices'  # ends the kind of what goes over the network
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_TARGET = re.compile(r'_xla_megascale_target="\{([^}]*)\}')  # the slices that take part, numbered from 1
_LISTED = re.compile(r'replica_groups=\{((?:\{[\d,]*\},?)*)\}')
_IOTA = re.compile(r'replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)')
_MESH = re.compile(r'replica_groups=mesh\[([^\]]*)\](?:,\s*device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))?\s*\{([^}]*)\}')
_CHANNEL = re.compile(r'channel_id=(\d+)')
_PAIRS = re.compile(r'source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}')
# what costs no time of the arithmetic units: an asynchronous transfer with nothing else in between hides behind nothing
_IDLE = frozenset(
    'parameter constant tuple get-tuple-element bitcast copy-start copy-done after-all partition-id replica-id optimization-barrier'.split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """One collective of a step, on one device."""

    kind: str
    bytes: dict[str, int]  # by dtype, of one run: the whole buffer that the group sums, gathers or exchanges
    count: int  # runs in a step
    overlapped: bool  # asynchronous, with something to compute before it is waited for
    groups: np.ndarray  # [groups, members] of partition numbers
    op_name: str
    stage: str  # the computation that schedules it: a loop's body or the entry

    @property
    def members(self) -> int:
        """Devices of a group."""
        return self.groups.shape[1]

    @property
    def wire_bytes(self) -> float:
        """What each device sends in a step."""
        return self.sent(members=self.members)

    def sent(self, *, members: int) -> float:
        """What each device sends in a step in groups of so many, by ring: of a sum 2(n-1)/n of its buffer, of all else (n-1)/n.

        Source: Patarasu and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
        """
        buffer = self.count * sum(self.bytes.values())
        if self.kind.startswith('collective-'):
            return float(buffer)
        return buffer * (members - 1) / members * (2 if self.kind.startswith('all-reduce') else 1)

    @property
    def is_reduction(self) -> bool:
        """Whether it sums over devices, as gradients need; what is gathered or exchanged is parameters or activations."""
        return self.kind.startswith(('all-reduce', 'reduce-scatter'))


def collectives(module: Module, *, devices: int) -> list[Collective]:
    """Every collective of a program in order. Groups of one device are none.

    Of a pair of -start and -done the start is taken. On TPU an asynchronous one stands in several fusions, the products it runs beside, all
    with its channel: they are one.

    Args:
      devices: of the program, which a group list that is left empty means.
    """
    found: dict[tuple[str, str], Collective] = {}
    for run in module.runs():
        line = run.instruction
        kind = line.opcode.removesuffix('-start')
        if kind == 'send' and _TRANSFER.search(line.attributes):
            found[run.stage, line.name] = _between_slices(module, run)
        if kind not in KINDS:
            continue
        groups = _groups(line.attributes, devices=devices)
        channel = _CHANNEL.search(line.attributes)
        key = (run.stage, channel[1] if channel else line.name)
        overlapped = _overlapped(module, run)
        if key in found:
            found[key] = dataclasses.replace(found[key], overlapped=found[key].overlapped or overlapped)
        elif groups.shape[1] > 1:
            found[key] = Collective(
                # TPU fuses a sum with the slice that each device keeps of it: together, a reduce-scatter
                kind='reduce-scatter' if kind == 'all-reduce' and run.computation.startswith('all-reduce-scatter') else kind,
                bytes=_buffer(line, kind=kind, members=groups.shape[1]),
                count=run.count,
                overlapped=overlapped,
                groups=groups,
                op_name=next((name for name in (line.op_name, *(caller.op_name for caller in run.callers[::-1])) if name), ''),
                stage=run.stage,
            )
    return list(found.values())


def _between_slices(module: Module, run: Run) -> Collective:
    """The part of a collective over several slices that goes over the network: each chip and its like in the other slices.

    The parts within a slice are collectives of their own.
    """
    line = run.instruction
    slices = sum(int(last or first) - int(first) + 1 for first, last in re.findall(r'(\d+)(?::(\d+))?', _TARGET.search(line.attributes)[1]))
    return Collective(
        kind=_TRANSFER.search(line.attributes)[1].lower().replace('_', '-') + BETWEEN_SLICES,
        bytes={array.dtype: array.bytes for array in line.elements[0]},
        count=run.count,
        overlapped=_work_until_done(module, line),
        groups=np.arange(slices)[None],
        op_name=line.op_name,
        stage=run.stage,
    )


def _buffer(line: Instruction, *, kind: str, members: int) -> dict[str, int]:
    """Bytes by dtype of the buffer that the group works on."""
    arrays: tuple[Array, ...] = line.arrays
    if line.opcode.endswith('-start') and kind != 'all-reduce':
        arrays = line.elements[1]  # (operands, results, ...); an all-reduce's start has the results alone
    sizes: dict[str, int] = {}
    for array in arrays:
        sizes[array.dtype] = sizes.get(array.dtype, 0) + array.bytes * (members if kind == 'reduce-scatter' else 1)
    return sizes


def _overlapped(module: Module, run: Run) -> bool:
    """Whether anything is computed between the start and what waits for it; a collective inside a fusion runs beside the fusion's work."""
    for line in (*run.callers, run.instruction):
        if line.opcode == 'fusion' and _computes(module, line):
            return True
        if line.opcode.endswith('-start') or (line.opcode == 'fusion' and 'start' in line.name):
            return _work_until_done(module, line)
    return False


def _work_until_done(module: Module, start: Instruction) -> bool:
    lines = _computation_of(module, start)
    place = next(i for i, line in enumerate(lines) if line is start)
    waits = {start.name}
    for line in lines[place + 1 :]:
        if waits & set(line.operands):
            if line.opcode not in ('get-tuple-element', 'bitcast', 'tuple', 'async-update'):
                return False
            waits.add(line.name)
        elif line.opcode not in _IDLE and not line.opcode.endswith(('-start', '-done')):
            return True
    return False


def _computes(module: Module, fusion: Instruction) -> bool:
    """Whether a fusion that holds a collective also multiplies matrices."""
    return any(line.opcode in ('dot', 'convolution') for name in fusion.called.get('calls', ()) for line in module.inside(name))


def _computation_of(module: Module, wanted: Instruction) -> tuple[Instruction, ...]:
    return next(lines for lines in module.computations.values() if any(line is wanted for line in lines))


def _groups(attributes: str, *, devices: int) -> np.ndarray:
    """Partition numbers [groups, members] of any of the forms that XLA writes."""
    pairs = _PAIRS.search(attributes)
    if pairs:
        numbers = [int(number) for number in re.findall(r'\d+', pairs[1])]
        return np.array(numbers).reshape(-1, 2)
    mesh = _MESH.search(attributes)
    if mesh:
        return _mesh_groups(*mesh.groups())
    iota = _IOTA.search(attributes)
    if iota:
        shape, _, source = iota[1].partition('<=')
        return _iota(source).reshape(_numbers(shape))
    listed = _LISTED.search(attributes)
    groups = [_numbers(group) for group in re.findall(r'\{([\d,]*)\}', listed[1])] if listed else []
    return np.array(groups) if groups else np.arange(devices)[None]


def _mesh_groups(axes: str, order: str | None, transpose: str | None, split: str) -> np.ndarray:
    """`mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}`: a mesh of devices, and the axes that stand inside a group.

    `'b':(1)2` is the part of axis b with 1 before it and of size 2.
    """
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
    ids = np.arange(math.prod(sizes.values()))
    if order:
        ids = _iota(f'[{order}]' + (f'T({transpose})' if transpose else ''))
    shape, inside = [], []
    wanted = {name: (before, size) for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", split)}
    for name, size in sizes.items():
        before, part = wanted.get(name, ('1', '1'))
        before, part = (1, size) if name in wanted and not part else (int(before), int(part))
        inside.append(len(shape) + 1)
        shape += [before, part, size // before // part]
    ids = np.moveaxis(ids.reshape(shape), inside, range(-len(inside), 0))
    return ids.reshape(-1, functools.reduce(lambda total, axis: total * shape[axis], inside, 1))


def _iota(text: str) -> np.ndarray:
    """`[4,2]T(1,0)`: the numbers from 0 in that shape, transposed."""
    shape, _, transpose = text.partition('T')
    ids = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return ids.transpose(_numbers(transpose)) if transpose else ids


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', text)]
