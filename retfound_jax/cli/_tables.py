"""The tables there are: functions of experiments/tables/*.py that return a Study, found without importing them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UsageError, nearest

PACKAGE = 'experiments.tables'


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A table by its name."""

    name: str  # of the function
    module: str
    summary: str  # the first line of its docstring


def entries() -> dict[str, Entry]:
    """Every table, by file and then in the order of the file.

    Raises:
      UsageError: the experiments are not there, or two tables have one name.
    """
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UsageError('the folder experiments/ is not on the path: call from the folder of the project, or install it')
    found: dict[str, Entry] = {}
    for path in sorted(Path(spec.submodule_search_locations[0]).glob('*.py')):
        for entry in _of_file(path):
            if entry.name in found:
                raise UsageError(f'{entry.module} and {found[entry.name].module} both declare a table "{entry.name}": rename one')
            found[entry.name] = entry
    return found


def load(name: str, assignments: Sequence[str] = ()) -> Any:
    """The study of a table (a name, or `module:function`), each `path=value` applied.

    Raises:
      UsageError: there is no such table, or no such field.
    """
    if ':' in name:
        study = config_lib.load_function(name)()
    else:
        known = entries()
        if name not in known:
            listed = f'; there are {", ".join(known) or "none"}'
            raise UsageError(f'there is no table "{name}"{nearest(name, known) or listed}')
        study = config_lib.load_function(f'{known[name].module}:{name}')()
    return config_lib.override(study, assignments)


def _of_file(path: Path) -> list[Entry]:
    if path.stem.startswith('_') and path.stem != '__init__':
        return []  # parts that tables share
    module = PACKAGE if path.stem == '__init__' else f'{PACKAGE}.{path.stem}'
    functions = [node for node in ast.parse(path.read_text(encoding='utf-8')).body if isinstance(node, ast.FunctionDef)]
    return [
        Entry(name=node.name, module=module, summary=(ast.get_docstring(node) or '').partition('\n')[0])
        for node in functions
        if not node.name.startswith('_') and node.returns is not None and ast.unparse(node.returns).rpartition('.')[2] == 'Study'
    ]
