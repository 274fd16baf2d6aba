"""launch/local with a stand-in for retfound: what is started, told, ended, started again, and that nothing is left."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launch_calls import LAUNCH, call, hostile, load, refused, stand_in, wait_for

# Does what PLAN says for its number and start, as in {"1.0": "exit 1"}; all else is "exit 0". Each start leaves a file in ACTS.
PROGRAM = """
import json, os, pathlib, signal, subprocess, sys, time

words = sys.argv[1:]
flag = lambda name: [word.split('=', 1)[1] for word in words if word.startswith(f'--{name}=')]
acts, rank = pathlib.Path(os.environ['ACTS']), int((flag('process_id') or ['0'])[0])
start = len(list(acts.glob(f'{rank}.*.json')))
heard = []

def hear(number, frame):
    heard.append(signal.Signals(number).name)
    (acts / f'{rank}.{start}.heard').write_text(' '.join(heard))

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, hear)
plan = json.loads(os.environ.get('PLAN', '{}')).get(f'{rank}.{start}', 'exit 0').split()
worker = subprocess.Popen(['sleep', '600']).pid if 'worker' in plan else 0
said = {'words': words, 'pid': os.getpid(), 'worker': worker, 'environment': dict(os.environ)}
(acts / 'new').mkdir(exist_ok=True)
(acts / 'new' / f'{rank}').write_text(json.dumps(said))
os.replace(acts / 'new' / f'{rank}', acts / f'{rank}.{start}.json')
print(f'out of {rank}', flush=True)
print(f'error of {rank}', file=sys.stderr, flush=True)
if 'begin' in plan:
    folder = pathlib.Path(flag('workdir')[0])
    folder.mkdir(exist_ok=True)
    (folder / 'new').write_text('{}')
    os.replace(folder / 'new', folder / 'config.json')
if 'all' in plan:  # waits for the other one to have started, so that what happens next happens to both
    while not (acts / f'{1 - rank}.{start}.json').exists():
        time.sleep(0.01)
if 'exit' in plan:
    sys.exit(int(plan[plan.index('exit') + 1]))
if 'freeze' in plan:
    os.kill(os.getpid(), signal.SIGSTOP)
if 'die' in plan:
    os.kill(os.getpid(), signal.SIGKILL)
while not heard or 'deaf' in plan:
    time.sleep(0.01)
