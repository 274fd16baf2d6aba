"""`retfound table`: lists, makes and refuses; what is printed is what is written, and unfinished studies are called so."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
from study_cells import write_cell

from retfound_jax.cli import _tables
from retfound_jax.cli import main as cli

STUDIES = '''
"""Tables for the test."""

from dataclasses import dataclass
from types import SimpleNamespace

from retfound_jax.studies.rows import Judged


@dataclass(frozen=True)
class Study:
    name: str
    title: str
    judged: Judged
    seeds: int = 2
    data: tuple = (SimpleNamespace(phantom=None),)
    groups: None = None
    methods: tuple = (SimpleNamespace(name='mae', weights='?'), SimpleNamespace(name='random', weights=''))

    def cells(self):
        methods = ('mae', 'random')
        shared = {'study': 'internal', 'train_on': 'aptos2019', 'test_on': ('aptos2019',), 'adaptation': 'finetune', 'fraction': 1.0}
        return [SimpleNamespace(method=method, seed=seed, **shared) for method in methods for seed in range(self.seeds)]


def internal() -> Study:
    """RETFound's public datasets, trained and tested on the same.

    More words.
    """
    return Study(name='internal', title='Internal evaluation', judged=Judged(reference='random', replicates=20))


def _helper() -> Study: ...


def not_a_table() -> int: ...
'''


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f'declared_{tmp_path.name.replace("-", "_")}'
    folder = tmp_path / name
    folder.mkdir()
    (folder / '__init__.py').write_text('')
    (folder / 'papers.py').write_text(STUDIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(_tables, 'PACKAGE', name)
    importlib.invalidate_caches()
    yield name
    for module in (name, f'{name}.papers'):
        sys.modules.pop(module, None)


def study(root: Path, *, seeds: int = 2) -> Path:
    for seed in range(seeds):
        write_cell(root, method='mae', seed=seed, skill=0.6)
        write_cell(root, method='random', seed=seed, skill=0.1)
    return root


def test_the_tables_are_listed_by_name_with_a_line_each(tables: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(['table']) == 0
    out = capsys.readouterr().out
    assert "internal  RETFound's public datasets, trained and tested on the same.\n" in out
    assert '_helper' not in out and 'not_a_table' not in out


def test_a_finished_study_gives_its_files_and_is_printed(tables: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(tmp_path / 'study')
    assert cli.main(['table', 'internal', '--workdir', str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith((folder / 'tables' / 'internal.md').read_text()) and 'missing' not in out and '## Internal evaluation' in out
    made = {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.parent.name in ('tables', 'figures')}
    assert made == {f'tables/internal.{suffix}' for suffix in ('md', 'tex', 'csv', 'json')} | {'figures/internal-methods-AUROC.png'}
    assert json.loads((folder / 'tables' / 'internal.json').read_text())['cells'] == 4


def test_an_unfinished_study_says_how_many_are_missing_and_how_to_make_them(
    tables: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = study(tmp_path / 'study'), tmp_path / 'elsewhere'
    name = f'{tables}.papers:internal'
    assert cli.main(['table', name, '--workdir', str(folder), '--out', str(out), '--format', 'md', '--set', 'seeds=3']) == 0
    printed = capsys.readouterr().out
    command = f'retfound table {name} --workdir {folder} --data ROOT --run --set seeds=3 --weights mae=RUN_OR_FILE'
    assert f'2 of 6 runs are missing; `{command}` makes them' in printed
    assert 'Unfinished: 2 of 6 cells' in printed
    assert [path.name for path in sorted((out / 'tables').iterdir())] == ['internal.json', 'internal.md']
    assert not (folder / 'tables').exists()


def test_cells_of_another_study_do_not_count(tables: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = study(tmp_path / 'study', seeds=1)
    write_cell(folder, method='simclr')
    assert cli.main(['table', 'internal', '--workdir', str(folder), '--set', 'seeds=1']) == 0
    assert 'simclr' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'code', 'said'),
    [
        (['intrenal', '--workdir', 'W'], 2, 'there is no table "intrenal", did you mean "internal"?'),
        (['internal'], 2, '--workdir is missing; name the study directory'),
        (['internal', '--workdir', 'W', '--run'], 2, '--data is missing; name the folder'),
        (['internal', '--workdir', 'nowhere'], 1, 'holds none of the 4 cells of internal: make them with `retfound table internal'),
        (['internal', 'more', '--workdir', 'W'], 2, '"more" belongs to no flag'),
        (['internal', '--workdir', 'W', '--set', 'seed=1'], 2, 'has no field "seed", did you mean "seeds"?'),
        (['internal', '--workdir', 'W', '--weights', 'mae'], 2, '--weights mae is not of the form METHOD=ADDRESS'),
        (['internal', '--workdir', 'W', '--format', 'pdf'], 2, 'is none of md, tex, csv, all'),
    ],
)
def test_wrong_calls_are_one_sentence(tables: str, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(['table', *words]) == code
    error = capsys.readouterr().err
    assert said in error and error.count('\n') == 1, error


def test_two_tables_of_one_name_and_absent_experiments_are_told(
    tables: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / tables / 'again.py').write_text('def internal() -> "grid.Study": ...\n'.replace('"', ''))
    assert cli.main(['table']) == 2
    assert 'both declare a table "internal": rename one' in capsys.readouterr().err
    monkeypatch.setattr(_tables, 'PACKAGE', 'no_experiments_here.tables')
    assert cli.main(['table']) == 2
    assert 'experiments/ is not on the path' in capsys.readouterr().err
