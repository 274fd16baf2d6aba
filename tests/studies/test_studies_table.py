"""A whole table: comparisons against scipy, label ratios and gaps where they belong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import false_discovery_control, ttest_ind, ttest_rel
from study_cells import write_cell

from retfound_jax.evals.compare import paired_difference
from retfound_jax.report.study import read_table
from retfound_jax.studies.rows import Judged, read_results
from retfound_jax.studies.tables import Table, make_table, to_json

SHARES = (0.25, 0.5, 1.0)
SKILL = {'random': 0.15, 'mae': 0.5}


def clean(checkpoint: str, dataset: str) -> None:
    return None


def made(study: Path, **judged: object) -> Table:
    return make_table('t', results=read_results(study), judged=Judged(replicates=60, **judged), touched=clean)


@pytest.fixture(scope='module')
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('study')
    for method, skill in SKILL.items():
        for share in SHARES:
            for seed in range(4):
                write_cell(folder, method=method, fraction=share, seed=seed, skill=skill * share**0.5)
    return folder


def test_methods_are_compared_to_the_reference_in_pairs(study: Path) -> None:
    lines = made(study, reference='random').lines
    of = {(line.row.method, line.row.fraction): line for line in lines}
    a, b = of['mae', 1.0], of['random', 1.0]
    assert a.comparison.tests.paired_t == pytest.approx(ttest_rel(a.row.per_seed, b.row.per_seed).pvalue)
    assert a.comparison.tests.welch_t == pytest.approx(ttest_ind(a.row.per_seed, b.row.per_seed, equal_var=False).pvalue)
    assert a.comparison.difference == pytest.approx(a.row.mean - b.row.mean) and b.comparison is None

    def files(method: str) -> list[Path]:
        folders = [study / 'cells' / f'aptos2019-{method}-finetune-1-{seed}' for seed in range(4)]
        return [folder / 'predictions' / 'aptos2019.parquet' for folder in folders]

    again = paired_difference(files('mae'), b=files('random'), target='macro', metric='AUROC', level='image', replicates=60).interval
    assert (a.comparison.low, a.comparison.high) == pytest.approx((again.low, again.high))


def test_p_values_are_corrected_over_all_comparisons(study: Path) -> None:
    compared = [line.comparison for line in made(study, reference='random').lines if line.comparison]
    p = [one.p for one in compared]
    assert len(p) == 3 and [one.benjamini_hochberg for one in compared] == pytest.approx(false_discovery_control(p))
    smallest = int(np.argmin(p))
    assert compared[smallest].holm == pytest.approx(3 * p[smallest])


def test_seeds_that_do_not_pair_are_compared_by_welch(tmp_path: Path) -> None:
    for seed in range(3):
        write_cell(tmp_path, seed=seed)
        write_cell(tmp_path, method='random', seed=seed + 10, skill=0.1)
    (line,) = [line for line in made(tmp_path, reference='random').lines if line.comparison]
    assert np.isnan(line.comparison.tests.paired_t) and line.comparison.p == line.comparison.tests.welch_t == line.comparison.holm


def test_labels_needed_and_the_gap_are_there(study: Path) -> None:
    table = made(study, reference='random')
    (needed,) = table.needed
    assert (needed.method, needed.reference, needed.found.smallest) == ('mae', 'random', 0.25) and needed.found.ratio < 1
    assert all(line.gap.mean == pytest.approx(0.99 - line.row.mean) for line in table.lines)
    assert not made(study).needed and not any(line.comparison for line in made(study).lines)


def test_the_json_has_no_number_that_json_has_not(study: Path) -> None:
    found = json.loads(json.dumps(to_json(made(study, reference='random')), allow_nan=False))
    assert found['format'] == 'retfound study table 1' and len(found['lines']) == 6
    assert found['lines'][0]['verdict']['kind'] and found['lines'][0]['comparison']['p'] < 0.05


def test_the_report_reads_what_the_table_writes(study: Path) -> None:
    found = read_table(json.loads(json.dumps(to_json(made(study, reference='random')))), path=study)
    line = next(line for line in found.lines if (line.method, line.fraction) == ('mae', 1.0))
    assert (found.reference, line.against.reference, line.printed.certainty, line.mark) == ('random', 'random', 'secondary', '')
    assert line.against.p < 0.05 and line.gap.value > 0 and found.needed[0].smallest == 0.25
