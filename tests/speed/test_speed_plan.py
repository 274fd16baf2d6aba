"""`retfound plan`: what it says of host devices is checked against a run on them; what it says of TPUs needs libtpu."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import types
from typing import Any

import pytest
from speed_programs import ROOT, on_eight

from retfound_jax.cli import plan as verb
from retfound_jax.cli._flags import parse
from retfound_jax.core.errors import UsageError
from retfound_jax.speed import plan, sweep, topologies
from retfound_jax.speed.chips import parse_topology

SMALL = ('task.model.encoder.scan=true', 'task.model.encoder.depth=2', 'data.batch_size=16')
needs_libtpu = pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu (the extra `plan`) is not installed')


def call(*words: str, changes: tuple[str, ...] = SMALL, experiment: str = 'pretrain_mae:small_cpu') -> subprocess.CompletedProcess[str]:
    """The verb in a process of its own, as its devices want it."""
    arguments = ['plan', f'--experiment=experiments.{experiment}', *words, *(f'--set={change}' for change in changes)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(('JAX_', 'XLA_'))}
    return subprocess.run(
        [sys.executable, '-m', 'retfound_jax', *arguments], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )


def test_a_plan_for_eight_host_devices_is_a_page_and_json(tmp_path):
    done = call('--topology=cpu:8', '--images=1e6', '--images_per_core=1000', '--image_kb=20', f'--json={tmp_path / "plan.json"}')
    assert done.returncode == 0, done.stderr
    assert 'modelled, not measured' in done.stdout and 'fits: ' in done.stdout and 'chip-hours' in done.stdout
    found = json.loads((tmp_path / 'plan.json').read_text())
    assert found['fits'] and found['layout']['mesh'] == {'data': 8, 'fsdp': 1, 'tensor': 1} and found['loops_of_unknown_length'] == 0
    # All that is trained is summed in float32, once: 2 (n-1)/n of the parameters, and a few scalars.
    assert found['gradient_bytes_over_parameter_bytes'] == pytest.approx(2 * 7 / 8, rel=1e-3)
    assert {row['dtype'] for row in found['collectives']} == {'f32'}
    assert found['memory_bytes']['parameters'] == 4 * found['parameters'] and found['memory_bytes']['ema'] == 0
    # No remat: the program multiplies what the model needs and hardly more (patches are picked by a product with zeros and ones).
    assert found['program_flops_per_image'] == pytest.approx(found['model_flops_per_image'], rel=2e-3)
    seconds = found['step_seconds']
    assert seconds['device alone'] <= seconds['with overlap'] <= seconds['as compiled'] <= seconds['without overlap']
    rate = 16 / seconds['as compiled']
    assert found['images_per_second'] == pytest.approx(rate) and found['hours'] == pytest.approx(1e6 / rate / 3600)
    assert found['chip_hours'] == pytest.approx(8 * found['hours'])
    assert found['feed']['cores_per_host'] == pytest.approx(rate / 1000) and found['feed']['storage_bytes_per_second'] == pytest.approx(
        rate * 20e3
    )


def test_a_layout_that_does_not_fit_is_a_result_and_says_by_how_much(tmp_path):
    done = call('--topology=cpu:8', '--hbm_gib=0.01', f'--json={tmp_path / "plan.json"}')
    assert done.returncode == 0, done.stderr
    assert 'does not fit: needs ' in done.stdout and ' too much' in done.stdout and 'MFU' not in done.stdout
    found = json.loads((tmp_path / 'plan.json').read_text())
    assert not found['fits'] and found['needed_bytes'] == found['memory_bytes']['total'] > 0.01 * 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """What a sweep asks of a plan."""

    candidate: sweep.Candidate
    fits: bool
    images_per_second: float
    memory: Any


def made(candidate: sweep.Candidate) -> Made:
    """Without remat 8 images fit, with it 64; a rate that flattens at 16 images; splits cost a tenth."""
    fits = candidate.batch_per_chip <= (8 if candidate.remat == 'none' else 64)
    rate = min(candidate.batch_per_chip, 16) * (0.9 if candidate.fsdp > 1 else 1.0) * (1.1 if candidate.remat == 'none' else 1.0)
    memory = types.SimpleNamespace(total=candidate.batch_per_chip)
    return Made(candidate=candidate, fits=fits, images_per_second=rate if fits else 0.0, memory=memory)


def test_a_chain_ends_where_a_batch_does_not_fit_or_brings_nothing():
    chains = {}
    for remat, fsdp in itertools.product(('none', 'dots'), (1, 4)):
        chains[remat, fsdp, False] = [sweep.Candidate(batch_per_chip=size, remat=remat, fsdp=fsdp) for size in (4, 8, 16, 32, 64, 128)]
    plans = list(sweep.sweep(chains, made))
    tried = {chain: [p.candidate.batch_per_chip for p in plans if p.candidate.chain == chain] for chain in chains}
    few, more = [4, 8, 16], [4, 8, 16, 32]
    assert tried == {(remat, fsdp, False): few if remat == 'none' else more for remat, fsdp, _ in chains}
    assert sweep.best(plans).candidate == sweep.Candidate(batch_per_chip=16, remat='dots', fsdp=1)
    assert sweep.best([plan for plan in plans if not plan.fits]) is None


def test_where_the_first_batch_is_too_large_halves_of_it_are_tried():
    chain = [sweep.Candidate(batch_per_chip=size, remat='none', fsdp=1) for size in (48, 96)]
    assert [plan.candidate.batch_per_chip for plan in sweep.sweep({chain[0].chain: chain}, made)] == [48, 24, 12, 6]
    assert [plan.candidate.batch_per_chip for plan in sweep.sweep({chain[0].chain: chain[:1]}, made)] == [48]


@pytest.mark.slow
def test_a_sweep_ends_where_a_batch_does_not_fit_and_recommends_what_fits(tmp_path):
    done = call('--topology=cpu:8', '--sweep=batch,mesh', '--batches=1,64,128', '--hbm_gib=0.05', f'--json={tmp_path / "sweep.json"}')
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'sweep.json').read_text())
    layouts = [(one['layout']['mesh']['fsdp'], one['layout']['zero'], one['layout']['batch_per_chip']) for one in found['layouts']]
    # What follows a batch that is too large is not compiled.
    assert layouts == [(fsdp, zero, batch) for fsdp, zero in ((1, False), (1, True), (4, False)) for batch in (1, 64)]
    assert [one['fits'] for one in found['layouts']] == [True, False] * 3
    chosen = found['layouts'][found['recommended']]
    assert chosen['fits'] and chosen['images_per_second'] >= 0.99 * max(one.get('images_per_second', 0) for one in found['layouts'])
    assert '* recommended' in done.stdout


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (('--topology=v5e:16x17',), 'did you mean "v5e:16x16"'),
        (('--topology=cpu:8', '--sweep=batc'), 'did you mean "batch"'),
        (('--topology=cpu:8', '--sweep=batch', '--batches=many'), '--batches many'),
        (('--topology=cpu:8', '--num_slices=2'), '--num_slices 2'),
        (('--topology=cpu:8', '--set=mesh.data=3'), 'mesh data=3'),
    ],
)
def test_a_wrong_call_is_one_sentence(words, says):
    done = call(*words)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_without_libtpu_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    values = parse('plan', verb, ['--experiment=experiments.pretrain_mae:vit_l16', '--topology=v5e:16x16'])
    with pytest.raises(UsageError, match=r'needs libtpu.*extra `plan`.*cpu:8'):
        verb.run(values)


def test_the_environment_is_set_before_jax_starts_and_other_flags_are_kept(monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_enable_fast_math=false --xla_force_host_platform_device_count=2')
    monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
    topologies.prepare(parse_topology('cpu:4'))
    assert os.environ['XLA_FLAGS'] == '--xla_cpu_enable_fast_math=false --xla_force_host_platform_device_count=4'
    assert os.environ['JAX_PLATFORMS'] == 'cpu'
    with pytest.raises(UsageError, match='process of its own'):
        topologies.devices_of(parse_topology('cpu:64'))


@pytest.mark.parametrize(
    ('message', 'needed', 'limit'),
    [
        (
            'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 16.07G of 15.75G hbm. Exceeded hbm capacity by 328.3M.',
            16.07,
            15.75,
        ),
        (
            'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (28.61G) exceeds available HBM '
            '(15.75G).',
            28.61,
            15.75,
        ),
        ('RESOURCE_EXHAUSTED: something new', None, None),
    ],
)
def test_what_a_compiler_says_that_ran_out_of_memory_is_read(message, needed, limit):
    found = plan.needed_memory(message)
    assert found == tuple(None if size is None else round(size * 2**30) for size in (needed, limit))
    assert plan.does_not_fit(found[0], 2**33).startswith('does not fit: ')


def test_what_a_sweep_varies_is_in_its_chains_and_nothing_else():
    from experiments.pretrain_mae import vit_l16

    topology = parse_topology('v5e:16x16')
    chains = sweep.candidates(vit_l16(), topology=topology, varied=('remat', 'mesh'))
    splits = ((1, False), (1, True), (4, False), (16, False))
    assert set(chains) == {(remat, *split) for remat in ('none', 'dots', 'full') for split in splits}
    assert all([one.batch_per_chip for one in chain] == [16] for chain in chains.values())
    (chain,) = sweep.candidates(vit_l16(), topology=topology, varied=('batch',), batches=(8, 2, 4)).values()
    (own,) = sweep.candidates(vit_l16(), topology=topology, varied=('batch',)).values()
    assert [one.batch_per_chip for one in own] == [16, 32, 64, 128, 256, 512, 1024]
    assert [one.batch_per_chip for one in chain] == [2, 4, 8] and {(one.remat, one.fsdp) for one in chain} == {('dots', 1)}
    config = sweep.apply(vit_l16(), sweep.Candidate(batch_per_chip=32, remat='full', fsdp=4), topology=topology)
    assert (config.data.batch_size, config.mesh.fsdp, config.task.model.encoder.remat) == (8192, 4, 'full')


_LIVE = """
import gc, json, sys
import jax, numpy as np
from retfound_jax.core import config as config_lib
from retfound_jax.core.mesh import batch_sharding
from retfound_jax.speed.plan import memory_of
from retfound_jax.train.config import assume
from retfound_jax.train.program import make_program

