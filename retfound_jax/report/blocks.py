"""What a page is made of: plain words, tables, pictures. Data only; `html` renders them and escapes every string."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, kw_only=True)
class Span:
    """A value with its interval on a common axis, as per cent of the axis' width."""

    at: float
    low: float | None = None
    high: float | None = None
    reference: float | None = None  # a thin line across all rows
    beside: Span | None = None  # the same of another dataset, below it


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    small: str = ''  # a second, quieter line
    bar: float | None = None  # length of a bar behind the text [% of the cell]
    span: Span | None = None
    shade: float | None = None  # background strength, 0 to 1
    quiet: bool = False  # a missing or withheld value
    absent: bool = False  # evidence that should be there and is not: in red


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = 'text'
    words: str
    tone: Literal['plain', 'quiet', 'warning', 'lead', 'absent'] = 'plain'  # absent: evidence that is missing, in red


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The ends of the common axis of a column of spans."""

    column: int
    low: str
    high: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column is made of row headers."""

    kind: ClassVar[str] = 'table'
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = frozenset()  # columns of words; the others are numbers and aligned right
    aside: frozenset[int] = frozenset()  # columns that a narrow screen leaves out
    axis: Axis | None = None
    fit: bool = False  # no wider than its content
    note: str = ''


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image embedded as a data URI."""

    src: str
    alt: str
    caption: str = ''


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Pictures side by side as the width allows."""

    kind: ClassVar[str] = 'pictures'
    items: tuple[Picture, ...]
    size: Literal['chart', 'wide', 'full', 'photograph', 'triple'] = 'chart'


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Small tables side by side as the width allows."""

    kind: ClassVar[str] = 'grid'
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Fact:
    """One headline number."""

    name: str
    value: str
    note: str = ''


@dataclass(frozen=True)
class Facts:
    """Headline numbers in a row."""

    kind: ClassVar[str] = 'facts'
    items: tuple[Fact, ...]


@dataclass(frozen=True)
class Code:
    """Text to be copied as it is."""

    kind: ClassVar[str] = 'code'
    label: str
    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = 'heading'
    words: str


@dataclass(frozen=True)
class Terms:
    """Terms and what they mean."""

    kind: ClassVar[str] = 'terms'
    items: tuple[tuple[str, str], ...]


Block = Text | Table | Pictures | Grid | Facts | Code | Heading | Terms


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with its own entry in the contents."""

    id: str
    title: str
    blocks: tuple[Block, ...]
