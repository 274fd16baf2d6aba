"""Small training states, made without a model, and what is done to their files on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from retfound_jax.train.saves import Checkpoints
from retfound_jax.train.state import TrainState


def tiny(step: int, *, side: int = 48, **changes: Any) -> TrainState:
    """A state of a few arrays whose values are a function of `step`."""
    rng = np.random.default_rng(step)
    trees = {name: {'w': jnp.asarray(rng.normal(size=(side, side)), jnp.float32)} for name in ('params', 'opt_state', 'ema')}
    rest = {field.name: jnp.zeros((), jnp.int32) for field in dataclasses.fields(TrainState) if field.name not in trees}
    return TrainState(**(rest | trees | {'step': jnp.asarray(step, jnp.int32)} | changes))


def abstract(state: TrainState) -> TrainState:
    """Shapes, types and shardings of a state."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def assert_same(one: Any, other: Any) -> None:
    """Bit by bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save_steps(workdir: Path, *steps: int, **options: Any) -> None:
    """A directory with checkpoints of these steps; metrics of step k: a loss of 1 / k."""
    with Checkpoints(workdir, **options) as checkpoints:
        for step in steps:
            checkpoints.save(tiny(step), data={'step': step}, metrics={'loss': 1 / step})


def kept(workdir: Path) -> list[int]:
    """The steps on disk."""
    return sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit())


def largest(folder: Path) -> Path:
    """The file that holds the arrays."""
    return max((path for path in folder.rglob('*') if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path: Path, *, bit: int) -> None:
    """Changes one bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(raw))
