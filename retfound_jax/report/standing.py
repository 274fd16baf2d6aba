"""The STANDING Together recommendations for the documentation of health datasets, each with what answers it, or openly without an answer.

Alderman et al., Tackling algorithmic bias and promoting transparency in health datasets: the STANDING Together consensus recommendations,
Lancet Digital Health 2025 and NEJM AI 2025: 29 recommendations, 18 of them on the documentation of a dataset (1.1a to 1.4c), answered
here, and 11 on its use in making and testing a model, which are about a model and not answered here. Numbers and subjects of the 18 are
taken from what others quote of the paper and agree with its public draft (datadiversity.org); the wording here is ours, so whoever reports
by the standard should have the paper at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from retfound_jax.core.demographics import FLOOR
from retfound_jax.report import known
from retfound_jax.report.blocks import Cell, Table
from retfound_jax.report.composition import Composition
from retfound_jax.report.dataset_facts import QUESTIONS, Facts
from retfound_jax.report.words import clean, joined

SOURCE = 'Alderman et al., Lancet Digital Health 2025 and NEJM AI 2025 (PMC11668905); items in our own words'
OF_USE = 11
NOT_ANSWERED = 'not answered'
_SENTENCES = 2  # of an answer that are repeated in the table
USE = (
    f'{OF_USE} more recommendations are about the use of a dataset to make and test a model. '
    'This page is about data alone and answers none of them; the card of a model is the place for it.'
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One recommendation: what it asks, the owner's facts that answer it, and which computed sentences do."""

    number: str
    asks: str
    facts: tuple[str, ...] = ()  # keys of QUESTIONS
    computed: tuple[str, ...] = ()  # names of _COMPUTED
    enough: bool = False  # whether what is computed answers it without the owner


