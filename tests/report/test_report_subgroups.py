"""Whom it fails comes first; what was not measured is red; nothing that is withheld is on the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import report_runs

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import write_json
from retfound_jax.evals.predictions import Predictions, write_predictions
from retfound_jax.evals.tables import EvalConfig, evaluate
from retfound_jax.report import fails, forest, page, subgroups
from retfound_jax.report.blocks import Table, Text
from retfound_jax.report.remedies import read_remedies
from retfound_jax.report.tables import Tables, read_tables

BY = ('sex', 'site', 'sex+site')
CONFIG = EvalConfig(by=BY, replicates=60)


def people(split: str, *, seed: int, patients: int, skill: dict[str, float]) -> Predictions:
    """A binary finding that is seen at each site with its own `skill`; sites are of very different sizes."""
    made = report_runs.make_predictions('single', split=split, patients=patients, seed=seed)
    rng = np.random.default_rng(seed)
    site = rng.choice(['North', 'East', 'South', 'Tiny'], p=[0.4, 0.3, 0.28, 0.02], size=patients)
    ill = rng.random(patients) < 0.4
    latent = np.array([skill.get(name, 2.5) for name in site]) * (ill - 0.5) + rng.normal(size=patients)
    score = np.repeat(1 / (1 + np.exp(-latent)), 2)
    sex = np.repeat(rng.choice(['F', 'M'], size=patients), 2)
    columns = {**made.columns, 'site': np.repeat(site, 2), 'sex': sex}
    label = np.repeat(ill, 2)[:, None].astype(float)
    return replace(made, columns=columns, label_NY=label, score_NS=np.stack([1 - score, score], axis=1))


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that fails at East, with another dataset beside it where it does not."""
    folder = report_runs.evaluated_run(tmp_path_factory.mktemp('groups'), 'single', by=(), replicates=2)
    test, val = people('test', seed=1, patients=500, skill={'East': 0.0}), people('val', seed=2, patients=400, skill={'East': 0.0})
    other = people('test', seed=3, patients=260, skill={})
    write_predictions(test, path=folder / 'predictions' / 'test.parquet')
    for name, judged in (('test', test), ('elsewhere-test', other)):
        write_json(folder / 'tables' / f'metrics_{name}.json', evaluate(judged, validation=val, config=CONFIG))
    return folder


@pytest.fixture(scope='module')
def tables(run: Path) -> Tables:
    return read_tables(run / 'tables' / 'metrics_test.json')


@pytest.fixture(scope='module')
def html(run: Path) -> str:
    return page.build(run)


def text_of(html: str) -> str:
    return ' '.join(re.sub(r'<[^>]+>', ' ', re.sub(r'<style>.*?</style>', '', html, flags=re.S)).split())


def test_the_group_that_fails_is_named_first_with_its_numbers(html: str, tables: Tables) -> None:
    words, tone = fails.told(tables)
    first = fails.found_failing(tables)[0]
    assert tone == 'lead' and words.startswith('It fails site East') and first.by in ('site', 'sex+site')
    assert f'{first.n_patients} patients, {first.n_positive} of them positive' in words and 'for everybody else' in words
    assert first.value < first.rest and first.shortfall == pytest.approx(first.rest - first.value)
    section = subgroups.section(tables)
    assert section.blocks[1] == Text(words, 'lead')
    assert isinstance(section.blocks[2], Table) and section.blocks[2].rows[0][0].text.startswith('Site: East')
    text = text_of(html)
    assert text.index('It fails site East') < text.index('Who is in the data', text.index('It fails'))  # in the summary already


def test_where_nobody_fails_it_says_what_could_have_been_missed(run: Path) -> None:
    found = read_tables(run / 'tables' / 'metrics_elsewhere-test.json')
    assert not fails.found_failing(found)
    words, tone = fails.told(found)
    assert tone == 'lead' and 'beyond chance' in words
    assert re.search(r'a true gap in AUROC below \.\d{3} by (sex|site)', words)


def test_the_order_of_the_evidence(html: str) -> None:
    text = text_of(html)
    wanted = ('Whom it fails', 'AUROC by group', 'How far apart the groups are', 'The widest gap in each column', 'Equalised odds')
    wanted += ('At the one threshold', 'Do its probabilities hold', 'Calibration in numbers', 'What could be done about it')
    wanted += ('How many labels each group needs', 'By group, in full')
    places = [text.index(words, text.index('Whom it fails')) for words in wanted]
    assert places == sorted(places)
    assert 'it is biased upward' in text and 'By chance' in text and 'p (Holm)' in text


