"""A table as Markdown, LaTeX and CSV.

Names come from folders and configurations, so each format escapes all of them; the bytes depend on the table alone.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.files import atomic_write, csv_text, write_json
from retfound_jax.studies.published import Published
from retfound_jax.studies.sheets import Page, Sheet, page
from retfound_jax.studies.tables import Line, Table, to_json

FORMATS = ('md', 'tex', 'csv')
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]')
_MARKDOWN = re.compile(r'([\\`*_{}\[\]<>#|~&$])')
_TEX = {
    '\\': r'\textbackslash{}',
    '{': r'\{',
    '}': r'\}',
    '&': r'\&',
    '%': r'\%',
    '$': r'\$',
    '#': r'\#',
    '_': r'\_',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '<': r'\textless{}',
    '>': r'\textgreater{}',
    '|': r'\textbar{}',
    '"': r'\textquotedbl{}',
    '–': '--',
    '−': '$-$',
    '±': r'$\pm$',
    '≤': r'$\le$',
    '≥': r'$\ge$',
    '†': r'\textdagger{}',
    '‡': r'\textdaggerdbl{}',
    '\ufffd': '?',
}
_FORMULA = tuple('=+-@＝＋－＠')  # how a formula begins; some spreadsheets take the wide forms too


def write(table: Table, *, out: Path, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Writes NAME.md, NAME.tex and NAME.csv as asked, and always NAME.json, which the report reads; returns the paths."""
    made = {'md': markdown, 'tex': latex, 'csv': csv}
    paths = []
    for suffix in FORMATS:
        if suffix in formats:
            paths.append(out / f'{table.name}.{suffix}')
            atomic_write(paths[-1], made[suffix](table))
    paths.append(out / f'{table.name}.json')
    write_json(paths[-1], to_json(table))
    return paths


def markdown(table: Table) -> str:
    """GitHub's dialect, sheets one after another, marks explained below."""
    return markdown_page(page(table))


def markdown_page(found: Page) -> str:
    """The same of a page."""
    parts = [f'## {_md(found.title)}', *map(_md, found.lead)]
    for sheet in found.sheets:
        parts += [f'**{_md(sheet.caption)}**', _md_sheet(sheet)]
    if found.notes:
        parts.append('\n'.join(f'- {_md(note)}' for note in found.notes))
    return '\n\n'.join(parts) + '\n'


def _md_sheet(sheet: Sheet) -> str:
    rule = ['--:' if i in sheet.numbers else '---' for i in range(len(sheet.head))]
    lines = [list(map(_md, sheet.head)), rule, *(list(map(_md, row)) for row in sheet.rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _md(text: str) -> str:
    return _MARKDOWN.sub(r'\\\1', _plain(text))


def latex(table: Table) -> str:
    r"""A table environment for each sheet, with booktabs' rules, no wider than the text; the first lines name the packages it needs."""
    return latex_page(page(table), label=table.name)


def latex_page(found: Page, *, label: str) -> str:
    """The same of a page; the sheets are labelled LABEL-1, LABEL-2 and so on."""
    parts = [f'% {_plain(found.title)}', r'% \usepackage[T1]{fontenc} \usepackage{booktabs,graphicx,textcomp}']
    for i, sheet in enumerate(found.sheets):
        notes = (*found.lead, *found.notes) if not i else ()
        parts.append(_tex_sheet(sheet, label=f'{label}-{i + 1}', notes=notes))
    return '\n'.join(parts) + '\n'


def _tex_sheet(sheet: Sheet, *, label: str, notes: Sequence[str]) -> str:
    columns = ''.join('r' if i in sheet.numbers else 'l' for i in range(len(sheet.head)))
    lines = [
        r'\begin{table}',
        r'\centering\footnotesize',
        rf'\caption{{{_tex(sheet.caption)}}}',
        rf'\label{{tab:{re.sub("[^A-Za-z0-9-]", "-", label)}}}',
        r'\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%',
        rf'\begin{{tabular}}{{{columns}}}',
        r'\toprule',
        ' & '.join(map(_tex, sheet.head)) + r' \\',
        r'\midrule',
        *(' & '.join(map(_tex, row)) + r' \\' for row in sheet.rows),
        r'\bottomrule',
        r'\end{tabular}}',
        *(rf'\par\smallskip\raggedright {_tex(note)}' for note in notes),
        r'\end{table}',
    ]
    # a row that begins with a bracket would be read as the optional argument of the line break before it
    return '\n'.join(f'{{}}{line}' if line.startswith('[') else line for line in lines)


def _tex(text: str) -> str:
    return ''.join(_TEX.get(mark, mark) for mark in _plain(text))


COLUMNS = (
    *('study', 'trained_on', 'tested_on', 'label', 'target', 'method', 'weights', 'adaptation', 'labels', 'metric'),
    *('mean', 'seed_low', 'seed_high'),
    *('patient_low', 'patient_high', 'seeds', 'per_seed', 'images', 'patients', 'published', 'published_low', 'published_high'),
    *('published_method', 'source', 'certainty', 'verdict', 'reasons', 'contamination', 'reference', 'difference', 'difference_low'),
    *('difference_high', 'p_paired_t', 'p_welch_t', 'p_wilcoxon', 'p_holm', 'p_benjamini_hochberg', 'gap', 'gap_low', 'gap_high'),
)


def csv(table: Table) -> str:
    """RFC 4180: one line a row, everything known and unrounded; what a spreadsheet would run as a formula begins with an apostrophe."""
    return csv_rows([COLUMNS, *(_csv_row(line) for line in table.lines)])


def csv_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Any rows, in the same dialect."""
    return ''.join(csv_text([map(_csv, row)]).removesuffix('\n') + '\r\n' for row in rows)


def _csv_row(line: Line) -> tuple[Any, ...]:
    row, verdict, against, gap = line.row, line.verdict, line.comparison, line.gap
    names = (row.study, row.train_on, row.test_on, row.label, row.target, row.method, row.origin.weights or 'random', row.adaptation)
    numbers = (row.fraction, row.metric, row.mean, row.se_low, row.se_high, row.boot_low, row.boot_high)
    counts = (' '.join(map(str, row.seeds)), ' '.join(map(_csv, row.per_seed)), row.n_images, row.n_patients)
    judged = (*_csv_published(verdict.published), verdict.kind, '; '.join(verdict.why), verdict.contamination_text)
    tests = (math.nan,) * 5
    if against is not None:
        tests = (*dataclasses.astuple(against.tests)[:3], against.holm, against.benjamini_hochberg)
    difference = (against.reference, against.difference, against.low, against.high) if against else ('', math.nan, math.nan, math.nan)
    return (*names, *numbers, *counts, *judged, *difference, *tests, *((gap.mean, gap.low, gap.high) if gap else (math.nan,) * 3))


def _csv_published(one: Published | None) -> tuple[Any, ...]:
    return ('',) * 6 if one is None else (one.value, one.low, one.high, one.method, one.source, one.certainty)


def _csv(value: Any) -> str:
    """A number in the fewest digits that give it back; what is unknown is empty."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ''
    if isinstance(value, int | float):
        return repr(float(value) if isinstance(value, float) else value)  # NumPy's own floats are spelled otherwise
    text = _plain(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _plain(text: str) -> str:
    """One line without control and direction characters."""
    return _CONTROL.sub('\ufffd', text)

