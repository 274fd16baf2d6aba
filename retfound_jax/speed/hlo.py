"""Compiled HLO read as text: computations, instructions, and how often each runs in one step.

XLA's own `cost_analysis` counts the body of a loop once, however often it runs. Here every instruction is visited with its number of
runs: the product of the trip counts of the loops around it. A trip count is the one XLA wrote down (`known_trip_count`, CPU and GPU), or
the bound of the loop's condition (TPU): loops of `lax.scan` count from 0 by 1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {'pred': 8, 'token': 0, 'opaque': 0}  # of a value; the other types have it in their name: bf16, c64, f8e4m3fn, u4
_BITS_IN_NAME = re.compile(r'[a-z]+?(\d+)')
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,<=\s]*)\](\{[^}]*\})?')
_HEADER = re.compile(r'^(ENTRY\s+)?%?([\w.\-]+)\s*\(.*\{\s*$')
_ASSIGNMENT = re.compile(r'^\s*(ROOT\s+)?%?([\w.\-]+) = ')
_OPCODE = re.compile(r'\s*([a-z][\w\-]*)\(')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(r'\b(calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)')
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONTROL = ('while', 'conditional', 'call')  # what they call is scheduled by itself
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array:
    """One array of a type: its element type, shape, and where it lies (0 the device's main memory, 1 and up faster ones)."""

    dtype: str
    shape: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> int:
        """Of the values, without padding."""
        found = _BITS_IN_NAME.match(self.dtype)
        bits = _BITS[self.dtype] if self.dtype in _BITS else int(found[1])
        return (math.prod(self.shape) * bits + 7) // 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
    """One line of a computation."""

    name: str
    opcode: str
    result: str  # its type as text
    operands: tuple[str, ...]  # names
    attributes: str  # all that stands after the operands
    is_root: bool = False
    text: str = ''  # what stands between the parentheses: a constant's value, a parameter's number

    @functools.cached_property
    def arrays(self) -> tuple[Array, ...]:
        """The arrays of the result, a tuple's in order."""
        return arrays_of(self.result)

    @functools.cached_property
    def elements(self) -> tuple[tuple[Array, ...], ...]:
        """The arrays of each element of a tuple result; of any other result, one element."""
        return tuple(arrays_of(part) for part in _split(self.result[1:-1])) if self.result.startswith('(') else (self.arrays,)

    @property
    def op_name(self) -> str:
        """The JAX operation it comes from, such as `jit(step)/transpose(jvp())/while/body/dot_general`."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else ''

    @functools.cached_property
    def called(self) -> dict[str, tuple[str, ...]]:
        """Computations it calls, by the attribute that names them."""
        return {key: tuple(_NAME.findall(value)) or (value.strip('{}'),) for key, value in _CALLED.findall(self.attributes)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """An instruction with how often one step runs it, and the calls that lead to it, outermost first."""

    instruction: Instruction
    computation: str
    stage: str  # the computation that schedules it: a loop's body, a branch, or the entry
    count: int
    callers: tuple[Instruction, ...] = ()

    @property
    def is_scheduled(self) -> bool:
        """Whether it stands in its stage itself, and not inside a fusion or another wrapper."""
        return self.computation == self.stage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Module:
    """A compiled program."""

    computations: dict[str, tuple[Instruction, ...]]
    entry: str

    def trip_count(self, loop: Instruction) -> int | None:
        """How often a `while` runs its body, or None where the text does not say."""
        known = _KNOWN_TRIPS.search(loop.attributes)
        if known:
            return int(known[1])
        condition = [*self.inside(loop.called['condition'][0])]
        bounds = {line.text for line in condition if line.opcode == 'constant' and line.result.startswith(('s32', 's64', 'u32'))}
        counts_up = [line for line in condition if line.opcode == 'compare' and 'direction=LT' in line.attributes]
        return int(bounds.pop()) if len(bounds) == 1 and len(counts_up) == 1 else None

    def inside(self, name: str) -> Iterator[Instruction]:
        """All instructions of a computation and of those it calls."""
        for line in self.computations.get(name, ()):
            yield line
            for names in line.called.values():
                for called in names:
                    yield from self.inside(called)

    def runs(self) -> Iterator[Run]:
        """Every instruction of the program with its count; those inside fusions and called computations too, reducers left out.

        A loop whose trip count is unknown is taken once; `unknown_loops` says how many there are.
        """
        yield from self._runs(self.entry, self.entry, 1, ())

    def _runs(self, name: str, stage: str, count: int, callers: tuple[Instruction, ...]) -> Iterator[Run]:
        for line in self.computations.get(name, ()):
            yield Run(instruction=line, computation=name, stage=stage, count=count, callers=callers)
            for key, names in line.called.items():
                if key == 'to_apply' and line.opcode != 'call':
                    continue  # the sum of a reduction, applied to single values
                times = (self.trip_count(line) or 1) if line.opcode == 'while' else 1
                for called in names:
                    yield from self._runs(called, called if line.opcode in _CONTROL else stage, count * times, (*callers, line))

    @property
    def unknown_loops(self) -> int:
        """Loops that `runs` takes once because their trip count is not in the text."""
        return sum(line.opcode == 'while' and self.trip_count(line) is None for lines in self.computations.values() for line in lines)


def parse(text: str) -> Module:
    """Reads `Compiled.as_text()`.

    Raises:
      ValueError: the text holds no ENTRY computation.
    """
    computations: dict[str, tuple[Instruction, ...]] = {}
    entry, name, lines = '', '', []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header and ' = ' not in line.split('(', 1)[0]:
            name, lines = header[2], []
            entry = name if header[1] else entry
        elif line.startswith('}') and name:
            computations[name], name = tuple(lines), ''
        elif name:
            instruction = _instruction(line)
            lines += [instruction] if instruction else []
    if not entry:
        raise ValueError('the text is no compiled HLO: it has no ENTRY computation')
    return Module(computations=computations, entry=entry)


def arrays_of(text: str) -> tuple[Array, ...]:
    """The arrays of a type such as `(f32[8,128]{1,0:T(8,128)S(1)}, s32[])`."""
    found = []
    for dtype, shape, layout in _ARRAY.findall(text):
        space = re.search(r'S\((\d+)\)', layout)
        sizes = tuple(int(size.strip('<= ')) for size in shape.split(',') if size.strip())
        found.append(Array(dtype=dtype, shape=sizes, space=int(space[1]) if space else 0))
    return tuple(found)


def _instruction(line: str) -> Instruction | None:
    found = _ASSIGNMENT.match(line)
    if not found:
        return None
    end = _closing(line, found.end()) if line[found.end()] == '(' else line.index(' ', found.end())
    opcode = _OPCODE.match(line, end)
    if not opcode:
        return None
    close = _closing(line, opcode.end() - 1)
    inner = line[opcode.end() : close - 1]
    return Instruction(
        name=found[2],
        opcode=opcode[1],
        result=line[found.end() : end],
        operands=tuple(_NAME.findall(inner)),
        attributes=line[close:],
        is_root=bool(found[1]),
        text=inner,
    )


def _closing(text: str, start: int) -> int:
    """The place after the parenthesis that closes the one at `start`."""
    depth = 0
    for place in range(start, len(text)):
        depth += {'(': 1, ')': -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    raise ValueError(f'a parenthesis is not closed: {text[:80]}')


def _split(text: str) -> list[str]:
    """Elements of a tuple type; commas inside brackets do not split."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += {'(': 1, '[': 1, '{': 1, ')': -1, ']': -1, '}': -1}.get(letter, 0)
        if letter == ',' and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]
