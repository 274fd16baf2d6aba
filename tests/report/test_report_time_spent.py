"""The table of where a run's time went, from the account that training keeps."""

from __future__ import annotations

from pathlib import Path

import report_runs

from retfound_jax.core import goodput
from retfound_jax.report import page, time_spent


class Clock:
    """Moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def interrupted(run: Path) -> None:
    """An hour of steps, the last ten minutes of them done again after two minutes in which nobody worked."""
    clock = Clock()
    for first, steps, kept in ((0, 300, 250), (250, 300, None)):
        ledger = goodput.Ledger(run, clock=clock, wall=clock)
        clock.now += 30
        ledger.at(first)
        for step in range(first + 1, first + steps + 1):
            ledger.enter('step')
            clock.now += 12
            ledger.at(step)
            if step == kept:
                ledger.saved(step)
        ledger.close()
        clock.now += 120


def test_phases_are_shown_with_their_shares_and_restarts_are_told(tmp_path: Path) -> None:
    run = report_runs.pretrain_run(tmp_path)
    interrupted(run)
    account = goodput.read(run)
    table = time_spent.table(account)
    assert [row[0].text for row in table.rows] == [
        'Training steps that count',
        'Steps done again after a restart',
        'Nobody at work, between two starts',
        'Starting the program',
    ]
    assert [round(row[2].bar, 1) for row in table.rows] == [round(100 * x / 7380, 1) for x in (6600, 600, 120, 60)]
    assert 'started 2 times, and 50 steps had to be done again' in table.note
    text = page.build(run)
    assert 'Where the time went' in text and '2.0 hours' in text


def test_a_run_without_an_account_shows_none(tmp_path: Path) -> None:
    assert 'Where the time went' not in page.build(report_runs.pretrain_run(tmp_path))


def test_a_damaged_account_is_one_sentence(tmp_path: Path) -> None:
    run = report_runs.pretrain_run(tmp_path)
    interrupted(run)
    text = (run / goodput.FILE).read_text()
    (run / goodput.FILE).write_text(text.replace('"seconds": {', '"seconds": {"sleep": 3, ', 1))
    try:
        page.build(run)
    except goodput.UserError as error:
        assert str(error).count('\n') == 0 and 'goodput.jsonl line 1' in str(error)
    else:
        raise AssertionError('the damage was not seen')
