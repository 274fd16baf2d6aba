"""Files and the run log: whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import threading

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from retfound_jax.core import files, random, runlog
from retfound_jax.core.errors import UserError


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    target = tmp_path / 'a.json'
    files.write_json(target, {'a': 1})

    def full(_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(UserError, match='the disk is full'):
        files.write_json(target, {'a': 2})
    assert files.read_json(target) == {'a': 1}
    assert [p.name for p in tmp_path.iterdir()] == ['a.json']


def test_an_interruption_leaves_no_litter_either(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.atomic_write(tmp_path / 'a', 'text')
    assert not list(tmp_path.iterdir())


@hypothesis.given(st.lists(st.lists(st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0')), min_size=2, max_size=2)))
def test_csv_text_is_read_back_by_python(rows):
    assert list(csv.reader(io.StringIO(files.csv_text(rows), newline=''))) == rows


def test_damaged_json_is_one_sentence(tmp_path):
    (tmp_path / 'a.json').write_text('{"a": ')
    with pytest.raises(UserError, match='not valid JSON'):
        files.read_json(tmp_path / 'a.json')


def test_run_log_survives_a_cut_last_line_and_refuses_a_damaged_middle(tmp_path):
    with runlog.RunLog(tmp_path, tensorboard=False) as log:
        log.write(1, loss=1.5, other=float('nan'))
        log.write(2, loss=1.0)
    path = tmp_path / runlog.METRICS
    whole = path.read_text()
    path.write_text(whole + '{"step": 3, "na')
    rows = [(row['step'], row['name'], row['value']) for row in runlog.read_metrics(tmp_path)]
    assert rows == [(1, 'loss', 1.5), (1, 'other', None), (2, 'loss', 1.0)]
    path.write_text('{"ste\n' + whole)
    with pytest.raises(UserError, match='line 1'):
        runlog.read_metrics(tmp_path)


def test_a_half_written_line_is_not_joined_to_the_next(tmp_path):
    with runlog.RunLog(tmp_path, tensorboard=False) as log:
        log.write(1, loss=1.5)
    path = tmp_path / runlog.METRICS
    path.write_bytes(path.read_bytes() + b'{"step": 2, "name": "lo' + bytes(200_000))
    with runlog.RunLog(tmp_path, tensorboard=False) as log:
        log.write(2, loss=1.0)
    assert [(row['step'], row['value']) for row in runlog.read_metrics(tmp_path)] == [(1, 1.5), (2, 1.0)]


def test_a_log_that_fills_the_disk_is_one_sentence_and_what_stands_is_read_and_gone_on_with(tmp_path):
    """A real refusal by the system: a file may not grow beyond a limit, in the midst of a line."""
    program = f"""
import resource, signal
from retfound_jax.core import runlog
from retfound_jax.core.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    with runlog.RunLog({str(tmp_path)!r}, tensorboard=False) as log:
        for step in range(100):
            log.write(step, loss=1.0)
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True, timeout=60)
    assert re.fullmatch(r'a file would be larger than the system allows: metrics.jsonl could not be written in .*; raise .*\n', done.stdout)
    path = tmp_path / runlog.METRICS
    assert path.stat().st_size == 1000 and not path.read_bytes().endswith(b'\n')
    steps = [row['step'] for row in runlog.read_metrics(tmp_path)]
    assert steps == list(range(len(steps))) and steps
    with runlog.RunLog(tmp_path, tensorboard=False) as log:
        log.write(len(steps), loss=1.0)
    assert [row['step'] for row in runlog.read_metrics(tmp_path)] == list(range(len(steps) + 1))


@pytest.mark.parametrize(('obstacle', 'said'), [('folder', 'a directory stands'), ('parent', 'a file stands'), ('events', 'a file stands')])
def test_a_log_that_cannot_be_opened_is_one_sentence(tmp_path, obstacle, said):
    workdir = tmp_path / 'run'
    if obstacle == 'folder':
        (workdir / runlog.METRICS).mkdir(parents=True)
    elif obstacle == 'parent':
        workdir.write_text('')
    else:
        workdir.mkdir()
        (workdir / 'tensorboard').write_text('')
    with pytest.raises(UserError, match=f'^{said}.*give another directory$'):
        runlog.RunLog(workdir)


def test_a_log_that_was_removed_or_replaced_is_told_before_a_checkpoint(tmp_path):
    with pytest.raises(UserError, match='a directory is gone: metrics.jsonl'), runlog.RunLog(tmp_path / 'a', tensorboard=False) as log:
        log.write(1, loss=1.0)
        log.sync()
        shutil.rmtree(tmp_path / 'a')
        log.sync()
    with pytest.raises(UserError, match='was replaced'), runlog.RunLog(tmp_path / 'b', tensorboard=False) as log:
        (tmp_path / 'b' / runlog.METRICS).unlink()
        (tmp_path / 'b' / runlog.METRICS).write_text('')
        log.sync()


def test_a_log_leaves_no_thread_and_no_handle_open(tmp_path):
    threads, handles = threading.active_count(), len(os.listdir('/proc/self/fd'))
    for _ in range(20):
        with runlog.RunLog(tmp_path) as log:
            log.write(1, loss=1.0)
            log.sync()
    assert (threading.active_count(), len(os.listdir('/proc/self/fd'))) == (threads, handles)


def test_what_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / 'a').write_text('')
    with pytest.raises(UserError, match='a file stands in the place of a directory: b could not be written in .*/a; '):
        files.atomic_write(tmp_path / 'a' / 'b', 'text')


def test_truncate_drops_only_later_steps(tmp_path):
    with runlog.RunLog(tmp_path, tensorboard=False) as log:
        for step in range(1, 5):
            log.write(step, loss=step)
    runlog.truncate_metrics(tmp_path, after_step=2)
    assert [row['step'] for row in runlog.read_metrics(tmp_path)] == [1, 2]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    """Read back by the framing of TFRecord files (length, its checksum, the event, its checksum) and the protocol buffer of events."""
    from tensorboardX.proto.event_pb2 import Event

    with runlog.RunLog(tmp_path) as log:
        log.write(1, loss=1.5)
        log.write(2, loss=float('nan'), rate=0.5)
    [path] = (tmp_path / 'tensorboard').iterdir()
    assert path.name.startswith('events.out.tfevents.')
    data, found = path.read_bytes(), []
    while data:
        (length,) = struct.unpack('<Q', data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    assert found[0] == (1, 'loss', 1.5) and found[2] == (2, 'rate', 0.5) and math.isnan(found[1][2])


def test_example_rng_is_a_function_of_its_arguments():
    draw = lambda *a: random.example_rng(*a).integers(1 << 62)  # noqa: E731
    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(s, t, i) for s in range(4) for t in range(4) for i in range(4)}) == 64
    uniform = [random.example_rng(0, 0, i).random() for i in range(2000)]
    assert abs(np.mean(uniform) - 0.5) < 0.03


def test_a_line_is_added_after_one_that_was_cut(tmp_path):
    path = tmp_path / 'log.jsonl'
    files.append_line(path, {'key': 'Überblick'})
    with open(path, 'ab') as file:
        file.write(b'{"key": "cu')
    files.append_line(path, {'key': 2})
    assert path.read_text(encoding='utf-8') == '{"key": "Überblick"}\n{"key": 2}\n'
    with pytest.raises(UserError, match='a directory stands in the place of a file: .* could not be written'):
        files.append_line(tmp_path, {})
