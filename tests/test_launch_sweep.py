"""launch/sweep: names, refusals, what is left out when it is called again, and the same grid as a SLURM array."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch_calls import LAUNCH, call, load, refused, stand_in, wait_for

# Notes each call as a line of $ACTS/calls; ends with the code that $ACTS/codes has for its directory.
PROGRAM = """
import json, os, pathlib, signal, sys, time
acts = pathlib.Path(os.environ['ACTS'])
with (acts / 'calls').open('a') as file:
    file.write(json.dumps(sys.argv[1:]) + '\\n')
name = pathlib.Path(next(word for word in sys.argv if word.startswith('--workdir='))).name
codes = json.loads((acts / 'codes').read_text()) if (acts / 'codes').exists() else {}
if codes.get(name) == 'wait':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (acts / 'waiting').touch()
    while True:
        time.sleep(0.01)
sys.exit(codes.get(name, 0))
"""
GRID = ('--set', 'optim.peak=1e-4,3e-4', '--set', 'data.batch_size=64,128')
NAMES = ['peak=1e-4,batch_size=64', 'peak=1e-4,batch_size=128', 'peak=3e-4,batch_size=64', 'peak=3e-4,batch_size=128']
TRAIN = ('--', 'train', '--experiment=a:b', '--set=seed=7')


class Sweep:
    """A sweep's directory and a stand-in for retfound."""

    def __init__(self, folder: Path) -> None:
        self.acts, self.workdir = folder, folder / 'my sweep'
        self.program = stand_in(folder, 'retfound', PROGRAM)

    def words(self, *flags: str) -> list[str]:
        """The words of a call."""
        return ['--workdir', str(self.workdir), *GRID, '--program', str(self.program), '--restarts', '1', *flags, *TRAIN]

    def call(self, *flags: str, **codes: int | str) -> subprocess.CompletedProcess[str]:
        """A call; `codes` are what points end with, by number."""
        (self.acts / 'codes').write_text(json.dumps({NAMES[int(number[1:])]: code for number, code in codes.items()}))
        return call('sweep', *self.words(*flags), ACTS=str(self.acts), path=self.acts)

    def calls(self) -> list[list[str]]:
        """What was run since the last call of this."""
        path = self.acts / 'calls'
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path)


def run_points(calls: list[list[str]]) -> list[str]:
    """The directory of each call."""
    return [Path(word).name for words in calls for word in words if word.startswith('--workdir=')]


def test_points_run_in_turn_each_in_a_directory_of_its_own(sweep: Sweep) -> None:
    done = sweep.call()
    assert done.returncode == 0, done.stderr
    calls = sweep.calls()
    assert run_points(calls) == NAMES
    settings = ['--set=optim.peak=1e-4', '--set=data.batch_size=64', f'--workdir={sweep.workdir}/{NAMES[0]}', '--resume']
    assert calls[0] == ['train', '--experiment=a:b', '--set=seed=7', *settings]


def test_what_is_finished_is_left_out_and_the_rest_gone_on_with(sweep: Sweep) -> None:
    done = sweep.call(n1=1)
    assert done.returncode == 1 and run_points(sweep.calls()) == NAMES  # one that fails does not stop the others
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ['state', 'optim.peak', 'data.batch_size'] and rows[2][:3] == ['1', 'to', 'do'] and rows[3][:2] == ['2', 'finished']
    assert sweep.call().returncode == 0 and run_points(sweep.calls()) == [NAMES[1]]
    done = sweep.call()
    assert (done.returncode, done.stdout, sweep.calls()) == (0, 'all 4 points are finished\n', [])


def test_interrupted_point_is_started_again_at_once(sweep: Sweep) -> None:
    assert sweep.call(n0=75).returncode == 75
    assert run_points(sweep.calls()) == [NAMES[0], *NAMES]


def test_wrong_call_stops_the_sweep(sweep: Sweep) -> None:
    done = sweep.call(n1=2)
    assert done.returncode == 2 and run_points(sweep.calls()) == NAMES[:2] and f'stopped at {NAMES[1]}' in done.stderr


