"""Timing: turns alternate, waiting is included, the first call is not; the device's limits are of the size they must be."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from retfound_jax.speed import measure


def test_sides_take_turns_and_the_order_turns_round() -> None:
    order: list[str] = []
    sides = {name: lambda name=name: float(order.append(name) or len(order)) for name in 'abc'}
    taken = measure.alternate(3, sides)
    assert ''.join(order) == 'abc' 'cba' 'abc'
    assert taken == {'a': [1, 6, 7], 'b': [2, 5, 8], 'c': [3, 4, 9]}


def test_spread_is_the_median_and_its_quartiles() -> None:
    samples = [5.0, 1.0, 3.0, 2.0, 100.0]
    spread = measure.Spread.of(samples)
    assert (spread.low, spread.median, spread.high) == tuple(np.quantile(samples, (0.25, 0.5, 0.75)))
    assert measure.Spread.of([2.0]) == measure.Spread(median=2.0, low=2.0, high=2.0)


def test_seconds_leave_out_the_first_call_and_wait_for_results() -> None:
    calls: list[float] = []

    def work() -> jax.Array:
        calls.append(time.perf_counter())
        return jnp.zeros(3)

    assert len(measure.seconds(work, repeats=3)) == 3 and len(calls) == 4

    # A product takes long after its dispatch returned; a time without the wait would not grow with the size.
    def product(size: int) -> float:
        x = jnp.ones((size, size))
        matmul = jax.jit(lambda x: x @ x)
        return min(measure.seconds(lambda: matmul(x), repeats=3))

    assert product(1024) > 5 * product(128)


def test_matmul_rate_is_that_of_a_product_timed_by_numpy() -> None:
    """NumPy's BLAS is no part of ours: both must be of one order, whatever the machine."""
    rate = measure.matmul_rate('float32', sizes=(1024,))
    x = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    best = min(_seconds(lambda: x @ x) for _ in range(5))
    # Wide: NumPy's BLAS may be held to one thread, or share the cores with whatever else runs.
    assert 0.02 < rate / (2 * 1024**3 / best) < 50


def test_copy_rate_counts_what_is_read_and_what_is_written() -> None:
    size = 2**26
    rate = measure.copy_rate(size=size)
    x = np.zeros(size // 4, np.int32)
    best = min(_seconds(lambda: x + 1) for _ in range(5))
    assert 0.05 < rate / (2 * size / best) < 20


def _seconds(function: object) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def test_memory_is_labelled_by_where_it_comes_from_and_donation_is_counted_once() -> None:
    x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    plain = jax.jit(lambda x: x + 1).lower(x).compile()
    donated = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()
    assert measure.compiled_bytes(plain) == 2 * 4 * 1024**2 and measure.compiled_bytes(donated) == 4 * 1024**2
    found = measure.memory(donated)
    if jax.devices()[0].memory_stats() is None:  # the CPU keeps no count
        assert found == measure.Memory(bytes=4 * 1024**2, source='compiled')
    else:
        assert found.source == 'peak in use' and found.bytes > 0


@pytest.mark.parametrize(('on', 'states'), [(True, ('miss', 'hit')), (False, ('off', 'off'))])
def test_compiling_says_whether_the_cache_had_the_program(on: bool, states: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    if not jax.config.jax_compilation_cache_dir:
        pytest.skip('the persistent cache has no folder')
    before = jax.config.jax_enable_compilation_cache
    jax.config.update('jax_enable_compilation_cache', on)
    number = time.time_ns() % 10**6 / 7.0  # a program nobody has compiled before
    try:
        for state in states:
            lowered = jax.jit(lambda x: jnp.sin(x) * number).lower(jax.ShapeDtypeStruct((8,), jnp.float32))
            with measure.compiling() as compiling:
                lowered.compile()
            assert compiling.cache == state and compiling.seconds > 0
    finally:
        jax.config.update('jax_enable_compilation_cache', before)
