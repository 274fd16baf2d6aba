"""Group-DRO and weights in the training loop: saved, resumed to the bit, the same on any devices, and free where they are off."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import many_devices
import numpy as np
import pytest
import robust_cases
import train_runs

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.balance import BalanceConfig
from retfound_jax.data.loader import Loader
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.validation import validation_for, worst_group
from retfound_jax.models.transfer import load_encoder
from retfound_jax.tasks.robust import GroupDRO
from retfound_jax.train.checkpoint import Checkpoints, load_run
from retfound_jax.train.config import align, assume, resolve
from retfound_jax.train.loop import train
from retfound_jax.train.program import make_program


def test_the_groups_weights_are_saved_and_go_on_to_the_bit(tmp_path: Path) -> None:
    config = align(robust_cases.config(GroupDRO(step_size=0.5)))
    source = open_source(config.data)
    config = resolve(config, source=source)
    assert config.task.groups == ('F', 'M') and np.isclose(sum(config.task.robust.shares), 1)
    assert config.task.robust.rows == tuple((source.table['sex'] == sex).sum() for sex in 'FM')
    program, loader = make_program(config), Loader(config.data, source, seed=config.seed)
    state, shown = program.init_state(), []
    for step in range(4):
        if step == 2:
            with Checkpoints(tmp_path) as checkpoints:
                checkpoints.save(state, data=loader.state(), metrics=None)
                checkpoints.wait()
                kept, where = checkpoints.restore(2, like=program.abstract_state())
        state, metrics = program.step(state, program.put(next(loader)))
        shown.append([float(metrics['group_weight/F']), float(metrics['group_weight/M'])])
    np.testing.assert_allclose(state.params['group_weights'], shown[-1], rtol=1e-6)  # the step's weights are those that are kept
    assert np.allclose(np.sum(shown, axis=1), 1) and len({tuple(one) for one in shown}) == 4
    loader.restore(where)
    for _ in range(2):
        kept, _ = program.step(kept, program.put(next(loader)))
    loader.close()
    for one, other in zip(jax.tree.leaves(kept), jax.tree.leaves(state), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_where_it_is_off_the_program_is_the_one_without_groups() -> None:
    texts = []
    for groups in ('', 'sex'):
        program = make_program(assume(train_runs.classify(data=train_runs.data(groups=groups))))
        assert 'group' not in program.abstract_batch() and 'group_weights' not in program.abstract_state().params
        texts.append(program.step.lower(program.abstract_state(), program.abstract_batch()).as_text())
    assert texts[0] == texts[1]


def test_balanced_data_are_not_weighed_again() -> None:
    for temperature, even in ((1.0, False), (0.0, True)):
        plain, balance = robust_cases.config(GroupDRO()), BalanceConfig(by='sex', temperature=temperature)
        config = align(dataclasses.replace(plain, data=dataclasses.replace(plain.data, balance=balance)))
        shares = resolve(config, source=open_source(config.data)).task.robust.shares
        assert np.allclose(shares, 0.5) == even and np.isclose(sum(shares), 1)


def test_weights_go_to_a_model_without_groups_and_from_it() -> None:
    given = {'head': {'kernel': np.ones((2, 2))}, 'encoder': {'norm': {'scale': np.ones(2)}}}
    held = {**given, 'encoder': {'norm': {'scale': np.zeros(2)}}, 'group_weights': np.array([0.9, 0.1])}
    assert load_encoder(given, held)['encoder']['norm']['scale'].tolist() == [0, 0]
    for source in (given, {**given, 'group_weights': np.array([0.3, 0.3, 0.4])}):
        found = load_encoder(held, source)
        assert found['encoder']['norm']['scale'].tolist() == [1, 1] and found['group_weights'].tolist() == [0.9, 0.1]


def test_what_does_not_fit_is_said_before_anything_is_computed() -> None:
    off = train_runs.data(groups='')
    for message, config in {
        "task.robust weighs groups of people and data.groups is ''": robust_cases.config(GroupDRO(), data=off),
        "best_by is 'worst_group_AUROC' and data.groups is ''": train_runs.classify(best_by='worst_group_AUROC'),
    }.items():
        with pytest.raises(UsageError, match=message):
            align(config)
    with pytest.raises(UsageError, match="mae run looks at no groups; set data.groups to ''"):
        assume(train_runs.mae(data=train_runs.data(groups='sex')))
    named = align(robust_cases.config(GroupDRO(), task=robust_cases.task(GroupDRO(), groups=('M', 'F'))))
    with pytest.raises(UserError, match='groups of the data are F, M and the task names M, F'):
        resolve(named, source=open_source(named.data))


def test_the_worst_group_is_the_worst_of_those_that_are_groups_and_large_enough() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(['F', 'M', 'few', 'missing', 'declined'], [60, 40, 19, 60, 60])
    label = rng.integers(0, 2, len(group)).astype(float)
    right = {'F': 2.0, 'M': 1.0, 'few': -9.0, 'missing': -9.0, 'declined': -9.0}
    logit = np.array([right[name] for name in group]) * (2 * label - 1) + rng.normal(size=len(group))
    score = 1 / (1 + np.exp(-np.stack([-logit, logit], 1)))

    def pairs_won(which: np.ndarray) -> float:
        ill, well = logit[which & (label == 1)], logit[which & (label == 0)]
        return float((ill[:, None] > well).mean())

    expected = min(pairs_won(group == 'F'), pairs_won(group == 'M'))
    found = validation_for('single', best_by='worst_group_AUROC')
    assert (found.better.metric, found.better.mode) == ('worst_group_AUROC', 'max')
    assert np.isclose(found.measure('single', label, score, group=group)['worst_group_AUROC'], expected)
    assert 'worst_group_AUROC' not in found.measure('single', label, score)
    age = worst_group('regress', label=label, score=logit, group=group)
    assert np.isclose(age['worst_group_MAE'], max(np.abs(label - logit)[group == name].mean() for name in 'FM'))
    assert validation_for('regress', best_by='worst_group_MAE').better.mode == 'min'
    assert np.isnan(worst_group('single', label=label[:19], score=score[:19], group=group[:19])['worst_group_AUROC'])


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dro', 'reweight'])
def test_eight_devices_give_the_steps_of_one_and_parts_those_of_the_whole(name: str) -> None:
    cases = [['eight_are_as_one', name, 8, 1, 1], ['eight_are_as_one', name, 2, 2, 2], ['parts_keep_the_weights_of_the_whole', name]]
    for case, failure in many_devices.results('robust_cases', cases, devices=8).items():
        assert not failure, f'{case}: {failure}'


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dro', 'reweight'])
def test_a_whole_run_resumes_and_tells_the_worst_group(tmp_path: Path, name: str) -> None:
    data = train_runs.data(phantom=PhantomConfig(patients=240, image_size=32), groups='sex')
    changes = {'data': data, 'eval_every': 2, 'checkpoint_every': 2, 'best_by': 'worst_group_AUROC'}
    config = robust_cases.config(robust_cases.ROBUST[name], **changes)
    validation = validation_for('single', best_by=config.best_by)
    told = iter(['', '', 'SIGTERM'])
    train(config, workdir=tmp_path / 'straight', validation=validation)
    with pytest.raises(Exception, match='SIGTERM'):
        train(config, workdir=tmp_path / 'cut', validation=validation, notice=lambda: next(told, 'SIGTERM'))
    train(config, workdir=tmp_path / 'cut', validation=validation, resume=True)
    one, other = (load_run(tmp_path / name, which='latest') for name in ('straight', 'cut'))
    for a, b in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    rows = read_metrics(tmp_path / 'straight')
    assert {'val/AUROC', 'unweighted_loss'} <= {row['name'] for row in rows}
    assert all(0 < row['value'] < 1 for row in rows if row['name'] == 'val/worst_group_AUROC')
    assert load_run(tmp_path / 'straight', which='best').step in {row['step'] for row in rows if row['name'] == 'val/worst_group_AUROC'}
    kept = json.loads((tmp_path / 'straight' / 'config.json').read_text())['task']
    assert kept['groups'] == ['F', 'M', 'missing'] and (kept['robust'].get('shares') or kept['robust'].get('weights'))