def test_signal_ends_the_point_and_the_sweep(sweep: Sweep) -> None:
    (sweep.acts / 'codes').write_text(json.dumps({NAMES[1]: 'wait'}))
    command = [sys.executable, str(LAUNCH / 'sweep'), *sweep.words()]
    with subprocess.Popen(command, env={**os.environ, 'ACTS': str(sweep.acts)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as made:
        wait_for((sweep.acts / 'waiting').exists, 'the second point')
        made.send_signal(signal.SIGTERM)
        assert made.wait() == 75
    assert run_points(sweep.calls()) == NAMES[:2]
    assert sweep.call().returncode == 0 and run_points(sweep.calls()) == NAMES[1:]


def test_table_shows_how_far_each_point_is(sweep: Sweep) -> None:
    sweep.call(n1=1)
    (sweep.workdir / NAMES[1]).mkdir()
    (sweep.workdir / NAMES[1] / 'config.json').touch()
    sweep.calls()
    done = sweep.call('--table')
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ['0', 'finished'],
        ['1', 'begun'],
        ['2', 'finished'],
        ['3', 'finished'],
    ]
    assert sweep.calls() == []


def test_dry_run_and_commands_print_what_would_be_run_and_do_nothing(sweep: Sweep) -> None:
    found = [shlex.split(line) for line in sweep.call('--dry_run').stdout.splitlines()]
    assert [words[0] for words in found] == [str(LAUNCH / 'local')] * 4 and run_points(found) == NAMES
    found = [shlex.split(line) for line in sweep.call('--commands').stdout.splitlines()]
    assert [words[:2] for words in found] == [['retfound', 'train']] * 4 and run_points(found) == NAMES
    assert sweep.calls() == [] and not sweep.workdir.exists()


def test_other_sweep_in_the_same_place_is_refused(sweep: Sweep) -> None:
    sweep.call()
    done = call('sweep', '--workdir', str(sweep.workdir), *GRID, '--', 'train', '--experiment=other:b')
    assert 'was finished by another call (train --experiment=a:b' in refused(done, name='sweep')


def test_grid_is_a_slurm_array(sweep: Sweep) -> None:
    """Each task runs its point, and one that ends well is left out of the next array."""
    stand_in(sweep.acts, 'srun', '#!/usr/bin/env bash\nwhile [ "${1#-}" != "$1" ]; do shift; done\nexec "$@"\n')
    slurm = ('--slurm', f'--partition gpu --gpus_per_task 8 --program {shlex.quote(str(sweep.program))}', '--at_once', '2')
    script = sweep.call('--dry_run', *slurm).stdout
    assert '#SBATCH --array=0-3%2\n' in script and '/%x-%A_%a.out\n' in script and '#SBATCH --partition=gpu\n' in script
    assert run_task(sweep, script, task=2) == 0
    calls = sweep.calls()
    assert run_points(calls) == [NAMES[2]] and calls[0][-1] == '--resume'
    assert '#SBATCH --array=0-2%2\n' in sweep.call('--dry_run', *slurm).stdout
    assert [line.split()[1] for line in sweep.call('--table').stdout.splitlines()[1:]] == ['to', 'to', 'finished', 'to']


def test_task_of_an_array_that_saved_is_requeued_by_its_own_number(sweep: Sweep) -> None:
    stand_in(sweep.acts, 'srun', '#!/usr/bin/env bash\nexit 75\n')
    stand_in(sweep.acts, 'squeue', '#!/usr/bin/env bash\n[ "$2" = --jobs=4700_2 ] && echo RUNNING\n')
    stand_in(sweep.acts, 'scontrol', '#!/usr/bin/env bash\necho "$@" >"$ACTS/requeued"\n')
    script = sweep.call('--dry_run', '--slurm', f'--program {shlex.quote(str(sweep.program))}').stdout
    assert run_task(sweep, script, task=2) == 75
    assert (sweep.acts / 'requeued').read_text() == 'requeue 4700_2\n' and not (sweep.workdir / 'finished').exists()


def run_task(sweep: Sweep, script: str, *, task: int) -> int:
    """Runs the script as one task of job 4700."""
    job = {'SLURM_JOB_ID': '4702', 'SLURM_ARRAY_JOB_ID': '4700', 'SLURM_ARRAY_TASK_ID': str(task)}
    (sweep.acts / 'script').write_text(script)
    path = os.pathsep.join([str(sweep.acts), os.environ['PATH']])
    environment = {**os.environ, 'PATH': path, 'ACTS': str(sweep.acts), **job}
    return subprocess.run(['bash', str(sweep.acts / 'script')], env=environment, check=False, capture_output=True).returncode


def test_array_goes_to_sbatch(sweep: Sweep) -> None:
    stand_in(sweep.acts, 'sbatch', '#!/usr/bin/env bash\ncat >"$ACTS/in"\necho 4711\n')
    done = sweep.call('--slurm', '')
    assert done.stdout == 'job 4711, 4 tasks\n' and (sweep.acts / 'in').read_text() == sweep.call('--dry_run', '--slurm', '').stdout


@pytest.mark.parametrize(
    ('settings', 'sentence'),
    [
        (('a=1e-3,0.001',), 'a has one value twice (1e-3 and 0.001)'),
        (('a=x,X',), 'a has one value twice (x and X)'),
        (('a=1,2', 'a=3'), 'a is set twice'),
        (('seed=1,2',), 'seed is set twice'),
        (('a=../up,b',), "a='../up' cannot be part of a directory's name"),
        (('a=/abs',), "cannot be part of a directory's name"),
        (('a=x y',), "cannot be part of a directory's name"),
        (('a=',), "a='' cannot be part of a directory's name"),
        (('a=1,,2',), "a='' cannot be part of a directory's name"),
        (('a=$(x)',), "cannot be part of a directory's name"),
        (('a=[1,2],[3,4]',), "a='[1,2]' cannot be part of a directory's name"),
        (('a',), "--set 'a' is not path=value,value,..."),
        (('a-b=1',), "--set 'a-b=1' is not path=value,value,..."),
        ((), 'there is nothing to sweep'),
        ((f'a={"x" * 250}',), 'is too long for the name of a directory'),
    ],
)
def test_grid_that_cannot_be_kept_apart_is_refused(settings: tuple[str, ...], sentence: str) -> None:
    flags = [word for setting in settings for word in ('--set', setting)]
    assert sentence in refused(call('sweep', '--workdir=w', *flags, *TRAIN), name='sweep')


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (('--workdir=w', *GRID, *TRAIN, '--workdir=x'), 'would be the same for all points'),
        (('--workdir=w', *GRID, *TRAIN, '--overwrite'), '--overwrite would delete'),
        (('--workdir=', *GRID, *TRAIN), '--workdir is empty'),
        ((*GRID, *TRAIN), 'the following arguments are required: --workdir'),
        (('--workdir=w', *GRID, '--slurm', "'", *TRAIN), 'cannot be read (No closing quotation)'),
        (('--workdir=w', *GRID, '--slurm', '--nodes 0', *TRAIN), '0 is too small'),
        (('--workdir=w', *GRID, '--table', '--commands', *TRAIN), 'not allowed with argument'),
    ],
)
def test_wrong_call_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(call('sweep', *words), name='sweep')


