"""A loss or gradient that is not finite, or a spike: what is left out, when a run stops, which data a run that went back goes on with."""

from __future__ import annotations

import collections
import json
import math

import bad_number_cases
import jax
import jax.numpy as jnp
import many_devices
import numpy as np
import pytest
import train_runs
from hypothesis import given
from hypothesis import strategies as st

from retfound_jax.core.errors import UserError
from retfound_jax.core.runlog import read_metrics
from retfound_jax.data.loader import Loader
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.train import spikes
from retfound_jax.train.bad_numbers import FILE, Rewinds, judge, read_rewinds
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import FaultConfig, TrainConfig
from retfound_jax.train.loop import train

CASES = [
    ['halts', 'stop', 1],
    ['skips', 1],
    ['skips', 2],
    ['skips_as_optax_by_hand', 2],
    ['skips_up_to_a_limit', 1],
    ['decides_alike_after_a_resume', 2],
    ['changes_policy', 1],
    ['rewinds', 1],
]
MORE = [
    ['halts', 'stop', 2],
    ['halts', 'rewind', 1],
    ['halts', 'rewind', 2],
    ['halts_at_too_high_a_rate', 1],
    ['halts_at_too_high_a_rate', 2],
    ['skips_as_optax_by_hand', 1],
    ['skips_up_to_a_limit', 2],
    ['decides_alike_after_a_resume', 1],
    ['changes_policy', 2],
    ['rewinds', 2],
    ['sends_no_more', 4],
]


@pytest.fixture(scope='module')
def results():
    return many_devices.results('bad_number_cases', CASES, devices=2)


@pytest.mark.parametrize('case', CASES, ids=many_devices.words)
def test_steps_on_devices(results, case):
    assert not results[many_devices.words(case)], results[many_devices.words(case)]


@pytest.fixture(scope='module')
def more_results():
    return many_devices.results('bad_number_cases', MORE, devices=4)


@pytest.mark.slow
@pytest.mark.parametrize('case', MORE, ids=many_devices.words)
def test_more_steps_on_devices(more_results, case):
    assert not more_results[many_devices.words(case)], more_results[many_devices.words(case)]


# ------------------------------------------------------------------------------------------------ the loop


class Power(Exception):
    """Stands for a power cut."""


@pytest.fixture
def stream(monkeypatch):
    """Makes places of the stream bad, cuts the power before a draw, and lists the places drawn."""
    drawn, real = [], Loader.__next__

    def use(*, bad=(), cut=0):
        drawn.clear()

        def draw(self):
            if len(drawn) + 1 == cut:
                raise Power
            batch = real(self)
            drawn.append(self.step + self.offset)
            if drawn[-1] in bad:
                batch = batch | {'labels': np.full_like(batch['labels'], np.inf)}
            return batch

        monkeypatch.setattr(Loader, '__next__', draw)
        return drawn

    return use


def regression(policy):
    faults = FaultConfig(on_bad_numbers=policy)
    task = bad_number_cases.config(faults).task
    data = train_runs.data(augment='none', phantom=PhantomConfig(patients=12, image_size=48))
    base = {'name': 'tiny', 'steps': 10, 'checkpoint_every': 3, 'log_every': 1, 'eval_every': -1}
    return TrainConfig(task=task, data=data, optim=OptimConfig(lr=1e-3), faults=faults, **base)


def logged(workdir):
    return [(row['step'], row['name'], row['value']) for row in read_metrics(workdir)]


