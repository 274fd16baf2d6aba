"""Configuration as frozen dataclasses: to and from JSON, typed overrides, experiments loaded by name.

A field may hold another dataclass. Where its annotation is a base class or a union, JSON carries the concrete class under
`"type"`; only dataclasses of this package that fit the annotation are accepted, so a file can never name code to run.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, Union

from retfound_jax.core.errors import UsageError, nearest

_PACKAGE = 'retfound_jax.'


def to_dict(config: Any) -> Any:
    """A dataclass as plain JSON values; nested dataclasses carry their class under `"type"`."""
    if dataclasses.is_dataclass(config):
        fields = {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
        return {'type': f'{type(config).__module__}:{type(config).__qualname__}', **fields}
    if isinstance(config, (tuple, list)):
        return [to_dict(item) for item in config]
    if isinstance(config, dict):
        return {str(key): to_dict(value) for key, value in config.items()}
    return config


def to_json(config: Any) -> str:
    """`to_dict` as text, with a stable order (the golden text of a configuration)."""
    return json.dumps(to_dict(config), indent=1, ensure_ascii=False) + '\n'


def from_dict(cls: type, value: Any) -> Any:
    """The inverse of `to_dict`; every field is checked against its annotation.

    Raises:
      UsageError: a field is unknown, missing or of another type.
    """
    return _build(cls, value, path='')


def override(config: Any, assignments: Sequence[str]) -> Any:
    """Returns `config` with each `a.b.c=value` applied; the value is parsed by the field's type.

    Raises:
      UsageError: the path is unknown (the nearest one is named) or the value does not parse.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition('=')
        if not equals:
            raise UsageError(f'--set {assignment} has no "=": write --set path=value')
        config = _override_one(config, path.strip().split('.'), text, full=path.strip())
    return config


def load_function(name: str) -> Callable[[], Any]:
    """Loads `module:function`, such as `experiments.pretrain_mae:vit_b16`.

    Raises:
      UsageError: there is no such module or function; the nearest function is named.
    """
    module_name, colon, function_name = name.partition(':')
    if not colon or not module_name or not function_name:
        raise UsageError(f'the experiment "{name}" is not of the form module:function, such as experiments.pretrain_mae:vit_b16')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Only the named module itself may be missing; a missing import inside it is its own error and must show.
        if error.name and module_name.split('.')[: len(error.name.split('.'))] == error.name.split('.'):
            raise UsageError(f'there is no module "{module_name}" to load the experiment from{_near_module(module_name)}') from error
        raise
    public = [key for key, value in vars(module).items() if callable(value) and getattr(value, '__module__', '') == module.__name__]
    public = [key for key in public if not key.startswith('_') and not isinstance(getattr(module, key), type)]
    if function_name not in public:
        hint = nearest(function_name, public) or f'; it has {", ".join(public)}'
        raise UsageError(f'{module_name} has no experiment "{function_name}"{hint}')
    return getattr(module, function_name)


def _near_module(name: str) -> str:
    import pkgutil

    parent, _, last = name.rpartition('.')
    try:
        paths = importlib.import_module(parent).__path__ if parent else None
    except (ImportError, AttributeError):
        return ''
    near = nearest(last, [item.name for item in pkgutil.iter_modules(paths)])
    return near.replace('"', f'"{parent}.', 1) if parent and near else near


def _override_one(config: Any, parts: list[str], text: str, *, full: str) -> Any:
    head, rest = parts[0], parts[1:]
    hints = typing.get_type_hints(type(config)) if dataclasses.is_dataclass(config) else {}
    names = [field.name for field in dataclasses.fields(config)] if dataclasses.is_dataclass(config) else []
    if head not in names:
        hint = nearest(head, names) or f'; it has {", ".join(names)}'
        raise UsageError(f'--set {full}: {type(config).__name__} has no field "{head}"{hint}')
    current = getattr(config, head)
    if rest:
        if not dataclasses.is_dataclass(current):
            raise UsageError(f'--set {full}: "{head}" is a single value and has no fields inside it')
        return dataclasses.replace(config, **{head: _override_one(current, rest, text, full=full)})
    if dataclasses.is_dataclass(current):
        inner = ', '.join(field.name for field in dataclasses.fields(current))
        raise UsageError(f'--set {full}: "{head}" is a group of fields; set one of {inner}')
    return dataclasses.replace(config, **{head: _build(hints[head], _parse(text, hints[head]), path=full)})


