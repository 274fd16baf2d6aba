"""The datasheet of one or several datasets: one printable page, and the same for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retfound_jax.core.files import atomic_write, write_json
from retfound_jax.report import composition, coverage, croissant, dataset_facts, html, known, people, standing
from retfound_jax.report.blocks import Block, Cell, Code, Fact, Facts, Heading, Section, Table, Text
from retfound_jax.report.census import FIELDS
from retfound_jax.report.composition import Composition
from retfound_jax.report.words import clean, count, joined, nice

PAGE = 'datasheet.html'
_ASKED = (  # of an owner, on the first part of the page
    'purpose', 'uses', 'not_for', 'origin', 'collection', 'time_frame', 'sampling', 'labels', 'ethics', 'licence', 'access', 'custodian',
)


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """All that the page is made from."""

    found: Composition
    folders: tuple[Path, ...]
    facts: tuple[dataset_facts.Facts, ...]


def read(folders: Sequence[Path | str], *, weights: Sequence[float] | None = None, facts: Path | str | None = None) -> Sheet:
    """Counts the datasets and reads what their owners say.

    Raises:
      UsageError: a folder is no dataset, the weights do not fit, or the facts are not as they should be.
      UserError: a file of a dataset is damaged.
    """
    found = composition.compose(folders, weights=weights)
    said = dataset_facts.read(facts, folders=dict(zip(found.names, folders, strict=True)))
    return Sheet(found=found, folders=tuple(map(Path, folders)), facts=tuple(said[name] for name in found.names))


def write(sheet: Sheet, *, out: Path | str, command: str = '') -> list[Path]:
    """Writes the page and the files for machines into `out`, each whole or not at all; returns their paths."""
    out, found = Path(out), sheet.found
    texts: dict[str, str] = {PAGE: page(sheet, command=command), 'composition.csv': composition.to_csv(found)}
    values: dict[str, Mapping[str, object]] = {
        'composition.json': {**composition.to_json(found), 'coverage': coverage.to_json(found)},
        'standing_together.json': standing.to_json(found, sheet.facts),
    }
    for place, folder in enumerate(sheet.folders):
        values[croissant.file_name(found, place)] = croissant.describe(found, place, folder=folder, facts=sheet.facts[place])
    for name, text in texts.items():
        atomic_write(out / name, text)
    for name, value in values.items():
        write_json(out / name, value)
    return [out / name for name in (*texts, *values)]


def page(sheet: Sheet, *, command: str = '') -> str:
    """The page as text."""
    found = sheet.found
    title = sheet.facts[0]['title'] or nice(found.names[0]) if len(found.names) == 1 else f'A mixture of {len(found.names)} datasets'
    sections = (
        _what(sheet),
        _people(found),
        _changes(sheet),
        _missing(sheet),
        _biases(sheet),
        _standing(sheet),
        _repeat(sheet, command),
    )
    kind = 'Datasheet of a dataset' if len(found.names) == 1 else 'Datasheet of several datasets'
    subtitle = 'Who is in the data, what was done to it, and what is not known'
    return html.render(clean(title), subtitle=subtitle, sections=sections, kind=kind)


def _labels(found: Composition) -> list[str]:
    return [label.removeprefix(composition.LABEL) for label in found.fields(labels=True)][:6]


def _people(found: Composition) -> Section:
    note = Text(people.withheld_note(), 'quiet')
    by_split = people.by_split_table(found)
    blocks = (note, *people.blocks(found, wanted=_labels(found)), *([by_split] if by_split else []))
    return Section(id='people', title=people.TITLE, blocks=blocks)


def _what(sheet: Sheet) -> Section:
    """What it is, in numbers and in the owner's words."""
    found, blocks = sheet.found, []
    everybody = found.count()
    facts = [Fact('Patients', _headline(everybody.patients)), Fact('Images', _headline(everybody.images))]
    if len(found.names) > 1:
        facts.insert(0, Fact('Datasets', count(len(found.names))))
    recorded = [field for field in found.fields() if found.recorded(field)]
    names = joined(map(known.name_of, recorded)).lower() or 'nothing'
    facts.append(Fact('Recorded of people', f'{len(recorded)} of {len(FIELDS)}', names))
    blocks.append(Facts(tuple(facts)))
    for place, name in enumerate(found.names):
        if len(found.names) > 1:
            blocks.append(Heading(nice(name)))
        said = sheet.facts[place]
        blocks += [Text(said['description'])] if said['description'] else []
        blocks += [Text(known.contents(found, place)), Text(known.collection(found.manifests[place]), 'quiet'), _asked(said, name)]
    return Section(id='what', title='What it is', blocks=tuple(blocks))


