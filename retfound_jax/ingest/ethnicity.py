"""Classifications of ethnicity, and the words by which tables name their categories.

    ONS2021  census of England and Wales 2021, Office for National Statistics: 5 groups with 19 categories
    NHS2001  NHS data dictionary, ETHNIC CATEGORY CODE 2001: 16 categories and Z, by their letters or names
    OMB1997  United States, Office of Management and Budget, Statistical Policy Directive 15 of 1997: races and Hispanic or Latino
    OMB2024  its revision of March 2024: one question, with Middle Eastern or North African
    own      any other one, also with its name (own:NAME); its words are kept
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping

from retfound_jax.core.demographics import NOT_IN_SCHEME
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.ingest.vocabulary import Read, fold, not_understood, nothing, one_spelling, stored

OWN = 'own'
MOST_WORDS = 64  # different words without a scheme; more are free text
# UK Biobank's codes for an ethnic background that is not known, and that the person did not say.
_MISSING, _DECLINED = frozenset({'-1', '99'}), frozenset({'-3'})
_NO_LETTERS = re.compile(r'[\W_]+')
_EMPTY_WORDS = frozenset({'any', 'background', 'backgrounds', 'ethnicity', 'the'})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheme:
    """One classification."""

    title: str
    groups: Mapping[str, str]  # broad group to its other names, separated by |
    parts: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)  # group to category to its other names
    missing: frozenset[str] = frozenset()  # codes
    declined: frozenset[str] = frozenset()

    def words(self) -> dict[str, str]:
        """Each name, without case and signs, to its category; a category may have its group's name before its own."""
        found = {_plain(name): group for group, names in self.groups.items() for name in (group, *names.split('|')) if name}
        for group, parts in self.parts.items():
            before = [_plain(name) for name in (group, *self.groups[group].split('|')) if name]
            for part, names in parts.items():
                for name in map(_plain, (part, *names.split('|'))):
                    found |= {word: part for word in (name, *(f'{one} {name}' for one in before)) if name and word not in found}
        return found

    def group_of(self, category: str) -> str:
        """The broad group that holds a category, or ''."""
        return next((group for group, parts in self.parts.items() if category in parts), '')


_UK_GROUPS = {
    'Asian': 'Asian or Asian British|Asian, Asian British or Asian Welsh|Asian British|Asian/Asian British',
    'Black': 'Black or Black British|Black, Black British, Black Welsh, Caribbean or African|Black, Black British, Caribbean or African|'
             'Black British|Black African Caribbean or Black British',
    'Mixed': 'Mixed or multiple ethnic groups|Mixed or multiple|Mixed/multiple ethnic groups|Mixed race|Multiple ethnic groups',
    'White': '',
    'Other ethnic group': 'Other|Other ethnic groups|Any other ethnic group',
}
_UK_MIXED = {
    'White and Asian': '', 'White and Black African': '', 'White and Black Caribbean': '',
    'Other Mixed': 'Other|Other mixed or multiple|Any other mixed or multiple ethnic background',
}
_UK_BLACK = {
    'African': 'Black African', 'Caribbean': 'Black Caribbean',
    'Other Black': 'Other|Black other|Any other Black, Black British, or Caribbean background',
}
_UK_ASIAN = {
    'Bangladeshi': 'British Bangladeshi|Bangladeshi or British Bangladeshi', 'Indian': 'British Indian|Indian or British Indian',
    'Pakistani': 'British Pakistani|Pakistani or British Pakistani', 'Other Asian': 'Other|Asian other',
}
_ONS = Scheme(
    title='ONS 2021 (census of England and Wales)', groups=_UK_GROUPS,
    parts={
        'Asian': {**_UK_ASIAN, 'Chinese': ''}, 'Black': _UK_BLACK, 'Mixed': _UK_MIXED,
        'White': {
            'White British': 'British|English, Welsh, Scottish, Northern Irish or British|English|Scottish|Welsh|Northern Irish',
            'White Irish': 'Irish', 'Gypsy or Irish Traveller': 'Gypsy|Irish Traveller', 'Roma': '', 'Other White': 'Other|White other',
        },
        'Other ethnic group': {'Arab': ''},
    },
)
_NHS = Scheme(
    title='NHS 2001 (ETHNIC CATEGORY CODE 2001)',
    groups={**_UK_GROUPS, 'Other ethnic group': f'{_UK_GROUPS["Other ethnic group"]}|S'},
    parts={
        'Asian': {**_UK_ASIAN, 'Indian': f'{_UK_ASIAN["Indian"]}|H', 'Pakistani': f'{_UK_ASIAN["Pakistani"]}|J',
                  'Bangladeshi': f'{_UK_ASIAN["Bangladeshi"]}|K', 'Other Asian': f'{_UK_ASIAN["Other Asian"]}|L'},
        'Black': {**_UK_BLACK, 'Caribbean': 'Black Caribbean|M', 'African': 'Black African|N', 'Other Black': 'Other|Black other|P'},
        'Mixed': {'White and Black Caribbean': 'D', 'White and Black African': 'E', 'White and Asian': 'F', 'Other Mixed': 'Other|G'},
        'White': {'White British': 'British|British, Mixed British|A', 'White Irish': 'Irish|B', 'Other White': 'Other|White other|C'},
        'Other ethnic group': {'Chinese': 'R'},
    },
    missing=frozenset({'99', 'x'}), declined=frozenset({'z'}),
)
_US = {
    'American Indian or Alaska Native': 'American Indian|Alaska Native|Native American|American Indian/Alaska Native|AIAN|AI/AN',
    'Asian': 'Asian American',
    'Black or African American': 'Black|African American|Black/African American|African-American',
    'Hispanic or Latino': 'Hispanic|Latino|Latina|Latinx|Latine|Hispanic/Latino|Hispanic or Latina|Hispanic, Latino|Latino or Hispanic',
    'White': 'Caucasian|White or Caucasian|White/Caucasian',
}
_SEVERAL = 'Two or more|Multiracial|Multiple|Multiple races|More than one race|Mixed|Biracial|Mixed race'
_OMB_1997 = Scheme(
    title='OMB 1997 (United States, SPD 15)',
    groups={**_US, 'Native Hawaiian or Other Pacific Islander': 'Native Hawaiian|Pacific Islander|NHPI|Native Hawaiian or Pacific Islander|'
            'Native Hawaiian/Pacific Islander|Native Hawaiian/Other Pacific Islander', 'Two or more races': _SEVERAL,
            'Not Hispanic or Latino': 'Not Hispanic|Non-Hispanic|Non-Hispanic or Latino|Not Hispanic/Latino',
            'White, not Hispanic': 'Non-Hispanic White|White Non-Hispanic|Not Hispanic White',
            'Black, not Hispanic': 'Non-Hispanic Black|Black Non-Hispanic|Not Hispanic Black'},
)
_OMB_2024 = Scheme(
    title='OMB 2024 (United States, SPD 15 as revised)',
    groups={**_US, 'Middle Eastern or North African': 'MENA|Middle Eastern|North African|Middle Eastern/North African|Arab',
            'Native Hawaiian or Pacific Islander': 'Native Hawaiian|Pacific Islander|NHPI|Native Hawaiian or Other Pacific Islander|'
            'Native Hawaiian/Pacific Islander|Native Hawaiian/Other Pacific Islander',
            'Multiracial or multiethnic': f'Multiracial and/or multiethnic|Multiethnic|Two or more races|{_SEVERAL}'},
)
SCHEMES: Mapping[str, Scheme] = {'ONS2021': _ONS, 'NHS2001': _NHS, 'OMB1997': _OMB_1997, 'OMB2024': _OMB_2024}


