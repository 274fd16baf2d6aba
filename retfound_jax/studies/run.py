"""Makes the cells of a study: each once, whatever stops it in between, and several at a time."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import Preempted, UsageError, UserError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.core.processes import end_with_parent
from retfound_jax.core.progress import bar
from retfound_jax.studies import labels
from retfound_jax.studies.cells import Place, place
from retfound_jax.studies.grid import CellSpec, Study

FAILED, RUN = 'failed.json', 'run'
_POLL = 1.0  # [s] between looks at cells that other processes are making
GIVEN = '?'  # weights that whoever runs the study has to name


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """What came of it."""

    made: int  # cells, by this call
    known: int  # that were there


def run(
    study: Study,
    *,
    workdir: Path | str,
    data: Path | str,
    processes: int = 1,
    read_weights: Any = None,
    notice: Callable[[], str] = str,
    keep_runs: bool = False,
) -> Done:
    """Makes every cell that is not there yet. data: folder in which each dataset lies under its name, as one of ours or as it is published.

    Args:
      processes: that make cells at the same time, on this machine; others may work on the same directory from elsewhere.
      read_weights: reads weights of other origin; must be a function that other processes can import.
      notice: asked at every step; words such as 'SIGTERM' end the work, to be gone on with later.
      keep_runs: keeps each cell's training run, and not only what tables are made of.

    Raises:
      UsageError: weights are not named. UserError: data are missing or leak, or cells failed: each is named with its reason.
      Preempted: a notice came.
    """
    root = Path(workdir)
    ground = prepare(study, root=root, data=Path(data), read_weights=read_weights, notice=notice)
    cells, failed = _places(ground)
    known = sum(where.done for _, where in cells)
    for _, where in cells:
        (where.folder / FAILED).unlink(missing_ok=True)
    with bar(len(cells), desc=study.name, unit='cells', initial=known) as shown:
        if processes == 1:
            _work(ground, cells, keep_runs=keep_runs, told=shown.update)
        else:
            _spread(ground, cells, processes=processes, keep_runs=keep_runs, told=shown.update)
    failed |= {spec.slug: str(read_json(where.folder / FAILED)['reason']) for spec, where in cells if not where.done}
    if failed:
        first, reason = next(iter(failed.items()))
        raise UserError(f'{len(failed)} of {len(study.cells())} cells of {study.name} were not made; the first, {first}: {reason}')
    return Done(made=len(cells) - known, known=known)


def prepare(study: Study, *, root: Path, data: Path, read_weights: Any = None, notice: Callable[[], str] = str) -> Any:
    """Finds or builds the datasets, and refuses what leaks: before the first cell."""
    from retfound_jax.studies.arms import Ground
    from retfound_jax.studies.places import find

    for method in study.methods:
        if method.weights == GIVEN:
            raise UsageError(f'the study {study.name} needs the weights of {method.name}: give --weights {method.name}=RUN_OR_FILE')
    if study.external:
        labels.check_common([(one.name, one.common) for one in study.data])
    found = find(study, root=root, data=data)
    return Ground(
        study=study, root=root, paths=found.paths, fingerprints=found.fingerprints, read_weights=read_weights, notice=notice
    )


def _place(ground: Any, spec: CellSpec) -> Place:
    names = dict.fromkeys((spec.train_on, *spec.test_on))
    used = {name: ground.fingerprints[name] for name in names}
    return place(ground.root / 'cells', spec, config=ground.config(spec), data=used, weights=ground.weights_fingerprint(spec))


def _places(ground: Any) -> tuple[list[tuple[CellSpec, Place]], dict[str, str]]:
    """Every cell with its place; and those that were made from something else before, with the reason."""
    cells, stale = [], {}
    for spec in ground.study.cells():
        try:
            cells.append((spec, _place(ground, spec)))
        except UserError as error:
            stale[spec.slug] = str(error)
    return cells, stale


def _work(ground: Any, cells: Sequence[tuple[CellSpec, Place]], *, keep_runs: bool, told: Callable[[], None]) -> None:
    """Makes what is not made, until nothing is left; where another process is at a cell it waits, and takes it over if that one dies."""
    left = list(cells)
    while left:
        waiting = [one for one in left if not _tried(ground, *one, keep_runs=keep_runs, told=told)]
        if len(waiting) == len(left):
            _stop_if(ground)
            time.sleep(_POLL)
        left = waiting


def _tried(ground: Any, spec: CellSpec, where: Place, *, keep_runs: bool, told: Callable[[], None]) -> bool:
    """Makes a cell, and first the pretraining it starts from; False where another process is at one of them."""
    from retfound_jax.studies import arms

    if where.done or (where.folder / FAILED).is_file():
        return True
    with where.taken() as mine:
        if not mine:
            return False
        if where.done:
            return True
        _stop_if(ground)
        try:
            made = ground.pretraining(spec)
            if made and not made.make(notice=ground.notice):
                return False  # another process is at what this cell starts from
            arms.make(ground, spec, where)
        except Preempted:
            raise
        except UserError as error:  # the others may do; what failed is told at the end
            write_json(where.folder / FAILED, {'reason': str(error)})
            print(f'{spec.slug}: {error}', file=sys.stderr)
            return True
        if not keep_runs:
            shutil.rmtree(where.folder / RUN, ignore_errors=True)
    told()
    return True


def _stop_if(ground: Any) -> None:
    reason = ground.notice()
    if reason:
        raise Preempted(f'the study was stopped by {reason}; the same command goes on with it')


def _spread(ground: Any, cells: Sequence[tuple[CellSpec, Place]], *, processes: int, keep_runs: bool, told: Callable[[], None]) -> None:
    context = multiprocessing.get_context('spawn')
    (root := ground.root / 'logs').mkdir(parents=True, exist_ok=True)
    workers = [
        context.Process(target=_worker, args=(dataclasses.replace(ground, notice=str), cells, number, processes, keep_runs, str(root)))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    done = sum(where.done for _, where in cells)
    try:
        left = {worker.sentinel for worker in workers}
        while left:
            left -= set(wait(list(left), timeout=1.0))
            now = sum(where.done for _, where in cells)
            told(now - done)
            done = now
            _stop_if(ground)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
            worker.join()
    ended = [worker.exitcode for worker in workers if worker.exitcode]
    if ended and not all(where.done or (where.folder / FAILED).is_file() for _, where in cells):
        raise UserError(f'{len(ended)} of {processes} processes of the study ended with exit code {ended[0]}; see {root}, and run again')


def _worker(ground: Any, cells: Any, number: int, processes: int, keep_runs: bool, logs: str) -> None:
    end_with_parent()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= processes:  # each its own cores: XLA takes all it sees
        os.sched_setaffinity(0, cores[number::processes])
    from retfound_jax.core import compile_cache

    compile_cache.enable()
    with open(Path(logs) / f'worker_{number}.log', 'a', encoding='utf-8') as log:
        os.dup2(log.fileno(), sys.stderr.fileno())
        _work(ground, cells, keep_runs=keep_runs, told=lambda: None)
