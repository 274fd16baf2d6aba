"""What the launchers share: reading a call, the words of `retfound train`, one-sentence errors. Standard library only, for login nodes."""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the Python of a login node may be any
    sys.exit(f'{sys.argv[0]}: this is Python {sys.version_info[0]}.{sys.version_info[1]}; name a later one: python3.11 {sys.argv[0]} ...')

import argparse
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / '.venv' / 'bin' / 'retfound'  # made by launch/quickstart, launch/test or launch/local
DONE, FAILED, WRONG_CALL, INTERRUPTED, RESTART = 0, 1, 2, 130, 75  # exit codes of retfound; 75: nothing is lost, start it again
_MODE = re.compile(r'--?(?P<no>no)?(?P<name>resume|overwrite)(=(?P<value>.*))?', re.DOTALL)
_VALUED = ('--experiment', '--workdir', '--set')  # the word after these is a value, whatever it looks like


class Wrong(Exception):
    """The call was wrong; the sentence says what to do (exit code 2)."""


class Parser(argparse.ArgumentParser):
    """Answers a wrong call with one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raises what `call` prints."""
        raise Wrong(f'{message}; --help says what there is')


def parser(name: str, text: str, *, usage: str) -> Parser:
    """A parser for the flags before `--`; `text` is the help above them."""
    formatter = argparse.RawDescriptionHelpFormatter
    made = Parser(prog=f'launch/{name}', usage=f'launch/{usage}', description=text, formatter_class=formatter, allow_abbrev=False)
    made.add_argument('--dry_run', action='store_true', help='print exactly what would be run, and do nothing')
    return made


def call(run: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs a launcher's `run` on the command line and ends with its code."""
    try:
        for word in sys.argv[1:]:
            _check(word)
        sys.exit(run(sys.argv[1:]))
    except Wrong as error:
        print(f'{Path(sys.argv[0]).name}: {error}', file=sys.stderr)
        sys.exit(WRONG_CALL)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _check(word: str) -> None:
    try:
        word.encode('utf-8')
    except UnicodeEncodeError:
        raise Wrong(f'{word!r} is not UTF-8; rename what it names') from None


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The launcher's own flags, and the words for retfound that stand behind the first `--`."""
    words = list(argv)
    if '--' not in words:
        return words, []
    at = words.index('--')
    return words[:at], words[at + 1 :]


def train_words(words: Sequence[str], *, workdir: bool = True) -> list[str]:
    """The words behind `--`, once they are a call of `retfound train`.

    Raises:
      Wrong: they are none, or lack --experiment or (where asked for) --workdir.
    """
    if not words or words[0] != 'train':
        found = f'"{words[0]}"' if words else 'nothing'
        raise Wrong(f'behind -- stands {found}, not a call of train; end with: -- train --experiment module:function --workdir DIR')
    for name in ('experiment', 'workdir') if workdir else ('experiment',):
        if not value(words, name):
            raise Wrong(f'behind -- train there is no --{name}; add it')
    return list(words)


def value(words: Sequence[str], name: str) -> str:
    """What a flag is given, as `--name value` or `--name=value`, the last one counting; '' where it is not."""
    found = ''
    for before, word in zip(['', *words], [*words, ''], strict=True):
        if before in (f'--{name}', f'-{name}'):
            found = word
        elif word.startswith((f'--{name}=', f'-{name}=')):
            found = word.split('=', 1)[1]
    return found


def without_mode(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words without --resume and --overwrite, and those of the two that were set."""
    kept, mode = [], {}
    for before, word in zip(['', *words], words, strict=False):
        found = _MODE.fullmatch(word)
        if not found or before in _VALUED:
            kept.append(word)
        else:
            mode[found['name']] = not found['no'] and (found['value'] or 'true').lower() in ('true', 't', '1', 'yes', 'y')
    return kept, [f'--{name}' for name, on in mode.items() if on]


def resumable(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words of a call that a scheduler may start again, without --resume; and whether --resume stood there.

    Raises:
      Wrong: --overwrite stands there, and each start would delete what the one before has done.
    """
    kept, mode = without_mode(words)
    if '--overwrite' in mode:
        raise Wrong('--overwrite would delete the run at every restart; remove the directory yourself, or name another --workdir')
    return kept, '--resume' in mode


def shown(words: Sequence[str], *, environment: dict[str, str] | None = None) -> str:
    """A command as a shell reads it."""
    settings = [f'{name}={shlex.quote(text)}' for name, text in (environment or {}).items()]
    return ' '.join([*settings, shlex.join(words)])


def at_least(least: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `least`."""

    def number(text: str) -> int:
        found = int(text)
        if found < least:
            raise argparse.ArgumentTypeError(f'{found} is too small; the least is {least}')
        return found

    return number


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """An argparse type: text that is `pattern` all through; `what` says so in words."""

    def text_of(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f'{text!r} is not {what}')
        return text

    return text_of


def pinned(image: str) -> str:
    """An image whose name says which one it is.

    Raises:
      Wrong: it has no tag and no digest, or the tag `latest`, which changes between the restarts of one run.
    """
    if not re.fullmatch(r'[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?', image):
        raise Wrong(f'--image {image!r} is not the name of an image')
    tag = image.rsplit('/', 1)[-1].partition('@')[0].partition(':')[2]
    if '@sha256:' not in image and tag in ('', 'latest'):
        raise Wrong(f'--image {image} may be another one at the next start; give its version as a tag, or its digest')
    return image


def kept(workdir: str, *, places: Sequence[str], flag: str, several: bool) -> None:
    """Refuses a work directory that would go with its machine, or that several processes cannot share.

    Raises:
      Wrong: it lies in none of `places`, which `flag` names, and is no object store, or is one and there are `several` processes.
    """
    if '://' in workdir:
        together(workdir, several=several, advice=f'name a path in a volume that all of them mount ({flag}), a mounted bucket too')
    elif not any(Path(workdir).is_relative_to(place) for place in places) or '..' in Path(workdir).parts:
        store = '' if several else 'name an object store (gs://...), or '
        raise Wrong(f'--workdir {workdir} is lost with its machine; {store}{"a" if store else "name a"} path in a shared volume ({flag})')


def together(workdir: str, *, several: bool, advice: str) -> None:
    """Refuses an object store as the work directory of several processes: they write a checkpoint in parts, on one file system.

    Raises:
      Wrong: it is one.
    """
    if several and '://' in workdir:
        raise Wrong(f'--workdir {workdir} is an object store, where several processes cannot put one checkpoint together; {advice}')
