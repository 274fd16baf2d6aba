"""The page and the figures of a study: what they say, hostile names, the same bytes twice, and damaged or missing tables."""

from __future__ import annotations

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retfound_jax.cli import main as cli
from retfound_jax.core.errors import UserError
from retfound_jax.report import study_figures, study_page
from retfound_jax.report.study import StudyTable, is_study, read_study, read_table

SHARES = (0.1, 0.5, 1.0)
HOSTILE = '<script>alert(1)</script>" onerror="x\u202e/../../$x^2$'


def line(mean: float, *, train_on: str = 'aptos2019', test_on: str = 'aptos2019', method: str = 'mae', **more: Any) -> dict[str, Any]:
    """One line as studies write it."""
    names = {'train_on': train_on, 'test_on': test_on, 'method': method, 'target': 'macro', 'adaptation': 'finetune', 'metric': 'AUROC'}
    bounds = {'se_low': mean - 0.01, 'se_high': mean + 0.01, 'boot_low': mean - 0.02, 'boot_high': mean + 0.02}
    row = {**names, 'fraction': 1.0, 'mean': mean, **bounds, 'n_seeds': 5, 'n_images': 120, 'n_patients': 60, 'origin': {'drawn': []}}
    verdict = {'kind': 'no published number', 'why': [], 'published': None, 'contamination': '', 'mark': ''}
    made = {'row': row | {name: more.pop(name) for name in list(more) if name in row}, 'verdict': verdict, 'comparison': None, 'gap': None}
    return made | more


def document(lines: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    judged = {'reference': 'random', 'level': 'image', 'replicates': 1000}
    base = {'format': 'retfound study table 1', 'name': 'labels', 'title': 'Fewer labels', 'judged': judged}
    return base | {'lines': lines, 'needed': [], 'missing': 0, 'cells': 30} | more


def whole(name: str = 'mae') -> dict[str, Any]:
    """Curves, a matrix, a published number, a comparison and a touched test set."""
    printed = {'method': 'RETFound', 'value': 0.943, 'low': 0.941, 'high': 0.944}
    printed |= {'source': 'Zhou et al., Nature 2023', 'certainty': 'secondary'}
    compared = {'kind': 'not comparable', 'why': ['another model: width 192'], 'published': printed, 'contamination': '', 'mark': ''}
    against = {'reference': 'random', 'difference': 0.1, 'low': 0.06, 'high': 0.14, 'holm': 0.004}
    gap = {'mean': 0.1, 'low': 0.08, 'high': 0.12}
    lines = [line(0.6 + 0.2 * share, method=name, fraction=share) for share in SHARES[:2]]
    lines.append(line(0.8, method=name, verdict=compared, comparison=against, gap=gap))
    lines += [line(0.5 + 0.2 * share, method='random', fraction=share) for share in SHARES]
    for train, test in (('aptos2019', 'idrid'), ('idrid', 'idrid'), ('idrid', 'aptos2019')):
        mark = {'contamination': 'contaminated: it saw idrid', 'mark': '†'} if test == 'idrid' else {'contamination': '', 'mark': ''}
        verdict = {'kind': 'no published number', 'why': [], 'published': None, **mark}
        lines.append(line(0.71, train_on=train, test_on=test, method=name, verdict=verdict))
    found = {'ratio': 0.3, 'low': 0.1, 'high': 'inf', 'smallest': 0.1, 'largest': 1.0, 'level_reached': 0.7}
    where = {'train_on': 'aptos2019', 'test_on': 'aptos2019', 'target': 'macro', 'metric': 'AUROC', 'adaptation': 'finetune'}
    return document(lines, needed=[{**where, 'method': name, 'reference': 'random', 'found': found}])


def table(value: dict[str, Any]) -> StudyTable:
    return read_table(value, path=Path('tables/labels.json'))


def study_folder(root: Path, value: dict[str, Any]) -> Path:
    (root / 'cells').mkdir(parents=True)
    (root / 'tables').mkdir()
    (root / 'tables' / 'labels.json').write_text(json.dumps(value))
    return root


def svg(source: str) -> ElementTree.Element:
    return ElementTree.fromstring(base64.b64decode(source.partition('base64,')[2]))


def texts(source: str) -> str:
    return ' '.join(''.join(one.itertext()) for one in svg(source).iter('{http://www.w3.org/2000/svg}text'))


def test_every_figure_is_drawn_and_says_its_numbers() -> None:
    drawn = {one.name: one for one in study_figures.draw(table(whole()))}
    assert [name.split('-')[1] for name in drawn] == ['labels', 'matrix', 'methods']
    assert next(iter(drawn)) == 'labels-labels-aptos2019-aptos2019-macro-finetune-AUROC'
    curve, matrix, forest = drawn.values()
    assert 'random with all labels' in texts(curve.picture.src) and '50\u202f%' in texts(curve.picture.src)
    assert 'mae reaches with 30\u202f% of them (95\u202f% interval: 10\u202f% or less to more than 100\u202f%)' in curve.picture.caption
    assert '.710†' in texts(matrix.picture.src) and '.800' in texts(matrix.picture.src) and '.690–.730' in texts(matrix.picture.src)
    assert '†: the checkpoint has seen the test set' in matrix.picture.caption
    assert 'RETFound, published' in texts(forest.picture.src) and 'Hollow diamond' in forest.picture.caption
    for one in drawn.values():
        image = np.asarray(Image.open(io.BytesIO(one.png)).convert('RGB'))
        assert min(image.shape[:2]) > 300 and image.std() > 5 and one.picture.alt


def test_the_same_table_gives_the_same_bytes(tmp_path: Path) -> None:
    first, again = (study_figures.write(table(whole()), out=tmp_path / name) for name in 'ab')
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again] and len(first) == 3
    folder = study_folder(tmp_path / 'study', whole())
    assert study_page.build(folder) == study_page.build(folder)