@pytest.mark.slow
def test_a_run_goes_back_and_is_the_same_wherever_it_is_cut(tmp_path, stream):
    config, bad = regression('rewind'), (5, 10)
    drawn = stream(bad=bad)
    assert train(config, workdir=tmp_path / 'whole').step == 10
    assert [(one.from_step, one.to_step, one.places) for one in read_rewinds(tmp_path / 'whole').made] == [(5, 3, (4, 5)), (8, 6, (9, 10))]
    draws = len(drawn)
    # The batch after a bad one is drawn before the bad one's numbers are read.
    assert drawn == [1, 2, 3, 4, 5, 6, *range(6, 12), *range(11, 15)]
    wanted = load_run(tmp_path / 'whole', which='latest').params
    # Each step is told once, though some were done twice.
    assert [step for step, name, _ in logged(tmp_path / 'whole') if name == 'loss'] == list(range(1, 11))
    for cut in (6, 7, 9, 12, 13, draws):
        workdir = tmp_path / str(cut)
        stream(bad=bad, cut=cut)
        with pytest.raises(Power):
            train(config, workdir=workdir)
        stream(bad=bad)
        train(config, workdir=workdir, resume=True)
        assert read_rewinds(workdir) == read_rewinds(tmp_path / 'whole')
        assert logged(workdir) == logged(tmp_path / 'whole')
        bad_number_cases.same(load_run(workdir, which='latest').params, wanted)


@pytest.mark.slow
def test_a_run_leaves_a_step_out_and_goes_on(tmp_path, stream):
    config = regression('skip')
    stream(bad=(5,))
    assert train(config, workdir=tmp_path).step == 10
    losses = {step: value for step, name, value in logged(tmp_path) if name == 'loss'}
    assert sorted(losses) == list(range(1, 11)) and [step for step, value in losses.items() if value is None] == [5]
    assert not {'bad', 'halted'} & {name for _, name, _ in logged(tmp_path)}


@pytest.mark.slow
def test_a_run_that_stopped_goes_on_under_another_policy(tmp_path, stream):
    stream(bad=(5,))
    with pytest.raises(UserError, match='step 5 of tiny gave a loss of inf .* checkpoint 4 is from before it'):
        train(regression('stop'), workdir=tmp_path)
    drawn = stream(bad=(5,))
    assert train(regression('rewind'), workdir=tmp_path, resume=True).step == 10
    assert drawn == [5, 6, *range(6, 12)]


# ------------------------------------------------------------------------------------------------ spikes

FACTOR = 6.0


