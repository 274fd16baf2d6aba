"""Spikes of the loss or the gradient norm, told on the device from what the last steps measured.

A spike is what lies more than `factor` deviations above the median of the last WINDOW steps. The deviation is that of a normal
distribution with the same ninth decile, (q90 - median) / 1.2816: steps that climb into a spike, up to a tenth of the window, do not
widen it as they widen a standard deviation, so a spike that grows over ten steps is still one; and losses with a long upper tail (those
of a classifier that has learned) have a wide one, where the median absolute deviation sees every hard batch as a spike. While the loss
falls, the median lies above it, and nothing fires. The gradient norm counts by its logarithm: it varies by factors, and where it is
ordinarily twice its median now and then, that is no spike.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

WINDOW = 128  # [steps], as MaxText has it
FILLED = WINDOW // 2  # accepted steps that it takes to say what is usual
_NINTH_DECILE = 1.2816  # of the standard normal distribution
_LEAST = 1e-3  # deviation, as a share of the median loss and of the gradient norm: equal ones would make a spike of every rise
_TINY = 1e-37


def no_steps() -> jax.Array:
    """The memory before the first step: float32 [2, WINDOW], of `measured`, newest first, NaN where there was no step."""
    return jnp.full((2, WINDOW), jnp.nan, jnp.float32)


def measured(*, loss: jax.Array, norm: jax.Array) -> jax.Array:
    """What is remembered of a step, float32 [2]: its loss, and the logarithm of its gradient norm; not finite where they are not."""
    return jnp.stack([loss, jnp.log(jnp.maximum(norm, _TINY))]).astype(jnp.float32)


def remember(recent: jax.Array, newest: jax.Array, *, left_out: jax.Array) -> jax.Array:
    """Memory [2, WINDOW] with one step more: what it measured [2], or infinity where it was left out (bool [])."""
    newest = jnp.where(left_out, jnp.inf, newest)
    return jnp.concatenate([newest[:, None], recent[:, :-1]], axis=1)


def forget(recent: jax.Array) -> jax.Array:
    """Memory that knows which steps were left out and no longer what the others measured: a new image size has another loss."""
    return jnp.where(jnp.isinf(recent), recent, jnp.nan)


def left_out(recent: jax.Array) -> jax.Array:
    """How many of the steps in memory were left out, int32 []."""
    return jnp.isinf(recent[0]).sum(dtype=jnp.int32)


def limits(recent: jax.Array, *, factor: float) -> jax.Array:
    """The largest values that are no spike, float32 [2]; infinity while fewer than FILLED steps are in memory."""
    accepted = jnp.isfinite(recent)
    count = accepted[0].sum(dtype=jnp.int32)
    ordered = jnp.sort(jnp.where(accepted, recent, jnp.inf), axis=1)
    last = jnp.maximum(count - 1, 0)
    median, decile = ordered[:, last // 2], ordered[:, last * 9 // 10]
    least = _LEAST * jnp.stack([jnp.abs(median[0]), jnp.ones(())])
    deviation = jnp.maximum((decile - median) / _NINTH_DECILE, least)
    return jnp.where(count < FILLED, jnp.inf, median + factor * deviation)
