"""The sbatch script of a training, or of many as one array: written from flags, handed to sbatch by standard input."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import subprocess
from collections.abc import Sequence

import _common
from _common import PROGRAM, RESTART, Wrong

_PLAIN = r'[\w.,:%@+/=-]+'  # what needs no quotes in an #SBATCH line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One training: a job, or one task of an array."""

    words: list[str]  # for retfound, without --resume
    resume: bool = False  # at the first start, too
    finished: str = ''  # the file that says so; '' for none


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declares what a cluster has to know."""
    number, plain = _common.at_least, _common.matching(_PLAIN, 'plain text (letters, digits and .,:%@+/=_-)')
    parser.add_argument('--nodes', type=number(1), default=1, help='machines (default 1)')
    parser.add_argument('--tasks_per_node', type=number(1), default=1, help='processes a machine (default 1, which takes all its GPUs)')
    parser.add_argument('--gpus_per_task', type=number(0), default=0, help='GPUs a process (default: as the cluster has it)')
    parser.add_argument('--cpus_per_task', type=number(0), default=0, help='cores a process (default: as the cluster has it)')
    for name, text in (
        ('memory', 'a machine, such as 200G'),
        ('time', 'limit of one start, such as 24:00:00; the job is requeued until it is done'),
        ('partition', 'as sinfo lists them'),
        ('account', 'who pays'),
        ('qos', 'quality of service'),
    ):
        parser.add_argument(f'--{name}', type=plain, help=text)
    name = _common.matching(r'[\w.-]+', 'a job name (letters, digits and ._-)')
    parser.add_argument('--name', type=name, help='in the queue (default: the experiment)')
    parser.add_argument('--notice', type=number(30), default=120, help='[s] before the time limit at which the run saves (default 120)')
    parser.add_argument('--restarts', type=number(0), default=100, help='how often the job may be requeued (default 100)')
    parser.add_argument('--logs', type=plain, default='.', help='folder for the output (default: where sbatch is called); must exist')
    parser.add_argument('--container', help='image to run in: a .sif file, or docker://...')
    parser.add_argument('--container_with', choices=['apptainer', 'pyxis'], default='apptainer', help='(default apptainer)')
    parser.add_argument('--bind', action='append', default=[], metavar='FROM:TO', help='folder the container sees; as often as needed')
    parser.add_argument('--program', help='what to run instead of retfound in .venv of this project, or in the container')
    option = _common.matching(rf'--[a-z-]+(={_PLAIN})?', 'a flag of sbatch, such as --constraint=h100')
    parser.add_argument('--sbatch', type=option, action='append', default=[], metavar='=FLAG', help='as in --sbatch=--constraint=h100')


def script(options: argparse.Namespace, tasks: Sequence[Task], *, at_once: int = 0) -> str:
    """The script; several tasks make an array, of which `at_once` run at a time (0: all).

    Raises:
      Wrong: the container's folders cannot be said to pyxis.
    """
    for task in tasks:
        advice = 'give a directory that all nodes see'
        _common.together(_common.value(task.words, 'workdir'), several=options.nodes * options.tasks_per_node > 1, advice=advice)
    lines = ['#!/bin/bash', *_directives(options, tasks, at_once), '', 'set -uo pipefail', *_identity(), *_words(tasks), '']
    return '\n'.join([*lines, *_start(options), '', *_end(options)]) + '\n'


def submit(text: str) -> str:
    """Hands the script to sbatch; the job's number.

    Raises:
      Wrong: sbatch is not here, or refuses.
    """
    try:
        done = subprocess.run(['sbatch', '--parsable'], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Wrong('there is no sbatch on this machine; call this on a login node, or write the script to a file by --dry_run') from None
    if done.returncode != 0:
        raise Wrong(f'sbatch refused the job ({" ".join(done.stderr.split())}); --dry_run shows the script')
    return done.stdout.strip().split(';')[0]


def job_name(experiment: str) -> str:
    """A name for the queue, from module:function."""
    return re.sub(r'[^A-Za-z0-9_.-]+', '-', experiment).strip('-.')[:60] or 'retfound'


def _directives(options: argparse.Namespace, tasks: Sequence[Task], at_once: int) -> list[str]:
    many = len(tasks) > 1
    settings = {
        'job-name': options.name or job_name(_common.value(tasks[0].words, 'experiment')),
        'nodes': options.nodes,
        'ntasks-per-node': options.tasks_per_node,
        'gpus-per-task': options.gpus_per_task,
        'cpus-per-task': options.cpus_per_task,
        'mem': options.memory,
        'time': options.time,
        'partition': options.partition,
        'account': options.account,
        'qos': options.qos,
        'output': f'{options.logs}/%x-{"%A_%a" if many else "%j"}.out',
        'open-mode': 'append',
        'signal': f'USR1@{options.notice}',
        'array': f'0-{len(tasks) - 1}{f"%{at_once}" if at_once else ""}' if many else '',
    }
    flags = [f'--{name}={found}' for name, found in settings.items() if found]
    return [f'#SBATCH {flag}' for flag in [*flags, '--requeue', *options.sbatch]]


def _identity() -> list[str]:
    return [
        '# A task of an array is one job of many under the number of the array.',
        'job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID:-}}',
        'job=${job:-$SLURM_JOB_ID}',
        'restarts=${SLURM_RESTART_COUNT:-0}',
        '',
    ]


def _words(tasks: Sequence[Task]) -> list[str]:
    if len(tasks) == 1:
        return _task(tasks[0])
    lines = ['case $SLURM_ARRAY_TASK_ID in']
    for index, task in enumerate(tasks):
        lines += [f'{index})', *_task(task), ';;']
    return [*lines, 'esac']


def _task(task: Task) -> list[str]:
    return [
        f'words=({shlex.join(task.words)})',
        f'mode=({"--resume" if task.resume else ""})',
        f'finished={shlex.quote(task.finished)}',
        f'command={shlex.quote(shlex.join(task.words)) if task.finished else ""}',
    ]


def _start(options: argparse.Namespace) -> list[str]:
    program = options.program or ('retfound' if options.container else str(PROGRAM))
    lines = ['if [ "$restarts" -gt 0 ]; then mode=(--resume); fi', f'program={shlex.quote(program)}']
    if not options.container:
        lines += [
            'if ! command -v "$program" >/dev/null; then',
            '    echo "$program is not there; make it by launch/test or launch/quickstart, as BUILD.md says for this machine" >&2',
            f'    exit {_common.WRONG_CALL}',
            'fi',
        ]
    return [
        *lines,
        '# Each process reads from SLURM who it is. They end together: what is left five minutes after the first has ended is stuck.',
        f'srun --kill-on-bad-exit=0 --wait=300 {_container(options)}\\',
        '    "$program" "${words[@]}" ${mode[@]+"${mode[@]}"}',
        'code=$?',
    ]


def _container(options: argparse.Namespace) -> str:
    if not options.container:
        return ''
    if options.container_with == 'apptainer':
        binds = [word for bind in options.bind for word in ('--bind', bind)]
        return shlex.join(['apptainer', 'exec', *(['--nv'] if options.gpus_per_task else []), *binds, options.container]) + ' '
    if any(',' in bind for bind in options.bind):
        raise Wrong(f'--bind {options.bind} holds a comma, at which pyxis would cut it; bind a folder of another name')
    mounts = [f'--container-mounts={",".join(options.bind)}'] if options.bind else []
    return shlex.join([f'--container-image={options.container}', *mounts]) + ' '


def _end(options: argparse.Namespace) -> list[str]:
    return [
        'if [ "$code" -eq 0 ]; then',
        '    if [ -n "$finished" ]; then mkdir -p "${finished%/*}" && printf "%s\\n" "$command" >"$finished"; fi',
        '    exit 0',
        'fi',
        f'# {RESTART}: saved, start again. Above 128: ended by a signal, and the last checkpoint is good; 130 is Ctrl-C.',
        f'if [ "$code" -ne {RESTART} ] && {{ [ "$code" -le 128 ] || [ "$code" -eq {_common.INTERRUPTED} ]; }}; then exit "$code"; fi',
        f'if [ "$restarts" -ge {options.restarts} ]; then',
        '    echo "job $job was requeued $restarts times and is not any more" >&2',
        '    exit "$code"',
        'fi',
        '# A job that was cancelled stays so, and one that was preempted is requeued by SLURM.',
        'if [ "$(squeue --noheader --jobs="$job" --format=%T)" = RUNNING ]; then',
        '    echo "requeueing job $job after code $code" >&2',
        '    scontrol requeue "$job"',
        'fi',
        'exit "$code"',
    ]
