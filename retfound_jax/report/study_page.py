"""The page of a study: in short, then each table with its figures, then what the words and sources are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.files import atomic_write
from retfound_jax.report import group_section, html, study_figures
from retfound_jax.report.blocks import Cell, Code, Fact, Facts, Heading, Pictures, Section, Table, Terms, Text
from retfound_jax.report.provenance import WORDS
from retfound_jax.report.study import MACRO, Line, Needed, Number, StudyTable, line_place, read_study
from retfound_jax.report.summary import LIMITS
from retfound_jax.report.tables import LOWER_IS_BETTER
from retfound_jax.report.words import GLOSSARY, NONE, clean, interval, joined, metric_name, nice, number, plural, value_and_bounds

NAME = 'report.html'
_SENTENCES = 4  # comparisons, and ratios of labels, told in words; the table holds all
_STANDING = {
    'repository': 'read in a public repository',
    'secondary': 'quoted by a third party who read the full text',
    'abstract': 'from the abstract or a press page',
}
_TERMS = (
    ('Over seeds', 'The same training several times with other random numbers: mean ± 1.96 standard errors, as the papers print it.'),
    ('Over patients', 'The trained models are kept, and the patients of the test set are drawn anew: what other patients would change.'),
    ('p (Holm)', 'How often chance alone would give such a difference over seeds, corrected for the number of comparisons in the table.'),
    ('†', 'The checkpoint has, or may have, seen images of this test set before, without labels or with: its number flatters it.'),
    ('‡', 'Nobody says whether the checkpoint has seen images of this test set.'),
)


def build(folder: Path | str, *, command: str = '', notice: str = '') -> str:
    """The page of a study directory as text.

    Raises:
      UserError: it holds no table yet, or one is damaged.
    """
    tables = read_study(Path(folder))
    sections = [_summary(tables, notice=notice), *group_section.sections(Path(folder))]
    sections += [_table_section(table, title='Results' if len(tables) == 1 else nice(table.title)) for table in tables]
    sections += [_sources(tables), _repeat(command), _words(tables)]
    title = tables[0].title if len(tables) == 1 else f'A study of {len(tables)} tables'
    return html.render(clean(title), subtitle=_subtitle(tables), sections=tuple(section for section in sections if section.blocks))


def write(folder: Path | str, *, out: Path | str | None = None, **options: str) -> Path:
    """Builds the page and writes it to `out` (default `FOLDER/report.html`), whole or not at all; `options` are those of `build`."""
    path = Path(out) if out else Path(folder) / NAME
    atomic_write(path, build(folder, **options))
    return path


def _subtitle(tables: Sequence[StudyTable]) -> str:
    lines = [line for table in tables for line in table.lines]
    sets = list(dict.fromkeys(nice(line.test_on) for line in lines))
    shown = joined(sets) if len(sets) <= 4 else f'{len(sets)} test sets'
    methods = len({line.method for line in lines})
    return f'{plural(methods, "method")} · {shown} · {plural(max((line.n_seeds for line in lines), default=0), "seed")}'


def _summary(tables: Sequence[StudyTable], *, notice: str) -> Section:
    blocks: list[Any] = [Text(clean(notice), 'warning')] if notice else []
    compared = [sentence for table in tables for sentence in _compared_all(table)]
    saved = [_saved(one) for table in tables for one in table.needed]
    blocks += [Text(words, 'lead') for words in (*compared[:_SENTENCES], *saved[:_SENTENCES])]
    more = len(compared[_SENTENCES:]) + len(saved[_SENTENCES:])
    blocks += [Text(f'{plural(more, "more comparison")} below.', 'quiet')] if more else []
    blocks += [Text(words, 'warning') for table in tables for words in _cautions(table)]
    blocks += [Facts(_facts(tables)), Text(LIMITS, 'warning')]
    return Section(id='summary', title='Summary', blocks=tuple(blocks))


def _compared_all(table: StudyTable) -> Iterable[str]:
    """One sentence for each comparison with all labels on the set of training, in plain words."""
    references = {_place(line): line for line in table.lines if line.method == table.reference and line.fraction == 1}
    for line in table.lines:
        other = references.get(_place(line))
        if line.against is not None and other is not None and line.fraction == 1 and line.train_on == line.test_on:
            yield _compared(line, other)


def _place(line: Line) -> tuple[str, ...]:
    return line.train_on, line.test_on, line.target, line.adaptation, line.metric


def _compared(line: Line, other: Line) -> str:
    found, metric = line.against.difference, metric_name(line.metric)
    shown = [number(one.seeds.value, metric=line.metric) for one in (line, other)]
    judged = _judged(found, lower=line.metric in LOWER_IS_BETTER)
    return (
        f'{line_place(line)}: {nice(line.method)} reaches {metric} {shown[0]}, {nice(other.method)} {shown[1]}. '
        f'Difference {interval(found.value, found.low, found.high, metric=line.metric)}: {judged}.'
    )


def _judged(found: Number, *, lower: bool) -> str:
    if found.low is None or found.high is None:
        return 'without an interval, so nothing is shown'
    if found.low <= 0 <= found.high:
        return 'the interval holds 0, so no difference is shown'
    return 'it is better' if (found.low > 0) != lower else 'it is worse'


def _saved(one: Needed) -> str:
    where = ', '.join(filter(None, (nice(one.test_on), '' if one.target == MACRO else nice(one.target))))
    low, high = one.words(one.ratio.low), one.words(one.ratio.high)
    bounds = low if low == high else f'{low} to {high}'
    return (
        f'{where}: what {nice(one.reference)} reaches with all labels, {nice(one.method)} reaches with '
        f'{one.words(one.ratio.value)} of them (95\u202f% interval {bounds}).'
    )


def _cautions(table: StudyTable) -> Iterable[str]:
    if table.missing:
        yield f'Unfinished: {table.missing} of {plural(table.missing + table.cells, "run")} are not made yet.'
    if any(line.drawn for line in table.lines):
        yield 'Some of these images are drawn by a program and are no photographs: their numbers say that the code runs, nothing more.'
    seen = sorted({nice(line.test_on) for line in table.lines if line.mark == '†'})
    if seen:
        yield f'A checkpoint has, or may have, seen images of {joined(seen)} before: numbers marked † flatter it.'


def _facts(tables: Sequence[StudyTable]) -> tuple[Fact, ...]:
    lines = [line for table in tables for line in table.lines]
    p = [line.against.p for line in lines if line.against is not None and line.against.p is not None]
    kinds = {kind: sum(line.verdict == kind for line in lines) for kind in ('within interval', 'above', 'below')}
    comparable = sum(kinds.values())
    facts = [Fact('Runs', str(sum(table.cells for table in tables)), f'{sum(table.missing for table in tables)} missing')]
    facts.append(Fact('Numbers', str(len(lines)), f'on {plural(len({line.test_on for line in lines}), "test set")}'))
    if p:
        facts.append(Fact('Differences, p < .05', f'{sum(one < 0.05 for one in p)} of {len(p)}', 'corrected after Holm'))
    printed = sum(line.printed is not None for line in lines)
    note = ', '.join(f'{count} {kind}' for kind, count in kinds.items() if count) or 'none may be compared'
    facts += [Fact('Comparable with a paper', f'{comparable} of {printed}', note)] if printed else []
    return tuple(facts)


def _table_section(table: StudyTable, *, title: str) -> Section:
    blocks: list[Any] = []
    for heading, drawn in (
        ('Fewer labels', study_figures.label_curves(table)),
        ('Trained here, tested there', study_figures.matrices(table)),
        ('Methods beside each other', study_figures.forests(table)),
    ):
        if drawn:
            blocks += [Heading(heading), Pictures(items=tuple(one.picture for one in drawn), size='wide')]
    blocks += [Heading('All numbers'), _numbers(table)]
    meanings = _meanings(table.lines)
    blocks += [Heading('What the marks mean'), meanings] if meanings.items else []
    gaps = [line for line in table.lines if line.gap is not None and line.train_on == line.test_on]
    if gaps:
        blocks += [Heading('Overfitting'), _gap_table(gaps)]
    return Section(id=f'table-{study_figures.slug(table.name)}', title=title, blocks=tuple(blocks))


def _numbers(table: StudyTable) -> Table:
    lines = table.lines
    several = {name: len({getattr(line, name) for line in lines}) > 1 for name in ('target', 'adaptation', 'fraction', 'metric')}
    published, compared = any(line.printed for line in lines), any(line.against for line in lines)
    head = ['Method and data', *(['Labels'] if several['fraction'] else []), *(['Metric'] if several['metric'] else [])]
    head += ['Over seeds', 'Over patients', *(['Published', 'Verdict'] if published else [])]
    head += [f'Against {nice(table.reference)}', 'p (Holm)'] if compared else []
    rows = []
    for line in lines:
        # a long name may break behind an underscore
        cells = [Cell(nice(line.method).replace('_', '_\u200b') + line.mark, line_place(line, adaptation=several['adaptation']))]
        cells += [Cell(f'{100 * line.fraction:g}\u202f%')] if several['fraction'] else []
        cells += [Cell(metric_name(line.metric))] if several['metric'] else []
        cells += [_cell(line.seeds, line.metric, lone=f'{line.n_seeds} seed'), _bounds(line.patients, line.metric)]
        cells += [_published(line), _verdict(line, lines)] if published else []
        cells += [_difference(line), Cell(_p(line.against.p) if line.against else NONE, quiet=line.against is None)] if compared else []
        rows.append(tuple(cells))
    words = frozenset({head.index('Verdict')} if published else ())
    metric = metric_name(lines[0].metric) if not several['metric'] else 'All metrics'
    return Table(caption=f'{metric}, judged by {table.level}', head=tuple(head), rows=tuple(rows), words=words)


def _meanings(lines: Sequence[Line]) -> Terms:
    items = [(f'({mark})', f'{clean(reason)}.') for reason, mark in _marks(lines).items()]
    items += [(mark, f'{clean(text)}.') for mark, text in dict.fromkeys((line.mark, line.contamination) for line in lines if line.mark)]
    return Terms(tuple(items))


def _cell(value: Number, metric: str, *, lone: str) -> Cell:
    shown, bounds = value_and_bounds(value.value, value.low, value.high, metric=metric)
    return Cell(shown, bounds or lone, quiet=value.value is None)


def _bounds(value: Number, metric: str) -> Cell:
    _, bounds = value_and_bounds(value.value, value.low, value.high, metric=metric)
    return Cell(bounds.strip('()') or NONE, quiet=not bounds)


def _published(line: Line) -> Cell:
    if line.printed is None:
        return Cell(NONE, quiet=True)
    one = line.printed
    shown = interval(one.number.value, one.number.low, one.number.high, metric=line.metric)
    if one.number.value is None:
        shown = f'{number(one.number.low, metric=line.metric)} to {number(one.number.high, metric=line.metric)}'
    return Cell(shown, f'{nice(one.method)}, {one.certainty}')


def _marks(lines: Sequence[Line]) -> dict[str, str]:
    reasons = list(dict.fromkeys(reason for line in lines for reason in line.why))
    return {reason: str(i) for i, reason in enumerate(reasons, start=1)}


def _verdict(line: Line, lines: Sequence[Line]) -> Cell:
    marks = _marks(lines)
    if line.printed is None:
        return Cell('nothing published', quiet=True)
    return Cell(' '.join([line.verdict, *(f'({marks[reason]})' for reason in line.why)]))


def _difference(line: Line) -> Cell:
    if line.against is None:
        return Cell(NONE, quiet=True)
    shown, bounds = value_and_bounds(*_ends(line.against.difference), metric=line.metric)
    return Cell(shown if shown.startswith(('−', NONE)) else f'+{shown}', bounds)


def _gap_table(lines: Sequence[Line]) -> Table:
    rows = []
    for line in lines:
        shown, bounds = value_and_bounds(*_ends(line.gap), metric=line.metric)
        rows.append((Cell(line_place(line)), Cell(nice(line.method)), Cell(f'{100 * line.fraction:g}\u202f%'), Cell(shown, bounds)))
    head = ('Data', 'Method', 'Labels', f'{metric_name(lines[0].metric)}, training − test')
    note = 'How much better the model does on the images it learned from; ± 1.96 standard errors over seeds.'
    return Table(caption='Training minus test', head=head, rows=tuple(rows), words=frozenset({1}), fit=True, note=note)


def _sources(tables: Sequence[StudyTable]) -> Section:
    printed = [line.printed for table in tables for line in table.lines if line.printed is not None]
    terms = dict.fromkeys((one.certainty, clean(one.source)) for one in printed)
    items = tuple((certainty, f'{source}: {_STANDING.get(certainty, certainty)}.') for certainty, source in terms)
    return Section(id='sources', title='Where published numbers come from', blocks=(Terms(items),) if items else ())


def _repeat(command: str) -> Section:
    blocks = (Code('Command that made this page', clean(command)),) if command else ()
    return Section(id='repeat', title='How to repeat this', blocks=blocks)


def _words(tables: Sequence[StudyTable]) -> Section:
    metrics = dict.fromkeys(line.metric for table in tables for line in table.lines)
    terms = [(metric_name(name), GLOSSARY[name]) for name in metrics if name in GLOSSARY]
    return Section(id='glossary', title='Words used', blocks=(Terms((*terms, *_TERMS, *WORDS)),))


def _ends(value: Number) -> tuple[float | None, float | None, float | None]:
    return value.value, value.low, value.high


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return '<.001' if value < 0.001 else f'{value:.3f}'.replace('0.', '.', 1) if value < 1 else '1'
