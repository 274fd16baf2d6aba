"""Words by which tables say who a person is, that nobody knows, or that the person did not say; compared by `fold`.

Sources: ISO/IEC 5218 for codes of sex; the NHS data dictionary ("Z: given the opportunity to state it but chose not to", "99: not
known") and HL7's NullFlavor and data-absent-reason for what is missing; UK Biobank's coding 1001 for -1 and -3 of an ethnic background.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retfound_jax.core.demographics import DECLINED, MISSING

# What a cell became. The counts of all kinds of a column add up to its rows.
AS_GIVEN, CHANGED, KEPT = 'as_given', 'changed', 'kept'  # kept: a word of no list, stored as it is
EMPTY = 'empty'  # beside a word that says MISSING, or DECLINED
NOT_UNDERSTOOD, CONTRADICTED = 'not_understood', 'contradicted'
KINDS = (AS_GIVEN, CHANGED, KEPT, EMPTY, MISSING, DECLINED, NOT_UNDERSTOOD, CONTRADICTED)

# "Not stated" is declined, as the NHS has it. 'keine Angabe' is what a person ticks who does not say.
_DECLINED = frozenset(
    'declined|declined to answer|declined to state|declined to say|declined to specify|decline|decline to answer|decline to state|'
    'asked-declined|asked declined|refused|refused to answer|refused to say|refusal|patient refused|patient declined|'
    'patient refuse|prefus|prefer not to say|prefer not to answer|prefer not to state|prefer not to disclose|prefers not to say|'
    'prefers not to answer|i prefer not to say|do not wish to say|do not wish to answer|does not wish to answer|'
    'did not wish to answer|choose not to disclose|chose not to disclose|chose not to say|chose not to answer|not stated|'
    'not disclosed|undisclosed|not willing to say|no answer given by choice|keine angabe|ohne angabe|verweigert|'
    'möchte ich nicht angeben|refusé|refus|ne souhaite pas répondre|préfère ne pas répondre|préfère ne pas le dire|prefiero no decir|'
    'prefiero no decirlo|prefiero no responder|prefiere no decir|prefiere no responder|rehusó|se niega|prefiro não dizer|'
    'prefiro não responder|prefere não dizer|prefere não responder|recusou|preferisco non rispondere|rifiutato|拒绝|拒绝回答|'
    '拒答|不愿透露|回答拒否|回答しない|응답거부'.split('|')
)
_MISSING = frozenset(
    'na|n/a|n.a.|n.a|#n/a|#value!|nan|nat|null|nil|<na>|none|-|--|---|.|..|?|??|unknown|unkown|unk|unknwn|u/k|not known|notknown|'
    'unknown or not stated|not recorded|not reported|not available|not applicable|not specified|unspecified|not given|not provided|'
    'not documented|not entered|not asked|not-asked|not collected|no data|no information|no info|ni|nask|asku|nav|asked-unknown|'
    'asked unknown|asked but unknown|temp-unknown|masked|missing|undefined|undetermined|undeterminable|blank|empty|(blank)|'
    'unbekannt|nicht bekannt|nicht erfasst|inconnu|inconnue|non renseigné|non précisé|non connu|desconocido|desconocida|'
    'se desconoce|sin dato|sin datos|no informado|no consta|no especificado|desconhecido|desconhecida|não informado|sem informação|'
    'ignorado|ignorada|sconosciuto|sconosciuta|non noto|onbekend|okänd|ukendt|nieznany|неизвестно|'
    '未知|不详|不明|未記入|未填|알수없음|미상'.split('|')
)
_WOMAN = frozenset(
    'f|female|females|woman|women|girl|fem|w|weiblich|frau|femme|féminin|feminin|féminine|mujer|femenino|femenina|hembra|feminino|'
    'feminina|mulher|femmina|femminile|donna|v|vrouw|vrouwelijk|kvinna|kvinde|kvinne|kobieta|žena|женщина|женский|жен|ж|女|女性|'
    '女士|여|여성|여자|أنثى|انثى|महिला|स्त्री|kadın|kadin|nữ|perempuan|wanita|หญิง|mwanamke|babae'.split('|')
)
_MAN = frozenset(
    'm|male|males|man|men|boy|männlich|mannlich|mann|homme|masculin|hombre|masculino|varón|varon|macho|homem|maschio|maschile|uomo|'
    'mannelijk|mężczyzna|mezczyzna|muž|мужчина|мужской|муж|м|男|男性|男士|남|남성|남자|ذكر|पुरुष|erkek|nam|laki-laki|lelaki|'
    'pria|ชาย|mwanaume|lalaki'.split('|')
)
_TYPES = {
    'type 1': 'type 1|type1|type i|type-1|t1|t1d|t1dm|dm1|dm type 1|type 1 diabetes|type 1 diabetes mellitus|type 1 dm|iddm|1|i|1型',
    'type 2': 'type 2|type2|type ii|type-2|t2|t2d|t2dm|dm2|dm type 2|type 2 diabetes|type 2 diabetes mellitus|type 2 dm|niddm|2|ii|2型',
    'gestational': 'gestational|gestational diabetes|gdm|gestational diabetes mellitus',
    'none': 'none|no|no diabetes|not diabetic|non-diabetic|nondiabetic|non diabetic|healthy',
    'other': 'other|other type|other types|other specific type|other specific types',
}
WORDS_OF_SEX: Mapping[str, str] = {word: sex for sex, words in (('F', _WOMAN), ('M', _MAN)) for word in words} | {
    'o': 'other', 'others': 'other', 'other': 'other'}
TYPES_OF_DIABETES: Mapping[str, str] = {word: name for name, words in _TYPES.items() for word in words.split('|')}


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """What a cell became, and how that is told."""

    value: str | float  # as stored; '' and NaN where nothing is known
    kind: str  # of KINDS
    said: str = ''  # the cell as a change tells it: itself, or its form
    to: str = ''
    reason: str = ''
    free: bool = False  # said is a cell's own text, of no list


def fold(cell: str) -> str:
    """A word as it is compared: one Unicode form, no case, single blanks."""
    return ' '.join(unicodedata.normalize('NFKC', cell).casefold().split())


def trimmed(cell: str) -> str:
    """A word as it is stored: one Unicode form, no control characters, single blanks."""
    plain = unicodedata.normalize('NFKC', cell)
    return ' '.join(''.join(letter if letter.isprintable() else ' ' for letter in plain).split())


def stored(cell: str, value: str, *, reason: str = '', kept: bool = False) -> Read:
    """A cell that is understood: `value` is what is stored of it. kept: the word is of no list."""
    if value != cell:
        return Read(value=value, kind=CHANGED, said=trimmed(cell), to=value, reason=reason)
    return Read(value=value, kind=KEPT if kept else AS_GIVEN)


def nothing(cell: str, *, not_missing: Iterable[str] = (), declined: Iterable[str] = (), missing: Iterable[str] = ()) -> Read | None:
    """What a cell is that says nothing, or that the person did not say; None where it says something.

    not_missing: words that mean something in this column; declined, missing: words of this column beside those of every one.
    """
    word = fold(cell)
    if not word:
        return Read(value='', kind=EMPTY)
    if not trimmed(cell):
        return not_understood(cell, reason='it holds control characters alone')
    if word in _DECLINED or word in declined:
        return Read(value=DECLINED, kind=DECLINED, said=trimmed(cell), to=DECLINED)
    if word in missing or word in _MISSING and word not in not_missing:
        return Read(value='', kind=MISSING, said=trimmed(cell), to=MISSING)
    return None


def sex_of(word: str) -> str:
    """A header's word of sex as it is stored; a code stays as it is."""
    known = nothing(word)
    return known.value if known else WORDS_OF_SEX.get(fold(word), trimmed(word))


def not_understood(cell: str, *, reason: str, value: str = '') -> Read:
    """A cell that is filled and says nothing that can be used."""
    return Read(value=value, kind=NOT_UNDERSTOOD, said=trimmed(cell) or 'nothing that shows', to=value or MISSING, reason=reason, free=True)


def one_spelling(cells: Counter[str]) -> dict[str, str]:
    """Each word to the most frequent of the spellings that differ in case and blanks alone; of equals the first by the alphabet."""
    spellings: dict[str, Counter[str]] = {}
    for cell, count in cells.items():
        spellings.setdefault(fold(cell), Counter())[trimmed(cell)] += count
    best = {word: min(found, key=lambda one: (-found[one], one)) for word, found in spellings.items()}
    return {cell: best[fold(cell)] for cell in cells}
