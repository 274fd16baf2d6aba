"""Pretraining that a study makes itself: one run for each method and seed, kept in its directory, and gone on with if it is stopped.

It is made before the first cell that starts from it. What stands for it in the fingerprint of a cell is what it is made from (its
configuration and its data), so that cells have their place before anything is trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import filelock

from retfound_jax.core.files import write_json
from retfound_jax.data.config import DataConfig
from retfound_jax.studies.cells import told_of
from retfound_jax.studies.grid import Method
from retfound_jax.train.config import TrainConfig, align

FOLDER, DONE = 'pretrained', 'pretrained.json'
_SAFE = re.compile(r'[^A-Za-z0-9_.-]+')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """A pretraining of a study, made or not yet."""

    folder: Path  # a run directory
    fingerprint: str
    config: TrainConfig

    @property
    def done(self) -> bool:
        """Whether it was trained to its end: that is written last."""
        return (self.folder / DONE).is_file()

    def make(self, *, notice: Callable[[], str] = str) -> bool:
        """Trains it, or goes on with it; False where another process is at it.

        Raises:
          UserError: it cannot be trained. Preempted: a notice came.
        """
        if self.done:
            return True
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(f'{self.folder}.lock', timeout=0):
                if not self.done:
                    self._train(notice)
        except filelock.Timeout:
            return False
        return True

    def _train(self, notice: Callable[[], str]) -> None:
        from retfound_jax.train.loop import train

        found = train(self.config, workdir=self.folder, resume=True, notice=notice)
        write_json(self.folder / DONE, {'fingerprint': self.fingerprint, 'step': found.step})


def place(root: Path, method: Method, *, seed: int, data: DataConfig, fingerprint: str) -> Made:
    """The pretraining of a method and seed in the study directory `root`.

    Args:
      data: the dataset as the study has it, with the image form of the recipe; labels, composition and balance are the recipe's own.
      fingerprint: of the dataset.
    """
    recipe = method.pretraining.recipe
    own = {name: getattr(recipe.data, name) for name in ('compose', 'balance', 'groups', 'views')}
    given = dataclasses.replace(data, labels=recipe.task.labels, draw=seed, **own)
    config = align(dataclasses.replace(recipe, data=given, seed=seed))
    told = json.dumps([told_of(config), fingerprint], sort_keys=True)
    stands = hashlib.sha256(told.encode()).hexdigest()
    name = f'{_SAFE.sub("_", method.name)}-seed{seed}-{stands[:8]}'
    return Made(folder=root / FOLDER / name, fingerprint=stands, config=config)
