"""What a run measured: one JSON object a line, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from types import TracebackType

from retfound_jax.core.errors import UserError

METRICS = 'metrics.jsonl'


class RunLog:
    """Appends scalars to `WORKDIR/metrics.jsonl` and to TensorBoard event files under `WORKDIR/tensorboard`."""

    def __init__(self, workdir: Path | str, *, tensorboard: bool = True) -> None:
        self._path = Path(workdir) / METRICS
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, 'a', encoding='utf-8')
        self._writer = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(logdir=str(self._path.parent / 'tensorboard'))

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write(self, step: int, **scalars: float) -> None:
        """Writes named scalars of a step; a value that is not finite is written as null (JSON has no NaN)."""
        now = time.time()
        for name, value in scalars.items():
            number = float(value)
            row = {'step': int(step), 'wall_time': round(now, 3), 'name': name, 'value': number if math.isfinite(number) else None}
            self._file.write(json.dumps(row) + '\n')
            if self._writer is not None:
                self._writer.add_scalar(name, number, global_step=step, walltime=now)
        self._file.flush()

    def sync(self) -> None:
        """Returns once what was written is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def truncate_metrics(workdir: Path | str, *, after_step: int) -> None:
    """Drops lines of steps later than `after_step`: a resumed run measures those again and each step stays written once."""
    from retfound_jax.core.files import atomic_write

    path = Path(workdir) / METRICS
    if path.exists():
        kept = [row for row in read_metrics(workdir) if row['step'] <= after_step]
        atomic_write(path, ''.join(json.dumps(row) + '\n' for row in kept))


def read_metrics(workdir: Path | str) -> list[dict]:
    """Reads `metrics.jsonl`; a last line cut by a crash is left out, a damaged line elsewhere is an error.

    Raises:
      UserError: a line other than the last is not JSON.
    """
    path = Path(workdir) / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding='utf-8').splitlines()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise UserError(f'{path} line {number} is not JSON; the file is damaged, remove that line') from error
    return rows
