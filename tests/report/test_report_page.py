"""The page as a whole: its parts, its shape as HTML, and what it says where something is absent."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_runs

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.report import page

SECTIONS = 'summary people results subgroups uncertainty mistakes training reconstructions groups repeat glossary'.split()
VOID = {'meta', 'img', 'br', 'link', 'input', 'hr'}


class Page(HTMLParser):
    """Parses a page and checks as it goes that every element is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ''
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f'<{tag}> repeats an attribute'
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ['style']:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('runs')


@pytest.fixture(scope='module')
def pretrain(root: Path) -> Path:
    return report_runs.pretrain_run(root)


@pytest.fixture(scope='module')
def dataset(root: Path) -> Path:
    return report_runs.dataset_dir(root)


@pytest.fixture(scope='module')
def runs(root: Path) -> dict[str, Path]:
    return {kind: report_runs.evaluated_run(root, kind) for kind in report_runs.CLASSES}


@pytest.mark.parametrize('kind', list(report_runs.CLASSES))
def test_every_kind_gives_a_whole_page(kind: str, runs: dict[str, Path], pretrain: Path, dataset: Path) -> None:
    html = page.build(runs[kind], pretrain=pretrain, dataset=dataset, thumbnail=report_runs.jpeg, command='retfound report')
    found = Page(html)
    assert [one['id'] for one in found.all('section')] == SECTIONS
    assert len(html) < 3e6
    _is_self_contained(html, found)
    _is_accessible(found)
    assert 'not a medical device' in found.text
    assert 'Withheld: fewer than 20 patients' in found.text and 'missing' in found.text
    assert 'None' not in found.text and 'nan' not in found.text.replace('nant', '')
    charts = [one['alt'] for one in found.all('img') if one['src'].startswith('data:image/svg')]
    assert len(charts) >= 6
    assert any('Bland-Altman' in alt for alt in charts) == (kind == 'regress')
    assert any('ROC curve' in alt for alt in charts) == (kind != 'regress')


def _is_self_contained(html: str, found: Page) -> None:
    assert "default-src 'none'" in html
    for _, attributes in found.elements:
        for name in ('src', 'href', 'action', 'data', 'srcset', 'poster', 'xlink:href'):
            assert re.match(r'^(data:image/|#)', attributes.get(name) or '#'), f'{name} leads outside'
        assert not [name for name in attributes if name.startswith('on')]
    assert not re.search(r'https?://|@import|url\(', html)
    assert not found.all('script') and not found.all('link') and not found.all('iframe')


def _is_accessible(found: Page) -> None:
    ids = Counter(attributes['id'] for _, attributes in found.elements if 'id' in attributes)
    assert max(ids.values()) == 1
    for link in found.all('a'):
        assert link['href'].removeprefix('#') in ids
    for section in found.all('section'):
        assert section['aria-labelledby'] in ids
    assert all(image['alt'] for image in found.all('img'))
    assert all(cell.get('scope') in ('row', 'col') for cell in found.all('th'))
    assert len(found.all('caption')) == len(found.all('table'))
    assert found.all('html') == [{'lang': 'en'}] and len(found.all('h1')) == 1


def test_the_same_files_give_the_same_page(runs: dict[str, Path], pretrain: Path, dataset: Path) -> None:
    pages = [page.build(runs['single'], pretrain=pretrain, dataset=dataset, thumbnail=report_runs.jpeg) for _ in range(2)]
    assert pages[0] == pages[1]


def test_the_headline_tells_the_number_with_its_interval(runs: dict[str, Path], dataset: Path) -> None:
    text = ' '.join(Page(page.build(runs['single'], dataset=dataset)).text.split())
    assert re.search(r'its AUROC is \.\d{3} \(95 % interval \.\d{3} to \.\d{3}\)', text)
    assert 'tells “referable” from “healthy” in “disease”' in text
    assert 'It learned from 672 images of 336 patients.' in text


def test_what_is_absent_is_said(runs: dict[str, Path]) -> None:
    text = Page(page.build(runs['single'])).text
    assert 'No pretraining run was given.' in text
    assert 'No dataset was given' in text
    assert 'Their pictures are not shown' in text


def test_a_pretraining_run_alone_gives_a_page(pretrain: Path, dataset: Path) -> None:
    found = Page(page.build(pretrain, dataset=dataset))
    assert [one['id'] for one in found.all('section')] == SECTIONS
    assert 'This is a pretraining run' in found.text and 'redraw hidden parts' in found.text
    assert [one['alt'] for one in found.all('img')].count('Photograph, example 1.') == 1


