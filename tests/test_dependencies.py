"""What is imported is declared, what is declared is locked, and the lock holds for every Python it is meant for."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OURS = {'retfound_jax', 'experiments'}
PYTHONS = ('3.11', '3.12', '3.13', '3.14')
# comes with another that is declared, at a version that fits it
BROUGHT = {'jaxlib': 'jax', 'tensorstore': 'orbax-checkpoint', 'threadpoolctl': 'scikit-learn'}
# comes with an extra, and is imported only where it is used
OPTIONAL = {'apache_beam': 'beam', 'huggingface_hub': 'hub', 'torch': 'convert'}

# run by their path, with an interpreter of their own, and never imported
SCRIPTS = {'torch_vit.py'}


def declared() -> dict[str, list[Requirement]]:
    """Requirements of setup.py: `''` for the package itself, then one key an extra; read without running it."""
    values = {}
    for node in ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and node.targets[0].id in ('REQUIRES', 'EXTRAS'):
            values[node.targets[0].id] = ast.literal_eval(node.value)
    return {name: [Requirement(text) for text in texts] for name, texts in {'': values['REQUIRES'], **values['EXTRAS']}.items()}


def locked() -> list[Requirement]:
    """The pins of the lock file, hashes left out."""
    text = (ROOT / 'launch' / 'requirements.lock').read_text(encoding='utf-8')
    return [Requirement(line.rstrip('\\').strip()) for line in text.splitlines() if re.match(r'[A-Za-z]', line)]


def environment(python: str) -> dict[str, str]:
    """What markers are read against, on Linux."""
    return {'python_version': python, 'python_full_version': f'{python}.1', 'sys_platform': 'linux'}


def pins(python: str) -> dict[str, str]:
    """Name and version of all that is installed for one Python."""
    chosen = [pin for pin in locked() if pin.marker is None or pin.marker.evaluate(environment(python))]
    names = [canonicalize_name(pin.name) for pin in chosen]
    assert len(set(names)) == len(names), f'two pins of one package for Python {python}'
    return {name: next(iter(pin.specifier)).version for name, pin in zip(names, chosen, strict=True)}


def imports() -> Iterator[tuple[str, str]]:
    """Top-level module and file of every import from outside."""
    for folder in ('retfound_jax', 'experiments'):
        for path in (ROOT / folder).rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                if isinstance(node, ast.Import):
                    yield from ((alias.name.split('.')[0], path.name) for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.split('.')[0], path.name


def test_what_is_imported_is_declared() -> None:
    owners = importlib.metadata.packages_distributions()
    known = {canonicalize_name(requirement.name) for requirement in declared()['']}
    undeclared = {
        f'{file} imports {name}'
        for name, file in imports()
        if name not in OURS | sys.stdlib_module_names | OPTIONAL.keys()
        and not {canonicalize_name(BROUGHT.get(owner, owner)) for owner in owners.get(name, [name])} & known
    }
    assert not undeclared


def test_what_an_extra_brings_is_declared_there_and_never_imported_at_the_top_of_a_file() -> None:
    for name, extra in OPTIONAL.items():
        assert canonicalize_name(name) in {canonicalize_name(requirement.name) for requirement in declared()[extra]}
    for path in (ROOT / 'retfound_jax').rglob('*.py'):
        if path.name in SCRIPTS:
            continue
        for node in ast.parse(path.read_text(encoding='utf-8')).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, 'module', None) or '']
            assert not {name.split('.')[0] for name in names} & OPTIONAL.keys(), path


@pytest.mark.parametrize('python', PYTHONS)
def test_what_is_declared_is_locked_within_its_range(python: str) -> None:
    pinned = pins(python)
    for requirement in declared()[''] + declared()['dev']:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), f'{requirement} on Python {python}'


def test_older_python_gets_the_newest_jax_it_can_run() -> None:
    assert pins('3.11')['jax'] == pins('3.11')['jaxlib'] == '0.10.2'
    assert pins('3.12')['jax'].startswith('0.12.') and pins('3.12')['jax'] == pins('3.12')['jaxlib']


def test_lock_pins_exactly_and_by_hash() -> None:
    text = (ROOT / 'launch' / 'requirements.lock').read_text(encoding='utf-8')
    blocks = re.split(r'\n(?=[A-Za-z])', text)[1:]
    assert len(blocks) == len(locked())
    for block in blocks:
        assert re.match(r'[\w.-]+==\S+', block) and '--hash=sha256:' in block


def test_tensorflow_stays_out() -> None:
    assert not {'tensorflow', 'tensorflow-cpu', 'torch', 'clu'} & set(pins('3.11'))