def _headline(value: int | None) -> str:
    return 'withheld' if value is None else count(value)


def _asked(said: dataset_facts.Facts, name: str) -> Table:
    """What only the owner can say; what they did not is red."""
    rows = [
        (Cell(dataset_facts.QUESTIONS[key]), Cell(said[key] or 'not provided', absent=not said[key]))
        for key in _ASKED
    ]
    missing = sum(not said[key] for key in _ASKED)
    note = f'{missing} of {len(_ASKED)} answers are missing; give them with --facts, or in dataset.toml beside the dataset.'
    return Table(
        caption=f'In the words of the owner: {nice(name)}', head=('', ''), rows=tuple(rows), words=frozenset({1}),
        note=note if missing else '',
    )


def _changes(sheet: Sheet) -> Section:
    """What ingest changed, found twice and left out."""
    blocks: list[Block] = []
    for place, manifest in enumerate(sheet.found.manifests):
        if len(sheet.found.names) > 1:
            blocks.append(Heading(nice(sheet.found.names[place])))
        blocks += [Text(sentence) for sentence in known.processing(manifest)]
        if 'demographics' not in manifest:
            blocks.append(Text('What was changed in the words about people was not counted when this was made; ingest again.', 'absent'))
        blocks += people.changes(manifest)
        blocks += people.reasons(manifest)
    return Section(id='changes', title='What was done to it', blocks=tuple(blocks))


def _missing(sheet: Sheet) -> Section:
    blocks: list[Block] = [Text('Missing: nobody asked, or nobody wrote it down. Declined: the person was asked and did not say.', 'quiet')]
    for place, name in enumerate(sheet.found.names):
        blocks += [Heading(nice(name))] if len(sheet.found.names) > 1 else []
        sentences = known.missing(sheet.found, place)
        why = sheet.facts[place]['missing']
        blocks += [Text(sentence) for sentence in sentences] or [Text('No field has missing values.')]
        if sentences:
            blocks.append(Text(why) if why else Text('Why it is missing: not provided.', 'absent'))
    return Section(id='missing', title='What is missing', blocks=tuple(blocks))


def _biases(sheet: Sheet) -> Section:
    blocks: list[Block] = []
    for place, name in enumerate(sheet.found.names):
        said, own = sheet.facts[place], known.biases(sheet.found, place)
        blocks += [Heading(nice(name))] if len(sheet.found.names) > 1 else []
        keys = ('biases', 'limitations', 'sampling_bias', 'aggregation_bias', 'shifts', 'outcomes')
        words = [said[key] for key in keys if said[key]]
        blocks += [Text(sentence) for sentence in (*words, *own, *known.limitations(sheet.found, place))]
        blocks += [] if words else [Text('Biases that the owner knows of: not provided.', 'absent')]
    return Section(id='biases', title='What may mislead', blocks=tuple(blocks))


def _standing(sheet: Sheet) -> Section:
    tables = [standing.table(sheet.found, place, sheet.facts[place]) for place in range(len(sheet.found.names))]
    about = Text(f'What STANDING Together asks of the documentation of health data. {standing.SOURCE}.', 'quiet')
    return Section(id='standing', title='STANDING Together', blocks=(about, *tables))


def _repeat(sheet: Sheet, command: str) -> Section:
    found = sheet.found
    rows = tuple(
        (Cell(nice(name)), Cell(str(manifest.get('fingerprint') or 'none')), Cell('index.parquet' if counted else 'manifest.json'))
        for name, manifest, counted in zip(found.names, found.manifests, found.from_index, strict=True)
    )
    head = ('Dataset', 'Fingerprint of the records', 'Counted from')
    table = Table(caption='Fingerprints', head=head, rows=rows, words=frozenset({1, 2}))
    machines = Text('composition.csv and composition.json hold every count; croissant.json belongs beside the dataset.', 'quiet')
    return Section(id='repeat', title='To make this page again', blocks=(table, machines, *([Code('Command', command)] if command else [])))
