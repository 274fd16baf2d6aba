"""The front door: `retfound VERB --flags`, `retfound help [VERB]`, `retfound --version`.

A verb is a file of this folder with `SUMMARY` (one line), `define(values)` and `run(values)`; a name that begins with an
underscore is no verb. A verb is imported only when it is called, so `retfound help` stays fast.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import platform
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags

from retfound_jax import __version__
from retfound_jax.cli import _errors
from retfound_jax.core.errors import UsageError, nearest

_FOLDER = Path(__file__).resolve().parent
_MISSING = re.compile(r'Flag --(\w+) must have a value other than None')
_DEBUG = '--debug'


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code: 0 done, 1 the work failed, 2 the call was wrong, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in words
    words = [word for word in words if word != _DEBUG]
    try:
        _dispatch(words)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # the reader of our output left, as in `retfound help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
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


def verb_help(name: str) -> str:
    """The help page of one verb: its summary, then each flag with its default and meaning."""
    values = flags.FlagValues()
    module = load_verb(name)
    module.define(values)
    lines = [f'retfound {name}: {module.SUMMARY}', '', 'Flags:']
    for flag_name in values:
        flag = values[flag_name]
        lines += [f'  {_spelling(flag)}', f'      {flag.help}{_default(flag, required=_required(values, flag_name))}']
    return '\n'.join(lines + [f'  {_DEBUG}', '      show the traceback of an error'])


def load_verb(name: str) -> ModuleType:
    """Imports the module of a verb; an unknown name is a UsageError that names the nearest one."""
    known = verbs()
    if name not in known:
        raise UsageError(f'there is no verb "{name}"{nearest(name, known) or "; `retfound help` lists them"}')
    return importlib.import_module(f'retfound_jax.cli.{name}')


def parse(name: str, module: ModuleType, words: Sequence[str]) -> flags.FlagValues:
    """The flags of one verb, parsed from `words`; what is unknown, missing or of the wrong type is a UsageError."""
    values = flags.FlagValues()
    module.define(values)
    values.set_gnu_getopt(True)
    missing = f'; `retfound help {name}` lists its flags'
    try:
        rest = values([name, *words])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f'there is no flag --{error.flagname}{nearest(error.flagname, values) or missing}') from error
    except flags.Error as error:
        needed = _MISSING.findall(str(error))
        if needed:
            raise UsageError(f'missing {", ".join(f"--{flag} ({values[flag].help})" for flag in needed)}') from error
        raise UsageError(f'{" ".join(str(error).split())}{missing}') from error
    if rest:
        raise UsageError(f'"{rest[0]}" belongs to no flag{missing}')
    return values


def _dispatch(words: Sequence[str]) -> None:
    if not words:
        print(_overview(), file=sys.stderr)
        raise UsageError('name a verb')
    first, rest = words[0], list(words[1:])
    if first in ('--version', 'version'):
        print(_version())
    elif first in ('help', '--help', '-h'):
        print(verb_help(rest[0]) if rest else _overview())
    elif first.startswith('-'):
        raise UsageError(f'a verb comes before the flags, as in `retfound VERB {first}`; `retfound help` lists them')
    elif {'--help', '-h', '-help'} & set(rest):
        print(verb_help(first))
    else:
        _run(first, rest)


def _run(name: str, words: Sequence[str]) -> None:
    module = load_verb(name)
    values = parse(name, module, words)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain reads its own switches from absl's global flags
    module.run(values)


def _overview() -> str:
    known = verbs()
    width = max(map(len, known), default=0)
    lines = ['retfound: foundation models for retinal images in JAX', '', 'Usage: retfound VERB --flag=value ...', '']
    lines += [f'  {name:<{width}}  {summary}' for name, summary in known.items()]
    return '\n'.join(lines + ['', '`retfound help VERB` lists the flags of a verb; `retfound --version` tells the versions.'])


def _version() -> str:
    installed = ', '.join(f'{name} {importlib.metadata.version(name)}' for name in ('jax', 'flax', 'grain'))
    return f'retfound {__version__} (Python {platform.python_version()}, {installed})'


def _summary(path: Path) -> str:
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == 'SUMMARY':
            return str(ast.literal_eval(node.value))
    return ''


def _spelling(flag: flags.Flag) -> str:
    if flag.flag_type() == 'bool':
        return f'--[no]{flag.name}'
    options = getattr(flag.parser, 'enum_values', None)
    return f'--{flag.name}={"|".join(options) if options else flag.flag_type().upper().replace(" ", "_")}'


def _required(values: flags.FlagValues, name: str) -> bool:
    """Whether the flag was defined with `required=True`: absl keeps that only as a validator that refuses None."""
    try:
        values.validate_all_flags()
    except flags.Error as error:
        return name in _MISSING.findall(str(error))
    return False


def _default(flag: flags.Flag, *, required: bool) -> str:
    if required:
        return ' (required)'
    return '' if flag.default in (None, '', [], False) else f' (default: {flag.default_as_str})'


if __name__ == '__main__':
    sys.exit(main())
