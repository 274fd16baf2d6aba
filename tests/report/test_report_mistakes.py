"""Which answers count as the worst mistakes, and what the page tells of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import report_runs

from retfound_jax.report import page
from retfound_jax.report.collect import Predictions, collect
from retfound_jax.report.mistakes import find_mistakes
from retfound_jax.report.tables import Tables


@pytest.fixture(scope='module')
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    run = report_runs.evaluated_run(tmp_path_factory.mktemp('run'), 'single', by=(), replicates=2)
    found = collect(run, pretrain=None, dataset=None).tables
    assert found is not None
    return found


def predictions(kind: str, label: list, score: list, *, classes: tuple[str, ...] = (), labels: tuple[str, ...] = ('x',)) -> Predictions:
    key = np.array([f'k{i}' for i in range(len(label))], dtype=object)
    label_NY, score_NS = (np.array(value, float).reshape(len(label), -1) for value in (label, score))
    return Predictions(kind=kind, classes=classes, labels=labels, key=key, label_NY=label_NY, score_NS=score_NS, fingerprint='', step=1)


def without_thresholds(tables: Tables, **thresholds: float) -> Tables:
    import dataclasses

    return dataclasses.replace(tables, thresholds={name: {'value': value} for name, value in thresholds.items()})


def test_two_classes_are_judged_at_the_threshold_and_the_furthest_comes_first(tables: Tables) -> None:
    given = predictions(
        'single', [0, 1, 1, np.nan, 0], [[0.6, 0.4], [0.7, 0.3], [0.95, 0.05], [0.1, 0.9], [0.9, 0.1]], classes=('no', 'yes')
    )
    found, wrong, total = find_mistakes(given, tables=without_thresholds(tables, yes=0.35))
    assert [one.row for one in found] == [2, 1, 0]
    assert (wrong, total) == (3, 4)
    assert found[0].said == '95\u202f% “no”' and found[0].truth == '“yes”'
    assert found[2].said == '40\u202f% “yes”' and found[2].truth == '“no”'


def test_without_a_threshold_a_half_decides(tables: Tables) -> None:
    given = predictions('single', [0, 1], [[0.6, 0.4], [0.7, 0.3]], classes=('no', 'yes'))
    assert [one.row for one in find_mistakes(given, tables=without_thresholds(tables))[0]] == [1]


def test_several_classes_by_confidence_and_grades_by_distance(tables: Tables) -> None:
    score = [[0.1, 0.9, 0], [0, 0.4, 0.6], [0.2, 0.2, 0.6], [1, 0, 0]]
    named = predictions('single', [0, 1, 0, 0], score, classes=('a', 'b', 'c'))
    assert [one.row for one in find_mistakes(named, tables=tables)[0]] == [0, 1, 2]
    graded = predictions('ordinal', [0, 1, 0, 0], score, classes=('0', '1', '2'))
    assert [one.row for one in find_mistakes(graded, tables=tables)[0]] == [2, 0, 1]


def test_several_findings_are_answers_of_their_own(tables: Tables) -> None:
    given = predictions('multi', [[1, 0], [np.nan, 1]], [[0.1, 0.2], [0.0, 0.4]], labels=('x', 'y'))
    found, wrong, total = find_mistakes(given, tables=without_thresholds(tables))
    assert [(one.row, one.said, one.truth) for one in found] == [(0, '“x” 10\u202f%', 'yes'), (1, '“y” 40\u202f%', 'yes')]
    assert (wrong, total) == (2, 3)


def test_numbers_by_their_error(tables: Tables) -> None:
    found, _, total = find_mistakes(predictions('regress', [50, np.nan, 60], [51, 99, 70]), tables=tables)
    assert [one.row for one in found] == [2, 0] and total == 2
    assert (found[0].said, found[0].truth) == ('estimate 70.0', '60.0')


def test_keys_are_shown_only_when_asked_for(tmp_path: Path) -> None:
    run = report_runs.evaluated_run(tmp_path, 'single', by=(), replicates=2)
    asked: list[str] = []

    def thumbnail(key: str) -> bytes | None:
        asked.append(key)
        return report_runs.jpeg(key) if len(asked) % 2 else None

    hidden = page.build(run, thumbnail=thumbnail)
    assert len(asked) == 12 and 'secret' not in hidden
    assert hidden.count('data:image/jpeg') == 6 and hidden.count('No picture.') == 6
    assert asked[0] in page.build(run, thumbnail=thumbnail, show_keys=True)


def test_what_is_no_jpeg_or_too_large_is_not_embedded(tmp_path: Path) -> None:
    run = report_runs.evaluated_run(tmp_path, 'single', by=(), replicates=2)
    assert 'data:image/jpeg' not in page.build(run, thumbnail=lambda key: b'<svg onload="alert(1)">')
    assert 'data:image/jpeg' not in page.build(run, thumbnail=lambda key: b'\xff\xd8\xff' + bytes(100_000))
