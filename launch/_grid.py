"""A grid of settings: its points, their names and directories, and which of them have been finished."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from _common import Wrong

_PATH = r'[A-Za-z_]\w*(\.\w+)*'
_SAFE = r'[A-Za-z0-9._+-]+'
_LONGEST = 200  # [bytes] of a directory's name; file systems take 255, and checkpoints add to it
FINISHED = 'finished'  # folder beside the points: a file for each that has ended with code 0, holding its command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """One combination of values."""

    name: str  # of its directory, such as rate=0.001,batch_size=64
    values: tuple[str, ...]  # in the order of the paths
    words: list[str]  # for retfound, without --resume
    workdir: str
    finished: str  # the file that says so; '' where the sweep is not on this file system

    def state(self) -> str:
        """`finished`, `begun`, `to do`; or `unknown`.

        Raises:
          Wrong: what was finished here was another call.
        """
        if not self.finished:
            return 'unknown'
        if Path(self.finished).is_file():
            said = Path(self.finished).read_text(encoding='utf-8').rstrip('\n')
            if said != shlex.join(self.words).rstrip('\n'):
                raise Wrong(f'{self.workdir} was finished by another call ({said}); name another --workdir, or remove both')
            return 'finished'
        return 'begun' if Path(self.workdir, 'config.json').is_file() else 'to do'

    def finish(self) -> None:
        """Keeps that the point has ended well."""
        if self.finished:
            Path(self.finished).parent.mkdir(parents=True, exist_ok=True)
            Path(self.finished).write_text(shlex.join(self.words) + '\n', encoding='utf-8')


def read(settings: Sequence[str], *, fixed: Sequence[str]) -> dict[str, list[str]]:
    """Paths and their values from `path=v1,v2`; commas in brackets and quotes part nothing. `fixed` are settings of every point.

    Raises:
      Wrong: a setting is malformed, names a path twice, or has one value twice.
    """
    found: dict[str, list[str]] = {}
    taken = {text.split('=', 1)[0] for text in fixed}
    for setting in settings:
        path, equals, text = setting.partition('=')
        if not equals or not re.fullmatch(_PATH, path):
            raise Wrong(f'--set {setting!r} is not path=value,value,...; write for example --set optim.rate=1e-4,3e-4')
        if path in found or path in taken:
            raise Wrong(f'{path} is set twice; give all its values in one --set in front of --')
        found[path] = _parted(text)
        _check(path, found[path])
    if not found:
        raise Wrong('there is nothing to sweep; give --set path=value,value,... in front of --')
    return found


def points(grid: dict[str, list[str]], *, words: Sequence[str], workdir: str) -> list[Point]:
    """Every combination, the last path changing fastest.

    Raises:
      Wrong: two points would share a directory, or a name is too long for one.
    """
    labels, made = _labels(list(grid)), []
    for values in itertools.product(*grid.values()):
        name = ','.join(f'{label}={value}' for label, value in zip(labels, values, strict=True))
        if len(name) > _LONGEST:
            raise Wrong(f'{name} is too long for the name of a directory ({len(name)} characters; the most is {_LONGEST}); sweep fewer')
        place = f'{workdir.rstrip("/")}/{name}'
        settings = [f'--set={path}={value}' for path, value in zip(grid, values, strict=True)]
        finished = '' if '://' in workdir else f'{workdir.rstrip("/")}/{FINISHED}/{name}'
        made.append(Point(name=name, values=values, words=[*words, *settings, f'--workdir={place}'], workdir=place, finished=finished))
    return made


def table(grid: dict[str, list[str]], found: Sequence[Point], states: Sequence[str]) -> str:
    """One line a point: number, state, and a column for each path."""
    rows = [['', 'state', *grid], *([str(i), state, *point.values] for i, (point, state) in enumerate(zip(found, states, strict=True)))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return '\n'.join('  '.join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _parted(text: str) -> list[str]:
    parts, depth, quote = [''], 0, ''
    for letter in text:
        if quote or letter in '\'"':
            quote = '' if letter == quote else quote or letter
        depth += 0 if quote else (letter in '([{') - (letter in ')]}')
        if letter == ',' and not quote and depth == 0:
            parts.append('')
        else:
            parts[-1] += letter
    return parts


def _check(path: str, values: Sequence[str]) -> None:
    seen: dict[object, str] = {}
    for value in values:
        if not re.fullmatch(_SAFE, value):
            raise Wrong(
                f'{path}={value!r} cannot be part of a directory\'s name (letters, digits and ._+- can); '
                'make a variant of the experiment for each such value, and sweep them by themselves'
            )
        same = seen.setdefault(_meaning(value), value)
        if same is not value:
            raise Wrong(f'{path} has one value twice ({same} and {value}); leave one out')


def _meaning(value: str) -> object:
    """What a value is compared by: 1e-3 is 0.001; and a and A are one directory on some file systems."""
    try:
        return json.dumps(float(value))
    except ValueError:
        return value.casefold()


def _labels(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or all of it where two end alike."""
    last = [path.rsplit('.', 1)[-1] for path in paths]
    return [path if last.count(end) > 1 else end for path, end in zip(paths, last, strict=True)]