sys.exit(130 if 'SIGINT' in heard else 75)
"""


class Run:
    """A folder for the stand-in and what it leaves."""

    def __init__(self, folder: Path) -> None:
        self.acts = folder / 'acts'
        self.acts.mkdir()
        self.workdir = folder / 'my run'
        self.program = stand_in(folder, 'retfound', PROGRAM)

    def words(self, *flags: str, processes: int = 2, extra: tuple[str, ...] = ()) -> list[str]:
        """The words of a call."""
        own = ['--processes', str(processes), '--program', str(self.program), '--platform', 'cpu', *flags]
        return [*own, '--', 'train', '--experiment=a:b', f'--workdir={self.workdir}', *extra]

    def call(self, plan: dict[str, str], *flags: str, processes: int = 2, extra: tuple[str, ...] = (), **settings: str) -> Any:
        """A call to its end."""
        words = self.words(*flags, processes=processes, extra=extra)
        return call('local', *words, ACTS=str(self.acts), PLAN=json.dumps(plan), **settings)

    def begin(self, plan: dict[str, str], *flags: str) -> subprocess.Popen[str]:
        """A call that goes on; returns once both processes have started."""
        environment = {**os.environ, 'ACTS': str(self.acts), 'PLAN': json.dumps(plan)}
        command = [sys.executable, str(LAUNCH / 'local'), *self.words(*flags)]
        made = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: self.said(0) and self.said(1), 'two processes')
        return made

    def said(self, rank: int, start: int = 0) -> dict[str, Any]:
        """What a process was started with; nothing where it was not."""
        path = self.acts / f'{rank}.{start}.json'
        return json.loads(path.read_text()) if path.exists() else {}

    def heard(self, rank: int, start: int = 0) -> str:
        """The signals a process heard."""
        path = self.acts / f'{rank}.{start}.heard'
        return path.read_text() if path.exists() else ''

    def starts(self) -> int:
        """How often process 0 was started."""
        return len(list(self.acts.glob('0.*.json')))

    def left(self) -> list[int]:
        """Processes and workers that still live."""
        said = [json.loads(path.read_text()) for path in self.acts.glob('*.json')]
        return [pid for item in said for pid in (item['pid'], item['worker']) if pid and lives(pid)]


def lives(pid: int) -> bool:
    """Whether a process runs, or is stopped; a zombie has ended."""
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in 'ZX'


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_processes_are_told_who_they_are_and_where_the_first_is(run: Run) -> None:
    done = run.call({}, '--devices_per_process', '4', extra=('--set=x=1 2',), XLA_FLAGS='--a --xla_force_host_platform_device_count=8')
    assert done.returncode == 0, done.stderr
    first, second = run.said(0), run.said(1)
    assert first['words'][:4] == ['train', '--experiment=a:b', f'--workdir={run.workdir}', '--set=x=1 2']
    assert first['words'][4].startswith('--coordinator=127.0.0.1:') and first['words'][4] == second['words'][4]
    assert first['words'][5:] == ['--process_id=0', '--num_processes=2'] and second['words'][5:] == ['--process_id=1', '--num_processes=2']
    assert {name: second['environment'][name] for name in ('JAX_PLATFORMS', 'JAX_NUM_CPU_DEVICES', 'XLA_FLAGS')} == {
        'JAX_PLATFORMS': 'cpu',
        'JAX_NUM_CPU_DEVICES': '4',
        'XLA_FLAGS': '--a',
    }


def test_what_processes_are_told_is_what_retfound_reads(run: Run) -> None:
    from retfound_jax.core.launchers import find

    run.call({}, processes=3)
    for rank in range(3):
        flags = dict(word.removeprefix('--').split('=', 1) for word in run.said(rank)['words'][1:])
        found = find(
            coordinator=flags['coordinator'], process_id=int(flags['process_id']), num_processes=int(flags['num_processes']), environ={}
        )
        assert (found.index, found.count) == (rank, 3)


def test_one_process_needs_no_coordinator(run: Run) -> None:
    assert run.call({}, processes=1).returncode == 0
    assert run.said(0)['words'] == ['train', '--experiment=a:b', f'--workdir={run.workdir}']


def test_gpus_are_dealt_out(run: Run) -> None:
    run.call({}, '--platform', 'cuda', '--devices_per_process', '2', CUDA_VISIBLE_DEVICES='4,5,6,7')
    assert [run.said(rank)['environment']['CUDA_VISIBLE_DEVICES'] for rank in (0, 1)] == ['4,5', '6,7']


def test_output_is_told_apart(run: Run, tmp_path: Path) -> None:
    done = run.call({})
    assert done.stdout == 'out of 0\n'
    assert sorted(done.stderr.splitlines()) == ['[1] error of 1', '[1] out of 1', 'error of 0']
    done = run.call({}, '--logs', str(tmp_path / 'my logs'))
    assert (tmp_path / 'my logs' / 'process_0001.log').read_text() == 'out of 1\nerror of 1\n' and done.stdout == 'out of 0\n'


@pytest.mark.parametrize('code', [1, 2])
def test_failure_ends_the_others_and_is_not_started_again(run: Run, code: int) -> None:
    done = run.call({'1.0': f'all exit {code}', '0.0': 'wait'})
    assert (done.returncode, run.starts(), run.heard(0), run.left()) == (code, 1, 'SIGTERM', [])
    assert f'local: process 1 ended with code {code}' in done.stderr.splitlines()


def test_request_to_start_again_is_followed_and_the_run_resumed(run: Run) -> None:
    done = run.call({'0.0': 'begin exit 75', '1.0': 'exit 75'}, extra=('--overwrite', '--set=a=b'))
    assert done.returncode == 0 and run.starts() == 2
    assert '--overwrite' in run.said(0)['words'] and '--resume' not in run.said(0)['words']
    assert '--overwrite' not in run.said(1, 1)['words'] and '--resume' in run.said(1, 1)['words']
    assert '--set=a=b' in run.said(0, 1)['words']


@pytest.mark.parametrize('mode', [(), ('--overwrite',), ('--resume',)])
def test_run_that_had_not_begun_is_started_as_it_was(run: Run, mode: tuple[str, ...]) -> None:
    """An older run that lies there is not taken for this one: --resume would go on with it, and --overwrite was still to come."""
    run.workdir.mkdir()
    (run.workdir / 'config.json').write_text('{}')
    assert run.call({'0.0': 'exit 75', '1.0': 'exit 75'}, extra=mode).returncode == 0
    assert [word for word in run.said(0, 1)['words'] if word in ('--resume', '--overwrite')] == list(mode)


def test_run_on_an_object_store_is_resumed(run: Run) -> None:
    run.workdir = 's3://bucket/run'
    assert run.call({'0.0': 'exit 75'}, processes=1, extra=('--overwrite',)).returncode == 0
    assert run.said(0, 1)['words'][-1] == '--resume' and '--overwrite' not in run.said(0, 1)['words']


def test_death_by_a_signal_is_started_again(run: Run) -> None:
    done = run.call({'1.0': 'all die', '0.0': 'begin wait'})
    assert (done.returncode, run.starts(), run.heard(0), run.left()) == (0, 2, 'SIGTERM', [])
    assert 'local: process 1 was ended by SIGKILL; starting all again (1 of 3)' in done.stderr.splitlines()


def test_restarts_are_counted(run: Run) -> None:
    done = run.call({f'0.{start}': 'exit 75' for start in range(9)}, '--restarts', '2', processes=1)
    assert (done.returncode, run.starts()) == (75, 3)


def test_others_that_save_are_left_in_peace(run: Run) -> None:
    """To retfound a second SIGTERM is an order to end at once, in the middle of a save."""
    with run.begin({'0.0': 'wait', '1.0': 'wait'}) as made:
        made.send_signal(signal.SIGTERM)
        assert made.wait() == 75
    assert (run.heard(0), run.heard(1), run.starts(), run.left()) == ('SIGTERM', 'SIGTERM', 1, [])


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_signals_go_to_all(run: Run, number: signal.Signals, code: int) -> None:
    with run.begin({'0.0': 'wait', '1.0': 'wait'}) as made:
        made.send_signal(number)
        assert made.wait() == code
    assert (run.heard(0), run.heard(1), run.starts(), run.left()) == (number.name, number.name, 1, [])


@pytest.mark.parametrize('other', ['freeze', 'deaf'])
def test_process_that_does_not_end_is_killed(run: Run, other: str) -> None:
    done = run.call({'0.0': 'all exit 1', '1.0': other}, '--grace', '0.3')
    assert (done.returncode, run.starts(), run.left()) == (1, 1, [])


def test_frozen_process_does_not_hold_up_a_restart(run: Run) -> None:
    done = run.call({'0.0': 'all begin exit 75', '1.0': 'freeze'}, '--grace', '0.3')
    assert (done.returncode, run.starts(), run.left()) == (0, 2, [])


def test_workers_go_with_their_process(run: Run) -> None:
    assert run.call({'0.0': 'worker exit 0', '1.0': 'worker exit 0'}).returncode == 0
    assert run.said(0)['worker']
    wait_for(lambda: not run.left(), 'the end of all workers')


def test_nothing_is_left_where_the_launcher_itself_is_killed(run: Run) -> None:
    with run.begin({'0.0': 'deaf', '1.0': 'freeze'}) as made:
        made.kill()
        made.wait()
        wait_for(lambda: not run.left(), 'the end of both processes')


def test_dry_run_prints_what_would_be_run_and_does_nothing(run: Run) -> None:
    done = run.call({}, '--dry_run', '--port', '4711')
    assert done.returncode == 0 and not list(run.acts.iterdir()) and not run.workdir.exists()
    for rank, line in enumerate(done.stdout.splitlines()):
        joined = ['--coordinator=127.0.0.1:4711', f'--process_id={rank}', '--num_processes=2']
        expected = ['JAX_PLATFORMS=cpu', 'JAX_NUM_CPU_DEVICES=1', str(run.program), 'train', '--experiment=a:b', f'--workdir={run.workdir}']
        assert [word for word in shlex.split(line) if not word.startswith('XLA_FLAGS=')] == [*expected, *joined]


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        ((), 'behind -- stands nothing, not a call of train; end with: -- train --experiment module:function --workdir DIR'),
        (('--', 'trian'), 'behind -- stands "trian", not a call of train'),
        (('--', 'train', '--workdir=w'), 'there is no --experiment; add it'),
        (('--', 'train', '--experiment=a:b'), 'there is no --workdir; add it'),
        (('--processes', '0', '--', 'train'), '0 is too small; the least is 1'),
        (('--prozesse', '2', '--', 'train'), 'unrecognized arguments: --prozesse 2'),
        (('--proc', '2', '--', 'train'), 'unrecognized arguments'),
    ],
)
def test_wrong_call_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(call('local', *words), name='local')


def test_program_that_is_not_there_is_named(run: Run) -> None:
    run.program = Path('nowhere/retfound')
    done = run.call({}, processes=1)
    assert done.returncode == 2 and done.stderr.splitlines()[0] == 'nowhere/retfound cannot be started (No such file or directory)'


def test_first_call_makes_the_environment(run: Run, tmp_path: Path) -> None:
    root = tmp_path / 'my project'
    shutil.copytree(LAUNCH, root / 'launch', ignore=shutil.ignore_patterns('*.lock'))
    setup = 'set_up() { mkdir -p "$root/.venv/bin" && cp "$PROGRAM" "$root/.venv/bin/retfound"; }\nroot=$(dirname "${BASH_SOURCE[0]}")/..\n'
    (root / 'launch' / '_setup.sh').write_text(setup, encoding='utf-8')
    environment = {**os.environ, 'ACTS': str(run.acts), 'PROGRAM': str(run.program)}
    command = [str(root / 'launch' / 'local'), '--', 'train', '--experiment=a:b', '--workdir=w']
    environment['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), environment['PATH']])
    assert subprocess.run(command, env=environment, check=False, capture_output=True).returncode == 0
    assert run.said(0)['words'] == ['train', '--experiment=a:b', '--workdir=w']


@pytest.mark.parametrize(
    ('codes', 'code', 'restart'),
    [
        ([0, 0], 0, False),
        ([75, 0], 75, True),
        ([75, -9], 137, True),
        ([75, 139], 139, True),
        ([1, 75], 1, False),
        ([1, -9, 2], 2, False),
        ([130, 75], 130, False),
        ([-2], 130, False),
        ([3], 3, False),
        ([], 0, False),
    ],
)
def test_verdict_is_the_worst_end(codes: list[int], code: int, restart: bool) -> None:
    ends = load('_local.py').judge(list(enumerate(codes)))
    assert (ends.code, ends.restart) == (code, restart)


@settings(max_examples=50)
@given(st.lists(hostile, max_size=4), hostile)
def test_every_word_arrives_as_it_was(words: list[str], workdir: str) -> None:
    shown = load('_common.py').shown(['train', *words, f'--workdir={workdir}'], environment={'A': workdir})
    assert shlex.split(shown) == [f'A={workdir}', 'train', *words, f'--workdir={workdir}']


@pytest.mark.parametrize(
    ('words', 'kept', 'mode'),
    [
        (['train', '--resume'], ['train'], ['--resume']),
        (['train', '-overwrite', '--set', '--resume'], ['train', '--set', '--resume'], ['--overwrite']),
        (['--resume=false', '--overwrite=True'], [], ['--overwrite']),
        (['--resume', '--noresume'], [], []),
        (['--resumes', 'resume', '--set=a=--resume'], ['--resumes', 'resume', '--set=a=--resume'], []),
    ],
)
def test_modes_are_read_as_absl_reads_them(words: list[str], kept: list[str], mode: list[str]) -> None:
    assert load('_common.py').without_mode(words) == (kept, mode)


@pytest.mark.parametrize('name', ['local', 'slurm', 'kubernetes', 'tpu_pod', 'sweep'])
def test_launcher_can_be_executed_explains_itself_and_needs_no_environment(name: str) -> None:
    assert os.access(LAUNCH / name, os.X_OK)
    command = [sys.executable, '-S', str(LAUNCH / name), '--help']  # -S: no installed package is found
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and f'launch/{name}' in done.stdout and '--dry_run' in done.stdout and '-- train' in done.stdout
    assert done.stdout.count('\n') < 90 and len((LAUNCH / name).read_text('utf-8').splitlines()) < 250


TINY = """
import dataclasses

