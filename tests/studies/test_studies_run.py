"""Who makes which cell: each once, by whichever process; one that fails is named and the rest is made."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import made_cells
import pytest

from retfound_jax.core.errors import Preempted, UsageError, UserError
from retfound_jax.studies import arms, run
from retfound_jax.studies.cells import Place
from retfound_jax.studies.grid import CellSpec, with_weights


class Counted:
    """Makes cells, counts them, and fails for one."""

    def __init__(self, *, fails: str = '') -> None:
        self.made: list[str] = []
        self.fails = fails

    def __call__(self, ground: Any, spec: CellSpec, where: Place) -> None:
        self.made.append(spec.slug)
        if spec.slug == self.fails:
            raise UserError('the photograph is torn; take another')
        made_cells.make(ground, spec, where)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    made = Counted()
    monkeypatch.setattr(arms, 'make', made)
    return made


def test_every_cell_is_made_once_and_never_again(tmp_path: Path, counted: Counted) -> None:
    study = made_cells.study()
    cells = len(study.cells())
    assert run.run(study, workdir=tmp_path, data=tmp_path) == run.Done(made=cells, known=0)
    assert counted.made == [spec.slug for spec in study.cells()]
    assert run.run(study, workdir=tmp_path, data=tmp_path) == run.Done(made=0, known=cells)
    more = dataclasses.replace(study, seeds=(0, 1, 2))
    assert run.run(more, workdir=tmp_path, data=tmp_path).made == len(more.cells()) - cells
    assert len(counted.made) == len(set(counted.made)) == len(more.cells())


def test_two_at_one_study_make_each_cell_once(tmp_path: Path, counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads, whose locks are as those of two processes; a barrier lets both begin before either has a cell."""
    monkeypatch.setattr(run, '_POLL', 0.01)
    study, both = made_cells.study(), threading.Barrier(2)
    grounds = [run.prepare(study, root=tmp_path, data=tmp_path) for _ in range(2)]
    places = [run._places(ground)[0] for ground in grounds]

    def work(number: int) -> None:
        both.wait()
        run._work(grounds[number], places[number], keep_runs=False, told=lambda: None)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counted.made) == sorted(spec.slug for spec in study.cells())


def test_a_cell_that_fails_is_named_and_the_rest_is_made(tmp_path: Path, counted: Counted, capsys: pytest.CaptureFixture[str]) -> None:
    study = made_cells.study()
    counted.fails = study.cells()[3].slug
    with pytest.raises(UserError, match=f'1 of {len(study.cells())} cells .*{counted.fails}: the photograph is torn') as error:
        run.run(study, workdir=tmp_path, data=tmp_path)
    assert '\n' not in str(error.value)
    assert counted.fails in capsys.readouterr().err
    assert len(counted.made) == len(study.cells())
    counted.fails = ''
    assert run.run(study, workdir=tmp_path, data=tmp_path).made == 1


def test_a_notice_ends_it_between_cells(tmp_path: Path, counted: Counted) -> None:
    study = made_cells.study()
    with pytest.raises(Preempted, match='SIGTERM'):
        run.run(study, workdir=tmp_path, data=tmp_path, notice=lambda: 'SIGTERM' if len(counted.made) == 2 else '')
    assert len(counted.made) == 2
    assert run.run(study, workdir=tmp_path, data=tmp_path).known == 2


def test_a_cell_of_other_settings_is_told(tmp_path: Path, counted: Counted) -> None:
    study = made_cells.study()
    run.run(study, workdir=tmp_path, data=tmp_path)
    other = dataclasses.replace(study, recipe=dataclasses.replace(study.recipe, steps=5))
    with pytest.raises(UserError, match='is the same cell made from other data, weights or settings'):
        run.run(other, workdir=tmp_path, data=tmp_path)


def test_weights_that_are_not_given_are_asked_for(tmp_path: Path, counted: Counted) -> None:
    study = with_weights(made_cells.study(), {'mae': '?'})
    with pytest.raises(UsageError, match='needs the weights of mae: give --weights mae='):
        run.run(study, workdir=tmp_path, data=tmp_path)
    with pytest.raises(UsageError, match='no method "mea", did you mean'):
        with_weights(study, {'mea': 'x'})
    assert counted.made == []