def _parse(text: str, hint: Any) -> Any:
    """Text to a JSON-like value; text stays text where the field is a string."""
    if hint is str:
        return text
    kinds = set(typing.get_args(hint)) if typing.get_origin(hint) in (Union, types.UnionType) else {hint}
    if str in kinds and text.lower() not in ('none', 'null'):
        return text
    if typing.get_origin(hint) is Literal and text in typing.get_args(hint):
        return text
    if text.lower() in ('none', 'null', 'true', 'false'):
        return {'none': None, 'null': None, 'true': True, 'false': False}[text.lower()]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if any(typing.get_origin(kind) is tuple or kind is tuple for kind in kinds):
            return [_scalar(item.strip()) for item in text.strip('()[]').split(',') if item.strip()]
        return text


def _scalar(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _build(hint: Any, value: Any, *, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _build_union(arguments, value, path=path)
    if origin is Literal:
        if value in arguments:
            return value
        raise UsageError(f'{path} is "{value}" and must be one of {", ".join(map(str, arguments))}')
    if origin is tuple:
        return _build_tuple(arguments, value, path=path)
    if dataclasses.is_dataclass(hint):
        return _build_dataclass(hint, value, path=path)
    return _build_scalar(hint, value, path=path)


def _build_scalar(hint: Any, value: Any, *, path: str) -> Any:
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    elif hint is type(None) and value is None:
        return None
    elif isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise UsageError(f'{path} is {value!r} and must be a {getattr(hint, "__name__", hint)}')


def _build_union(arguments: tuple, value: Any, *, path: str) -> Any:
    reasons: dict[Any, UsageError] = {}
    for hint in arguments:
        try:
            return _build(hint, value, path=path)
        except UsageError as error:
            reasons[hint] = error
    # The reason that helps is that of the class which is named by "type", else the last; None is what nobody meant who wrote a value.
    meant = {hint: reason for hint, reason in reasons.items() if hint is not type(None)} or reasons
    named = str(value.get('type', '')).rpartition(':')[2] if isinstance(value, dict) else ''
    raise next((reason for hint, reason in meant.items() if getattr(hint, '__name__', '') == named), list(meant.values())[-1])


def _build_tuple(arguments: tuple, value: Any, *, path: str) -> tuple:
    if not isinstance(value, (list, tuple)):
        raise UsageError(f'{path} is {value!r} and must be a list, such as a,b')
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_build(arguments[0], item, path=f'{path}[{i}]') for i, item in enumerate(value))
    if len(arguments) != len(value):
        raise UsageError(f'{path} has {len(value)} values and must have {len(arguments)}')
    return tuple(_build(hint, item, path=f'{path}[{i}]') for i, (hint, item) in enumerate(zip(arguments, value, strict=True)))


def _build_dataclass(hint: type, value: Any, *, path: str) -> Any:
    if dataclasses.is_dataclass(value) and isinstance(value, hint):
        return value
    where = path or 'the configuration'
    if not isinstance(value, dict):
        raise UsageError(f'{where} is {value!r} and must be a group of fields')
    cls = _resolve(value.get('type'), hint, path=where)
    hints, fields = typing.get_type_hints(cls), {field.name: field for field in dataclasses.fields(cls)}
    given = {key: item for key, item in value.items() if key != 'type'}
    for key in given:
        if key not in fields:
            raise UsageError(f'{where}: {cls.__name__} has no field "{key}"{nearest(key, fields)}')
    built = {key: _build(hints[key], item, path=f'{path}.{key}'.strip('.')) for key, item in given.items()}
    needed = [key for key, field in fields.items() if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]
    missing = [key for key in needed if key not in built]
    if missing:
        raise UsageError(f'{where}: {cls.__name__} needs {", ".join(missing)}')
    return cls(**built)


def _resolve(name: Any, hint: type, *, path: str) -> type:
    if name is None:
        return hint
    module_name, _, class_name = str(name).partition(':')
    if not module_name.startswith(_PACKAGE) or not all(part.isidentifier() for part in f'{module_name}.{class_name}'.split('.')):
        raise UsageError(f'{path} names the class "{name}", which is not a configuration of this package')
    try:
        cls = getattr(importlib.import_module(module_name), class_name, None)
    except ImportError as error:
        raise UsageError(f'{path} names the class "{name}", which this version does not have') from error
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and issubclass(cls, hint)):
        raise UsageError(f'{path} names the class "{name}", which is not a {hint.__name__}')
    return cls
