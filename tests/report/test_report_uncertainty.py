"""The section on when the model should stay silent, of every kind of task."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from report_runs import make_predictions

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import write_json
from retfound_jax.evals.ensemble import ensemble
from retfound_jax.evals.tables import EvalConfig
from retfound_jax.evals.uncertainty import uncertainty
from retfound_jax.report import uncertainty as page
from retfound_jax.report.blocks import Pictures, Table, Text
from retfound_jax.report.uncertainty_tables import read_uncertainty

CONFIG = EvalConfig(by=('sex', 'ethnicity'), replicates=8)


def found(run: Path, *, split: str = 'test') -> Any:
    """As much of what was collected as the section looks at."""
    return SimpleNamespace(run=SimpleNamespace(path=run), tables=SimpleNamespace(name=split))


def table_of(kind: str, **changes: Any) -> dict[str, Any]:
    return copy.deepcopy(_table(kind)) | changes


@cache
def _table(kind: str) -> dict[str, Any]:
    test, validation = (make_predictions(kind, split=split, seed=seed) for split, seed in (('test', 1), ('val', 2)))
    return uncertainty(test, validation=validation, config=CONFIG)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_json(tmp_path / 'tables' / 'uncertainty_test.json', table_of('single'))
    return tmp_path


def words(section: Any) -> str:
    """All that is read in a section."""
    said = []
    for block in section.blocks:
        if isinstance(block, Table):
            said += [block.caption, block.note, *block.head]
            said += [part for row in block.rows for cell in row for part in (cell.text, cell.small)]
        elif isinstance(block, Pictures):
            said += [part for picture in block.items for part in (picture.alt, picture.caption)]
        else:
            said.append(block.words)
    return '\n'.join(said)


@pytest.mark.parametrize('kind', ['single', 'many', 'ordinal', 'multi', 'regress'])
def test_every_kind_has_its_section(tmp_path: Path, kind: str) -> None:
    write_json(tmp_path / 'tables' / 'uncertainty_test.json', table_of(kind))
    section = page.section(found(tmp_path))
    said = words(section)
    assert section.title == 'When should it stay silent?' and 'Sets of outcomes that hold the truth' in said
    drawn = any(isinstance(block, Pictures) for block in section.blocks)
    assert ('Temperature' in said) == ('of the patients referred' in said) == drawn == (kind != 'regress')
    assert not re.search(r'\bnan\b|None|inf\b', said)
    assert [block.tone for block in section.blocks if isinstance(block, Text) and 'ood' in block.words] == ['absent']


def test_the_numbers_are_those_of_the_file(run: Path) -> None:
    table = read_uncertainty(run / 'tables' / 'uncertainty_test.json')
    said = words(page.section(found(run)))
    after = next(row for row in table.referral['referable'] if row.referred >= 0.18)
    assert f'{after.metrics["accuracy"].value:.3f}'.lstrip('0') in said and f'the other {after.n} are right' in said
    women = next(name for name in table.groups('sex') if name.startswith('F'))
    covered = table.covered('referable', kind='by_group', by='sex', group=women)
    assert f'{covered.coverage.value:.3f}'.lstrip('0') in said


def test_a_promise_that_is_not_kept_and_a_referral_that_falls_on_a_group_are_warned_of(run: Path) -> None:
    made = table_of('single')
    for row in made['conformal']:
        if (row['kind'], row['group'], row['method']) == ('overall', 'Black', 'LAC'):
            row |= {'coverage': 0.5, 'low': 0.3, 'high': 0.7, 'p_holm': 1e-6}
    for row in made['referred_by']['referable']:
        if row['group'] == 'Asian':
            row |= {'referred': 0.6, 'low': 0.4, 'high': 0.7, 'rest': 0.1, 'p_holm': 0.001}
    write_json(run / 'tables' / 'uncertainty_test.json', made)
    warned = [block.words for block in page.section(found(run)).blocks if isinstance(block, Text) and block.tone == 'warning']
    assert any('Asian' in text and '60\u202f%' in text for text in warned)
    assert any('not kept' in text and 'Black' in text for text in warned)


def test_strange_photographs_have_their_tables(run: Path) -> None:
    row = {'by': 'camera', 'group': 'NM-45', 'n': 60, 'flagged': 0.4, 'low': 0.3, 'high': 0.5, 'note': ''}
    rows = [row | {'method': method} for method in ('mahalanobis', 'nearest')]
    write_json(run / 'tables' / 'uncertainty_test.json', table_of('single', ood={'false_alarm': 0.05, 'n_train': 500, 'rows': rows}))
    said = words(page.section(found(run)))
    assert 'NM-45' in said and '40\u202f%' in said and '500 training photographs' in said


def test_an_ensemble_of_numbers_has_a_curve(tmp_path: Path) -> None:
    parts = []
    for split in ('test', 'val'):
        one, rng = make_predictions('regress', split=split, seed=1), np.random.default_rng(0)
        parts.append(ensemble([replace(one, score_NS=one.score_NS + rng.normal(size=one.score_NS.shape)) for _ in range(3)]))
    write_json(tmp_path / 'tables' / 'uncertainty_test.json', uncertainty(parts[0], validation=parts[1], config=CONFIG))
    said = words(page.section(found(tmp_path)))
    assert 'disagreement of several models' in said and 'Mean absolute error' in said and 'Mean share wrong' not in said


def test_too_few_patients_for_a_curve_are_said_in_red(run: Path) -> None:
    write_json(run / 'tables' / 'uncertainty_test.json', table_of('single', referral={'referable': []}))
    first = page.section(found(run)).blocks[0]
    assert first.tone == 'absent' and 'fewer than 20 patients' in first.words


def test_what_is_absent_is_said_in_red_and_what_is_damaged_is_refused(run: Path, tmp_path: Path) -> None:
    (block,) = page.section(found(run, split='external')).blocks
    assert block.tone == 'absent' and 'external' in block.words
    (block,) = page.section(SimpleNamespace(run=None, tables=None)).blocks
    assert 'no evaluation' in block.words
    for damage in ({'conformal': [{'alpha': 'a'}]}, {'temperature': None}, {'referral': {'referable': [{'referred': 0.1}]}}):
        write_json(run / 'tables' / 'uncertainty_test.json', table_of('single', **damage))
        with pytest.raises(UserError, match=r'uncertainty_test.json is damaged'):
            page.section(found(run))


def test_names_are_shown_as_text(run: Path, tmp_path: Path) -> None:
    from retfound_jax.report import html

    made = table_of('single')
    for rows in (made['conformal'], made['referred_by']['referable']):
        for row in rows:
            row['group'] = row['group'].replace('Black', '<script>alert(1)</script>')
    write_json(run / 'tables' / 'uncertainty_test.json', made)
    text = html.render('t', subtitle='', sections=(page.section(found(run)),))
    assert '<script>' not in text and '&lt;script&gt;' in text