def test_token_reconstruction_is_pretraining_and_says_what_it_learned(tmp_path: Path) -> None:
    run = report_runs.pretrain_run(tmp_path, triples=0)
    config = json.loads((run / 'config.json').read_text())
    config['task']['type'] = 'retfound_jax.tasks.token_reconstruction:TokenReconstructionTask'
    (run / 'config.json').write_text(json.dumps(config))
    text = Page(page.build(run)).text
    assert 'This is a pretraining run' in text and 'see a disturbed photograph' in text and 'redraw hidden parts' not in text


def test_a_run_that_has_only_begun_gives_a_page(tmp_path: Path) -> None:
    run = report_runs.evaluated_run(tmp_path, 'single', replicates=2)
    for name in ('tables', 'predictions'):
        for path in (run / name).iterdir():
            path.unlink()
    (run / 'metrics.jsonl').unlink()
    text = Page(page.build(run)).text
    assert 'has not been evaluated yet' in text and 'logged no numbers yet' in text


def test_without_predictions_the_tables_are_still_shown(tmp_path: Path) -> None:
    run = report_runs.evaluated_run(tmp_path, 'regress', replicates=2)
    (run / 'predictions' / 'test.parquet').unlink()
    text = Page(page.build(run, thumbnail=report_runs.jpeg)).text
    assert 'no predictions to look for mistakes in' in text and 'agreement charts cannot be drawn' in text


def test_no_photograph_where_none_is_wanted(runs: dict[str, Path], pretrain: Path) -> None:
    found = Page(page.build(runs['single'], pretrain=pretrain, thumbnail=report_runs.jpeg, photographs=False))
    assert all(one['src'].startswith('data:image/svg') for one in found.all('img'))


def test_validation_numbers_carry_a_warning(tmp_path: Path) -> None:
    run = report_runs.evaluated_run(tmp_path, 'single', replicates=2)
    text = (run / 'tables' / 'metrics_test.json').read_text().replace('"split": "test"', '"split": "val"')
    (run / 'tables' / 'metrics_test.json').unlink()
    (run / 'tables' / 'metrics_val.json').write_text(text)
    assert 'they flatter the model' in Page(page.build(run)).text


def test_a_notice_stands_above_everything(runs: dict[str, Path]) -> None:
    text = Page(page.build(runs['single'], notice='These photographs are drawn.')).text
    assert text.index('These photographs are drawn.') < text.index('A vision transformer')


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='not a run directory'):
        page.build(tmp_path)
    with pytest.raises(UsageError, match='not a directory'):
        page.build(tmp_path / 'nowhere')


def test_a_directory_that_is_no_dataset_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='not a dataset'):
        page.build(runs['single'], dataset=tmp_path)


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('tables/metrics_test.json', '{"kind": "single"'),
        ('tables/metrics_test.json', '{"kind": "single"}'),
        ('tables/metrics_test.json', '[1]'),
        ('tables/metrics_test.json', '{"kind": "strange", "rows": []}'),
        ('config.json', '[]'),
        ('config.json', 'no JSON'),
        ('environment.json', '3'),
        ('metrics.jsonl', '{"step": 1}\n{"step": 2}\n'),
        ('metrics.jsonl', 'what\n{"step": 2, "wall_time": 1, "name": "loss", "value": 1}\n'),
        ('metrics.jsonl', '{"step": 1, "wall_time": 1, "name": "loss", "value": "low"}\n'),
        ('predictions/test.parquet', 'PAR1 no more'),
    ],
)
def test_a_damaged_file_is_one_sentence_that_names_it(name: str, content: str, tmp_path: Path) -> None:
    run = report_runs.evaluated_run(tmp_path, 'single', by=(), replicates=2)
    (run / name).write_text(content)
    with pytest.raises(UserError, match=Path(name).name) as caught:
        page.build(run)
    assert '\n' not in str(caught.value)


def test_writing_leaves_the_whole_page_or_none(runs: dict[str, Path], tmp_path: Path) -> None:
    path = page.write(runs['single'], out=tmp_path / 'new' / 'page.html')
    assert path.read_text(encoding='utf-8') == page.build(runs['single'])
    assert [one.name for one in path.parent.iterdir()] == ['page.html']