def test_another_dataset_stands_beside_the_own_one(run: Path, tables: Tables) -> None:
    other = read_tables(run / 'tables' / 'metrics_elsewhere-test.json')
    assert other.external and not tables.external
    made = forest.table(tables, [other])
    assert 'AUROC, elsewhere' in made.head
    column, span = made.head.index('AUROC, elsewhere'), made.axis.column
    rows = {row[0].text: row for row in made.rows}
    east = rows['Site: East or Tiny'] if 'Site: East or Tiny' in rows else rows['Site: East']
    assert east[span].span.reference == rows['Everybody'][span].span.reference is not None
    assert rows['Sex: F'][span].span.beside is not None and 'patients' in rows['Sex: F'][column].small
    own, outside = (one.find(metric='AUROC', by='sex', group='F') for one in (tables, other))
    assert rows['Sex: F'][span - 1].text == f'{own.value:.3f}'[1:] and rows['Sex: F'][column].text == f'{outside.value:.3f}'[1:]


def test_the_run_s_own_split_is_what_the_page_is_about(html: str) -> None:
    """`elsewhere-test` sorts before `test`."""
    assert 'On 500 patients' in text_of(html) and 'Overall, elsewhere' in html


def test_nothing_that_is_withheld_is_on_the_page(html: str, tables: Tables) -> None:
    hidden = [row for row in tables.rows if row.withheld]
    assert hidden and all(row.low is row.high is row.n_positive is None for row in hidden)
    shown = {name: {r.group for r in tables.rows if r.by == name and r.n_patients and not r.withheld} for name in tables.by}
    headers = set(re.findall(r'<th scope="row"[^>]*>(?:<span class="value">)?([^<]+)', html))
    for row in hidden:
        label = fails.group_words(row.by, row.group)
        assert row.group in shown[row.by] or label not in headers, label
    assert 'Not known whether it works for' in html and not re.search(r'>Site: Tiny<', html)


@pytest.mark.parametrize('name', ['failing', 'fairness', 'calibration_by'])
def test_what_an_earlier_version_did_not_measure_is_red(run: Path, name: str, tmp_path: Path) -> None:
    old = json.loads((run / 'tables' / 'metrics_test.json').read_text())
    for key in ('failing', 'fairness', 'equalised_odds', 'power', 'calibration_by', 'threshold_by'):
        old.pop(key)
    path = tmp_path / 'metrics_test.json'
    path.write_text(json.dumps(old))
    told = [block for block in subgroups.section(read_tables(path)).blocks if isinstance(block, Text)]
    red = ' '.join(block.words for block in told if block.tone == 'absent')
    words = {'failing': 'whom it fails', 'fairness': 'gaps beside chance', 'calibration_by': 'calibration by group'}
    assert f'Not measured: {words[name]}' in red and 'earlier version' in red


def test_without_groups_or_evaluation_it_says_so_in_red(tables: Tables) -> None:
    for found in (None, replace(tables, by=())):
        section = subgroups.section(found)
        assert [block.tone for block in section.blocks if isinstance(block, Text)][0] == 'absent'


def test_remedies_are_shown_before_and_after(run: Path, tables: Tables, tmp_path: Path) -> None:
    numbers = {f'{what}_{end}': 0.25 for what in ('overall', 'gap') for end in ('before', 'after', 'change', 'change_low', 'change_high')}
    rows = [
        {'by': 'site', 'target': tables.targets[0], 'approach': 'threshold_per_group', 'metric': metric, **numbers}
        for metric in ('equalised_odds', 'balanced_accuracy')
    ]
    write_json(tmp_path / 'mitigation_test.json', {'rows': rows})
    section = subgroups.section(tables, remedies=read_remedies(tmp_path / 'mitigation_test.json'))
    (made,) = [block for block in section.blocks if isinstance(block, Table) and block.caption.startswith('What simple means')]
    assert [(cell.text, cell.small) for cell in made.rows[0][:2]] == [('Site', 'own threshold'), ('.250 → .250', 'Equalised odds')]
    assert read_remedies(tmp_path / 'absent.json') is None
    (tmp_path / 'mitigation_test.json').write_text('{"rows": [{}]}')
    with pytest.raises(UserError, match='mitigation_test.json'):
        read_remedies(tmp_path / 'mitigation_test.json')


@pytest.mark.slow
def test_it_prints_without_a_table_or_figure_torn(run: Path, tmp_path: Path) -> None:
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('no chromium to print with')
    path = page.write(run, out=tmp_path / 'report.html')
    quiet = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync']
    out = tmp_path / 'report.pdf'
    words = [browser, *quiet, f'--user-data-dir={tmp_path / "profile"}', f'--print-to-pdf={out}', path.as_uri()]
    subprocess.run(words, check=True, timeout=120, capture_output=True)
    pages = len(re.findall(rb'/Type\s*/Page\b', out.read_bytes()))
    assert 3 <= pages <= 20