def test_what_has_no_numbers_is_not_drawn() -> None:
    assert study_figures.draw(table(document([line(0.8)]))) == ()
    hole = line(0.8)
    hole['row'] |= dict.fromkeys(('mean', 'se_low', 'se_high', 'boot_low', 'boot_high'))
    assert study_figures.draw(table(document([hole, line(0.7, method='random')]))) == ()


def test_one_seed_has_no_bar_over_seeds() -> None:
    lines = [line(0.8, se_low=None, se_high=None, n_seeds=1), line(0.7, method='random', se_low=None, se_high=None, n_seeds=1)]
    (forest,) = study_figures.draw(table(document(lines)))
    assert forest.name == 'labels-methods-AUROC'


def test_the_page_says_in_plain_words_what_was_found(tmp_path: Path) -> None:
    page = study_page.build(study_folder(tmp_path, whole() | {'missing': 2}), command='retfound report --workdir S')
    plain = re.sub(r'\s+', ' ', re.sub('<[^>]+>', ' ', page)).replace('\u202f', ' ')
    assert 'aptos2019, fine-tuned: mae reaches AUROC .800, random .700. Difference .100 (.060–.140): it is better.' in plain
    assert 'what random reaches with all labels, mae reaches with 30 % of them' in plain
    assert 'Unfinished: 2 of 32 runs are not made yet' in plain
    assert 'not comparable (1)' in plain and 'another model: width 192.' in plain and 'RETFound, secondary' in plain
    assert 'Zhou et al., Nature 2023: quoted by a third party' in plain
    assert 'A checkpoint has, or may have, seen images of idrid before' in plain
    assert page.count('<img') == 3 and '<script' not in page


@pytest.mark.parametrize(
    ('low', 'high', 'words'),
    [(-0.1, 0.1, 'the interval holds 0, so no difference is shown'), (-0.2, -0.1, 'it is worse'), (None, None, 'nothing is shown')],
)
def test_where_pretraining_does_not_help_the_page_says_so(tmp_path: Path, low: float | None, high: float | None, words: str) -> None:
    against = {'reference': 'random', 'difference': -0.01, 'low': low, 'high': high, 'holm': None}
    page = study_page.build(study_folder(tmp_path, document([line(0.69, comparison=against), line(0.7, method='random')])))
    assert words in page


def test_what_is_drawn_by_a_program_is_called_so(tmp_path: Path) -> None:
    page = study_page.build(study_folder(tmp_path, document([line(0.69, origin={'drawn': ['site0']})])))
    assert 'drawn by a program and are no photographs' in page


def test_hostile_names_are_text_and_no_path(tmp_path: Path) -> None:
    value = whole(HOSTILE)
    value['title'] = value['name'] = HOSTILE
    folder = study_folder(tmp_path, value)
    page = study_page.build(folder)
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.extend([tag, *(name for name, _ in attrs)])

    Reader().feed(page)
    assert not {'script', 'onerror', 'iframe', 'link'} & set(seen) and '<script' not in page and '\u202e' not in page
    for path in study_figures.write(table(value), out=tmp_path / 'figures'):
        assert path.parent == tmp_path / 'figures' and re.fullmatch(r'[A-Za-z0-9-]+\.png', path.name)
    for source in re.findall(r'src="(data:image/svg[^"]+)"', page):
        assert {element.tag.rpartition('}')[2] for element in svg(source).iter()}.isdisjoint({'script', 'foreignObject', 'a'})


def test_a_study_without_tables_and_a_damaged_one_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'cells').mkdir()
    assert is_study(tmp_path) and not is_study(tmp_path / 'cells')
    assert cli.main(['report', '--workdir', str(tmp_path)]) == 1
    assert 'holds no table of a study yet: run `retfound table' in capsys.readouterr().err
    (tmp_path / 'tables').mkdir()
    path = tmp_path / 'tables' / 'labels.json'
    for broken in (whole() | {'judged': {}}, whole() | {'lines': [{}]}, {key: value for key, value in whole().items() if key != 'needed'}):
        path.write_text(json.dumps(broken))
        with pytest.raises(UserError, match='labels.json is damaged or of another version'):
            read_study(tmp_path)
    path.write_text(json.dumps(whole()))
    assert cli.main(['report', '--workdir', str(tmp_path)]) == 0
    assert (tmp_path / 'report.html').read_text().startswith('<!DOCTYPE html>')


def test_all_label_curves_stand_on_one_picture_where_there_are_several() -> None:
    shares = [line(0.5 + share / 5, target=target, fraction=share) for target in ('cataract', 'myopia') for share in SHARES]
    picture = study_figures.label_panels(table(document(shares)))
    assert Image.open(io.BytesIO(picture)).size[0] > Image.open(io.BytesIO(study_figures.draw(table(document(shares)))[0].png)).size[0]
    assert study_figures.label_panels(table(document(shares[:3]))) is None
