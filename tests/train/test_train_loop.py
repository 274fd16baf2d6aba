"""The loop: exact resume, a loss that is not finite, workdirs of other runs, damaged checkpoints, frozen encoders."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import train_runs

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.loader import Loader
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.validation import validation_for
from retfound_jax.optim import OptimConfig
from retfound_jax.train.checkpoint import Better, Validation, load_run
from retfound_jax.train.loop import train


class Power(Exception):
    """Stands for a power cut."""


def interrupt_before(monkeypatch, draw):
    """The loader dies at its draw number `draw` of the process."""
    drawn, real = [], Loader.__next__

    def dying(self):
        drawn.append(1)
        if len(drawn) == draw:
            raise Power
        return real(self)

    monkeypatch.setattr(Loader, '__next__', dying)


def assert_same_tree(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def everything_saved(workdir):
    """Step 4 as Orbax reads it: parameters, averaged parameters, moments, counters."""
    with ocp.StandardCheckpointer() as reader:
        return reader.restore((workdir / 'checkpoints' / '4' / 'state').absolute())


@pytest.mark.parametrize('make', [train_runs.mae, train_runs.classify])
def test_two_steps_then_resume_to_four_equals_four_straight(tmp_path, monkeypatch, make):
    config = make(checkpoint_every=2, optim=OptimConfig(lr=1e-3, warmup_steps=1, accumulate=2, ema=0.9, clip_norm=1.0))
    straight = train(config, workdir=tmp_path / 'straight', validation=validation_for(config.task.kind))
    with monkeypatch.context() as patch:
        interrupt_before(patch, 4)
        with pytest.raises(Power):
            train(config, workdir=tmp_path / 'cut', validation=validation_for(config.task.kind))
    assert sorted(p.name for p in (tmp_path / 'cut' / 'checkpoints').iterdir() if p.name.isdigit()) == ['2']
    resumed = train(config, workdir=tmp_path / 'cut', resume=True, validation=validation_for(config.task.kind))
    assert (straight.step, resumed.step) == (4, 4)
    one, other = (load_run(tmp_path / name, which='latest') for name in ('straight', 'cut'))
    assert one.step == other.step == 4
    assert_same_tree(one.params, other.params)
    assert_same_tree(*(everything_saved(tmp_path / name) for name in ('straight', 'cut')))
    rows = [[(r['step'], r['name'], r['value']) for r in read_metrics(tmp_path / name)] for name in ('straight', 'cut')]
    assert rows[0] == rows[1]


def test_the_next_batch_after_resume_is_the_same(tmp_path, monkeypatch):
    config = train_runs.mae(checkpoint_every=2)
    seen, real = [], Loader.__next__

    def watching(self):
        batch = real(self)
        seen.append(batch)
        return batch

    monkeypatch.setattr(Loader, '__next__', watching)
    train(config, workdir=tmp_path / 'straight')
    straight = list(seen)
    seen.clear()
    with monkeypatch.context() as patch:
        interrupt_before(patch, 3)
        with pytest.raises(Power):
            train(config, workdir=tmp_path / 'cut')
    seen.clear()
    train(config, workdir=tmp_path / 'cut', resume=True)
    assert len(seen) == 2
    for before, after in zip(straight[2:], seen, strict=True):
        np.testing.assert_array_equal(before['index'], after['index'])
        np.testing.assert_array_equal(before['image'], after['image'])


def test_a_loss_that_is_not_finite_stops_with_step_keys_and_a_sound_checkpoint(tmp_path):
    config = train_runs.mae(steps=12, optim=OptimConfig(lr=1e30), log_every=1)
    with pytest.raises(UserError) as caught:
        train(config, workdir=tmp_path / 'run')
    text = str(caught.value)
    bad = int(text.split()[1])
    assert bad > 1 and f'checkpoint {bad - 1} is from before it' in text
    source = open_source(config.data)
    loader = Loader(config.data, source, seed=config.seed)
    batches = [next(loader) for _ in range(bad)]
    loader.close()
    for row in batches[-1]['index']:
        assert str(source.table['key'][row]) in text
    run = load_run(tmp_path / 'run', which='latest')
    assert run.step == bad - 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.params))
    assert max(row['step'] for row in read_metrics(tmp_path / 'run')) == bad - 1


def test_accumulation_equals_one_batch(tmp_path):
    whole, parts = (train_runs.classify(optim=OptimConfig(lr=1e-3, accumulate=n), steps=3) for n in (1, 4))
    for config, name in ((whole, 'whole'), (parts, 'parts')):
        train(dataclasses.replace(config, data=dataclasses.replace(config.data, augment='none')), workdir=tmp_path / name)
    one, other = (load_run(tmp_path / name, which='latest').params for name in ('whole', 'parts'))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)


def test_best_by_validation_is_kept_beside_latest(tmp_path):
    config = train_runs.classify(steps=5, eval_every=1, checkpoint_every=100)
    falling = Validation(measure=lambda *_: {'AUROC': next(values)}, better=Better(metric='AUROC', mode='max'))
    values = iter([0.5, 0.9, 0.7, float('nan'), 0.6])
    train(config, workdir=tmp_path, validation=falling)
    assert (load_run(tmp_path, which='best').step, load_run(tmp_path, which='latest').step) == (2, 5)
    kept = sorted(int(path.name) for path in (tmp_path / 'checkpoints').iterdir() if path.name.isdigit())
    assert kept == [2, 5]


def test_a_class_absent_from_validation_is_no_crash(tmp_path):
    config = train_runs.classify(eval_every=2)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, phantom=PhantomConfig(patients=12, image_size=48, seed=1)))
    absent = Validation(measure=lambda *_: {'AUROC': float('nan')}, better=Better(metric='AUROC', mode='max'))
    train(config, workdir=tmp_path, validation=absent)
    assert load_run(tmp_path, which='best').step == 4


def test_a_probe_moves_the_head_alone_and_starts_from_the_pretrained_encoder(tmp_path):
    train(train_runs.mae(), workdir=tmp_path / 'mae')
    config = train_runs.classify(init_from=str(tmp_path / 'mae'))
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, adapt='head'))
    train(config, workdir=tmp_path / 'probe')
    pretrained, probe = load_run(tmp_path / 'mae').params, load_run(tmp_path / 'probe').params
    assert_same_tree(pretrained['encoder']['blocks'], probe['encoder']['blocks'])
    assert np.abs(probe['head']['kernel']).max() > 1e-3  # it began at 2e-5


def test_a_workdir_of_another_experiment_is_refused_and_left_alone(tmp_path):
    train(train_runs.mae(), workdir=tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}
    with pytest.raises(UsageError, match='is not empty; give --resume'):
        train(train_runs.mae(), workdir=tmp_path)
    with pytest.raises(UsageError, match=r'optim.lr is 0.001 there and 0.002'):
        train(train_runs.mae(optim=OptimConfig(lr=2e-3)), workdir=tmp_path, resume=True)
    with pytest.raises(UsageError, match='another run: name is "tiny_mae" there'):
        train(train_runs.classify(), workdir=tmp_path, resume=True)
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*')}


def test_overwrite_never_deletes_a_directory_that_is_no_run(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(UsageError, match='holds no run of ours'):
        train(train_runs.mae(), workdir=tmp_path, overwrite=True)
    assert (tmp_path / 'thesis.txt').exists()


def test_a_checkpoint_cut_in_half_is_named_and_not_used(tmp_path):
    config = train_runs.mae()
    train(config, workdir=tmp_path)
    # Every data file: which of them holds the parameters and which the moments alone differs from run to run.
    for path in (tmp_path / 'checkpoints' / '4' / 'state').rglob('d/*'):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match='checkpoint 4 is damaged'):
        load_run(tmp_path)
    with pytest.raises(UserError, match='checkpoint 4 is damaged'):
        train(config, workdir=tmp_path, resume=True)


def test_a_half_written_checkpoint_is_never_taken(tmp_path):
    train(train_runs.mae(), workdir=tmp_path)
    (tmp_path / 'checkpoints' / '9.orbax-checkpoint-tmp-1').mkdir()
    assert load_run(tmp_path, which='latest').step == 4


def test_config_json_is_resolved_and_reloadable(tmp_path):
    train(train_runs.classify(steps=0, epochs=0.5, warmup_epochs=0.25), workdir=tmp_path)
    run = load_run(tmp_path)
    written = json.loads((tmp_path / 'environment.json').read_text())
    assert written['versions']['jax'] == jax.__version__ and 'device' in written['hardware'] and written['command']
    assert run.config.steps >= 1 and run.config.epochs == 0 and run.task.classes == ('0', '1')
    assert json.loads((tmp_path / 'config.json').read_text())['task']['type'] == 'retfound_jax.tasks.classify:ClassifyTask'


def test_predictions_of_a_saved_run_do_not_depend_on_the_batch(tmp_path):
    train(train_runs.classify(), workdir=tmp_path)
    run = load_run(tmp_path)
    image = np.random.default_rng(0).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    whole = run.predict({'image': image, 'labels': np.zeros((5, 1), np.float32)})['score']
    one = run.predict({'image': image[:1], 'labels': np.zeros((1, 1), np.float32)})['score']
    np.testing.assert_allclose(whole[:1], one, atol=1e-6)


@pytest.mark.parametrize(
    'changes', [{'steps': 0}, {'seed': -1}, {'data': train_runs.data(image_size=64)}, {'data': train_runs.data(labels=('sex',))}]
)
def test_configurations_that_do_not_fit_are_refused(tmp_path, changes):
    with pytest.raises(UsageError):
        train(train_runs.mae(**changes), workdir=tmp_path / 'run')
