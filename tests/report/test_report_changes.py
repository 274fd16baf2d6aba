"""What ingest changed in the words about people is on the page of a run, counted, and nobody's own words are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_runs import dataset_dir

from retfound_jax.core.files import read_json
from retfound_jax.report import people
from retfound_jax.report.blocks import Table, Text

_CHANGES = [
    {'field': 'sex', 'from': 'Male', 'to': 'M', 'reason': '', 'cells': 300, 'patients': 150},
    {'field': 'age', 'from': '1', 'to': 'missing', 'reason': 'a placeholder: nobody is from 2 to 9', 'cells': 50, 'patients': 25},
    {'field': 'ethnicity', 'from': 'rare word', 'to': 'not in scheme', 'reason': 'no category of own', 'cells': 4, 'patients': 2},
]


@pytest.fixture
def manifest(tmp_path: Path) -> dict[str, Any]:
    """Of a dataset that says nothing of changes."""
    return read_json(dataset_dir(tmp_path) / 'manifest.json')


def _section(manifest: dict[str, Any], demographics: dict[str, Any] | None) -> tuple[list[Table], str]:
    found = {**manifest, **({'demographics': demographics} if demographics is not None else {})}
    blocks = people.section(found).blocks
    tables = [block for block in blocks if isinstance(block, Table) and block.caption == 'Words that were changed']
    return tables, ' '.join(block.words for block in blocks if isinstance(block, Text))


def test_every_change_is_counted_on_the_page_with_its_reason(manifest: dict[str, Any]) -> None:
    (table,), words = _section(manifest, {'changes': _CHANGES, 'contradictions': {'sex': 31, 'age': 3}})
    rows = [tuple(cell.text for cell in row) for row in table.rows]
    assert rows[0] == ('Sex', 'Male', 'M', '300', '150', 'a word for it') and rows[1][5] == 'a placeholder: nobody is from 2 to 9'
    assert rows[2] == ('Ethnicity', 'withheld', 'withheld', 'withheld', 'withheld', 'no category of own')
    assert 'Sex: rows of 31 patients contradict' in words and 'Age: rows of fewer than 20 patients contradict' in words


def test_a_dataset_that_does_not_say_or_that_needed_nothing_has_no_table(manifest: dict[str, Any]) -> None:
    assert _section(manifest, None)[0] == [] and 'words of the schema' not in _section(manifest, None)[1]
    tables, words = _section(manifest, {'changes': [], 'contradictions': {}})
    assert tables == [] and 'No word about people had to be changed.' in words