def test_names_are_short_where_they_can_be() -> None:
    grid = load('_grid.py')
    assert [point.name for point in grid.points({'a.rate': ['1'], 'b.size': ['2']}, words=[], workdir='w/')] == ['rate=1,size=2']
    assert [point.workdir for point in grid.points({'a.rate': ['1'], 'b.rate': ['2']}, words=[], workdir='w/')] == ['w/a.rate=1,b.rate=2']


def test_sweep_in_an_object_store_leaves_nothing_here() -> None:
    point = load('_grid.py').points({'a': ['1']}, words=[], workdir='gs://bucket/sweep')[0]
    assert (point.workdir, point.finished, point.state()) == ('gs://bucket/sweep/a=1', '', 'unknown')


@given(st.dictionaries(st.sampled_from(['a', 'a.b', 'c.b', 'd']), st.sets(st.integers(-9, 9), min_size=1, max_size=4), min_size=1))
def test_points_are_all_combinations_each_once(values: dict[str, set[int]]) -> None:
    grid = load('_grid.py')
    read = grid.read([f'{path}={",".join(map(str, items))}' for path, items in values.items()], fixed=[])
    points = grid.points(read, words=[], workdir='w')
    count = 1
    for items in values.values():
        count *= len(items)
    assert len({point.name for point in points}) == len({point.values for point in points}) == len(points) == count
    assert all(Path(point.workdir).parent == Path('w') for point in points)
