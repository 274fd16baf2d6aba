"""What the step of a small run compiles to on eight CPU devices; run as a program, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BATCH = 56  # 7 images a device, 28 a half: numbers that no other axis here has
_COLLECTIVE = re.compile(r'= (.+?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(')
_SHAPE = re.compile(r'([a-z]\w*)\[([\d,]*)\]')


def compile_all(overrides: list[list[str]]) -> list[dict[str, Any]]:
    """Of the tiny masked autoencoder's step on eight CPU devices, for each list of changes: collectives, as compiled and as `asked` for
    by the partitioned program (a CPU sums bfloat16 in float32), and the bytes of a device's arguments.
    """
    # Without the cache, as a program that is loaded is not partitioned again.
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=8'
    switches = {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu', 'JAX_ENABLE_COMPILATION_CACHE': '0'}
    here = Path(__file__).resolve()
    call = [sys.executable, str(here), json.dumps(overrides)]
    done = subprocess.run(call, env=os.environ | switches, capture_output=True, text=True, check=False, cwd=here.parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]


def collectives(text: str) -> list[dict[str, Any]]:
    """Kind and operands, as (dtype, shape), of each collective of a compiled program."""
    found = (match for line in text.splitlines() if (match := _COLLECTIVE.search(line)))
    return [{'kind': match[2], 'arrays': [(dtype, _sizes(shape)) for dtype, shape in _SHAPE.findall(match[1])]} for match in found]


def _sizes(shape: str) -> list[int]:
    return [int(size) for size in shape.split(',') if size]


def _main() -> None:
    import train_runs

    from retfound_jax.core.config import override
    from retfound_jax.train.config import assume
    from retfound_jax.train.program import make_program

    for changes in json.loads(sys.argv[1]):
        base = train_runs.mae(data=train_runs.data(batch_size=BATCH))
        program = make_program(assume(override(base, changes)))
        lowered = program.step.lower(program.abstract_state(), program.abstract_batch())
        with tempfile.TemporaryDirectory() as folder:
            compiled = lowered.compile({'xla_dump_to': folder, 'xla_dump_hlo_pass_re': 'spmd-partitioning'})
            (partitioned,) = Path(folder).glob('*jit_step*after_spmd-partitioning*.txt')
            asked = collectives(partitioned.read_text())
        memory = compiled.memory_analysis()
        found = {'collectives': collectives(compiled.as_text()), 'asked': asked, 'arguments': memory.argument_size_in_bytes}
        print(json.dumps(found), flush=True)


if __name__ == '__main__':
    _main()
