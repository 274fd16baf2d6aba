"""The outside of the house: what may stand at the top level, and what no tracked file may say."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP = {'README.md', 'BUILD.md', 'LICENSE', 'pyproject.toml', 'setup.py', 'retfound_jax', 'experiments', 'launch', 'tests'}
LONGEST_FILE = 500  # [lines]
LARGEST_FILE = 2 * 1024**2  # [bytes]; datasets, weights and photographs do not belong in the history

# Each is split so that this file does not hold what it looks for.
_PATHS = ['/wo' 'rk/', '/ro' 'ot/', '/ho' r'me/\w+/', '/Us' r'ers/\w+/', r'[A-Z]:\\Us' 'ers', '/mn' 't/', '/op' 't/py']
_INDEXES = ['--index' '-url', '--extra-index' '-url', '--find' '-links', 'pypi' r'\.org', 'python' 'hosted']
PRIVATE, INDEXES = re.compile('|'.join(_PATHS)), re.compile('|'.join(_INDEXES))


def tracked() -> list[Path]:
    """Every file that git keeps; skips where the project is no clone."""
    done = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip('not a git clone')
    return [ROOT / name for name in done.stdout.split('\0') if name and (ROOT / name).is_file()]


def python_files() -> Iterator[Path]:
    """The library's and the experiments' files."""
    for folder in ('retfound_jax', 'experiments'):
        yield from sorted((ROOT / folder).rglob('*.py'))


def test_top_level_holds_what_a_newcomer_expects_and_nothing_else() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith('.')} <= TOP


@pytest.mark.parametrize('pattern', [PRIVATE, INDEXES], ids=['paths of one machine', 'package indexes'])
def test_no_file_names_one_machine_or_a_package_index(pattern: re.Pattern[str]) -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding='utf-8')
        except UnicodeDecodeError:  # a picture
            continue
        found += [f'{path.relative_to(ROOT)}:{number}' for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    assert not found, '\n'.join(found)


@pytest.mark.parametrize('text', ['/wo' 'rk/main', 'see /ho' 'me/ada/x', '/ro' 'ot/.cache'])
def test_a_private_path_is_found(text: str) -> None:
    assert PRIVATE.search(text)


def test_files_are_short_and_small() -> None:
    long = [str(path) for path in python_files() if len(path.read_text(encoding='utf-8').splitlines()) > LONGEST_FILE]
    large = [str(path) for path in tracked() if path.stat().st_size > LARGEST_FILE]
    assert not long and not large


def test_functions_say_what_they_return() -> None:
    silent = [
        f'{path.relative_to(ROOT)}:{node.lineno} {node.name}'
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.FunctionDef) and node.returns is None
    ]
    assert not silent, '\n'.join(silent)


def test_nineteen_functions_in_twenty_are_under_fifty_lines() -> None:
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.FunctionDef)
    ]
    assert sum(length < 50 for length in lengths) >= 0.95 * len(lengths)


def test_package_files_hold_a_docstring_and_no_re_exports() -> None:
    for path in (ROOT / 'retfound_jax').rglob('__init__.py'):
        body = ast.parse(path.read_text(encoding='utf-8')).body
        assert body and ast.get_docstring(ast.Module(body=body, type_ignores=[])), f'{path} says not what lives here'
        assert not any(isinstance(node, ast.Import | ast.ImportFrom) for node in body if not _is_future(node)), f'{path} re-exports'


def test_test_files_have_names_of_their_own() -> None:
    counts = Counter(path.name for path in (ROOT / 'tests').rglob('test_*.py'))
    assert max(counts.values()) == 1, [name for name, count in counts.items() if count > 1]


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == '__future__'
