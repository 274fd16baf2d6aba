"""What a run tells while it goes on: where its time went, over several starts, and what happened."""

from __future__ import annotations

import json
import time

import pytest
import train_runs

from retfound_jax.core import goodput
from retfound_jax.core.errors import Preempted
from retfound_jax.core.runlog import read_metrics
from retfound_jax.optim import OptimConfig
from retfound_jax.train.config import FaultConfig
from retfound_jax.train.loop import train


def test_the_time_of_a_run_is_accounted_for_over_its_starts(tmp_path):
    config = train_runs.mae(steps=8, checkpoint_every=3)
    asked = iter(['', '', '', 'SIGTERM'] + ['SIGTERM'] * 9)
    began = time.monotonic()
    with pytest.raises(Preempted, match=r'tiny_mae stopped after step 5 \(SIGTERM\) and saved it'):
        train(config, workdir=tmp_path, notice=lambda: next(asked))
    train(config, workdir=tmp_path, resume=True)
    spent = time.monotonic() - began
    account = goodput.read(tmp_path)
    assert account.starts == 2 and account.steps_lost == 0 and account.seconds['lost'] == 0
    assert 0.8 * spent < account.total <= spent + 0.1
    assert all(account.seconds[name] > 0 for name in ('start', 'restore', 'compile', 'step', 'save', 'data'))
    assert [row['step'] for row in read_metrics(tmp_path) if row['name'] == 'loss'] == list(range(1, 9))
    (event,) = (json.loads(line) for line in (tmp_path / 'events.jsonl').read_text().splitlines())
    assert (event['event'], event['step'], event['reason']) == ('preempted', 5, 'SIGTERM')


def test_what_happened_is_kept(tmp_path, capsys):
    config = train_runs.mae(optim=OptimConfig(lr=1e30), faults=FaultConfig(on_bad_numbers='skip', most_skipped=100), steps=6)
    train(config, workdir=tmp_path)
    events = [json.loads(line) for line in (tmp_path / 'events.jsonl').read_text().splitlines()]
    assert events and {event['event'] for event in events} == {'left_out'}
    assert 'and was left out, 1 so far' in capsys.readouterr().err


def test_a_run_is_charged_with_the_start_of_a_process_that_was_started_for_it_alone(tmp_path, monkeypatch):
    from retfound_jax.cli import train as verb
    from retfound_jax.cli.main import run_verb

    seen = []
    monkeypatch.setattr('retfound_jax.train.loop.train', lambda config, **settings: seen.append(settings['began']) or _Done())
    words = ['--experiment', 'experiments.quickstart:pretrain', '--workdir', str(tmp_path / 'run')]
    for argv in (['retfound', 'train', *words], ['retfound', 'quickstart']):
        monkeypatch.setattr(verb.sys, 'argv', argv)
        run_verb('train', words)
    assert 0 < time.monotonic() - seen[0] and seen[1] is None


class _Done:
    step, metrics, images_per_second, unreadable = 1, {}, 0.0, 0
    programs = type('Counts', (), {'compiled': 0, 'loaded': 0})
