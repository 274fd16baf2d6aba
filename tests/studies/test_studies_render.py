"""Tables as text: escaped for each format, read back by other readers, the same bytes from the same results."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from study_cells import write_cell

from retfound_jax.registry.checkpoints import Touch
from retfound_jax.studies import render
from retfound_jax.studies.rows import Judged, read_results
from retfound_jax.studies.tables import Table, make_table

HOSTILE = '=HYPERLINK("http://x","a|b & 50% \\input{f}_$<script>")\n\u202e'


def touched(checkpoint: str, dataset: str) -> Touch | None:
    return Touch(kind='seen', reason='it was pretrained on these very images') if dataset == 'idrid' else None


def table(study: Path, *, reference: str = 'random', **more: object) -> Table:
    judged = Judged(reference=reference, replicates=50)
    return make_table('internal', results=read_results(study), judged=judged, touched=touched, **more)


@pytest.fixture(scope='module')
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('study')
    for seed in range(3):
        for method, skill in (('random', 0.2), ('mae', 0.5)):
            write_cell(folder, method=method, seed=seed, skill=skill, test_on=('aptos2019', 'idrid'))
    return folder


def test_markdown_says_number_intervals_source_verdict_and_contamination(study: Path) -> None:
    text = render.markdown(table(study))
    (line,) = [line for line in text.splitlines() if line.startswith('| aptos2019 | mae') and 'not comparable' in line]
    assert re.search(r'\| 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\) \\\[0\.\d{3} to 0\.\d{3}\\\] \|', line)
    assert '0.943 (0.941 to 0.944) \\[1\\]' in line and 'not comparable (a)' in line and re.search(r'\+0\.\d{3} \\\[\+0\.\d{3} to', line)
    assert 'Zhou et al., Nature 2023, s41586-023-06555-x: quoted by a third party' in text
    assert '- (a) another model: width 192, published 1024' in text and '- † contaminated: it was pretrained on these very images.' in text
    (seen,) = [line for line in text.splitlines() if line.startswith('| idrid | mae')]
    assert '†' in seen and '†' not in line
    assert 'corrected after Holm for the 2 comparisons' in text
    assert 'Throughout: trained on aptos2019; label dr\\_grade; target macro' in text
    widths = {len(re.findall(r'(?<!\\)\|', row)) for row in (line, seen)}
    assert len(widths) == 1


def test_what_a_study_prints_elsewhere_is_listed_with_its_standing(study: Path) -> None:
    text = render.markdown(table(study))
    assert '| retina | retina | macro | RETFound | fine-tuned | AUROC | 0.846 ' in text and '| abstract |' in text
    assert '0.880 to 0.887' not in text and '0.855' not in text


def test_csv_is_read_back_whole(study: Path) -> None:
    text = render.csv(table(study))
    assert text.endswith('\r\n') and text.count('\r\n') == 5
    rows = list(csv.DictReader(io.StringIO(text, newline='')))
    first = next(row for row in rows if (row['tested_on'], row['method']) == ('aptos2019', 'mae'))
    found = next(line for line in table(study).lines if (line.row.test_on, line.row.method) == ('aptos2019', 'mae'))
    assert float(first['mean']) == found.row.mean and float(first['seed_high']) == found.row.se_high
    assert [float(value) for value in first['per_seed'].split()] == list(found.row.per_seed)
    assert float(first['published']) == 0.943 and first['certainty'] == 'secondary' and 'Nature 2023' in first['source']
    assert float(first['p_holm']) == found.comparison.holm and first['difference'] and first['gap']
    assert 'np.' not in text


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    for seed in range(2):
        write_cell(tmp_path, seed=seed).rename(tmp_path / 'cells' / f'{seed}')
        path = tmp_path / 'cells' / f'{seed}' / 'result.json'
        path.write_text(path.read_text().replace('"mae"', json.dumps(HOSTILE)))
    made = table(tmp_path, reference='')
    (row,) = csv.DictReader(io.StringIO(render.csv(made), newline=''))
    assert row['method'].startswith("'=HYPERLINK") and '\n' not in row['method'] and '\u202e' not in row['method']
    markdown = render.markdown(made)
    assert '<script>' not in markdown and 'a\\|b' in markdown and '\u202e' not in markdown
    latex = render.latex(made)
    assert r'a\textbar{}b \& 50\% \textbackslash{}input\{f\}\_\$\textless{}script' in latex


def test_latex_is_balanced_and_has_no_bare_special(study: Path) -> None:
    text = render.latex(table(study))
    body = '\n'.join(line for line in text.splitlines() if not line.startswith('%'))
    assert [body.count(rf'\{mark}') for mark in (r'begin{tabular}', r'end{tabular}', 'toprule', 'midrule', 'bottomrule')] == [3] * 5
    bare = re.sub(r'\\.', '', body)
    assert bare.count('{') == bare.count('}') and not re.search('[#_~^]|%(?!\n)', bare)
    for tabular in re.findall(r'\\begin{tabular}{([lr]+)}(.*?)\\end{tabular}', body, flags=re.DOTALL):
        rows = [line for line in tabular[1].splitlines() if line.endswith(r'\\')]
        assert {len(re.findall(r'(?<!\\)&', row)) + 1 for row in rows} == {len(tabular[0])}
    assert all(ord(mark) < 128 for mark in body)


def test_the_same_results_give_the_same_bytes(study: Path, tmp_path: Path) -> None:
    first = render.write(table(study), out=tmp_path / 'a')
    # another folder, filled in another order
    for name in sorted((study / 'cells').iterdir(), reverse=True):
        target = tmp_path / 'b' / 'cells' / f'x{name.name[::-1]}'
        target.mkdir(parents=True)
        for path in name.rglob('*'):
            if path.is_file():
                (target / path.relative_to(name)).parent.mkdir(exist_ok=True)
                (target / path.relative_to(name)).write_bytes(path.read_bytes())
    again = render.write(table(tmp_path / 'b'), out=tmp_path / 'c')
    assert [path.name for path in first] == ['internal.md', 'internal.tex', 'internal.csv', 'internal.json']
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_only_what_is_asked_for_is_written_and_missing_cells_are_said(study: Path, tmp_path: Path) -> None:
    paths = render.write(table(study, missing=3), out=tmp_path, formats=('md',))
    assert [path.name for path in paths] == ['internal.md', 'internal.json']
    assert 'Unfinished: 3 of 9 cells are not made yet.' in paths[0].read_text()


def test_what_the_phantom_drew_is_called_so(tmp_path: Path) -> None:
    sizes = {'images': {}, 'patients': {}, 'fingerprint': '', 'drawn': True}
    write_cell(tmp_path, datasets={'aptos2019': sizes})
    assert 'aptos2019: drawn by the phantom, no photographs' in render.markdown(table(tmp_path))