def check_scheme(name: str) -> str:
    """The scheme's name as it is kept, '' for none. Raises UsageError where there is no such scheme."""
    own, colon, title = name.partition(':')
    if not name or name in SCHEMES or name == OWN or own == OWN and colon and title.strip():
        return name
    listed = f'; it is one of {", ".join(SCHEMES)}, {OWN} and {OWN}:NAME'
    raise UsageError(f'--ethnicity_scheme {name} is no classification of ethnicity{nearest(name, [*SCHEMES, OWN]) or listed}')


def title(name: str) -> str:
    """A scheme in words."""
    return SCHEMES[name].title if name in SCHEMES else name


def read(cells: Counter[str], *, scheme: str, column: str) -> dict[str, Read]:
    """What each of a column's cells says.

    Without a scheme, and in one's own, every word is kept, in one spelling. In another one, a word becomes the category that it names,
    and `not in scheme` where it names none.

    Raises:
      UsageError: there are more than 64 different words, and no scheme says what they mean.
    """
    known = SCHEMES.get(scheme)
    missing, declined = (known.missing, known.declined) if known else (frozenset(), frozenset())
    found = {cell: nothing(cell, missing=_MISSING | missing, declined=_DECLINED | declined) for cell in cells}
    told = Counter({cell: count for cell, count in cells.items() if found[cell] is None})
    if known:
        words = known.words()
        return {cell: one or _category(cell, words, title=known.title) for cell, one in found.items()}
    spelling = one_spelling(told)
    count = len(set(spelling.values()))
    if count > MOST_WORDS:
        raise UsageError(
            f'the ethnicity column "{column}" holds {count} different words, and more than {MOST_WORDS} are free text: '
            f'pass --ethnicity_scheme with one of {", ".join(SCHEMES)}, or --column ethnicity= to leave it out'
        )
    return {cell: one or stored(cell, spelling[cell], reason='one spelling', kept=not scheme) for cell, one in found.items()}


def agree(scheme: str, values: frozenset[str]) -> bool:
    """Whether one person can have said all of them: a broad group and a category in it do not contradict each other."""
    known = SCHEMES.get(scheme)
    broad = {known.group_of(value) for value in values} if known else set()
    return len(values - broad) <= 1


def _category(cell: str, words: Mapping[str, str], *, title: str) -> Read:
    category = words.get(_plain(cell))
    if category is None:
        return not_understood(cell, reason=f'no category of {title}', value=NOT_IN_SCHEME)
    return stored(cell, category, reason='as the scheme names it')


def _plain(word: str) -> str:
    letters = _NO_LETTERS.sub(' ', fold(word).replace('&', ' and ').replace('/', ' or '))
    return ' '.join(one for one in letters.split() if one not in _EMPTY_WORDS)
