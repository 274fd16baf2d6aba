"""What only a dataset's owner knows: a TOML file of plain sentences, read strictly. What a manifest says is never asked here.

    title = "Eye clinic of the city hospital, 2015 to 2021"
    licence = "https://creativecommons.org/licenses/by-nc/4.0/"
    collection = "Photographs of routine screening; one camera a site, pupils not dilated."

Where a page is of several datasets, a table of each dataset's name holds what is said of it; what stands above all tables is said of each.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.report.words import clean

NAME = 'dataset.toml'  # looked for in the dataset's folder where no file is given
_LONGEST = 2000  # [characters] of a sentence
_LARGEST = 256 * 1024  # [bytes] of a file

QUESTIONS = MappingProxyType(
    {
        'title': 'What the dataset is called',
        'description': 'What it holds and where it comes from, in plain words',
        'version': 'Its version',
        'released': 'The date it was released, as 2024-05-31',
        'licence': 'Its licence, as an address or an SPDX identifier',
        'access': 'Who can get it, and how',
        'url': 'Its page on the web',
        'citation': 'How it is cited',
        'creators': 'Who made it',
        'custodian': 'Who keeps it and answers for it',
        'funders': 'Who paid for it',
        'interests': 'Competing interests of those who made it',
        'purpose': 'Why it was made',
        'uses': 'What it is fit for',
        'not_for': 'What it must not be used for',
        'origin': 'Where the data come from: trial, cohort, routine care, registry; and why from there',
        'collection': 'How the images were taken and gathered',
        'time_frame': 'From when to when they were taken',
        'sampling': 'How patients were chosen, and who was left out',
        'sources': 'How data of several sources were brought together',
        'shifts': 'What changed over time: cameras, coding, who was invited',
        'absent_groups': 'Groups that are not in it, and why',
        'attributes': 'How sex, ethnicity and the like were recorded, by whom, and in which categories',
        'outcomes': 'Groups that are known to fare worse in this disease or this health service',
        'limitations': 'Known limitations',
        'biases': 'Known sources of bias',
        'modifications': 'What was changed before the data came here, and whether any of it is synthetic',
        'sampling_bias': 'How the way patients were chosen may mislead',
        'aggregation_bias': 'How grouping or rounding may mislead',
        'missing': 'Why values are missing',
        'labels': 'Who labelled, how qualified, how many, how far they agree, and where they may be wrong',
        'ethics': 'Ethics committee, and consent or its waiver',
        'protection': 'How the data are protected, and by which law',
        'governance': 'Who decides about their use',
        'participation': 'How patients and the public had a part in it',
        'assessments': 'Assessments of bias, or of the effect on people and society, that were made',
        'social_impact': 'What good and what harm may come of its use',
        'sensitive': 'What is personal or sensitive in it, and how it was de-identified',
        'maintenance': 'Who corrects it, and until when',
    }
)


class Facts(dict[str, str]):
    """What the owner says of one dataset by key of QUESTIONS; '' for what they left out. A key that does not exist is a KeyError."""

    def __missing__(self, key: str) -> str:
        QUESTIONS[key]
        return ''


def read(given: Path | str | None, *, folders: Mapping[str, Path | str]) -> dict[str, Facts]:
    """The facts of each dataset, from the file given, else from `dataset.toml` in its folder where there is one.

    folders: name of a dataset to its folder.

    Raises:
      UsageError: the file is not there or no TOML, a key is unknown, or a value is no text, empty, or too long.
    """
    if given:
        found = _parsed(Path(given))
        return {name: _facts({**_plain(found), **_table(found, name)}, where=Path(given)) for name in _named(found, folders, Path(given))}
    each = {name: Path(folder) / NAME for name, folder in folders.items()}
    return {name: _facts(_parsed(path), where=path) if path.is_file() else Facts() for name, path in each.items()}


def template() -> str:
    """An empty file, each key with what it asks, ready to be filled in."""
    lines = ['# What only the owner of a dataset knows. Take the # away from what you fill in.', '']
    return '\n'.join([*lines, *(f'# {key} = ""  # {asks}' for key, asks in QUESTIONS.items()), ''])


def _named(found: Mapping[str, Any], folders: Mapping[str, Path | str], where: Path) -> Sequence[str]:
    """The datasets, after a look that no table is of another."""
    for name in (name for name, value in found.items() if isinstance(value, dict) and name not in folders):
        names = ', '.join(folders)
        raise UsageError(f'{where}: [{clean(name)}] is none of the datasets{nearest(name, folders) or f"; they are {names}"}')
    return tuple(folders)


def _plain(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if not isinstance(value, dict)}


def _table(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    return found.get(name, {})


def _parsed(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f'{path} is no file; give a TOML file of what only the owner of the dataset knows')
    if path.stat().st_size > _LARGEST:
        raise UsageError(f'{path} is larger than {_LARGEST // 1024} KiB; give a TOML file of sentences')
    try:
        return tomllib.loads(path.read_text(encoding='utf-8'))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f'{path} is no TOML in UTF-8 ({error}); a line reads: purpose = "a sentence"') from error


def _facts(found: Mapping[str, Any], *, where: Path) -> Facts:
    facts = Facts()
    for key, value in found.items():
        if key not in QUESTIONS:
            listed = f': the keys are {", ".join(QUESTIONS)}'
            raise UsageError(f'{where} has a key "{clean(key)}" that is unknown{nearest(key, QUESTIONS) or listed}')
        text = ' '.join(clean(value).split()) if isinstance(value, str) else ''
        if not text or len(text) > _LONGEST:
            raise UsageError(f'{where}: {key} is no text of 1 to {_LONGEST} characters; write {key} = "..." or take the line out')
        facts[key] = text
    return facts
