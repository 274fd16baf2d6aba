"""Numbers and tables for people, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def human(value: float) -> str:
    """With a decimal prefix: 1.23 G; the unit is to follow."""
    for prefix, size in (('P', 1e15), ('T', 1e12), ('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if value >= size:
            return f'{value / size:.{2 if value < 10 * size else 1}f} {prefix}'
    return f'{value:.1f} '


def duration(seconds: float) -> str:
    """In milliseconds, or from ten seconds on in seconds."""
    return f'{1000 * seconds:,.1f} ms' if seconds < 10 else f'{seconds:.1f} s'


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns under one another, the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append('  '.join(cells).rstrip())
    return lines
