"""The account of a run's time: every second is charged once, and work done twice is told apart from work that counts."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retfound_jax.core import goodput
from retfound_jax.core.errors import UserError
from retfound_jax.core.goodput import FILE, PHASES, Ledger


class Clock:
    """A clock that moves when told; the wall clock stands beside it and may be set."""

    def __init__(self) -> None:
        self.now, self.wall = 100.0, 1e9

    def go(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds


def ledger(path, clock, **settings):
    return Ledger(path, clock=lambda: clock.now, wall=lambda: clock.wall, **settings)


def test_each_second_goes_to_the_phase_it_was_spent_in(tmp_path):
    clock = Clock()
    one = ledger(tmp_path, clock, began=95.0)
    clock.go(3)
    one.enter('compile')
    clock.go(7)
    one.at(0)
    one.enter('data')
    clock.go(1)
    one.enter('step', was='step')  # the wait was hidden behind the step before
    clock.go(9)
    one.close()
    account = goodput.read(tmp_path)
    assert account.seconds == {**dict.fromkeys(PHASES, 0.0), 'start': 8.0, 'compile': 7.0, 'step': 10.0, 'lost': 0.0, 'down': 0.0}
    assert account.total == 25 and account.goodput == 10 / 25 and account.starts == 1


@given(st.lists(st.tuples(st.sampled_from(PHASES), st.floats(0, 50)), max_size=30))
def test_the_phases_add_up_to_the_time_that_passed(spent):
    clock = Clock()
    one = ledger(None, clock)
    for phase, seconds in spent:
        one.enter(phase)
        clock.go(seconds)
    one.enter('other')
    assert sum(one.seconds.values()) == pytest.approx(sum(seconds for _, seconds in spent))


def killed_and_resumed(path, *, clock_jump=0.0):
    """Ten steps of 2 s, a checkpoint after six, killed; 30 s nobody; resumed from six, the four done again, six more."""
    clock = Clock()
    first = ledger(path, clock)
    first.at(0)
    for step in range(1, 11):
        first.enter('step')
        clock.go(2)
        first.enter('save')
        first.at(step)
        if step == 6:
            first.saved(step)
    first.write()  # the snapshot that was due when the process was killed
    clock.go(30)
    clock.wall += clock_jump
    second = ledger(path, clock)
    clock.go(5)
    second.at(6)
    for step in range(7, 17):
        second.enter('step')
        clock.go(2)
        second.at(step)
    second.close()


def test_steps_done_twice_are_lost_time_and_the_gap_is_down_time(tmp_path):
    killed_and_resumed(tmp_path)
    account = goodput.read(tmp_path)
    assert account.seconds['lost'] == pytest.approx(8) and account.seconds['down'] == pytest.approx(30)
    assert account.seconds['step'] == pytest.approx(32) and account.seconds['start'] == pytest.approx(5)
    assert (account.starts, account.steps_lost) == (2, 4)
    assert account.goodput == pytest.approx(32 / 75)


def test_a_start_that_failed_between_hides_nothing_and_an_older_checkpoint_costs_more(tmp_path):
    killed_and_resumed(tmp_path)
    clock = Clock()
    clock.go(1000)
    ledger(tmp_path, clock).write()  # ended before its first step
    clock.go(1)
    again = ledger(tmp_path, clock)
    again.at(2)  # the newer checkpoints were damaged
    again.close()
    account = goodput.read(tmp_path)
    assert account.starts == 4
    assert account.steps_lost == 8 + 10  # 3 to 10 of the first process, 7 to 16 of the second


def test_a_clock_that_was_set_back_gives_no_negative_time(tmp_path):
    killed_and_resumed(tmp_path, clock_jump=-86400.0)
    account = goodput.read(tmp_path)
    assert account.seconds['down'] == 0 and account.total == pytest.approx(45)


def test_a_cut_last_line_is_left_out_and_a_damaged_one_before_is_named(tmp_path):
    killed_and_resumed(tmp_path)
    text = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text + '{"began": 1, "pi')
    assert goodput.read(tmp_path).starts == 2
    (tmp_path / FILE).write_text('{"began": 1, "pi\n' + text)
    with pytest.raises(UserError, match='line 1 is damaged'):
        goodput.read(tmp_path)
    (tmp_path / FILE).write_text('[]\n' + text)
    with pytest.raises(UserError, match='line 1 is damaged'):
        goodput.read(tmp_path)


def test_a_run_without_an_account_has_none(tmp_path):
    assert goodput.read(tmp_path) is None


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='only Linux says when a process began')
def test_the_beginning_of_a_process_is_known():
    code = 'import time; from retfound_jax.core.goodput import process_began; print(process_began())'
    before = time.monotonic()
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert before - 0.1 <= float(done.stdout) <= time.monotonic()


def test_an_account_goes_on_after_a_snapshot_that_was_cut(tmp_path):
    killed_and_resumed(tmp_path)
    before = goodput.read(tmp_path)
    with open(tmp_path / FILE, 'a') as file:
        file.write('{"began": 1, "pi')
    clock = Clock()
    clock.go(1000)
    ledger(tmp_path, clock).write()
    after = goodput.read(tmp_path)
    assert (before.starts, after.starts) == (2, 3) and after.seconds['step'] == before.seconds['step']
