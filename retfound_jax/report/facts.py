"""What only a model's owner knows: a TOML file of plain sentences, read strictly. What a run's files say is never asked here.

owner = "Moorfields Eye Hospital"
licence = "cc-by-nc-4.0"
intended_use = "To support graders in a research setting; never alone."
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.report.words import clean

_LONGEST = 2000  # [characters] of a sentence
_LARGEST = 256 * 1024  # [bytes] of a file
_LICENCE = re.compile(r'[a-z0-9][a-z0-9.+-]{0,49}')

# key to what it says, in the order in which a card prints them
SENTENCES = MappingProxyType(
    {
        'owner': 'Who answers for the model',
        'contact': 'Where to write to',
        'licence': 'Licence of the weights, by its identifier on the Hugging Face Hub; "other" needs licence_name',
        'licence_name': 'Name of a licence that has no identifier',
        'licence_link': 'Where the licence can be read',
        'intended_use': 'What the model is meant for, and where in the care pathway',
        'intended_users': 'Who is meant to use it, and what they have to know',
        'out_of_scope': 'What it must not be used for, beyond what the evidence does not cover',
        'health_inequalities': 'Known differences in health between groups of the people it is meant for',
        'objective': 'What the study set out to do',
        'study_design': 'Prospective or retrospective; cohort, case-control, screening or else',
        'data_source': 'Where the images come from: trial, cohort, routine care, registry; and why these',
        'data_dates': 'From when to when they were collected',
        'setting': 'Number, kind and place of the centres',
        'eligibility': 'Who was included and who was not',
        'treatments': 'Treatments that matter, and how they were handled',
        'deidentification': 'How the images were de-identified',
        'acquisition': 'How the images were taken: camera, field, pupils',
        'outcome_definition': 'What the label means, and how and when it was assessed',
        'outcome_rationale': 'Why this label is the reference standard',
        'outcome_assessors': 'Who labelled, how qualified, how many',
        'outcome_blinding': 'What those who labelled did not see',
        'rater_agreement': 'How far those who labelled agree with each other and with themselves',
        'sample_size': 'How the number of patients was arrived at',
        'unusable_input': 'What to do with an image that is poor or not there',
        'interpretation': 'What the results mean, next to earlier studies',
        'next_steps': 'What has to be done before wider use',
        'ethics': 'Ethics committee, and consent or its waiver',
        'funding': 'Who paid, and what they had a say in',
        'conflicts': 'Conflicts of interest',
        'protocol': 'Where the protocol can be read, or that there was none',
        'registration': 'Where the study is registered, or that it is not',
        'data_availability': 'Who can get the data',
        'code_availability': 'Where the code is',
        'model_availability': 'Where the weights are',
        'involvement': 'How patients and the public were involved, or that they were not',
    }
)
NUMBERS = MappingProxyType(
    {
        'power_watts': 'Mean power of the hardware while it trained [W], as measured or stated by its maker',
        'carbon_g_per_kwh': 'Carbon intensity of its electricity [g CO2e/kWh]',
    }
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the owner says; what they left out is not there."""

    sentences: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)

    def get(self, key: str) -> str:
        """A sentence, '' where the owner said nothing. A key that does not exist is a KeyError: a misspelt question has no answer."""
        SENTENCES[key]
        return self.sentences.get(key, '')


def read_facts(path: Path | str | None) -> Facts:
    """Reads the owner's file; None gives no facts.

    Raises:
      UsageError: there is no such file, it is no TOML, a key is unknown, or a value is of the wrong kind, empty or too long.
    """
    if path is None:
        return Facts()
    path = Path(path)
    found = _parsed(path)
    sentences = {key: _sentence(key, found[key], path) for key in SENTENCES if key in found}
    numbers = {key: _number(key, found[key], path) for key in NUMBERS if key in found}
    unknown = [key for key in found if key not in SENTENCES and key not in NUMBERS]
    if unknown:
        known = (*SENTENCES, *NUMBERS)
        listed = f': the keys are {", ".join(known)}'
        raise UsageError(f'{path} has a key "{clean(unknown[0])}" that is unknown{nearest(unknown[0], known) or listed}')
    _check_licence(sentences, path)
    return Facts(sentences=sentences, numbers=numbers)


def template() -> str:
    """An empty file of facts, each key with what it asks, ready to be filled in."""
    lines = ['# What only the owner of a model knows. Take the # away from what you fill in.', '']
    lines += [f'# {key} = ""  # {asks}' for key, asks in SENTENCES.items()]
    return '\n'.join([*lines, *(f'# {key} = 0.0  # {asks}' for key, asks in NUMBERS.items()), ''])


def _parsed(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f'--facts {path} is no file: give a TOML file of the facts that only the owner knows')
    if path.stat().st_size > _LARGEST:
        raise UsageError(f'--facts {path} is larger than {_LARGEST // 1024} KiB: give a TOML file of sentences')
    try:
        return tomllib.loads(path.read_text(encoding='utf-8'))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f'{path} is no TOML ({error}); a line reads: owner = "name"') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not UTF-8 text; save it as UTF-8') from error


def _sentence(key: str, value: Any, path: Path) -> str:
    if not isinstance(value, str):
        raise UsageError(f'{path}: {key} is no text; write {key} = "..." ({SENTENCES[key]})')
    text = ' '.join(clean(value).split())
    if not text:
        raise UsageError(f'{path}: {key} is empty; fill it in, or take the line out and the card will say that it is missing')
    if len(text) > _LONGEST:
        raise UsageError(f'{path}: {key} has {len(text)} characters, more than {_LONGEST}; shorten it')
    return text


def _number(key: str, value: Any, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UsageError(f'{path}: {key} is no number above 0; write {key} = 300.0 ({NUMBERS[key]})')
    return float(value)


def _check_licence(sentences: Mapping[str, str], path: Path) -> None:
    licence = sentences.get('licence')
    if licence is not None and not _LICENCE.fullmatch(licence):
        advice = 'for another one write licence = "other" and give licence_name'
        raise UsageError(f'{path}: licence "{licence}" is no identifier such as apache-2.0 or cc-by-nc-4.0; {advice}')
    if licence == 'other' and 'licence_name' not in sentences:
        raise UsageError(f'{path}: licence "other" needs a licence_name')
    if 'licence_name' in sentences and licence != 'other':
        raise UsageError(f'{path}: licence_name goes with licence = "other"')
