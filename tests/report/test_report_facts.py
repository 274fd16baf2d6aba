"""The owner's file: read strictly, each fault one sentence that says what to do."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.report import facts


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('ownr = "a"', 'did you mean "owner"'),
        ('license = "mit"', 'did you mean "licence"'),
        ('xyzzy = "a"', 'the keys are owner, '),
        ('owner = 3', 'owner is no text'),
        ('owner = " "', 'owner is empty'),
        (f'owner = "{"a" * 2001}"', 'more than 2000'),
        ('owner = "a', 'is no TOML'),
        ('power_watts = "300"', 'is no number above 0'),
        ('power_watts = -1', 'is no number above 0'),
        ('power_watts = nan', 'is no number above 0'),
        ('power_watts = true', 'is no number above 0'),
        ('licence = "MIT License"', 'licence "MIT License" is no identifier'),
        ('licence = "other"', 'needs a licence_name'),
        ('licence = "mit"\nlicence_name = "x"', 'goes with licence = "other"'),
        ('[owner]\nname = "a"', 'owner is no text'),
    ],
)
def test_a_fault_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / 'facts.toml').write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        facts.read_facts(tmp_path / 'facts.toml')
    assert '\n' not in str(caught.value)


def test_no_file_no_text_and_a_huge_one(tmp_path: Path) -> None:
    assert facts.read_facts(None).get('owner') == ''
    with pytest.raises(UsageError, match='is no file'):
        facts.read_facts(tmp_path / 'facts.toml')
    (tmp_path / 'facts.toml').write_bytes(b'owner = "\xff"')
    with pytest.raises(UserError, match='not UTF-8'):
        facts.read_facts(tmp_path / 'facts.toml')
    (tmp_path / 'facts.toml').write_bytes(b'#' * 300_000)
    with pytest.raises(UsageError, match='larger than'):
        facts.read_facts(tmp_path / 'facts.toml')


def test_what_is_said_is_read_and_controls_are_not(tmp_path: Path) -> None:
    (tmp_path / 'facts.toml').write_text('owner = "Ada\\u202e\\nLovelace"\nlicence = "cc-by-4.0"\npower_watts = 300\n')
    found = facts.read_facts(tmp_path / 'facts.toml')
    assert found.get('owner') == 'Ada\ufffd Lovelace' and found.get('licence') == 'cc-by-4.0' and found.numbers == {'power_watts': 300.0}
    with pytest.raises(KeyError):
        found.get('ownr')


def test_the_empty_form_asks_every_question(tmp_path: Path) -> None:
    filled = '\n'.join(line.removeprefix('# ').replace('""', '"x"').replace('0.0', '1.0') for line in facts.template().splitlines()[1:])
    assert set(tomllib.loads(filled)) == {*facts.SENTENCES, *facts.NUMBERS}
