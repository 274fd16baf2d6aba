"""What the step asks of XLA beyond its defaults, platform by platform, with the reason of each.

They travel as options of one compilation and not through XLA_FLAGS: an unknown name is then an error that can be caught instead of the
end of the process, other programs are left alone, and a step that is compiled for devices that are not there gets the same. A name that
stands in the user's XLA_FLAGS or LIBTPU_INIT_ARGS is left to the user.

Nothing is asked for a CPU. Tried on two cores (AMD EPYC, jaxlib 0.10.2, a MAE step of 4 + 2 blocks, widths 384 and 256, 224 px, batch 8,
median of 5 in turns; the same program twice: 1.00 and .98): xla_cpu_opt_preset=FAST_RUNTIME .97, xla_cpu_prefer_vector_width=512 .97,
the concurrency-optimised scheduler .97, xla_cpu_use_xnnpack=false .96, fast math 1.00, YNN for products 1.07, no fusion emitters 1.16;
oneDNN ends the process. Nothing here has been measured on a GPU or a TPU; what the compiler for a TPU makes of it is said below.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Mapping, Sequence

import jax

_TOOLBOX = 'docs.nvidia.com/jax-toolbox/performance-profiling/gpu-performance'
_MAXTEXT = 'AI-Hypercomputer/maxtext, benchmarks/xla_flags_library.py'
_OWN = 'compiled for v5e:4x4 with libtpu 0.0.42.1: a data-parallel step of ViT-L blocks'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """One option of XLA. All of these concern what travels between devices, so a single device is asked for none."""

    name: str
    value: bool | str
    why: str
    source: str


GPU = (
    Option(
        name='xla_gpu_enable_latency_hiding_scheduler',
        value=True,
        why='starts each collective as early, and waits for it as late, as the data allow',
        source=f'{_TOOLBOX}; on in the JAX-Toolbox images',
    ),
    Option(
        name='xla_gpu_enable_while_loop_double_buffering',
        value=True,
        why='blocks are a loop: two turns of it in one body let the parameters of the next block travel while this one computes',
        source=_TOOLBOX,
    ),
    Option(
        name='xla_gpu_enable_pipelined_all_gather',
        value=True,
        why='parameters split over fsdp are gathered a turn of the loop ahead',
        source=_TOOLBOX,
    ),
    Option(
        name='xla_gpu_enable_pipelined_reduce_scatter',
        value=True,
        why='gradients of one block are summed while the backward pass of the next one runs',
        source=_TOOLBOX,
    ),
    Option(
        name='xla_gpu_enable_pipelined_all_reduce',
        value=True,
        why='the same where parameters are whole',
        source=_TOOLBOX,
    ),
)

TPU = (
    Option(
        name='xla_enable_async_all_reduce',
        value='true',
        why='an all-reduce may run beside other work; by default the sum of gradients stops the chip',
        source=f'{_MAXTEXT}, CF_FOR_ALL_REDUCE',
    ),
    Option(
        name='xla_tpu_enable_async_collective_fusion',
        value='true',
        why='a collective runs inside the matrix product that hides it',
        source=f'{_MAXTEXT}, CF_FOR_ALL_REDUCE',
    ),
    Option(
        name='xla_tpu_enable_async_collective_fusion_fuse_all_reduce',
        value='true',
        why='... also an all-reduce, which is what data parallel gradients are',
        source=f'{_MAXTEXT}, CF_FOR_ALL_REDUCE',
    ),
    Option(
        name='xla_tpu_enable_async_collective_fusion_multiple_steps',
        value='true',
        why='... spread over several products, as one is too short for a large gradient',
        source=f'{_MAXTEXT}, CF_FOR_ALL_REDUCE',
    ),
    Option(
        name='xla_tpu_overlap_compute_collective_tc',
        value='true',
        why='the tensor core computes while it takes part in the collective',
        source=f'{_MAXTEXT}, CF_FOR_ALL_REDUCE',
    ),
    Option(
        name='xla_jf_crs_combiner_threshold_in_bytes',
        value='1000000',
        why='all gradients of a block in one all-reduce are ready only when nothing is left to hide it: of the 50 MB of a block none was '
        'hidden, with this two thirds; arrays under a megabyte still travel together',
        source=_OWN,
    ),
)

BY_PLATFORM: Mapping[str, tuple[Option, ...]] = {'gpu': GPU, 'cuda': GPU, 'tpu': TPU}


def compiler_options(devices: Sequence[jax.Device]) -> dict[str, bool | str]:
    """Options for a program that runs on `devices`, without those that the user has set and those that this XLA does not know."""
    options = BY_PLATFORM.get(devices[0].platform, ()) if len(devices) > 1 else ()
    taken = _taken()
    wanted = {option.name: option.value for option in options if option.name not in taken}
    here = [device for device in devices if device.process_index == jax.process_index()]
    unknown = unknown_options(wanted, device=(here or devices)[0])
    if unknown:
        print(f'retfound: this XLA does not know {", ".join(unknown)}, so the step is compiled without', file=sys.stderr)
    return {name: value for name, value in wanted.items() if name not in unknown}


def unknown_options(options: Mapping[str, bool | str], *, device: jax.Device) -> list[str]:
    """Names that the compiler for `device` refuses, each found by compiling next to nothing with it."""
    place = jax.sharding.SingleDeviceSharding(device)
    nothing = jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((), 'int32', sharding=place)) if options else None
    return [name for name, value in options.items() if not _takes(nothing, name, value)]


def _takes(program: jax.stages.Lowered, name: str, value: bool | str) -> bool:
    try:
        program.compile({name: value})
    except jax.errors.JaxRuntimeError as error:
        if f"No such compile option: '{name}'" in str(error):
            return False
        raise
    return True


def _taken() -> set[str]:
    given = ' '.join(os.environ.get(name, '') for name in ('XLA_FLAGS', 'LIBTPU_INIT_ARGS'))
    return set(re.findall(r'--([a-z]\w*)', given))
