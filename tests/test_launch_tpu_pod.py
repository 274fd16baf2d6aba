"""launch/tpu_pod: what it prints are commands, run here with stand-ins for gcloud and, on the machines, for docker."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from launch_calls import call, hostile, load, refused, stand_in, wait_for

POD = ('--name=eyes', '--zone=us-west4-a', '--type=v5litepod-256', '--image=us-docker.pkg.dev/lab/retfound:1.0', '--bind=/shared:/data')
TRAIN = ('--', 'train', '--experiment=experiments.pretrain_mae:vit_l16', '--workdir=/data/run')
STEPS = ['create', 'wait', 'install', 'train', 'watch', 'stop', 'delete']
GCLOUD = """#!/usr/bin/env bash
{ printf '%s\\n' "$4"; } >>"$ACTS/gcloud"
if [ "$4" = describe ]; then head -n 1 "$ACTS/states"; sed -i 1d "$ACTS/states"; fi
[ "$4" != "${FAILS:-}" ]
"""
# Stands for `sudo docker run ...`: notes its words, and ends with the next code of $ACTS/codes.
SUDO = """#!/usr/bin/env bash
printf '%s\\0' "$@" >>"$ACTS/sudo"
code=$(head -n 1 "$ACTS/codes"); sed -i 1d "$ACTS/codes"
if [ "$code" = stop ]; then touch retfound.stop; code=75; fi
exit "$code"
"""


def steps(*flags: str, train: tuple[str, ...] = TRAIN) -> dict[str, list[str]]:
    """The words of each printed command, as a shell reads them."""
    done = call('tpu_pod', *POD, *flags, *train)
    assert done.returncode == 0, done.stderr
    blocks = [block.partition('\n') for block in done.stdout.removeprefix('# ').split('\n\n# ')]
    return {name: shlex.split(command) for name, _, command in blocks}


def remote(command: list[str]) -> str:
    """What is run on the machines."""
    return next(word.removeprefix('--command=') for word in command if word.startswith('--command='))


def test_steps_are_printed_in_their_order_and_not_run(tmp_path: Path) -> None:
    stand_in(tmp_path / 'bin', 'gcloud', GCLOUD)
    found = call('tpu_pod', *POD, *TRAIN, path=tmp_path / 'bin', ACTS=str(tmp_path))
    assert found.returncode == 0 and not (tmp_path / 'gcloud').exists() and list(steps()) == STEPS
    assert call('tpu_pod', '--dry_run', '--run', 'create', *POD, *TRAIN).stdout.startswith('# create\ngcloud compute tpus')


def test_commands_are_those_of_gcloud() -> None:
    """As cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources has them."""
    found = steps('--spot', '--project=lab', '--service_account=trainer@lab.iam.gserviceaccount.com')
    head = ['gcloud', 'compute', 'tpus', 'queued-resources']
    assert found['create'][:5] == [*head, 'create'] and set(found['create'][5:]) == {
        'eyes',
        '--zone=us-west4-a',
        '--project=lab',
        '--accelerator-type=v5litepod-256',
        '--runtime-version=v2-alpha-tpuv5-lite',
        '--node-id',
        '--spot',
        '--service-account=trainer@lab.iam.gserviceaccount.com',
    }
    for name in ('install', 'train', 'stop'):
        assert found[name][:5] == [*head, 'ssh'] and {'--node=all', '--worker=all'} <= set(found[name])
    assert {'--node=0', '--worker=0'} <= set(found['watch'])
    assert found['delete'] == [*head, 'delete', 'eyes', '--zone=us-west4-a', '--project=lab', '--force', '--quiet']
    assert steps('--slices=2')['create'][-4:] == ['--node-count', '2', '--node-prefix', 'eyes']


def test_image_of_another_registry_needs_no_account_of_google() -> None:
    assert remote(steps()['install']).startswith('sudo gcloud auth configure-docker us-docker.pkg.dev --quiet && sudo docker pull ')
    assert remote(steps('--image=docker.io/lab/retfound:1.0')['install']) == 'sudo docker pull docker.io/lab/retfound:1.0'


@pytest.mark.parametrize(
    ('states', 'code'), [(['ACTIVE'], 0), (['FAILED'], 1), (['SUSPENDED'], 1), ([''], None), (['WAITING_FOR_RESOURCES'], None)]
)
def test_waiting_ends_with_the_state(states: list[str], code: int | None, tmp_path: Path) -> None:
    stand_in(tmp_path / 'bin', 'gcloud', GCLOUD)
    (tmp_path / 'states').write_text('\n'.join(states) + '\n')
    path = os.pathsep.join([str(tmp_path / 'bin'), os.environ['PATH']])
    with subprocess.Popen(steps()['wait'], env={'PATH': path, 'ACTS': str(tmp_path)}, stderr=subprocess.PIPE, text=True) as made:
        assert made.stderr.readline().strip() == states[0]
        if code is None:  # it goes on to wait
            assert made.poll() is None
            made.kill()
        else:
            assert made.wait() == code


@pytest.mark.parametrize(
    ('codes', 'starts'),
    [
        (['0'], 1),
        (['75', '75', '0'], 3),
        (['137', '0'], 2),
        (['1'], 1),
        (['2'], 1),
        (['130'], 1),
        (['125'], 1),  # docker itself
        (['stop', '0'], 1),
        (['75'] * 9, 4),
    ],
)
def test_machines_start_again_where_nothing_is_lost(codes: list[str], starts: int, tmp_path: Path) -> None:
    stand_in(tmp_path / 'bin', 'sudo', SUDO)
    (tmp_path / 'codes').write_text('\n'.join(codes) + '\n')
    (tmp_path / 'retfound.stop').touch()  # of an earlier `stop`
    path = os.pathsep.join([str(tmp_path / 'bin'), os.environ['PATH']])
    environment = {'PATH': path, 'ACTS': str(tmp_path)}
    script = remote(steps('--restarts=3')['train'])
    assert subprocess.run(['bash', '-c', script], cwd=tmp_path, env=environment, check=False).returncode == 0
    log = tmp_path / 'retfound.log'
    wait_for(lambda: log.exists() and 'ended with code' in log.read_text(), 'the end')
    last = codes[starts - 1].replace('stop', '75')
    assert log.read_text().splitlines()[-1] == f'ended with code {last}'
    assert (tmp_path / 'sudo').read_text().split('\0').count('train') == starts


def test_containers_find_each_other_and_resume(tmp_path: Path) -> None:
    stand_in(tmp_path / 'bin', 'sudo', SUDO)
    (tmp_path / 'codes').write_text('0\n')
    path = os.pathsep.join([str(tmp_path / 'bin'), os.environ['PATH']])
    script = remote(steps('--bind=/shared:/data', train=(*TRAIN[:3], '--workdir=/data/run'))['train'])
    subprocess.run(['bash', '-c', script], cwd=tmp_path, env={'PATH': path, 'ACTS': str(tmp_path)}, check=True)
    wait_for(lambda: (tmp_path / 'sudo').exists(), 'the container')
    wait_for(lambda: 'ended' in (tmp_path / 'retfound.log').read_text(), 'the end')
    words = (tmp_path / 'sudo').read_text().split('\0')[:-1]
    at = words.index('us-docker.pkg.dev/lab/retfound:1.0')
    assert words[:2] == ['docker', 'run'] and {'--privileged', '--network=host', '--volume=/shared:/data'} <= set(words[:at])
    assert words[at + 1 :] == ['train', TRAIN[2], '--workdir=/data/run', '--coordinator=auto', '--resume']


def test_steps_run_in_turn_until_one_fails(tmp_path: Path) -> None:
    stand_in(tmp_path / 'bin', 'gcloud', GCLOUD)
    (tmp_path / 'states').write_text('ACTIVE\n')
    done = call('tpu_pod', *POD, '--run', 'create,wait,delete', *TRAIN, path=tmp_path / 'bin', ACTS=str(tmp_path))
    assert done.returncode == 0 and (tmp_path / 'gcloud').read_text().split() == ['create', 'describe', 'delete']
    (tmp_path / 'gcloud').unlink()
    done = call('tpu_pod', *POD, '--run', 'create,delete', *TRAIN, path=tmp_path / 'bin', ACTS=str(tmp_path), FAILS='create')
    assert done.returncode == 1 and (tmp_path / 'gcloud').read_text().split() == ['create'] and 'create failed' in done.stderr


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        (('--run', 'creat'), "'creat' is no step; there are create, wait"),
        (('--type=v99-8',), 'has no runtime version known here'),
        (('--spot', '--reserved'), 'not allowed with argument'),
        (('--image=a:latest',), 'may be another one at the next start'),
        (('--image=$(touch x):1',), 'is not the name of an image'),
        (('--zone=a b',), 'is not plain text'),
        (('--name=Eyes',), 'is not a name of Google Cloud'),
        (('--bind=/a',), 'is not FROM:TO'),
        (('--slices=0',), 'is too small'),
    ],
)
def test_wrong_call_is_one_sentence(flags: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(call('tpu_pod', *POD, *flags, *TRAIN), name='tpu_pod')


def test_run_that_would_be_lost_or_deleted_is_refused() -> None:
    done = call('tpu_pod', *POD, '--', 'train', '--experiment=a:b', '--workdir=runs/a')
    assert 'is lost with its machine; name a path in a shared volume' in refused(done, name='tpu_pod')
    done = call('tpu_pod', *POD, '--', 'train', '--experiment=a:b', '--workdir=gs://bucket/a')
    assert 'several processes cannot put one checkpoint together' in refused(done, name='tpu_pod')
    assert call('tpu_pod', *POD, '--type=v5litepod-8', '--', 'train', '--experiment=a:b', '--workdir=gs://bucket/a').returncode == 0
    assert '--overwrite would delete' in refused(call('tpu_pod', *POD, *TRAIN, '--overwrite'), name='tpu_pod')


def test_no_gcloud_is_one_sentence(tmp_path: Path) -> None:
    done = call('tpu_pod', *POD, '--run', 'create', *TRAIN, PATH=str(tmp_path))
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith('tpu_pod: there is no gcloud on this machine')


@settings(max_examples=60)
@given(hostile, hostile)
def test_every_word_arrives_as_it_was(text: str, other: str) -> None:
    """Through the shell here, the shell of the machines, and the shell that loops there."""
    module = load('tpu_pod')
    options, words = module.read([*POD, *TRAIN, f'--set={text}', other, f'--set=a={other}'])
    command = shlex.split(shlex.join(module.commands(options, words)['train']))
    outer = shlex.split(remote(command))
    loop = outer[outer.index('-c') + 1]
    body = loop[loop.index('\n') : loop.index('\n    code=$?')]
    found = shlex.split(body)
    assert found[found.index('us-docker.pkg.dev/lab/retfound:1.0') + 1 : -2] == [*TRAIN[1:], f'--set={text}', other, f'--set=a={other}']
