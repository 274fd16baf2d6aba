"""Which code made a run: the commit of the package's own checkout, and of nobody else's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from retfound_jax.core import environment


def git(root: Path, *words: str) -> str:
    who = ['-c', 'user.name=Ada', '-c', 'user.email=ada@example.org', '-c', 'commit.gpgsign=false', '-c', 'core.hooksPath=/dev/null']
    return subprocess.run(['git', '-C', str(root), *who, *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, 'init', '-q')
    (tmp_path / 'code.py').write_text('one = 1\n')
    git(tmp_path, 'add', 'code.py')
    git(tmp_path, 'commit', '-q', '-m', 'The first')
    return tmp_path


def test_the_commit_and_whether_the_code_differs_from_it(checkout: Path) -> None:
    commit = git(checkout, 'rev-parse', 'HEAD')
    assert environment.code(checkout) == {'commit': commit, 'dirty': False}
    (checkout / 'notes.txt').write_text('not of the code')
    assert environment.code(checkout) == {'commit': commit, 'dirty': False}
    (checkout / 'code.py').write_text('one = 2\n')
    assert environment.code(checkout) == {'commit': commit, 'dirty': True}


def test_a_package_installed_inside_another_checkout_has_no_commit(checkout: Path, tmp_path: Path) -> None:
    (checkout / 'site-packages').mkdir()
    assert environment.code(checkout / 'site-packages') == {}


def test_without_git_there_is_no_commit_and_no_error(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('PATH', str(checkout / 'nothing'))
    assert environment.code(checkout) == {}


def test_a_checkout_without_a_commit_has_none(tmp_path: Path) -> None:
    git(tmp_path, 'init', '-q')
    assert environment.code(tmp_path) == {}
