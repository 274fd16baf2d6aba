"""README and BUILD keep their word: each of their commands is run, or says why not, and every link leads somewhere."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ('README.md', 'BUILD.md')
MARK = re.compile(r'<!-- (run: (?P<tier>fast|slow|tests)|skip: (?P<reason>\S.*?)) -->')
LINK = re.compile(r'\]\((?P<target>[^)#\s]+)[^)]*\)|src="(?P<source>[^"]+)"')
LONGEST = 3600  # [s]

# The commands stand for themselves without their set-up, which test_launch.py tests: the environment is the one of this run.
LAUNCH = {
    'quickstart': f'exec {shlex.quote(sys.executable)} -m retfound_jax quickstart "$@"',
    'test': f'cd {shlex.quote(str(ROOT))} && exec {shlex.quote(sys.executable)} -m pytest "$@"',
}


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block of commands."""

    where: str
    mark: str  # the line above it, blank lines left out
    text: str

    @property
    def tier(self) -> str:
        """fast, slow, tests, skip; or nothing where the mark is missing or misspelt."""
        found = MARK.fullmatch(self.mark)
        return '' if not found else found['tier'] or 'skip'


def blocks(text: str, *, name: str) -> list[Block]:
    """The bash blocks of a Markdown text."""
    found, lines, above = [], iter(enumerate(text.splitlines(), 1)), ''
    for number, line in lines:
        if line.startswith('```'):
            inside = []
            for _, inner in lines:
                if inner.startswith('```'):
                    break
                inside.append(inner)
            if line.strip() in ('```bash', '```sh', '```shell', '```console', '```'):
                found.append(Block(where=f'{name}:{number}', mark=above, text='\n'.join(inside)))
            above = ''
        elif line.strip():
            above = line.strip()
    return found


BLOCKS = [block for name in DOCUMENTS if (ROOT / name).exists() for block in blocks((ROOT / name).read_text('utf-8'), name=name)]


def cases(tier: str) -> list:
    """The blocks of one tier as parameters named by file and line."""
    return [pytest.param(block, id=block.where) for block in BLOCKS if block.tier == tier]


def run(block: Block, folder: Path) -> None:
    """Runs a block in an empty folder, as a reader would who activated the environment."""
    (folder / 'launch').mkdir()
    for name, script in LAUNCH.items():
        (folder / 'launch' / name).write_text(f'#!/usr/bin/env bash\n{script}\n', encoding='utf-8')
        (folder / 'launch' / name).chmod(0o755)
    (folder / 'bin').mkdir()
    (folder / 'bin' / 'retfound').write_text(f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} -m retfound_jax "$@"\n', 'utf-8')
    (folder / 'bin' / 'retfound').chmod(0o755)
    path = os.pathsep.join([str(folder / 'bin'), str(Path(sys.executable).parent), os.environ['PATH']])
    environment = {**os.environ, 'PATH': path, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    command = ['bash', '-euo', 'pipefail', '-c', block.text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=LONGEST)
    assert done.returncode == 0, f'{block.where}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'


@pytest.mark.parametrize('block', cases('fast'))
def test_command_works(block: Block, tmp_path: Path) -> None:
    run(block, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('block', cases('slow'))
def test_slow_command_works(block: Block, tmp_path: Path) -> None:
    run(block, tmp_path)


@pytest.mark.parametrize('block', cases('tests'))
def test_named_tests_exist(block: Block) -> None:
    for line in block.text.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == 'launch/test', f'{block.where}: a block of tests holds launch/test alone'
        paths = [word.split('::')[0] for word in words[1:] if word.startswith('tests/')]
        names = [word.split('::')[-1] for word in words[1:] if '::' in word]
        if '-k' in words:
            names += [name for name in re.split(r'\W+', words[words.index('-k') + 1]) if name not in ('', 'or', 'and', 'not')]
        assert paths and all((ROOT / path).exists() for path in paths), f'{block.where}: {line}'
        files = [file for path in paths for file in ([ROOT / path] if path.endswith('.py') else (ROOT / path).rglob('test_*.py'))]
        text = '\n'.join(file.read_text('utf-8') for file in files)
        assert all(re.search(rf'def \w*{name}', text) for name in names), f'{block.where}: no test of that name'


def test_every_block_is_marked() -> None:
    unmarked = [block.where for block in BLOCKS if not block.tier]
    assert BLOCKS and not unmarked, f'no <!-- run: ... --> or <!-- skip: ... --> above {unmarked}'


def test_verbs_and_experiments_that_are_named_exist() -> None:
    from retfound_jax.cli.main import verbs

    for block in BLOCKS:
        for verb in re.findall(r'(?:^|[\s/])retfound ([a-z]\w*)', block.text):
            assert verb in {*verbs(), 'help'}, f'{block.where}: no verb {verb}'
        for module, function in re.findall(r'(experiments\.\w+):(\w+)', block.text):
            path = ROOT / f'{module.replace(".", "/")}.py'
            assert path.exists() and f'def {function}(' in path.read_text('utf-8'), f'{block.where}: no {module}:{function}'


@pytest.mark.parametrize('name', DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    for found in LINK.finditer((ROOT / name).read_text('utf-8')):
        target = found['target'] or found['source']
        assert re.match(r'https?://', target) or (ROOT / target).exists(), f'{name}: {target}'


def test_the_two_commands_stand_on_the_first_screen() -> None:
    top = '\n'.join((ROOT / 'README.md').read_text('utf-8').splitlines()[:40])
    assert top.index('launch/quickstart') < top.index('launch/test')


def test_a_block_without_a_mark_is_found() -> None:
    text = '<!-- run: fast -->\n\n```bash\ntrue\n```\nwords\n```bash\nfalse\n```\n<!-- skip: -->\n```sh\nx\n```\n```python\ny\n```\n'
    assert [(block.tier, block.text) for block in blocks(text, name='x')] == [('fast', 'true'), ('', 'false'), ('', 'x')]


def test_a_failing_command_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match='no verb "ingst"'):
        run(Block(where='x:1', mark='', text='retfound ingst | cat\ntrue'), tmp_path)
