"""How to time work on a device, and the limits of the device itself, measured the same way in the same run."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from retfound_jax.core import compile_cache

_MATMUL_SIZES = {'cpu': (1024, 2048), 'gpu': (4096, 8192), 'tpu': (4096, 8192)}  # rows and columns; the faster one counts
_COPY_BYTES = {'cpu': 2**28, 'gpu': 2**32, 'tpu': 2**30}  # far more than any cache
_REPEATS = 5
_CHAIN = 16  # products


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """A median and its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of one sample or more."""
        low, median, high = np.percentile(samples, (25, 50, 75))
        return cls(median=float(median), low=float(low), high=float(high))


def alternate(turns: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Lets each side take a turn, `turns` times around: what slows the machine for a while slows all of them.

    The order is reversed every second time around, so that no side always follows the same other.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(turns):
        for name in sides if turn % 2 == 0 else reversed(sides):
            taken[name].append(sides[name]())
    return taken


def seconds(function: Callable[[], Any], *, repeats: int = _REPEATS) -> list[float]:
    """Seconds of each call, its results waited for; a call before them that compiles and fills the caches is not counted."""
    jax.block_until_ready(function())
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function())
        taken.append(time.perf_counter() - start)
    return taken


def matmul_rate(dtype: str, *, device: jax.Device | None = None, sizes: Sequence[int] | None = None) -> float:
    """[FLOP/s] of large square products of random numbers in a chain, in the compute dtype: the median of the faster size.

    Not of zeros: on some chips they take less power and run faster than anything real.
    """
    device = jax.devices()[0] if device is None else device
    best = 0.0
    for size in sizes or _MATMUL_SIZES[_platform(device)]:
        repeats = 1 if _platform(device) == 'cpu' else _CHAIN  # so that the launch of a product does not count
        x, y = (jax.device_put(jax.random.normal(jax.random.key(i), (size, size), dtype) * size**-0.5, device) for i in range(2))

        @jax.jit
        def chain(x: jax.Array, y: jax.Array, repeats: int = repeats) -> jax.Array:
            for _ in range(repeats):  # unrolled: a loop would copy what it carries
                x = x @ y
            return x

        median = statistics.median(seconds(lambda chain=chain, x=x, y=y: chain(x, y)))
        best = max(best, 2 * size**3 * repeats / median)
    return best


def copy_rate(*, device: jax.Device | None = None, size: int | None = None) -> float:
    """[bytes/s] of a large copy within the device's memory, bytes read and written both counted."""
    device = jax.devices()[0] if device is None else device
    size = size or _COPY_BYTES[_platform(device)]
    x = jax.device_put(jnp.arange(size // 4, dtype=jnp.int32), device)
    copy = jax.jit(lambda x: x + 1)
    return 2 * size / statistics.median(seconds(lambda: copy(x)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes on one device."""

    bytes: int
    source: str  # 'peak in use', as the device counted; 'compiled', as the compiler planned: arguments, results and temporaries


def memory(compiled: jax.stages.Compiled, *, device: jax.Device | None = None) -> Memory:
    """The device's own peak where it keeps one, of the whole process so far; else what the program was compiled to need."""
    device = jax.devices()[0] if device is None else device
    stats = device.memory_stats()
    if stats and 'peak_bytes_in_use' in stats:
        return Memory(bytes=int(stats['peak_bytes_in_use']), source='peak in use')
    return Memory(bytes=compiled_bytes(compiled), source='compiled')


def compiled_bytes(compiled: jax.stages.Compiled) -> int:
    """Arguments, results and temporaries of a compiled program, what is donated counted once."""
    plan = compiled.memory_analysis()
    sizes = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes - plan.alias_size_in_bytes
    return int(sizes)


@dataclasses.dataclass
class Compiling:
    """How a compilation went; set at its end."""

    seconds: float = 0.0
    cache: str = 'off'  # the persistent cache: 'off', 'hit' (nothing was compiled), 'miss'


@contextmanager
def compiling() -> Iterator[Compiling]:
    """Times what is compiled inside it, and says whether the persistent cache had it."""
    result, before = Compiling(), compile_cache.counts()
    start = time.perf_counter()
    yield result
    result.seconds = time.perf_counter() - start
    if jax.config.jax_compilation_cache_dir and jax.config.jax_enable_compilation_cache:
        result.cache = 'miss' if compile_cache.counts().since(before).compiled else 'hit'


def _platform(device: jax.Device) -> str:
    return device.platform if device.platform in _MATMUL_SIZES else 'gpu'
