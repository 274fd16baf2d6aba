"""FLOPs of the matrix products of compiled HLO: what the program really does, recomputation included.

A multiply and an add are two. On TPU XLA writes a matrix product as a convolution, and the batch of a product as a window that is mostly
padding: only the taps that meet an element are counted.
"""

from __future__ import annotations

import math
import re

import numpy as np

from retfound_jax.speed.hlo import Array, Instruction, Module

_LABELS = re.compile(r'dim_labels=(\w+)_(\w+)->(\w+)')
_CONTRACTED = re.compile(r'lhs_contracting_dims=\{([\d,]*)\}')
_WINDOW = re.compile(r'window=\{([^}]*)\}')


def matmul_flops(line: Instruction, names: dict[str, Instruction]) -> float:
    """FLOPs of one `dot` or `convolution`, 0 for anything else; `names` are the instructions of its computation."""
    if line.opcode == 'dot':
        left = names[line.operands[0]].arrays[0]
        dims = [int(dim) for dim in _CONTRACTED.search(line.attributes)[1].split(',') if dim]
        return 2.0 * math.prod(line.arrays[0].shape) * math.prod(left.shape[dim] for dim in dims)
    if line.opcode == 'convolution':
        return _convolution(line, names[line.operands[0]].arrays[0], names[line.operands[1]].arrays[0])
    return 0.0


def instruction_flops(module: Module, line: Instruction, names: dict[str, Instruction]) -> float:
    """FLOPs of the matrix products in one instruction; of a fusion, of all that is fused."""
    total = matmul_flops(line, names)
    for name in line.called.get('calls', ()):
        inner = {other.name: other for other in module.computations.get(name, ())}
        total += sum(instruction_flops(module, other, inner) for other in inner.values())
    return total


def _convolution(line: Instruction, left: Array, right: Array) -> float:
    in_labels, kernel_labels, out_labels = _LABELS.search(line.attributes).groups()
    out = line.arrays[0].shape
    window = _WINDOW.search(line.attributes)
    fields = dict(field.split('=') for field in window[1].split()) if window else {}
    spatial = [label for label in kernel_labels if label.isdigit()]
    taps = 1.0
    for place, label in enumerate(sorted(spatial)):
        taps *= _taps(
            size_in=left.shape[in_labels.index(label)],
            size_out=out[out_labels.index(label)],
            kernel=right.shape[kernel_labels.index(label)],
            stride=_field(fields, 'stride', place, 1)[0],
            pad=_field(fields, 'pad', place, 0)[0],
            dilate_in=_field(fields, 'lhs_dilate', place, 1)[0],
            dilate_kernel=_field(fields, 'rhs_dilate', place, 1)[0],
        )
    return 2.0 * out[out_labels.index('b')] * out[out_labels.index('f')] * right.shape[kernel_labels.index('i')] * taps


def _taps(*, size_in: int, size_out: int, kernel: int, stride: int, pad: int, dilate_in: int, dilate_kernel: int) -> int:
    """Pairs of an output place and a kernel place that meet an element of the input, along one axis."""
    places = np.arange(size_out)[:, None] * stride - pad + np.arange(kernel)[None] * dilate_kernel
    return int(((places >= 0) & (places <= (size_in - 1) * dilate_in) & (places % dilate_in == 0)).sum())


def _field(fields: dict[str, str], name: str, place: int, default: int) -> list[int]:
    """A window's numbers along one axis: `pad=2_2x15_15` has two along each."""
    return [int(number) for number in fields[name].split('x')[place].split('_')] if name in fields else [default]
