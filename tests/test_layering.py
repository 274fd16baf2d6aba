"""The import graph holds: a room imports only from the rooms below it, as the table says, wherever in a file the import stands."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'retfound_jax'
ANYTHING = '*'

# room -> what it may import inside the library; `a.b` allows that module of a room and no other
TABLE = {
    'core': (),
    'ingest': ('core',),
    'data': ('core', 'ingest.records'),
    'models': ('core',),
    'optim': ('core',),
    'tasks': ('core', 'models'),
    'train': ('core', 'data', 'optim', 'tasks.base'),
    'interop': ('core', 'models'),
    'evals': ('core', 'data', 'tasks', 'train.checkpoint'),
    'registry': ('core', 'ingest', 'data.phantom'),
    'studies': ('core', 'ingest', 'data', 'models', 'optim', 'tasks', 'train', 'evals', 'registry'),
    'explain': ('core', 'models', 'data'),
    'federated': ('core', 'train'),
    'report': ('core',),
    'speed': ('core', 'data', 'models', 'optim', 'tasks', 'train'),
    'api': ('core', 'data', 'models', 'tasks', 'train.checkpoint', 'interop', 'evals', 'ingest'),
    'cli': (ANYTHING,),
    '__init__': ('api',),
    '__main__': ('cli.main',),
}
# room -> what it may not import from outside, directly; `NO_JAX` rooms may not load JAX by any way round either
STACK = ('jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex')
FORBIDDEN = {'core': ('flax',), 'ingest': STACK, 'registry': STACK, 'report': STACK}
NO_JAX = ('ingest', 'registry', 'report')


def imported(source: str, *, module: str, is_package: bool) -> Iterator[str]:
    """Every absolute dotted name a file imports: by statement at any depth, relatively, or by a written-out `import_module`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = module.split('.')[: len(module.split('.')) - node.level + is_package]
                base = '.'.join([*parents, base] if base else parents)
            yield from (f'{base}.{alias.name}' for alias in node.names)
        elif isinstance(node, ast.Call) and 'import' in ast.unparse(node.func) and node.args:
            if isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
                yield node.args[0].value


def room_of(name: str) -> str:
    """The room of a dotted name in the library: `retfound_jax.core.files` lies in `core`."""
    parts = name.split('.')
    return parts[1] if len(parts) > 1 else '__init__'


def allowed(name: str, *, room: str) -> bool:
    """Whether `room` may import the library's `name` (which may end in a class or function of a module)."""
    inner = name.split('.', 1)[1] if '.' in name else '__init__'
    if room_of(name) == room or ANYTHING in TABLE[room]:
        return True
    if inner == '__version__':
        return room == '__main__'
    return any(inner == target or inner.startswith(f'{target}.') for target in TABLE[room])


def bad_arrows(source: str, *, module: str, is_package: bool = False) -> list[str]:
    """One line for each import of `source`, the text of `module`, that the table does not allow."""
    room = room_of(module)
    if room not in TABLE:
        return [f'{module}: the table knows no room "{room}"']
    found = []
    for name in imported(source, module=module, is_package=is_package):
        top = name.split('.')[0]
        if top == 'experiments':
            found.append(f'{module} imports {name}: the library loads experiments by name only')
        elif top == PACKAGE and not allowed(name, room=room):
            found.append(f'{module} imports {name}: {room} may import {", ".join(TABLE[room]) or "nothing internal"}')
        elif top in FORBIDDEN.get(room, ()):
            found.append(f'{module} imports {name}: no {top} in {room}')
    return found


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted name and path of every file of the library."""
    for path in sorted((ROOT / PACKAGE).rglob('*.py')):
        parts = path.relative_to(ROOT).with_suffix('').parts
        yield '.'.join(parts[:-1] if parts[-1] == '__init__' and len(parts) > 2 else parts), path


def test_no_arrow_points_up() -> None:
    found = [
        line
        for module, path in modules()
        for line in bad_arrows(path.read_text(encoding='utf-8'), module=module, is_package=path.stem == '__init__')
    ]
    assert not found, '\n'.join(found)


def test_every_room_is_in_the_table() -> None:
    rooms = {path.stem for path in (ROOT / PACKAGE).iterdir() if path.suffix == '.py' or (path / '__init__.py').exists()}
    assert rooms <= set(TABLE)


@pytest.mark.parametrize(
    ('module', 'source'),
    [
        ('retfound_jax.core.files', 'from retfound_jax.data import config'),
        ('retfound_jax.core.files', 'def f():\n    import retfound_jax.models.vit'),
        ('retfound_jax.core.files', 'from flax import nnx'),
        ('retfound_jax.core.files', 'from ..data import config'),
        ('retfound_jax.data.sources', 'from retfound_jax.ingest import writer'),
        ('retfound_jax.data.sources', 'from retfound_jax import ingest'),
        ('retfound_jax.ingest.writer', 'import jax.numpy as jnp'),
        ('retfound_jax.train.loop', 'from retfound_jax.tasks.mae import MAETask'),
        ('retfound_jax.train.loop', 'from retfound_jax.evals import metrics'),
        ('retfound_jax.evals.predict', 'from retfound_jax.train.loop import train'),
        ('retfound_jax.evals.predict', 'from retfound_jax.train import checkpoint, state'),
        ('retfound_jax.tasks.mae', 'import importlib\nimportlib.import_module("retfound_jax.train.loop")'),
        ('retfound_jax.report.page', 'from retfound_jax.evals.metrics import auroc'),
        ('retfound_jax.models.vit', 'import experiments.finetune'),
        ('retfound_jax.cli.train', 'from experiments import finetune'),
        ('retfound_jax.api.model', 'from retfound_jax.train.loop import train'),
        ('retfound_jax.api.images', 'from retfound_jax.cli import main'),
        ('retfound_jax.evals.predict', 'from retfound_jax.api.loading import load'),
        ('retfound_jax.attic.thing', 'import json'),
    ],
)
def test_a_bad_arrow_is_found(module: str, source: str) -> None:
    assert bad_arrows(source, module=module)


@pytest.mark.parametrize(
    ('module', 'source'),
    [
        ('retfound_jax.data.sources', 'from retfound_jax.ingest.records import decode\nfrom retfound_jax.ingest import records'),
        ('retfound_jax.evals.predict', 'from retfound_jax.train import checkpoint\nfrom retfound_jax.tasks import mae'),
        ('retfound_jax.models.vit', 'from . import layers\nfrom retfound_jax.core.mesh import ShardingRules\nfrom flax import nnx'),
        ('retfound_jax.cli.train', 'from retfound_jax.train.loop import train'),
    ],
)
def test_an_arrow_of_the_table_is_let_through(module: str, source: str) -> None:
    assert bad_arrows(source, module=module) == []


@pytest.mark.parametrize('room', NO_JAX)
def test_a_room_without_jax_does_not_load_it_by_any_way_round(room: str) -> None:
    names = [module for module, _ in modules() if room_of(module) == room]
    if not names:
        pytest.skip(f'{room}/ is not built yet')
    code = (
        'import importlib, json, sys\n'
        f'for name in {names!r}: importlib.import_module(name)\n'
        'print(json.dumps(sorted({"jax", "jaxlib", "flax"} & set(sys.modules))))'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
