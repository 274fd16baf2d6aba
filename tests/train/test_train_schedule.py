"""Training through a resolution schedule, and on repeated samples."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import train_runs

from retfound_jax.core import compile_cache
from retfound_jax.core.errors import UsageError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.loader import Loader
from retfound_jax.train.config import assume
from retfound_jax.train.loop import train
from retfound_jax.train.program import make_program

SCHEDULE = ((0, 16), (2, 32))


class Cut(Exception):
    """Stands for a power cut."""


def losses(workdir):
    return [(row['step'], row['value']) for row in read_metrics(workdir) if row['name'] == 'loss']


def test_a_run_through_two_sizes_resumes_exactly(tmp_path, monkeypatch):
    config = train_runs.mae(data=train_runs.data(resolution=SCHEDULE), checkpoint_every=1)
    train(config, workdir=tmp_path / 'straight')
    real = Loader.__next__

    def dying(self):
        if self.step == 2:
            raise Cut
        return real(self)

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(Loader, '__next__', dying)
        train(config, workdir=tmp_path / 'cut')
    train(config, workdir=tmp_path / 'cut', resume=True)
    assert len(losses(tmp_path / 'cut')) == 4 and losses(tmp_path / 'cut') == losses(tmp_path / 'straight')


def test_the_step_is_compiled_once_a_size():
    program = make_program(assume(train_runs.mae(data=train_runs.data(resolution=SCHEDULE))))
    state = program.init_state()
    batches = [{'image': np.zeros(program.abstract_batch(size)['image'].shape, np.uint8)} for size in (16, 32)]
    before = compile_cache.counts()
    for place in (0, 0, 1, 1, 0):
        state, _ = program.step(state, batches[place])
    asked = compile_cache.counts().since(before)
    assert asked.compiled + asked.loaded == 2


def test_a_size_that_the_model_cannot_take_is_told_before_the_first_step(tmp_path):
    config = train_runs.mae(data=train_runs.data(resolution=((0, 20), (2, 32))))
    with pytest.raises(UsageError, match='20'):
        train(config, workdir=tmp_path)


@pytest.mark.parametrize('make', [train_runs.mae, pytest.param(train_runs.classify, marks=pytest.mark.slow)])
def test_repeated_samples_are_a_batch_with_each_row_written_out(make):
    repeated, written = (make_program(assume(make(data=train_runs.data(repeat=times)))) for times in (4, 1))
    batch = repeated.random_batch()
    assert len(batch['image']) == 2
    out = {name: np.repeat(value, 4, axis=0) for name, value in batch.items()}
    results = repeated.step(repeated.init_state(), batch), written.step(written.init_state(), out)
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(one, other)
