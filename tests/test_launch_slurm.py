"""launch/slurm: the script is run by bash with stand-ins for SLURM's programs, which leave what they were called with."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from launch_calls import call, hostile, load, refused, stand_in

# Runs the program once a task, as srun does on three nodes of two tasks; its exit code is the highest one.
SRUN = """
import json, os, pathlib, subprocess, sys
words = sys.argv[1:]
own = [word for word in words[:words.index(next(word for word in words if not word.startswith('-')))]]
pathlib.Path(os.environ['ACTS'], 'srun.json').write_text(json.dumps(own))
step = {'SLURM_STEP_NODELIST': 'node[01-03]', 'SLURM_STEP_NUM_TASKS': '6', 'SLURM_STEP_ID': '0'}
ranks = range(6) if 'ALL' in os.environ else [0]
codes = [subprocess.call(words[len(own):], env={**os.environ, **step, 'SLURM_PROCID': str(rank)}) for rank in ranks]
sys.exit(max(codes))
"""
RETFOUND = """
import json, os, pathlib, sys
said = {'words': sys.argv[1:], 'environment': dict(os.environ)}
pathlib.Path(os.environ['ACTS'], f'{os.environ["SLURM_PROCID"]}.json').write_text(json.dumps(said))
sys.exit(int(os.environ.get('CODE', '0')))
"""
APPTAINER = '''#!/usr/bin/env bash
printf "%s\\0" "$@" >"$ACTS/apptainer"
while [ "$1" != my.sif ]; do shift; done
shift
exec "$@"
'''
NOTE = '#!/usr/bin/env bash\nprintf "%s\\0" "$@" >"$ACTS/$(basename "$0")"\ncat >"$ACTS/$(basename "$0").in"\n'


class Cluster:
    """A machine where a job's script can be run."""

    def __init__(self, folder: Path) -> None:
        self.acts, self.bin = folder / 'acts', folder / 'my bin'
        self.acts.mkdir()
        stand_in(self.bin, 'srun', SRUN)
        stand_in(self.bin, 'retfound', RETFOUND)
        stand_in(self.bin, 'squeue', '#!/usr/bin/env bash\nprintf "%s\\0" "$@" >"$ACTS/squeue"; echo "${STATE:-RUNNING}"\n')
        stand_in(self.bin, 'scontrol', NOTE)
        stand_in(self.bin, 'sbatch', NOTE + 'echo "${SAYS:-4711;cluster}"; exit "${REFUSES:-0}"\n')

    def script(self, *flags: str, words: tuple[str, ...] = ('--experiment=a:b', '--workdir=w')) -> str:
        """The script, as --dry_run prints it."""
        program = () if '--container' in flags else ('--program', str(self.bin / 'retfound'))
        done = call('slurm', '--dry_run', *program, *flags, '--', 'train', *words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, script: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """The script as slurmd runs it."""
        job = {'SLURM_JOB_ID': '4711', 'SLURM_NTASKS': '6', 'SLURM_JOB_NODELIST': 'node[01-03]'}
        path = os.pathsep.join([str(self.bin), os.environ['PATH']])
        environment = {**os.environ, 'PATH': path, 'ACTS': str(self.acts), **job, **settings}
        file = self.acts.with_name('slurm_script')
        file.write_text(script, encoding='utf-8')
        quiet = {'stdin': subprocess.DEVNULL, 'capture_output': True, 'text': True, 'check': False}
        return subprocess.run(['bash', str(file)], env=environment, cwd=self.acts, **quiet)

    def said(self, rank: int = 0) -> dict[str, Any]:
        """What a process was started with."""
        return json.loads((self.acts / f'{rank}.json').read_text())

    def called(self, name: str) -> list[str]:
        """The words that a program of SLURM was called with; empty where it was not."""
        path = self.acts / name
        return path.read_text().split('\0')[:-1] if path.exists() else []


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def directives(script: str) -> list[str]:
    """The flags that sbatch reads: those above the first command."""
    lines = script.splitlines()
    head = lines[1 : next(number for number, line in enumerate(lines) if line and not line.startswith('#'))]
    return [line.removeprefix('#SBATCH ') for line in head if line.startswith('#SBATCH ')]


def test_flags_become_directives(cluster: Cluster) -> None:
    flags = '--nodes 3 --tasks_per_node 2 --gpus_per_task 4 --cpus_per_task 12 --memory 200G --time 24:00:00 --partition gpu --account eye'
    script = cluster.script(*flags.split(), '--qos', 'high', '--logs', 'logs', '--notice', '300', '--sbatch=--constraint=h100')
    assert script.startswith('#!/bin/bash\n#SBATCH ') and set(directives(script)) == {
        '--job-name=a-b',
        '--nodes=3',
        '--ntasks-per-node=2',
        '--gpus-per-task=4',
        '--cpus-per-task=12',
        '--mem=200G',
        '--time=24:00:00',
        '--partition=gpu',
        '--account=eye',
        '--qos=high',
        '--output=logs/%x-%j.out',
        '--open-mode=append',
        '--signal=USR1@300',
        '--requeue',
        '--constraint=h100',
    }


@pytest.mark.parametrize(
    'flags',
    [
        ('--partition', 'a b'),
        ('--partition', 'gpu\n#SBATCH --uid=0'),
        ('--account', '"'),
        ('--time', ''),
        ('--name', 'a/b'),
        ('--logs', 'my logs'),
        ('--sbatch=--wrap=touch pwned',),
        ('--sbatch', 'constraint'),
        ('--nodes', '0'),
        ('--nodes', 'two'),
        ('--notice', '5'),
        ('--container_with', 'docker'),
    ],
)
def test_what_sbatch_would_read_as_something_else_is_refused(flags: tuple[str, ...]) -> None:
    refused(call('slurm', '--dry_run', *flags, '--', 'train', '--experiment=a:b', '--workdir=w'), name='slurm')


def test_overwriting_at_each_requeue_is_refused() -> None:
    done = call('slurm', '--dry_run', '--', 'train', '--experiment=a:b', '--workdir=w', '--overwrite')
    assert 'would delete the run at every restart' in refused(done, name='slurm')


def test_every_process_finds_the_others(cluster: Cluster) -> None:
    from retfound_jax.core.launchers import find

    assert cluster.run(cluster.script('--nodes', '3', '--tasks_per_node', '2'), ALL='1').returncode == 0
    found = [find(environ=cluster.said(rank)['environment']) for rank in range(6)]
    assert [start.index for start in found] == list(range(6)) and {start.count for start in found} == {6}
    assert {start.coordinator.split(':')[0] for start in found} == {'node01'}


def test_stuck_processes_are_ended_and_saving_ones_are_not_hurried(cluster: Cluster) -> None:
    cluster.run(cluster.script())
    own = json.loads((cluster.acts / 'srun.json').read_text())
    assert '--kill-on-bad-exit=0' in own and any(re.fullmatch('--wait=[1-9][0-9]+', word) for word in own)


@pytest.mark.parametrize(
    ('code', 'state', 'requeued'),
    [
        (0, 'RUNNING', False),
        (1, 'RUNNING', False),
        (2, 'RUNNING', False),
        (130, 'RUNNING', False),
        (75, 'RUNNING', True),
        (137, 'RUNNING', True),
        (75, 'CANCELLED', False),
        (75, 'PREEMPTED', False),
        (75, 'COMPLETING', False),
    ],
)
def test_job_is_requeued_where_it_can_go_on(cluster: Cluster, code: int, state: str, requeued: bool) -> None:
    done = cluster.run(cluster.script(), CODE=str(code), STATE=state)
    assert done.returncode == code
    assert cluster.called('scontrol') == (['requeue', '4711'] if requeued else [])


def test_requeues_come_to_an_end(cluster: Cluster) -> None:
    script = cluster.script('--restarts', '5')
    done = cluster.run(script, CODE='75', SLURM_RESTART_COUNT='5')
    assert (done.returncode, cluster.called('scontrol')) == (75, []) and 'requeued 5 times' in done.stderr
    cluster.run(script, CODE='75', SLURM_RESTART_COUNT='4')
    assert cluster.called('scontrol') == ['requeue', '4711']


def test_first_start_begins_and_later_ones_resume(cluster: Cluster) -> None:
    script = cluster.script()
    cluster.run(script)
    assert cluster.said()['words'] == ['train', '--experiment=a:b', '--workdir=w']
    cluster.run(script, SLURM_RESTART_COUNT='1')
    assert cluster.said()['words'] == ['train', '--experiment=a:b', '--workdir=w', '--resume']
    cluster.run(cluster.script(words=('--resume', '--experiment=a:b', '--workdir=w')))
    assert cluster.said()['words'] == ['train', '--experiment=a:b', '--workdir=w', '--resume']


def test_missing_program_is_a_wrong_call(cluster: Cluster) -> None:
    done = cluster.run(call('slurm', '--dry_run', '--program', '/nowhere/x', '--', 'train', '--experiment=a', '--workdir=w').stdout)
    assert done.returncode == 2 and '/nowhere/x is not there' in done.stderr and cluster.called('scontrol') == []


def test_job_goes_to_sbatch(cluster: Cluster) -> None:
    words = ('--program', 'x', '--', 'train', '--experiment=a:b', '--workdir=w')
    done = call('slurm', *words, path=cluster.bin, ACTS=str(cluster.acts))
    assert (done.returncode, done.stdout) == (0, 'job 4711\n') and cluster.called('sbatch') == ['--parsable']
    assert (cluster.acts / 'sbatch.in').read_text() == call('slurm', '--dry_run', *words).stdout


def test_dry_run_submits_nothing(cluster: Cluster) -> None:
    call('slurm', '--dry_run', '--', 'train', '--experiment=a:b', '--workdir=w', path=cluster.bin, ACTS=str(cluster.acts))
    assert not list(cluster.acts.iterdir())


def test_refusal_of_sbatch_is_one_sentence(cluster: Cluster) -> None:
    words = ('--', 'train', '--experiment=a:b', '--workdir=w')
    stand_in(cluster.bin, 'sbatch', '#!/usr/bin/env bash\nprintf "error: no partition\\nsee sinfo\\n" >&2; exit 1\n')
    done = call('slurm', *words, path=cluster.bin, ACTS=str(cluster.acts))
    assert 'sbatch refused the job (error: no partition see sinfo)' in refused(done, name='slurm')
    done = call('slurm', *words, PATH=str(cluster.acts))
    assert 'there is no sbatch on this machine' in refused(done, name='slurm')


def test_containers_are_entered_by_every_process(cluster: Cluster) -> None:
    stand_in(cluster.bin, 'apptainer', APPTAINER)
    bind = ('--bind', '/a b:/data', '--container', 'my.sif')
    assert cluster.run(cluster.script('--gpus_per_task', '1', *bind)).returncode == 0
    assert cluster.called('apptainer')[:6] == ['exec', '--nv', '--bind', '/a b:/data', 'my.sif', 'retfound']
    assert cluster.said()['words'][0] == 'train'
    cluster.run(cluster.script(*bind, '--container_with', 'pyxis'))
    own = json.loads((cluster.acts / 'srun.json').read_text())
    assert '--container-image=my.sif' in own and '--container-mounts=/a b:/data' in own
    flags = ('--container=x', '--container_with=pyxis', '--bind=a,b:c')
    done = call('slurm', '--dry_run', *flags, '--', 'train', '--experiment=a', '--workdir=w')
    assert 'holds a comma' in refused(done, name='slurm')


@settings(max_examples=40)
@given(hostile, hostile)
def test_every_word_arrives_as_it_was(text: str, other: str) -> None:
    """The script is read by bash; what it hands to srun comes out again, and nothing else is run."""
    common, slurm = load('_common.py'), load('_slurm.py')
    parser = common.parser('slurm', '', usage='')
    slurm.add_flags(parser)
    options = parser.parse_args(['--program', 'true'])
    words = ['train', f'--experiment={text}', '--workdir', other, f'--set={other}={text}', text]
    script = slurm.script(options, [slurm.Task(words=words, finished=f'{other}/x')])
    job = script.partition('\nsrun ')[0] + '\n'
    assert all(re.fullmatch(r'--[a-z-]+(=[\w.,:%@+/=-]+)?', directive) for directive in directives(script))
    shown = job + 'printf "%s\\0" "${words[@]}" "$finished" "$command"\n'
    done = subprocess.run(['bash', '-s'], input=shown.encode(), env={'SLURM_JOB_ID': '1'}, capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    *found, finished, command = done.stdout.decode().split('\0')[:-1]
    assert found == words and finished == f'{other}/x' and shlex.split(command) == words
    assert subprocess.run(['bash', '-n'], input=script.encode(), check=False, capture_output=True).returncode == 0