def kilobytes(name):
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith(name))

jax.config.update('jax_enable_compilation_cache', False)
config = config_lib.override(config_lib.load_function('experiments.pretrain_mae:vit_ti16')(), sys.argv[1:])
program = make_program(assume(config))
compiled = program.step.lower(program.abstract_state(), program.abstract_batch()).compile()
planned = memory_of(program, compiled, capacity=0)
state, seed = program.init_state(), jax.device_put(np.uint32(0))
batch = jax.device_put(program.random_batch(), batch_sharding(program.mesh))
jax.block_until_ready((state, batch))
live = {}
for array in jax.live_arrays():
    for shard in array.addressable_shards:
        live[shard.device.id] = live.get(shard.device.id, 0) + shard.data.nbytes
gc.collect()
open('/proc/self/clear_refs', 'w').write('5')
before = kilobytes('VmRSS')
jax.block_until_ready(compiled(state, batch, seed))
growth = (kilobytes('VmHWM') - before) * 1024 / len(live)
kept = planned.parameters + planned.optimizer + planned.ema + planned.batch
print(json.dumps({'live': max(live.values()), 'kept': kept, 'growth': growth, 'temporaries': planned.temporaries, 'total': planned.total}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/proc/self/clear_refs'), reason='the peak of resident memory can be reset on Linux alone')
@pytest.mark.parametrize(('devices', 'split'), [(2, 1), (4, 2)])
def test_planned_memory_is_what_lives_on_host_devices(devices, split):
    """State and batch: the bytes of live arrays. Temporaries: by how much resident memory grows at most in the first step.

    The CPU client counts no bytes (`memory_stats` is None), so the process is asked: Linux lets its high-water mark be reset just before
    the step. The first step, because later ones find pages that the allocator has kept.
    """
    changes = ['compute_dtype=float32', 'depth=3', 'scan=true']
    changes = [f'task.model.encoder.{change}' for change in changes] + ['task.model.decoder_depth=2', 'data.batch_size=32']
    found = on_eight(_LIVE, *changes, f'mesh.fsdp={split}', devices=devices)
    assert found['live'] == pytest.approx(found['kept'], rel=1e-3)
    assert found['growth'] == pytest.approx(found['temporaries'], rel=0.15)
    assert found['live'] + found['growth'] == pytest.approx(found['total'], rel=0.15)


TINY = ('task.model.encoder.depth=2', 'task.model.decoder_depth=2', 'data.batch_size=64')


@needs_libtpu
@pytest.mark.slow
def test_a_plan_for_a_tpu_that_is_not_there(tmp_path):
    done = call('--topology=v5e:2x2', f'--json={tmp_path / "plan.json"}', changes=TINY, experiment='pretrain_mae:vit_ti16')
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'plan.json').read_text())
    assert found['fits'] and found['loops_of_unknown_length'] == 0
    assert found['gradient_bytes_over_parameter_bytes'] == pytest.approx(2 * 3 / 4, rel=0.02)
    # Remat keeps the products but for those with a batch, scores and what they weigh: a few percent are computed twice.
    assert 1.0 <= found['program_flops_per_image'] / found['model_flops_per_image'] < 1.06


@needs_libtpu
@pytest.mark.slow
def test_a_tpu_that_is_too_small_is_named_by_the_compiler():
    done = call('--topology=v5e:2x2', changes=('data.batch_size=8192',), experiment='pretrain_mae:vit_l16')
    assert done.returncode == 0, done.stderr
    assert 'does not fit: needs ' in done.stdout and 'of 15.75 GiB a device' in done.stdout
