"""The front door: `retfound VERB --flags`, `retfound help [VERB]`, `retfound --version`.

A verb is a file of this folder with `SUMMARY` (one line), `define(values)` and `run(values)`; a name that begins with an
underscore is no verb. A verb of several parts has `SUMMARY` and `PARTS` instead: name of the part to the module that has the three.
A verb is imported only when it is called, so `retfound help` stays fast.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags, logging

from retfound_jax import __version__
from retfound_jax.cli import _errors, _flags
from retfound_jax.core import compile_cache
from retfound_jax.core.errors import UsageError, nearest

_FOLDER = Path(__file__).resolve().parent
_DEBUG = '--debug'
_COMPILING = ('train', 'evaluate', 'predict', 'embed', 'bench', 'quickstart')  # verbs that hand programs to XLA
_HELP = ('help', '--help', '-help', '-h')


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0 done, 1 the work failed, 2 the call was wrong, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in words
    words = [word for word in words if word != _DEBUG]
    if not debug:
        logging.set_verbosity(logging.ERROR)  # libraries' asides; what a user must know is said in our own words
    try:
        _dispatch(words)
        sys.stdout.flush()
        return _errors.DONE
    except BrokenPipeError:  # whoever read our output left, as in `retfound help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _errors.FAILED
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        name = f'retfound {words[0]}' if words and words[0] in verbs() else 'retfound'
        print(f'{name}: {_errors.sentence(error, words, debug=debug)}', file=sys.stderr)
        return _errors.exit_code(error)


def verbs() -> dict[str, str]:
    """Name and summary of each verb, read from the files of this folder without importing them."""
    paths = (path for path in sorted(_FOLDER.glob('*.py')) if path.stem != 'main' and not path.stem.startswith('_'))
    return {path.stem: _summary(path) for path in paths}


def load_verb(name: str) -> ModuleType:
    """Imports the module of a verb; an unknown name is a UsageError that names the nearest one."""
    known = verbs()
    if name not in known:
        raise UsageError(f'there is no verb "{name}"{nearest(name, known) or "; `retfound help` lists them"}')
    return importlib.import_module(f'retfound_jax.cli.{name}')


def _dispatch(words: Sequence[str]) -> None:
    if not words:
        print(_overview(), file=sys.stderr)
        raise UsageError('name a verb')
    first, rest = words[0], list(words[1:])
    if first == '--version':
        print(_version())
    elif first in _HELP:
        print(_help(rest[0], rest[1:]) if rest else _overview())
    elif first.startswith('-'):
        raise UsageError(f'a verb comes before the flags, as in `retfound VERB {first}`; `retfound help` lists them')
    elif set(_HELP[1:]) & set(rest):
        print(_help(first, rest))
    else:
        run_verb(first, rest)


def run_verb(name: str, words: Sequence[str]) -> None:
    """Parses the flags of verb `name` and runs it; errors are raised, not printed."""
    name, module, words = _part_of(name, words)
    values = _flags.parse(name, module, words)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads its own switches from absl's global flags
    if name.split()[0] in _COMPILING:
        compile_cache.enable()
    module.run(values)


def _part_of(name: str, words: Sequence[str]) -> tuple[str, ModuleType, Sequence[str]]:
    """The module that runs, its full name, and the words that are left: a verb of several parts takes the first as the part."""
    module = load_verb(name)
    parts = getattr(module, 'PARTS', None)
    if parts is None:
        return name, module, words
    if not words or words[0].startswith('-'):
        raise UsageError(f'`retfound {name}` has the parts {", ".join(parts)}: name one, as in `retfound {name} {next(iter(parts))}`')
    if words[0] not in parts:
        known = '; it has ' + ', '.join(parts)
        raise UsageError(f'`retfound {name}` has no part "{words[0]}"{nearest(words[0], parts) or known}')
    return f'{name} {words[0]}', importlib.import_module(parts[words[0]]), words[1:]


def _help(name: str, rest: Sequence[str]) -> str:
    """The page of a verb, or of its part where one is named."""
    parts = getattr(load_verb(name), 'PARTS', None)
    if parts is None or [word for word in rest if not word.startswith('-')]:
        full, module, _ = _part_of(name, rest)
        return _flags.page(full, module)
    lines = [f'retfound {name}: {load_verb(name).SUMMARY}', '', f'Usage: retfound {name} PART --flag=value ...', '']
    lines += _columns({part: importlib.import_module(place).SUMMARY for part, place in parts.items()})
    return '\n'.join([*lines, '', f'`retfound help {name} PART` lists the flags of a part.'])


def _overview() -> str:
    lines = ['retfound: foundation models for retinal images in JAX', '', 'Usage: retfound VERB --flag=value ...', '', *_columns(verbs())]
    return '\n'.join([*lines, '', '`retfound help VERB` lists the flags of a verb; `retfound --version` tells the versions.'])


def _columns(summaries: dict[str, str]) -> list[str]:
    width = max(map(len, summaries), default=0)
    return [f'  {name:<{width}}  {summary}' for name, summary in summaries.items()]


def _version() -> str:
    installed = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'flax', 'grain'))
    return f'retfound {__version__} (Python {platform.python_version()}, {installed})'


def _summary(path: Path) -> str:
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == 'SUMMARY':
            return str(ast.literal_eval(node.value))
    return ''


if __name__ == '__main__':
    sys.exit(main())
