"""A table as sheets of plain text, which Markdown and LaTeX both print: columns that never change are said once above instead.

Marks: (a), (b) are the reasons below a sheet, [1], [2] the sources, † a test set that the checkpoint has
seen, ‡ one of which that is not known.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from retfound_jax.studies.published import Published
from retfound_jax.studies.tables import Line, Needed, Table

NONE = '–'
_ADAPTED = {
    'finetune': 'fine-tuned',
    'probe': 'linear probe',
    'knn': 'nearest neighbours',
    'green_probe': "RETFound-Green's probe",
    '': 'not described',
}
_STANDING = {
    'repository': 'read in a public repository',
    'secondary': 'quoted by a third party who read the full text',
    'abstract': 'from the abstract or a press page',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table of text; columns in `numbers` are aligned right."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """What is printed: sheets, then what the marks mean."""

    title: str
    lead: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Column:
    name: str
    text: Callable[[Line], str]
    number: bool = False
    droppable: bool = True


def page(table: Table) -> Page:
    """Everything of a table that goes on paper."""
    marks = _Marks()
    sheets = [_main(table, marks)]
    sheets += [sheet for sheet in (_needed(table.needed), _gaps(table.lines), _published(table.published, marks)) if sheet.rows]
    return Page(title=table.title, lead=tuple(_lead(table)), sheets=tuple(sheets), notes=tuple(marks.notes(table)))


class _Marks:
    """Reasons and sources, numbered as they are first met."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}
        self._sources: dict[tuple[str, str], int] = {}

    def reason(self, text: str) -> str:
        return f'({self._reasons.setdefault(text, _letters(len(self._reasons)))})'

    def source(self, one: Published) -> str:
        return f'[{self._sources.setdefault((one.source, one.certainty), len(self._sources) + 1)}]'

    def notes(self, table: Table) -> Iterable[str]:
        yield from (f'({mark}) {text}.' for text, mark in self._reasons.items())
        seen = dict.fromkeys((line.verdict.mark, line.verdict.contamination_text) for line in table.lines if line.verdict.contamination)
        yield from (f'{mark} {text}.' for mark, text in seen)
        yield from (f'[{n}] {source}: {_STANDING[standing]}.' for (source, standing), n in self._sources.items())


def _lead(table: Table) -> Iterable[str]:
    judged = table.judged
    yield (
        'Ours: mean over seeds, (mean ± 1.96 SE over seeds, as the papers compute it), [95 % interval over patients, '
        f'{judged.replicates} resamplings]; judged by {judged.words}.'
    )
    compared = [line.comparison for line in table.lines if line.comparison]
    if compared:
        welch = " (Welch's where the seeds do not pair)" if any(math.isnan(one.tests.paired_t) for one in compared) else ''
        yield (
            f'Against {judged.reference}: difference [95 % interval over patients, drawn in pairs], p of the two-sided paired t test'
            f'{welch} over seeds, corrected after Holm for the {len(compared)} comparisons of this table.'
        )
    drawn = dict.fromkeys(name for line in table.lines for name in line.row.drawn)
    if drawn:
        yield f'{", ".join(drawn)}: drawn by the phantom, no photographs; these numbers say that the code runs, nothing more.'
    if table.missing:
        yield f'Unfinished: {table.missing} of {table.missing + table.cells} cells are not made yet.'


def _main(table: Table, marks: _Marks) -> Sheet:
    columns = [
        _Column(name='trained on', text=lambda line: line.row.train_on),
        _Column(name='tested on', text=lambda line: line.row.test_on, droppable=False),
        _Column(name='label', text=lambda line: line.row.label),
        _Column(name='target', text=lambda line: line.row.target),
        _Column(name='method', text=lambda line: line.row.method, droppable=False),
        _Column(name='adaptation', text=lambda line: _ADAPTED.get(line.row.adaptation, line.row.adaptation)),
        _Column(name='labels', text=lambda line: f'{100 * line.row.fraction:g} %', number=True),
        _Column(name='metric', text=lambda line: line.row.metric),
        _Column(name='ours', text=_ours, number=True, droppable=False),
        _Column(name='seeds', text=lambda line: str(line.row.n_seeds), number=True),
        _Column(name='images (patients)', text=lambda line: f'{line.row.n_images} ({line.row.n_patients})', number=True, droppable=False),
    ]
    if any(line.verdict.published for line in table.lines):
        columns += [
            _Column(name='published', text=lambda line: _printed(line.verdict.published, marks), number=True, droppable=False),
            _Column(name='verdict', text=lambda line: _verdict(line, marks), droppable=False),
        ]
    if any(line.comparison for line in table.lines):
        columns += [
            _Column(name=f'against {table.judged.reference}', text=_difference, number=True, droppable=False),
            _Column(name='p (Holm)', text=lambda line: _p(line.comparison.holm) if line.comparison else NONE, number=True, droppable=False),
        ]
    if all(line.row.train_on == line.row.test_on for line in table.lines):
        columns = columns[1:]
    return _fitted(f'{table.title}.', columns, table.lines)


def _fitted(caption: str, columns: Sequence[_Column], lines: Sequence[Line]) -> Sheet:
    """Drops columns of one value and says the value in the caption."""
    texts = {column.name: [column.text(line) for line in lines] for column in columns}
    kept = [column for column in columns if not (column.droppable and len(set(texts[column.name])) == 1)]
    said = [f'{column.name} {texts[column.name][0]}' for column in columns if column not in kept]
    return Sheet(
        caption=f'{caption} Throughout: {"; ".join(said)}.' if said else caption,
        head=tuple(column.name for column in kept),
        rows=tuple(tuple(texts[column.name][i] for column in kept) for i in range(len(lines))),
        numbers=frozenset(i for i, column in enumerate(kept) if column.number),
    )


