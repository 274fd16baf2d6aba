"""Studies of drawn photographs from pretraining to the table: planted effects are found, and where none is planted none is found.

All of it trains, so it is of the slow tier.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.tables import bias, fairness
from retfound_jax.core.errors import Preempted
from retfound_jax.studies import making, run
from retfound_jax.studies.grid import Method, Study
from retfound_jax.studies.slopes import Estimate

pytestmark = pytest.mark.slow


def small(study: Study, *, methods: tuple[str, ...], seeds: tuple[int, ...] = (0, 1)) -> Study:
    """Some of its methods and seeds, frozen features where it compares compositions, all labels."""
    chosen = tuple(study.method(name) for name in methods)
    adaptations = ('probe',) if study.groups.group else study.adaptations
    judged = dataclasses.replace(study.judged, replicates=200)
    return dataclasses.replace(study, methods=chosen, seeds=seeds, adaptations=adaptations, fractions=(1.0,), judged=judged)


def made(study: Study, folder: Path) -> Path:
    run.run(study, workdir=folder, data=folder)
    return folder


def slopes(study: Study, folder: Path) -> dict[str, Estimate]:
    found = making.by_group(study, folder=made(study, folder))
    return {slope.group: slope.found for slope in found.slopes if slope.on == 'composition'}


def test_a_planted_effect_is_recovered(tmp_path: Path) -> None:
    """Two seeds leave the interval over seeds one degree of freedom, so it is that with seeds as blocks that has to find it here."""
    known = slopes(small(bias.bias_phantom(), methods=('0', '50', '100')), tmp_path)
    assert known['F'].value > 0.1 and known['gap'].value > 0.1 and known['gap'].blocks[0] > 0


def test_where_nothing_is_planted_no_gap_moves(tmp_path: Path) -> None:
    known = slopes(small(bias.bias_none_phantom(), methods=('0', '50', '100')), tmp_path)
    assert known['gap'].blocks[0] < 0 < known['gap'].blocks[1] and {one.verdict for one in known.values()} == {'not shown'}


def test_the_site_where_the_mark_misleads_is_named_first_and_balanced_sampling_shrinks_the_gap(tmp_path: Path) -> None:
    study = small(fairness.fairness_phantom(), methods=('none', 'balanced'))
    found = making.means(study, folder=made(study, tmp_path))
    assert {one.group for one in found.failing if one.means == 'none'} == {fairness.FAILS_AT}
    balanced = next(one for one in found.changes if (one.means, one.metric) == ('balanced', 'AUROC'))
    assert balanced.gap_change.value < -0.2 and balanced.overall_change.value > 0


def test_a_stopped_study_goes_on_and_pretrains_once(tmp_path: Path) -> None:
    """Stopped in the middle of a pretraining and started again, it has the predictions of a study that was left alone."""
    study = small(bias.bias_phantom(), methods=('0', '100'), seeds=(0,))
    drawn = dataclasses.replace(study.data[0].phantom, patients=200)
    compose = dataclasses.replace(study.data[0].compose, images=60)
    methods = tuple(_short(method) for method in study.methods)
    study = dataclasses.replace(
        study, adaptations=('probe', 'finetune'), methods=methods,
        data=(dataclasses.replace(study.data[0], phantom=drawn, compose=compose),),
        recipe=dataclasses.replace(study.recipe, steps=4),
    )
    whole = made(study, tmp_path / 'whole')
    asked = iter(range(1000))
    with pytest.raises(Preempted):
        run.run(study, workdir=tmp_path / 'stopped', data=tmp_path, notice=lambda: 'SIGTERM' if next(asked) > 4 else '')
    stopped = made(study, tmp_path / 'stopped')
    marks = sorted((stopped / 'pretrained').glob('*/pretrained.json'))
    assert len(marks) == 2 and {json.loads(mark.read_text())['step'] for mark in marks} == {12}
    for one in sorted(whole.glob('cells/*/predictions/*.parquet')):
        assert (stopped / one.relative_to(whole)).read_bytes() == one.read_bytes()
    times = [mark.stat().st_mtime_ns for mark in marks]
    made(study, stopped)
    assert [mark.stat().st_mtime_ns for mark in marks] == times


def _short(method: Method) -> Method:
    """Twelve steps on eighty images."""
    recipe = method.pretraining.recipe
    compose = dataclasses.replace(recipe.data.compose, images=80)
    data = dataclasses.replace(recipe.data, compose=compose, batch_size=16)
    recipe = dataclasses.replace(recipe, steps=12, checkpoint_every=4, data=data)
    return dataclasses.replace(method, pretraining=dataclasses.replace(method.pretraining, recipe=recipe))
