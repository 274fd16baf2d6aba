"""What all readers of an evaluation's and a study's JSON share."""

from __future__ import annotations

from typing import Any


def real(value: Any) -> float | None:
    """A number as a float, None where the file says null."""
    return None if value is None else float(value)  # 'inf' is a float too
