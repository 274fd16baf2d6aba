"""Training in a run directory whose home is an object store."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest
import train_runs

from retfound_jax.core import hosts, mirror
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.core.storage import Store
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import Keep
from retfound_jax.train.loop import train

HOME = 'memory://runs/tiny'


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A function that gives the process the local disk of a machine that never saw the run; the store is empty at first."""
    fsspec.filesystem('memory').store.clear()

    def machine(name: str) -> Path:
        monkeypatch.setenv(mirror.SCRATCH, str(tmp_path / name))
        return tmp_path / name

    machine('first')
    return machine


def config(**changes):
    return train_runs.mae(steps=6, checkpoint_every=3, keep=Keep(last=2), **changes)


def fetched(folder: Path) -> Path:
    with mirror.Mirror(folder, Store(HOME)) as made:
        made.fetch()
    return folder


def test_a_run_at_home_in_a_store_stops_anywhere_and_goes_on_elsewhere_bit_by_bit(fresh, tmp_path):
    train(config(), workdir=tmp_path / 'plain')
    with pytest.raises(UserError, match='stopped after step') as told:
        asked = itertools.count(1)
        train(config(), workdir=HOME, notice=lambda: 'SIGTERM' if next(asked) >= 2 else '')  # agreed on while the next step runs
    stopped = int(re.search(r'after step (\d)', str(told.value))[1])
    assert 0 < stopped < 6 and f'complete/{stopped}.json' in Store(HOME).list()
    with pytest.raises(UsageError, match=f'^--workdir {HOME} is not empty; give --resume'):
        train(config(), workdir=HOME)
    with pytest.raises(UsageError, match=f'^--workdir {HOME} holds another run'):
        train(config(seed=1), workdir=HOME, resume=True)
    fresh('second')
    done = train(config(), workdir=HOME, resume=True)
    assert done.step == 6
    there = fetched(tmp_path / 'there')
    assert sorted(int(path.name) for path in (there / 'checkpoints').iterdir() if path.name.isdigit()) == [max(3, stopped), 6]
    wanted, found = ([(row['step'], row['name'], row['value']) for row in read_metrics(run)] for run in (tmp_path / 'plain', there))
    assert wanted == found
    leaves = [_leaves(load_run(run, which='latest').params) for run in (tmp_path / 'plain', there)]
    assert leaves[0] == leaves[1]


@pytest.mark.slow
def test_overwrite_deletes_what_is_home(fresh, tmp_path):
    train(config(), workdir=HOME)
    before = Store(HOME).list()
    train(config(seed=1), workdir=HOME, overwrite=True)
    there = fetched(tmp_path / 'there')
    assert load_run(there).config.seed == 1 and Store(HOME).list().keys() & before.keys() >= {'config.json', 'metrics.jsonl'}
    assert [row['step'] for row in read_metrics(there) if row['name'] == 'loss'] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_copied_stops_the_run_and_the_one_before_it_is_gone_on_from(fresh, tmp_path, monkeypatch):
    write = Store.write

    def refused(self, name, data):
        if name.startswith('checkpoints/6/'):
            raise UserError('no permission to write')
        write(self, name, data)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f'checkpoint 6 could not be copied to {HOME}: no permission'):
        patch.setattr(Store, 'write', refused)
        train(config(), workdir=HOME)
    fresh('second')
    assert 'complete/3.json' in Store(HOME).list() and 'complete/6.json' not in Store(HOME).list()
    assert train(config(), workdir=HOME, resume=True).step == 6


def test_several_processes_are_refused_before_the_data_are_opened(fresh, monkeypatch):
    monkeypatch.setattr(hosts, 'count', lambda: 2)
    with pytest.raises(UsageError, match='2 processes cannot put one checkpoint together'):
        train(config(), workdir=HOME)
    assert Store(HOME).list() == {}


def _leaves(tree) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
