"""What small steps cost as compiled, against committed values: a change that makes a step do more, move more or send more is seen.

Counted are FLOPs, bytes and collectives, not times, so any machine can tell. After a change that is meant, write the values anew with

    RETFOUND_JAX_WRITE_COMPILED=1 python -m pytest tests/speed/test_speed_compiled.py

and give the reason in the commit that changes them. The values are those of one version of jax, which stands in each file: another compiler
fuses otherwise, and on another version there is nothing to compare.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import compiled_costs
import jax
import pytest
from speed_programs import ROOT

COMMITTED = Path(__file__).parent / 'compiled'
WRITE = 'RETFOUND_JAX_WRITE_COMPILED'
COMMAND = f'{WRITE}=1 python -m pytest tests/speed/test_speed_compiled.py'
# What may differ on another machine with the same versions: XLA's CPU backend picks its loops, and with them its buffers, by the processor.
TOLERANCE = {'moved_bytes': 0.03, 'xla_flops': 0.02, 'xla_bytes': 0.03, 'temporary_bytes': 0.05}


def compiled(*cases: str) -> dict[str, Any]:
    """Version of jax and costs of each case, from a process with eight devices."""
    environment = os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=8', 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)}
    call = [sys.executable, str(Path(__file__).parent / 'compiled_costs.py'), *cases]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def read(case: str) -> dict[str, Any]:
    return json.loads((COMMITTED / f'{case}.json').read_text(encoding='utf-8'))


def differences(found: dict[str, Any], committed: dict[str, Any]) -> list[str]:
    """One line for each value that is not as committed, the change in percent."""
    lines = []
    for name in sorted(committed.keys() | found.keys()):
        old, new = committed.get(name), found.get(name)
        if name == 'collectives':
            for kind in sorted(old.keys() | new.keys()):
                if old.get(kind) != new.get(kind):
                    lines.append(f'{kind}: {_words(old.get(kind))}, now {_words(new.get(kind))}')
        elif abs(new - old) > TOLERANCE.get(name, 0.0) * old:
            lines.append(f'{name}: {old:,.0f}, now {new:,.0f} ({new / old - 1:+.1%})')
    return lines


def _words(row: dict[str, int] | None) -> str:
    return f'{row["count"]} of {row["bytes"]:,} bytes' if row else 'none'


@pytest.mark.parametrize('case', sorted(compiled_costs.CASES))
def test_a_small_step_costs_what_is_committed(case):
    if os.environ.get(WRITE):
        found = compiled(case)
        content = {'jax': found['jax'], 'costs': found['costs'][case]}
        (COMMITTED / f'{case}.json').write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    committed = read(case)
    if committed['jax'] != jax.__version__:
        pytest.skip(f'the committed costs are of jax {committed["jax"]}, and this is {jax.__version__}')
    lines = differences(compiled(case)['costs'][case], committed['costs'])
    told = '\n  '.join([f'the compiled step of {case} is not what is committed:', *lines])
    assert not lines, f'{told}\nIf this is meant: {COMMAND}, and say in the commit why the step changed.'


def test_every_file_has_its_case():
    assert {path.stem for path in COMMITTED.iterdir()} == set(compiled_costs.CASES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('how', 'case', 'seen'),
    [
        ('recomputed', 'mae_data8', {'product_flops'}),  # remat full for dots: the forward pass twice
        ('gathered', 'mae_data8', {'all-gather f32', 'temporary_bytes'}),  # the batch in float32 on every device
        ('unconstrained', 'mae_data2_fsdp4', {'product_flops', 'all-reduce f32', 'moved_bytes'}),  # activations leave their images
    ],
)
def test_a_step_made_worse_is_seen(how, case, seen):
    committed = read(case)
    if committed['jax'] != jax.__version__:
        pytest.skip(f'the committed costs are of jax {committed["jax"]}, and this is {jax.__version__}')
    lines = differences(compiled(how)['costs'][how], committed['costs'])
    assert seen <= {line.split(':')[0] for line in lines}


@pytest.mark.slow
@pytest.mark.parametrize('case', ['mae_data2_fsdp4', 'classifier_data2_fsdp4'])
def test_what_is_sent_does_not_grow_with_the_batch(case):
    """Parameters and gradients travel, activations never do."""
    few, many = (compiled(f'{case}@{batch}')['costs'][f'{case}@{batch}']['collectives'] for batch in (64, 256))
    sent = [sum(row['bytes'] for row in collectives.values()) for collectives in (few, many)]
    assert sent[1] <= 1.001 * sent[0]


def test_a_value_that_drifts_within_its_tolerance_passes_and_one_beyond_it_is_named():
    old = {'product_flops': 1000.0, 'temporary_bytes': 1000, 'collectives': {'all-reduce f32': {'count': 6, 'bytes': 10}}}
    near = old | {'temporary_bytes': 1040}
    assert differences(near, old) == []
    far = old | {'product_flops': 1001.0, 'temporary_bytes': 1100, 'collectives': {'all-reduce bf16': {'count': 6, 'bytes': 5}}}
    assert differences(far, old) == [
        'all-reduce bf16: none, now 6 of 5 bytes',
        'all-reduce f32: 6 of 10 bytes, now none',
        'product_flops: 1,000, now 1,001 (+0.1%)',
        'temporary_bytes: 1,000, now 1,100 (+10.0%)',
    ]
