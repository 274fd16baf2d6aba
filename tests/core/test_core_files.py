"""Files and the run log: whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import os

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


def test_truncate_drops_only_later_steps(tmp_path):
    with runlog.RunLog(tmp_path, tensorboard=False) as log:
        for step in range(1, 5):
            log.write(step, loss=step)
    runlog.truncate_metrics(tmp_path, after_step=2)
    assert [row['step'] for row in runlog.read_metrics(tmp_path)] == [1, 2]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    from tensorboardX.event_file_writer import EventFileWriter  # noqa: F401  (the writer used; its files start with this name)

    with runlog.RunLog(tmp_path) as log:
        log.write(1, loss=1.5)
    assert any(p.name.startswith('events.out') for p in (tmp_path / 'tensorboard').iterdir())


def test_example_rng_is_a_function_of_its_arguments():
    draw = lambda *a: random.example_rng(*a).integers(1 << 62)  # noqa: E731
    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(s, t, i) for s in range(4) for t in range(4) for i in range(4)}) == 64
    uniform = [random.example_rng(0, 0, i).random() for i in range(2000)]
    assert abs(np.mean(uniform) - 0.5) < 0.03