ITEMS = (
    Item(number='1.1a', asks='A summary in plain words', facts=('description',), computed=('contents',)),
    Item(
        number='1.1b', asks='Name, version, release, licence, access, and who keeps it', computed=('identity',),
        facts=('title', 'version', 'released', 'licence', 'access', 'custodian'),
    ),
    Item(
        number='1.1c', asks='Why it was made, by whom and with whose money, for what and not for what',
        facts=('purpose', 'creators', 'funders', 'interests', 'uses', 'not_for'),
    ),
    Item(number='1.1d', asks='Where the data come from, and why from there', facts=('origin', 'collection'), computed=('collection',)),
    Item(number='1.1e', asks='How patients were chosen, and how several sources were brought together', facts=('sampling', 'sources')),
    Item(number='1.1f', asks='What shifted over time', facts=('shifts', 'time_frame')),
    Item(number='1.2a', asks='Which groups are in it and which are not', facts=('absent_groups',), computed=('groups',), enough=True),
    Item(number='1.2b', asks='How attributes of people were recorded, in which categories', facts=('attributes',), computed=('scheme',)),
    Item(number='1.2c', asks='Groups known to have other outcomes', facts=('outcomes',)),
    Item(number='1.3a', asks='Known limitations and sources of bias', facts=('limitations', 'biases'), computed=('biases',)),
    Item(number='1.3b', asks='What was modified, and whether data are synthetic', facts=('modifications',), computed=('processing',)),
    Item(number='1.3c', asks='Bias by the choice of patients', facts=('sampling_bias',)),
    Item(number='1.3d', asks='Bias by grouping and rounding', facts=('aggregation_bias',), computed=('aggregation',)),
    Item(number='1.3e', asks='What is missing, and why', facts=('missing',), computed=('missing',)),
    Item(number='1.3f', asks='Bias by the labels: who labelled, and where they may be wrong', facts=('labels',)),
    Item(
        number='1.4a', asks='Ethics, consent, data protection, and who governs its use', facts=('ethics', 'protection', 'governance'),
    ),
    Item(number='1.4b', asks='The part that patients and the public had', facts=('participation',)),
    Item(number='1.4c', asks='Assessments of bias and of the effect on people and society', facts=('assessments', 'social_impact')),
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What answers an item: the owner, then what is computed; and what of it nobody answered."""

    item: Item
    said: tuple[str, ...]
    computed: tuple[str, ...]
    open: tuple[str, ...]  # questions to the owner that are not answered

    @property
    def status(self) -> str:
        """`answered`, `in part`, or `not answered`."""
        if self.said and not self.open or self.item.enough and self.computed:
            return 'answered'
        return 'in part' if self.said or self.computed else NOT_ANSWERED


def answers(found: Composition, place: int, facts: Facts) -> list[Answer]:
    """Every item of documentation for one dataset."""
    made = []
    for item in ITEMS:
        said = tuple(f'{facts[key]}' for key in item.facts if facts[key])
        left = tuple(QUESTIONS[key] for key in item.facts if not facts[key])
        computed = tuple(sentence for name in item.computed for sentence in _computed(name, found, place) if sentence)
        made.append(Answer(item=item, said=said, computed=computed, open=left))
    return made


def _computed(name: str, found: Composition, place: int) -> Sequence[str]:
    manifest = found.manifests[place]
    if name == 'contents':
        return (known.contents(found, place),)
    if name == 'identity':
        fingerprint = str(manifest.get('fingerprint') or '')
        return (f'{clean(found.names[place])}, fingerprint of the records {fingerprint[:16] or "unknown"}.',)
    if name == 'collection':
        return (known.collection(manifest),)
    if name == 'groups':
        return _groups(found, place)
    if name == 'scheme':
        scheme = known.scheme(manifest)
        return (f'Ethnicity follows {scheme}.',) if scheme else ()
    if name == 'biases':
        return known.biases(found, place)
    if name == 'processing':
        return known.processing(manifest)
    if name == 'aggregation':
        return (f'Ages are shown in bands of ten years; groups of fewer than {FLOOR} patients are withheld, not merged.',)
    if name == 'missing':
        return known.missing(found, place)
    raise ValueError(f'no sentence is computed by the name {name}')


def _groups(found: Composition, place: int) -> Sequence[str]:
    recorded = [field for field in found.fields() if field not in found.unknown[place]]
    if not recorded:
        return ()
    unknown = [known.name_of(field).lower() for field in found.unknown[place]]
    shown = f'Counted by {joined(known.name_of(field).lower() for field in recorded)}: see the tables of this page.'
    return (shown, f'Not recorded: {joined(unknown)}.') if unknown else (shown,)


def table(found: Composition, place: int, facts: Facts) -> Table:
    """The items as rows; what is open is red."""
    rows = []
    made = answers(found, place, facts)
    for one in made:
        long = len(one.computed) > _SENTENCES
        text = ' '.join((*one.said, *((f'{len(one.computed)} sentences in the sections above.',) if long else one.computed)))
        left = f'{joined(asks[:1].lower() + asks[1:] for asks in one.open)}' if one.open else ''
        rows.append((
            Cell(f'{one.item.number} {one.item.asks}'), Cell(one.status, absent=one.status != 'answered'), Cell(text),
            Cell(left, absent=bool(left)),
        ))
    number = sum(one.status == 'answered' for one in made)
    return Table(
        caption=f'STANDING Together, {found.names[place]}: {number} of {len(made)} items of documentation answered',
        head=('Item', 'Answered', 'Answer', 'Not said by the owner'), rows=tuple(rows), words=frozenset({2, 3}), note=USE,
    )


def to_json(found: Composition, facts: Sequence[Facts]) -> dict[str, Any]:
    """The items of every dataset, ready for `standing_together.json`."""
    return {
        'schema': 1, 'source': SOURCE, 'recommendations': len(ITEMS) + OF_USE, 'of_documentation': len(ITEMS),
        'of_use': {'number': OF_USE, 'answered': False, 'note': USE},
        'datasets': {
            name: [
                {
                    'item': one.item.number, 'asks': one.item.asks, 'status': one.status, 'said_by_the_owner': list(one.said),
                    'computed': list(one.computed), 'open': list(one.open),
                }
                for one in answers(found, place, facts[place])
            ]
            for place, name in enumerate(found.names)
        },
    }
