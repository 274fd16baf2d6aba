"""One verb's flags: parsing them with errors a user can act on, and the help page that lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType

from absl import flags

from retfound_jax.core.errors import UsageError, nearest

_REQUIRED = re.compile(r'Flag --(\w+) must have a value other than None')
_ILLEGAL = re.compile(r'flag --(\w+)=(.*?): ', re.DOTALL)
_WANTED = {'int': 'a whole number', 'float': 'a number', 'bool': 'true or false'}


def parse(name: str, module: ModuleType, words: Sequence[str]) -> flags.FlagValues:
    """The flags of verb `name`, read from `words`; what is unknown, missing or of the wrong type is a UsageError.

    A module with `ARGUMENT`, the name of one of its flags, takes a first bare word as that flag's value.
    """
    values = flags.FlagValues()
    module.define(values)
    values.set_gnu_getopt(True)
    where = f'; `retfound help {name}` lists its flags'
    try:
        rest = values([name, *words])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f'there is no flag --{error.flagname}{nearest(error.flagname, values) or where}') from error
    except flags.Error as error:
        raise UsageError(_explain(str(error), values) or f'{" ".join(str(error).split())}{where}') from error
    argument = getattr(module, 'ARGUMENT', '')
    if rest and argument and not values[argument].present:
        values[argument].value = rest.pop(0)
    if rest:
        raise UsageError(f'"{rest[0]}" belongs to no flag{where}')
    return values


def page(name: str, module: ModuleType) -> str:
    """The help page of verb `name`: its summary, then each flag with its meaning and default."""
    values = flags.FlagValues()
    module.define(values)
    required = _required(values)
    argument = getattr(module, 'ARGUMENT', '')
    usage = [f'Usage: retfound {name} [{argument.upper()}] --flag=value ...', ''] if argument else []
    lines = [f'retfound {name}: {module.SUMMARY}', '', *usage, 'Flags:']
    for flag_name in values:
        flag = values[flag_name]
        lines += [f'  {_spelling(flag)}', f'      {_meaning(flag)}{" (required)" if flag_name in required else _default(flag)}']
    return '\n'.join([*lines, '  --debug', '      show the traceback of an error'])


def _explain(text: str, values: flags.FlagValues) -> str:
    """absl's complaint in our words, or nothing where it is not one of the common ones."""
    needed = _REQUIRED.findall(text)
    if needed:
        return f'missing {", ".join(f"--{flag} ({_meaning(values[flag])})" for flag in needed)}'
    found = _ILLEGAL.match(text)
    if not found:
        return ''
    flag_name, value = found.groups()
    options = getattr(values[flag_name].parser, 'enum_values', None)
    if options:
        return f'--{flag_name}={value} is none of {", ".join(options)}{nearest(value, options)}'
    kind = _WANTED.get(values[flag_name].flag_type().split()[-1])
    return f'--{flag_name}={value} is not {kind}' if kind else ''


def _required(values: flags.FlagValues) -> set[str]:
    """Flags defined with `required=True`: absl keeps that only as validators that refuse None."""
    try:
        values.validate_all_flags()
    except flags.Error as error:
        return set(_REQUIRED.findall(str(error)))
    return set()


def _spelling(flag: flags.Flag) -> str:
    kind = flag.flag_type()
    if kind == 'bool':
        return f'--[no]{flag.name}'
    options = getattr(flag.parser, 'enum_values', None)
    shown = '|'.join(options) if options else 'A,B,...' if kind.startswith('comma') else kind.split()[-1].upper()
    return f'--{flag.name}={shown}{" (as often as needed)" if isinstance(flag, flags.MultiFlag) else ""}'


def _meaning(flag: flags.Flag) -> str:
    """The help text without what absl adds to it and the spelling says already."""
    return re.sub(r'^<[^>]*>: ', '', flag.help or '').split(';\n    repeat')[0]


def _default(flag: flags.Flag) -> str:
    return '' if flag.default in (None, '', [], False) else f' (default: {flag.default_as_str.strip(chr(39))})'
