"""From a declared study and its directory to its table: which cells there are, which are missing, and the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from retfound_jax.core.errors import UserError
from retfound_jax.registry import checkpoints
from retfound_jax.studies import render
from retfound_jax.studies.by_group import ByGroup, collect
from retfound_jax.studies.grid import Study
from retfound_jax.studies.means import Means
from retfound_jax.studies.means import collect as collect_means
from retfound_jax.studies.rows import Arm, Judged, Result, arms, read_results
from retfound_jax.studies.tables import Table, make_table


class Spec(Protocol):
    """A cell as a study declares it; test_on are names of datasets."""

    study: str
    train_on: str
    test_on: tuple[str, ...]
    method: str
    adaptation: str
    fraction: float
    seed: int


class Declared(Protocol):
    """What a table needs to know of a study (`studies.grid.Study`)."""

    name: str
    title: str
    judged: Judged

    def cells(self) -> Sequence[Spec]: ...


def make(study: Declared, *, folder: Path, command: str = '') -> Table:
    """The table of the cells that are finished; what a study of another name left in the directory does not count.

    Raises:
      UserError: none is finished (`command` is told as the way to make them), or one is damaged.
    """
    wanted = {_key(spec) for spec in study.cells()}
    results = [result for result in _found(folder) if _key(result) in wanted]
    if not results:
        how = f': make them with `{command}`' if command else ''
        raise UserError(f'{folder} holds none of the {len(wanted)} cells of {study.name}{how}')
    return make_table(
        study.name,
        title=study.title,
        results=results,
        judged=study.judged,
        touched=checkpoints.touched,
        missing=len(wanted) - len({_key(result) for result in results}),
    )


def by_group(study: Study, *, folder: Path) -> ByGroup:
    """What the finished cells of a study that asks of groups say of them.

    Raises:
      UserError: none is finished, or one is damaged. UsageError: the test images have no such groups.
    """
    compositions = {method.name: method.share(study.groups.values(study.groups.group)) for method in study.methods}
    return collect(_arms(study, folder), question=study.groups, compositions=compositions)


def means(study: Study, *, folder: Path) -> Means:
    """What the means against a gap did; errors as in `by_group`, and UsageError where the plain training is not finished."""
    return collect_means(_arms(study, folder), question=study.groups, plain=study.groups.plain)


def _arms(study: Study, folder: Path) -> list[Arm]:
    """On the first dataset of the study."""
    wanted = {_key(spec) for spec in study.cells()}
    results = [result for result in _found(folder) if _key(result) in wanted]
    every = [arm for arm in arms(results, judged=study.judged) if arm.key.test_on == study.data[0].name]
    if not every:
        raise UserError(f'{folder} holds no finished cell of {study.name} that was tested on {study.data[0].name}')
    return every


def write(table: Table, *, out: Path, formats: Iterable[str] = render.FORMATS) -> list[Path]:
    """Writes OUT/tables/NAME.* and returns the paths."""
    return render.write(table, out=out / 'tables', formats=formats)


def _found(folder: Path) -> tuple[Result, ...]:
    """No finished cell is no error here: the caller says how many are wanted."""
    return read_results(folder) if any((folder / 'cells').glob('*/result.json')) else ()


def _key(cell: Any) -> tuple[Any, ...]:
    return cell.study, cell.train_on, tuple(cell.test_on), cell.method, cell.adaptation, float(cell.fraction), int(cell.seed)