@jax.jit
def on_device(measured: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which steps are bad by their loss and gradient norm [T, 2], as the step has it, and the limits [T, 2] before each."""

    def one(recent, pair):
        now = spikes.measured(loss=pair[0], norm=pair[1])
        limits = spikes.limits(recent, factor=FACTOR)
        bad = ~jnp.isfinite(now).all() | (now > limits).any()
        return spikes.remember(recent, now, left_out=bad), (bad, limits)

    return jax.lax.scan(one, spikes.no_steps(), measured)[1]


def by_hand(measured: np.ndarray) -> tuple[list[bool], list[list[float]]]:
    """The same from lists of numbers, in float64."""
    memory, bad, limits = collections.deque(maxlen=128), [], []
    for loss, norm in measured.astype(np.float64).tolist():
        pair = (loss, math.log(norm))
        accepted = [row for row in memory if row is not None]
        now = [np.inf, np.inf]
        if len(accepted) >= 64:
            for place in (0, 1):
                values = sorted(row[place] for row in accepted)
                median, decile = values[(len(values) - 1) // 2], values[int((len(values) - 1) * 9 / 10)]
                now[place] = median + FACTOR * max((decile - median) / 1.2816, 0.001 * (1 if place else abs(median)))
        limits.append(now)
        bad.append(not all(map(np.isfinite, pair)) or any(value > limit for value, limit in zip(pair, now, strict=True)))
        memory.append(None if bad[-1] else pair)
    return bad, limits


@given(seed=st.integers(0, 2**32 - 1), roughness=st.sampled_from([0.0, 0.01, 0.1, 1.0]), drift=st.sampled_from([-0.02, 0.0, 0.02]))
def test_spikes_are_those_of_a_second_implementation(seed, roughness, drift):
    rng = np.random.default_rng(seed)
    walk = 5 + np.cumsum(drift + roughness * rng.standard_normal((400, 2)), axis=0)
    for step in rng.choice(400, 12, replace=False):
        walk[step, rng.integers(2)] += rng.choice([0.5, 3.0, 30.0, np.inf, np.nan])
    walk = np.stack([walk[:, 0], np.exp(walk[:, 1])], axis=1).astype(np.float32)
    found, limits = map(np.asarray, on_device(walk))
    bad, wanted = by_hand(walk)
    assert found.tolist() == bad
    # A limit is a difference of remembered values times 4.7, in float32: it may be near zero where they are not.
    remembered = np.abs(np.stack([walk[:, 0], np.log(walk[:, 1])]))
    scale = remembered[np.isfinite(remembered)].max()
    np.testing.assert_allclose(limits, wanted, rtol=1e-5, atol=32 * np.finfo(np.float32).eps * scale)


def curve(seed: int, *, steps: int = 2000) -> np.ndarray:
    """A loss that falls from 8 to 2 and its gradient norm, with noise of 2 and 20 percent."""
    rng = np.random.default_rng(seed)
    loss = (2 + 6 * np.exp(-np.arange(steps) / 150)) * (1 + 0.02 * rng.standard_normal(steps))
    return np.stack([loss, np.exp(0.2 * rng.standard_normal(steps))], axis=1).astype(np.float32)


def test_a_falling_loss_with_ordinary_noise_has_no_spike():
    assert not any(np.asarray(on_device(curve(seed))[0]).any() for seed in range(20))


@pytest.mark.parametrize('growth', [1.2, 1.5, 3.0])
def test_a_spike_that_grows_from_step_to_step_is_found_before_it_is_at_its_height(growth):
    for seed in range(10):
        measured = curve(seed)
        climb = 0.04 * growth ** np.arange(60)
        measured[1500:1560, 0] += np.minimum(climb, 4.0)
        bad = np.asarray(on_device(measured)[0])
        assert not bad[:1500].any() and 1500 + bad[1500:].argmax() < 1500 + np.argmax(climb >= 2.0)


def test_another_image_size_makes_the_loss_forget_and_what_was_left_out_stays_counted():
    recent = spikes.no_steps()
    for value, left_out in [(1.0, False), (9.0, True), (1.0, False)]:
        recent = spikes.remember(recent, jnp.array([value, value]), left_out=jnp.asarray(left_out))
    forgotten = spikes.forget(recent)
    assert not np.isfinite(forgotten).any()
    assert int(spikes.left_out(recent)) == int(spikes.left_out(forgotten)) == 1


# ------------------------------------------------------------------------------------------------ what the loop is told


def verdict(values, *, step=7, rewinds=None, newest=4, keys=('eye 1', 'eye 2'), **faults):
    numbers = {'loss': 1.0, 'grad_norm': 2.0, 'bad': 0.0, 'halted': 0.0, 'skipped': 0.0} | values
    given = {'rewinds': rewinds or Rewinds(), 'newest': lambda: newest, 'keys': lambda: keys}
    return judge(step, numbers, name='tiny', faults=FaultConfig(**faults), **given)


def test_a_sound_step_asks_for_nothing():
    def never():
        raise AssertionError

    numbers = {'loss': 1.0, 'grad_norm': 2.0, 'bad': 0.0, 'halted': 0.0, 'skipped': 3.0}
    found = judge(7, numbers, name='tiny', faults=FaultConfig(), rewinds=Rewinds(), newest=never, keys=never)
    assert (found.action, found.sentence, dict(found.event)) == ('go_on', '', {})


NAN = {'loss': float('nan'), 'grad_norm': float('inf'), 'bad': 1.0, 'halted': 1.0}


def test_what_a_user_reads():
    assert verdict(NAN).sentence == (
        'step 7 of tiny gave a loss of nan (gradient norm inf): the run stopped; checkpoint 6 is from before it; '
        'lower the learning rate or look at the images of its batch: eye 1, eye 2'
    )
    left_out = verdict(NAN | {'halted': 0.0, 'skipped': 3.0}, on_bad_numbers='skip')
    assert left_out.action == 'note'
    assert left_out.sentence == (
        'step 7 of tiny gave a loss of nan (gradient norm inf) and was left out, 3 so far; its batch: eye 1, eye 2'
    )
    spike = verdict({'loss': 9.0, 'bad': 1.0, 'halted': 1.0}, spike_factor=6.0).sentence
    assert 'gave a loss of 9 (gradient norm 2), a spike of more than 6 deviations above the last 128 steps: the run stopped;' in spike
    assert 'as more than 10 of the last 128 steps were bad (faults.most_skipped)' in verdict(NAN, on_bad_numbers='skip').sentence
    back = verdict(NAN, on_bad_numbers='rewind')
    assert back.sentence == (
        'step 7 of tiny gave a loss of nan (gradient norm inf): '
        'back to checkpoint 4 and past the data of batches 5 to 7 (rewind 1 of at most 3)'
    )
    assert 'back to the start and past the data of batches 1 to 7' in verdict(NAN, on_bad_numbers='rewind', newest=0).sentence
    assert verdict(NAN, keys=[str(key) for key in range(100)]).sentence.endswith(', 63 and 36 more')


def test_rewinds_have_a_limit():
    rewinds, actions = Rewinds(), []
    for _ in range(4):
        found = verdict(NAN, rewinds=rewinds, on_bad_numbers='rewind')
        actions.append(found.action)
        rewinds = found.rewinds
    assert actions == ['rewind'] * 3 + ['stop']
    assert 'as it went back 3 times already (faults.most_rewinds)' in found.sentence


def test_events_are_json_and_name_the_step():
    for values, faults in ((NAN, {}), (NAN, {'on_bad_numbers': 'rewind'}), (NAN | {'halted': 0.0}, {'on_bad_numbers': 'skip'})):
        event = json.loads(json.dumps(verdict(values, **faults).event, allow_nan=False))
        assert event['step'] == 7 and event['loss'] is None and event['event'] in ('stopped', 'rewound', 'left_out')


# ------------------------------------------------------------------------------------------------ the data after a rewind


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=6))
def test_after_any_rewinds_the_stream_goes_on_without_what_was_left_out(pairs):
    rewinds, gone = Rewinds(), set()
    for to, further in pairs:
        before = [rewinds.position(step) for step in range(1, 100)]
        bad = to + further
        gone |= set(range(before[to - 1] + 1 if to else 1, before[bad - 1] + 1))
        rewinds = rewinds.after(bad=bad, to=to, reason='a test')
        # What the checkpoint was trained on stays what its steps are said to have been trained on.
        assert [rewinds.position(step) for step in range(1, to + 1)] == before[:to]
    wanted = [place for place in range(1, 400) if place not in gone][:99]
    assert [rewinds.position(step) for step in range(1, 100)] == wanted
    offsets = [rewinds.offset(step) for step in range(1, 100)]
    assert offsets == sorted(offsets) and offsets[0] >= 0


def test_the_file_says_it_all(tmp_path):
    assert read_rewinds(tmp_path) == Rewinds()
    rewinds = Rewinds().after(bad=7, to=4, reason='a loss of nan').after(bad=9, to=4, reason='a spike')
    rewinds.write(tmp_path)
    assert read_rewinds(tmp_path) == rewinds
    assert json.loads((tmp_path / FILE).read_text())[1] == {'from_step': 9, 'to_step': 4, 'places': [5, 12], 'reason': 'a spike'}


TURNED = '[{"from_step": 4, "to_step": 7, "places": [5, 7], "reason": ""}]'


@pytest.mark.parametrize('text', ['{}', '[1]', '[{}]', TURNED, TURNED[:20], '\x00'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UserError, match=FILE):
        read_rewinds(tmp_path)


def test_the_steps_here_are_those_of_the_cases():
    """The window and the spikes that the cases put into it leave enough to judge by."""
    assert spikes.FILLED < min(bad_number_cases.SPIKES) and spikes.WINDOW == 128
