"""The quality gate trains what `train` trains, lets a change without effect through, and stops a harmful one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from quality_runs import tiny

from retfound_jax.cli.main import main
from retfound_jax.core.config import override
from retfound_jax.core.errors import UsageError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.sources import open_source
from retfound_jax.speed.quality import Pair, Verdict, compare, shortened, table
from retfound_jax.train.loop import train

STEPS = 10


def test_both_sides_are_what_train_trains(tmp_path):
    verdict = compare(tiny(), ['log_every=7'], steps=STEPS)
    (pair,) = verdict.pairs
    train(tiny(), workdir=tmp_path)
    losses = [row['value'] for row in read_metrics(tmp_path) if row['name'] == 'loss']
    np.testing.assert_allclose(pair.base_curve, losses, rtol=1e-6)
    assert pair.base == pair.base_curve[-1] and pair.base_curve == pair.changed_curve
    assert verdict.excess == 0 and verdict.passed


def test_a_harmful_change_fails_with_its_table_and_its_numbers(tmp_path, capsys):
    file = tmp_path / 'result.json'
    call = ['bench', 'quality', '--experiment', 'quality_runs:tiny', '--steps', str(STEPS), '--seeds', '2', '--json', str(file)]
    assert main([*call, '--change', 'optim.lr=1e-9']) == 1
    told = capsys.readouterr()
    assert 'failed: at most +0.50% is let through' in told.out
    assert told.err.splitlines()[-1].startswith('retfound bench: optim.lr=1e-9 ends +')
    found = json.loads(file.read_text())
    assert not found['passed'] and found['excess'] > 0.005 and [pair['seed'] for pair in found['pairs']] == [0, 1]
    assert found['changes'] == ['optim.lr=1e-9'] and found['versions']['jax']


def test_the_warm_up_keeps_its_share_of_the_steps():
    whole = override(tiny(), ['steps=1000', 'optim.warmup_steps=200'])
    assert shortened(whole, open_source(whole.data), steps=STEPS).optim == tiny().optim


@pytest.mark.parametrize('changes', [[], ['data.batch_size=4'], ['seed=3'], ['steps=4']])
def test_a_change_of_the_work_is_refused(changes):
    with pytest.raises(UsageError):
        compare(tiny(), changes, steps=STEPS)


def test_a_loss_that_is_not_finite_fails():
    pair = Pair(seed=0, base=0.5, changed=float('nan'), base_curve=[0.5], changed_curve=[float('nan')])
    verdict = Verdict(changes=('optim.lr=1',), steps=10, limit=0.005, pairs=(pair,))
    assert not verdict.passed and verdict.record()['excess'] is None and 'failed' in table(verdict)
