"""One picture on its way into a dataset: its record without the image, and where the image lies until then."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_jax.core.demographics import DECLINED
from retfound_jax.ingest import columns as columns_lib
from retfound_jax.ingest import splits
from retfound_jax.ingest.ages import OLDEST
from retfound_jax.ingest.columns import Person
from retfound_jax.ingest.duplicates import Fingerprint
from retfound_jax.ingest.plan import Plan
from retfound_jax.ingest.process import Processed
from retfound_jax.ingest.records import Record
from retfound_jax.ingest.vocabulary import sex_of
from retfound_jax.ingest.work import Picture

WORDS = ('patient', 'laterality', 'sex', 'camera', 'site', 'modality')  # what both a table and a file's header may say
_OF_TABLE = ('ethnicity', 'country', 'diabetes_type', 'source', 'age_word')  # what no header says
YOUNG = 'young'  # noted of a picture whose patient's age is a placeholder
ODD_HEADER = 'header:age'  # noted of a picture whose header has an age that nobody has
SEX_HEADER = 'header:sex'  # and whose header's word of sex is stored otherwise
_PIXELS = ('frame', 'source_height', 'source_width', 'fov', 'pixel_sha256', 'phash')
_FIELDS = tuple(field.name for field in dataclasses.fields(Record) if field.name != 'image')


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What is known of one file before it is read."""

    name: str  # as the table has it, or the path
    person: Person = Person()
    labels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    split: str = ''  # as the table gives it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """A record without its image and its group, and where the image lies."""

    record: Record
    file: str  # of the source
    chunk: str  # the file that holds the image
    offset: int
    size: int  # [bytes] of the image
    quality: Mapping[str, float]
    split: str = ''  # as the table gives it
    notes: tuple[str, ...] = ()  # 'differs:ROLE' where the table overruled the header, and `YOUNG`

    def whole(self) -> Record:
        """The record with its image, read from the chunk."""
        with open(self.chunk, 'rb') as file:
            file.seek(self.offset)
            return dataclasses.replace(self.record, image=file.read(self.size))

    def fingerprint(self) -> Fingerprint:
        """As duplicates are sought."""
        record = self.record
        return Fingerprint(key=record.key, patient=record.patient, pixel_sha256=record.pixel_sha256, phash=record.phash)

    def to_plain(self) -> tuple[Any, ...]:
        """Plain values in a fixed order, quick to send between machines."""
        return (tuple(getattr(self.record, name) for name in _FIELDS), self.file, self.chunk, self.offset, self.size, dict(self.quality),
                self.split, self.notes)

    @classmethod
    def from_plain(cls, values: Sequence[Any]) -> Item:
        """The inverse of `to_plain`."""
        record, file, chunk, offset, size, quality, split, notes = values
        return cls(record=Record(image=b'', **dict(zip(_FIELDS, record, strict=True))), file=file, chunk=chunk, offset=offset, size=size,
                   quality=quality, split=split, notes=notes)


class Abouts:
    """The table as it is asked: by file."""

    def __init__(self, plan: Plan) -> None:
        table, columns = plan.table, plan.columns
        self._plan = plan
        self._keys = table.column(columns.roles['key']) if table else []
        self._given = table.column(plan.config.split_column) if table and plan.config.split_column else []
        self._labels = {label.name: columns_lib.label_values(table, label) for label in columns.labels} if table else {}

    def of(self, file: str) -> About:
        """What the table says of a file."""
        row = self._plan.rows.get(file)
        if row is None:
            return About(name=file)
        return About(
            name=self._keys[row], person=self._plan.people.of_rows[row],
            labels={name: values[row] for name, values in self._labels.items()},
            split=splits.split_word(self._given[row]) if self._given else '',
        )


def items(pictures: Sequence[Picture], about: About, *, min_age: float, modality: str) -> list[Item]:
    """Joins the pictures of one file and what is known of it. min_age [years] and modality: as `IngestConfig` has them."""
    found = []
    for picture in pictures:
        info = picture.info
        known, notes = _merged(about, info, min_age=min_age, modality=modality)
        record = Record(
            image=b'', group='', key=f'{about.name}#{info.frame}' if len(pictures) > 1 else about.name, labels=about.labels, **known,
            **{name: getattr(info, name) for name in _PIXELS},
        )
        found.append(Item(record=record, file=picture.file, chunk=picture.chunk, offset=picture.offset, size=picture.size,
                          quality=info.quality, split=about.split, notes=notes))
    return found


def _merged(about: About, info: Processed, *, min_age: float, modality: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is known of the patient: the table first, then the file's header; contradictions are noted."""
    person, closed = about.person, about.person.contradicted.split()
    info = dataclasses.replace(info, sex=sex_of(header_sex := info.sex))
    notes = [SEX_HEADER] if info.sex != header_sex else []
    notes += [f'differs:{role}' for role in WORDS
              if getattr(person, role) and getattr(info, role) and getattr(person, role) != getattr(info, role)]
    told = info.age if 0 <= info.age <= OLDEST else math.nan
    if not math.isnan(info.age) and math.isnan(told):
        notes.append(ODD_HEADER)
    if abs(person.age - told) >= 1:  # never true of a missing age, which is NaN
        notes.append('differs:age')
    values = {role: getattr(person, role) or ('' if role in closed else getattr(info, role)) for role in WORDS}
    age = told if math.isnan(person.age) and 'age' not in closed and person.age_word != DECLINED else person.age
    if age < min_age:
        notes.append(YOUNG)
        age = math.nan
    values |= {'patient': values['patient'] or about.name, 'modality': values['modality'] or modality, 'age': age}
    return values | {name: getattr(person, name) for name in _OF_TABLE}, tuple(notes)
