"""Cells made without training: results that depend on what the cell is and on nothing else, for tests of who makes which cell and when."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys
import zlib
from pathlib import Path
from typing import Any

from study_cells import SMALL, predictions

from experiments.tables.retfound import label_efficiency_phantom
from retfound_jax.evals.predictions import write_predictions
from retfound_jax.studies import grid, making
from retfound_jax.studies.cells import Place, write_result
from retfound_jax.studies.grid import CellSpec, Study

_OPERATIONS = ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir')  # audit events


def study(**changes: Any) -> Study:
    """The twin of the label efficiency study with weights that nobody reads: 2 datasets, 2 methods, 2 shares, 2 seeds."""
    made = label_efficiency_phantom()
    methods = (grid.Method(name='random'), grid.Method(name='mae', weights='nobody reads this'))
    return dataclasses.replace(made, methods=methods, **changes)


def make(ground: Any, spec: CellSpec, where: Place) -> None:
    """Stands in for `studies.arms.make`: two files, the result last."""
    for name in spec.test_on:
        skill = (zlib.crc32(spec.slug.encode()) % 100) / 200
        made = predictions(seed=spec.seed, skill=skill, images=40, dataset=name)
        write_predictions(made, path=where.folder / 'predictions' / f'{name}.parquet')
    images = {'train': 20, 'val': 10, 'test': 40}
    write_result(where, {
        'cell': dataclasses.asdict(spec),
        'fingerprint': where.fingerprint,
        'datasets': {name: {'fingerprint': name, 'images': images, 'patients': images, 'drawn': True} for name in spec.test_on},
        'weights': {'name': ground.study.method(spec.method).weights and spec.method, 'pretrained_on': []},
        'model': dict(SMALL),
        'metrics': {'train': {'AUROC': 0.9}} | {name: {'AUROC': 0.5} for name in spec.test_on},
        'seconds': 1.0,
    })


def table_bytes(made: Study, *, folder: Path) -> dict[str, bytes]:
    """Every file of its table."""
    return {path.name: path.read_bytes() for path in making.write(making.make(made, folder=folder), out=folder)}


def killed_until_done(folder: Path, *, seed: int, times: int) -> int:
    """Makes the study in children that kill themselves before a file operation drawn at random, and then in one that does not; the kills.

    Operations, and not seconds: how many there are does not depend on how fast the machine is. JAX has started no threads in this
    process, so it may fork.
    """
    from retfound_jax.studies import arms

    arms.make = make
    chance, struck = random.Random(seed), 0
    operations = _operations(folder.with_name(f'{folder.name}_counted'))
    for attempt in range(times + 1):
        status = _child(folder, dies_at=chance.randint(1, operations) if attempt < times else 0)
        assert status == 0 or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL), status
        struck += os.WIFSIGNALED(status)
        if not status:
            break
    return struck


def _child(folder: Path, *, dies_at: int, tell: int = -1) -> int:
    """Makes the study in a fork; its wait status.

    Args:
      dies_at: file operation before which it dies, counted from 1; 0: none.
      tell: file descriptor that it writes their number to; -1: none.
    """
    from retfound_jax.studies import run

    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _OPERATIONS:
            count += 1
            if count == dies_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    run.run(study(), workdir=folder, data=folder)
    if tell >= 0:
        os.write(tell, str(count).encode())
    os._exit(0)


def _operations(folder: Path) -> int:
    """How many file operations a study takes that nothing disturbs."""
    read, write = os.pipe()
    assert _child(folder, dies_at=0, tell=write) == 0
    os.close(write)
    with os.fdopen(read) as told:
        return int(told.read())


if __name__ == '__main__':
    print(killed_until_done(Path(sys.argv[1]), seed=int(sys.argv[2]), times=int(sys.argv[3])))
