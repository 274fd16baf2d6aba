"""Bytes that a compiled step moves to and from main memory, estimated from its text.

Every instruction reads its operands and writes its results once, each time it runs; what is inside a fusion stays in registers. Arrays
that XLA has placed in faster memory (`S(1)`, on TPU) cost nothing, and a slice costs what it takes, not what it is taken from. It is an
estimate: a matrix product that does not fit in fast memory reads operands more than once, and caches make others cheaper.
"""

from __future__ import annotations

from retfound_jax.speed.hlo import Array, Instruction, Module

# Instructions that move nothing themselves: names for what is there, control flow whose body is counted, the ends of transfers.
_FREE = frozenset(
    ['parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call', 'after-all', 'optimization-barrier']
)
# Calls that XLA:TPU writes for buffers that are only named: room for a loop's results, slices that already lie side by side.
_FREE_CALLS = ('"AllocateBuffer"', '"ConcatBitcast"')
_SLICES = ('dynamic-slice', 'slice', 'gather')
_ALIASES = ('bitcast', 'reshape')


def instruction_bytes(module: Module, line: Instruction, names: dict[str, Instruction]) -> float:
    """[bytes] that a scheduled instruction reads and writes in one run; `names` are the instructions of its computation."""
    if line.opcode in _FREE or line.opcode.endswith('-done') or any(target in line.attributes for target in _FREE_CALLS):
        return 0.0
    operands = [names[name] for name in line.operands if name in names]
    if line.opcode == 'fusion':
        return _fusion_cost(module, line, operands)
    if line.opcode in _SLICES:
        return 2 * _main(line.arrays)
    if line.opcode == 'dynamic-update-slice':
        return 2 * _main(operands[1].arrays)
    if line.opcode.endswith('-start'):
        destination = _destination(line)
        return _main(destination) + min(_main(operands[0].arrays), sum(array.bytes for array in destination))
    return _main(line.arrays) + sum(_main(operand.arrays) for operand in operands)


def _destination(start: Instruction) -> tuple[Array, ...]:
    """What an asynchronous transfer writes: of a copy the first element, of ((operands), results, ...) the second, of one result all."""
    if start.opcode == 'copy-start' or len(start.elements) == 1:
        return start.elements[0]
    return start.elements[1] if start.result.startswith('((') or start.opcode != 'all-reduce-start' else start.arrays


def _fusion_cost(module: Module, fusion: Instruction, operands: list[Instruction]) -> float:
    lines = {line.name: line for line in module.computations[fusion.called['calls'][0]]}
    parameters = {int(line.text): line for line in lines.values() if line.opcode == 'parameter'}
    read = sum(
        min(_main(operand.arrays), _used(module, parameters[place], lines)) for place, operand in enumerate(operands) if place in parameters
    )
    root = next(line for line in lines.values() if line.is_root)
    results = [lines[name] for name in root.operands] if root.opcode == 'tuple' else [root]
    written = 0.0
    for element, result in zip(fusion.elements, results, strict=False):
        written += min(_main(element), _written(result, lines))
    return read + written


def _used(module: Module, parameter: Instruction, lines: dict[str, Instruction]) -> float:
    """[bytes] of a fusion's parameter that are read: the slices where nothing else reads it, none where it is updated in place."""
    total, whole = 0.0, float(sum(array.bytes for array in parameter.arrays))
    for line in lines.values():
        if parameter.name not in line.operands:
            continue
        if line.opcode in _SLICES and line.operands[0] == parameter.name:
            total += sum(array.bytes for array in line.arrays)
        elif line.opcode == 'dynamic-update-slice' and line.operands[0] == parameter.name:
            continue
        elif line.opcode in _ALIASES:
            total += _used(module, line, lines)
        elif line.opcode == 'fusion':
            inner = {other.name: other for other in module.computations[line.called['calls'][0]]}
            places = {int(other.text): other for other in inner.values() if other.opcode == 'parameter'}
            total += sum(_used(module, places[i], inner) for i, name in enumerate(line.operands) if name == parameter.name)
        else:
            return whole
    return min(total, whole)


def _written(result: Instruction, lines: dict[str, Instruction]) -> float:
    """[bytes] that a result of a fusion writes: the update where it is one, else all of it."""
    while result.opcode in _ALIASES:
        result = lines[result.operands[0]]
    if result.opcode == 'dynamic-update-slice':
        result = lines[result.operands[1]]
    return float(sum(array.bytes for array in result.arrays))


def _main(arrays: tuple[Array, ...]) -> float:
    return float(sum(array.bytes for array in arrays if array.space == 0))
