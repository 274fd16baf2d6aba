"""Where the time of a training run went: how much of it moved the model, and what the rest was spent on."""

from __future__ import annotations

from retfound_jax.core.goodput import DOWN, LOST, Account
from retfound_jax.report.blocks import Cell, Table
from retfound_jax.report.words import duration, percent, plural

# phase to what a reader calls it, in the order in which a run passes through them
_NAMES = {
    'step': 'Training steps that count',
    LOST: 'Steps done again after a restart',
    DOWN: 'Nobody at work, between two starts',
    'start': 'Starting the program',
    'compile': 'Compiling',
    'restore': 'Reading a checkpoint',
    'data': 'Waiting for photographs',
    'validate': 'Validation',
    'save': 'Waiting for a checkpoint to be saved',
    'other': 'The rest',
}


def table(account: Account) -> Table:
    """One row for each phase that took time, with its share as a bar."""
    spent = {name: account.seconds[name] for name in _NAMES if account.seconds.get(name, 0.0) > 0}
    rows = [(Cell(_NAMES[name]), Cell(_short(value)), _share(value, account.total)) for name, value in spent.items()]
    return Table(
        caption='Where the time went',
        head=('What', 'Time', 'Share'),
        rows=tuple(rows),
        note=_note(account),
    )


def _share(value: float, total: float) -> Cell:
    return Cell(percent(value, total), bar=100 * value / total if total else 0.0)


def _short(seconds: float) -> str:
    return f'{seconds:.1f} seconds' if seconds < 10 else duration(seconds)


def _note(account: Account) -> str:
    counted = f'{percent(account.seconds["step"], account.total)} of {duration(account.total)} went into steps that count (goodput)'
    if account.starts == 1:
        return f'{counted}. The run was not interrupted.'
    again = f', and {plural(account.steps_lost, "step")} had to be done again' if account.steps_lost else ', and no step was lost'
    return f'{counted}. The run was started {account.starts} times{again}.'