from experiments import pretrain_mae
from retfound_jax.data.phantom.config import PhantomConfig


def tiny():
    config = pretrain_mae.small_cpu(image_size=32)
    encoder = dataclasses.replace(config.task.model.encoder, width=32, depth=1, heads=2)
    model = dataclasses.replace(config.task.model, encoder=encoder, decoder_width=32, decoder_heads=2)
    return dataclasses.replace(
        config,
        name='tiny',
        epochs=0.0,
        warmup_epochs=0.0,
        steps=60,
        log_every=1,
        checkpoint_every=10,
        task=dataclasses.replace(config.task, model=model),
        data=dataclasses.replace(config.data, path='', phantom=PhantomConfig(patients=8, image_size=64), batch_size=8, workers=0),
        optim=dataclasses.replace(config.optim, warmup_steps=1),
    )
"""


@pytest.mark.slow
def test_real_run_goes_on_after_one_of_its_processes_was_killed(tmp_path: Path) -> None:
    """Two processes of retfound joined over gloo; the second is killed once steps were logged, and every step is there once at the end."""
    (tmp_path / 'tiny_experiment.py').write_text(TINY, encoding='utf-8')
    program = stand_in(tmp_path, 'retfound', f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m retfound_jax "$@"\n')
    workdir, flags = tmp_path / 'run', ['--processes', '2', '--platform', 'cpu', '--program', str(program)]
    command = [sys.executable, str(LAUNCH / 'local'), *flags, '--', 'train', '--experiment=tiny_experiment:tiny', f'--workdir={workdir}']
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(LAUNCH.parent), str(tmp_path)])}
    metrics = workdir / 'metrics.jsonl'
    with (tmp_path / 'output').open('wb') as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as made:
        wait_for(lambda: made.poll() is not None or (metrics.exists() and losses(metrics)[10:]), 'the tenth step', patience=300)
        os.kill(second(workdir), signal.SIGKILL)
        assert made.wait() == 0, (tmp_path / 'output').read_text()
    assert losses(metrics) == list(range(1, 61))
    assert 'process 1 was ended by SIGKILL; starting all again (1 of 3)' in (tmp_path / 'output').read_text()


def losses(metrics: Path) -> list[int]:
    """The steps whose loss is in the log."""
    lines = [line for line in metrics.read_text('utf-8').split('\n')[:-1] if line]
    return [item['step'] for item in map(json.loads, lines) if item.get('name') == 'loss']


def second(workdir: Path) -> int:
    """The number of process 1 of the run in that directory."""
    for path in Path('/proc').glob('[0-9]*/cmdline'):
        try:
            words = path.read_bytes().decode().split('\0')
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f'--workdir={workdir}' in words and '--process_id=1' in words:
            return int(path.parent.name)
    raise AssertionError('process 1 does not run')