def _ours(line: Line) -> str:
    row = line.row
    if not math.isfinite(row.mean):
        return NONE
    seeds = f' ({number(row.se_low)} to {number(row.se_high)})' if math.isfinite(row.se_low) else ''
    patients = f' [{number(row.boot_low)} to {number(row.boot_high)}]' if math.isfinite(row.boot_low) else ''
    return f'{number(row.mean)}{seeds}{patients}{line.verdict.mark}'


def _printed(one: Published | None, marks: _Marks) -> str:
    if one is None:
        return NONE
    bounds = f'{one.low:.3f} to {one.high:.3f}' if one.low is not None else ''
    value = bounds if one.value is None else f'{one.value:.{_digits(one.value)}f}{f" ({bounds})" if bounds else ""}'
    return f'{value} {marks.source(one)}'


def _verdict(line: Line, marks: _Marks) -> str:
    return ' '.join([line.verdict.kind, *(marks.reason(text) for text in line.verdict.why)])


def _difference(line: Line) -> str:
    found = line.comparison
    if found is None or not math.isfinite(found.difference):
        return NONE
    bounds = f' [{number(found.low, sign=True)} to {number(found.high, sign=True)}]' if math.isfinite(found.low) else ''
    return f'{number(found.difference, sign=True)}{bounds}'


def _needed(every: Sequence[Needed]) -> Sheet:
    head = ('tested on', 'target', 'metric', 'method', 'adaptation', 'labels needed', '95 % interval', 'replicates: at the smallest, never')
    rows = tuple(
        (
            one.test_on,
            one.target,
            one.metric,
            one.method,
            _ADAPTED.get(one.adaptation, one.adaptation),
            f'{share(one.found.ratio, one)} ({one.found.outcome})',
            f'{share(one.found.low, one)} to {share(one.found.high, one)}',
            f'{one.found.at_smallest}, {one.found.never} of {one.found.replicates}',
        )
        for one in every
    )
    reference = every[0].reference if every else ''
    caption = f'Share of the labels that a method needs for what {reference} reaches with all of them, seeds and patients resampled.'
    return Sheet(caption=caption, head=head, rows=rows, numbers=frozenset({5, 6, 7}))


def share(value: float, one: Needed) -> str:
    """A ratio of labels, as far as it was tried."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return f'> {100 * one.found.largest:g} %'
    return f'≤ {100 * one.found.smallest:g} %' if value <= one.found.smallest else f'{100 * value:.0f} %'


def _gaps(lines: Sequence[Line]) -> Sheet:
    """Of cells tested where they were trained: elsewhere the fall has other reasons."""
    known = [line for line in lines if line.gap is not None and line.row.train_on == line.row.test_on]
    columns = [
        _Column(name='trained on', text=lambda line: line.row.train_on, droppable=False),
        _Column(name='method', text=lambda line: line.row.method, droppable=False),
        _Column(name='adaptation', text=lambda line: _ADAPTED.get(line.row.adaptation, line.row.adaptation)),
        _Column(name='labels', text=lambda line: f'{100 * line.row.fraction:g} %', number=True),
        _Column(name='metric', text=lambda line: line.row.metric),
        _Column(name='training minus test', text=_gap, number=True, droppable=False),
    ]
    caption = 'Overfitting: the metric on the training images minus that on the test images (mean ± 1.96 SE over seeds).'
    return _fitted(caption, columns, known)


def _gap(line: Line) -> str:
    found = line.gap
    bounds = f' ({number(found.low, sign=True)} to {number(found.high, sign=True)})' if math.isfinite(found.low) else ''
    return f'{number(found.mean, sign=True)}{bounds}' if math.isfinite(found.mean) else NONE


def _published(every: Sequence[Published], marks: _Marks) -> Sheet:
    rows = tuple(
        (
            one.train_on or NONE,
            one.test_on,
            f'{one.label}: {one.target}' if one.label else one.target,
            one.method,
            _ADAPTED.get(one.adaptation, one.adaptation),
            one.metric,
            _printed(one, marks),
            one.certainty,
            ' '.join(filter(None, (f'{one.doubt}.' if one.doubt else '', one.note))),
        )
        for one in every
    )
    head = ('trained on', 'tested on', 'target', 'method', 'adaptation', 'metric', 'published', 'certainty', 'note')
    return Sheet(caption='What is published of this study.', head=head, rows=rows, numbers=frozenset({6}))


def number(value: float, *, sign: bool = False) -> str:
    """Three decimals, or three digits where it is larger; a minus sign as it is typeset."""
    if not math.isfinite(value):
        return NONE
    text = f'{value:{"+" if sign else ""}.3f}' if abs(value) < 10 else f'{value:{"+" if sign else ""}.1f}'
    text = text if any(digit in text for digit in '123456789') else text.lstrip('+-')
    return text.replace('-', '−')


def thousandths(value: float) -> str:
    """Three decimals and a plain minus, as the tables by group print numbers."""
    return f'{value:.3f}' if math.isfinite(value) else NONE


def _p(value: float) -> str:
    if not math.isfinite(value):
        return NONE
    return '< 0.001' if value < 0.001 else f'{value:.3f}'


def _digits(value: float) -> int:
    return 0 if value == int(value) and value > 1 else max(3, len(repr(value).partition('.')[2]))


def _letters(n: int) -> str:
    """a, b, ..., z, aa, ab, ..."""
    text = ''
    n += 1
    while n:
        n, rest = divmod(n - 1, 26)
        text = chr(ord('a') + rest) + text
    return text
