"""Cells made without training: results that depend on what the cell is and on nothing else, for tests of who makes which cell and when."""

from __future__ import annotations

import dataclasses
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
    """Makes the study in children that are killed at random moments, so many times at most, and then in one that is not; kills that struck.

    JAX has started no threads in this process, so it may fork.
    """
    import os
    import random
    import signal
    import threading

    from retfound_jax.studies import arms, run

    chance, struck = random.Random(seed), 0
    arms.make = make
    for attempt in range(times + 1):
        child = os.fork()
        if not child:
            run.run(study(), workdir=folder, data=folder)
            os._exit(0)
        timer = threading.Timer(chance.uniform(0.01, 0.3), os.kill, (child, signal.SIGKILL))
        if attempt < times:
            timer.start()
        status = os.waitpid(child, 0)[1]
        timer.cancel()
        struck += os.WIFSIGNALED(status)
        if not status:
            break
    return struck


if __name__ == '__main__':
    print(killed_until_done(Path(sys.argv[1]), seed=int(sys.argv[2]), times=int(sys.argv[3])))
