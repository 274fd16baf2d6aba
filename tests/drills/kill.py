"""A run that is killed at random moments ends as the run that was left alone: `python -m tests.drills.kill --n 100`.

Every kill is a SIGKILL: nothing can be tidied up. Half of them are aimed at saves, the rest fall anywhere between the start of the
process and its end. A run goes on until it is done, then another is begun, until `--n` kills have been survived.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import drill_runs  # noqa: E402 - found beside this file, by the children as well

_START, _WHOLE = 60.0, 300.0  # [s] that a child may take to its first step, and in all


def drill(folder: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Kills runs until `kills` have been survived, and compares each with one that was left alone.

    Returns:
      counts: of kills, of those that fell into a save, of runs and starts, and the seconds it took.

    Raises:
      AssertionError: a run ended otherwise than the undisturbed one, or did not end.
    """
    rng, context, began = random.Random(seed), drill_runs.server(), time.monotonic()
    given = (drill_runs.dataset(folder / 'dataset'), str(folder / 'cache'))
    alone = folder / 'alone'
    spent = _run(context, alone, given)
    counts = {'kills': 0, 'during a save': 0, 'runs': 0, 'starts': 0}
    while counts['kills'] < kills:
        run = folder / f'run{counts["runs"]}'
        _disturb(context, run, given, rng=rng, kills=kills, counts=counts, spent=spent)
        drill_runs.assert_alike(run, alone)
        counts['runs'] += 1
        shutil.rmtree(run)
    return {**counts, 'seconds': round(time.monotonic() - began, 1)}


def _run(context: Any, workdir: Path, given: tuple[str, str]) -> float:
    """Trains undisturbed, twice the first time so that the cache of compiled programs is filled; how long a warm run takes [s]."""
    spent = 0.0
    for where in (workdir.with_name('warm'), workdir):
        began = time.monotonic()
        child = context.Process(target=drill_runs.child, args=(str(where), *given, {}))
        child.start()
        child.join(_WHOLE)
        assert child.exitcode == 0, f'the undisturbed run ended with {child.exitcode}'
        spent = time.monotonic() - began
    return spent


def _disturb(
    context: Any, run: Path, given: tuple[str, str], *, rng: random.Random, kills: int, counts: dict[str, int], spent: float
) -> None:
    while True:
        child = context.Process(target=drill_runs.child, args=(str(run), *given, {}))
        child.start()
        counts['starts'] += 1
        if counts['kills'] < kills and _kill(child, run, rng=rng, spent=spent):
            counts['kills'] += 1
            counts['during a save'] += bool(_unfinished(run))
            continue
        child.join(_WHOLE)
        if child.exitcode is None:
            child.kill()
            raise AssertionError(f'after {counts["kills"]} kills the run hangs')
        assert child.exitcode == 0, f'after {counts["kills"]} kills the run ended with {child.exitcode}'
        return


def _kill(child: Any, run: Path, *, rng: random.Random, spent: float) -> bool:
    """Kills the child at a random moment; False where it was done before."""
    if rng.random() < 0.5:
        known = _unfinished(run)
        deadline = time.monotonic() + _START
        while child.is_alive() and not _unfinished(run) - known and time.monotonic() < deadline:
            time.sleep(0.001)
        child.join(rng.uniform(0, 0.1))
    else:
        child.join(rng.uniform(0, spent))
    alive = child.is_alive()
    child.kill()
    child.join()
    return alive


def _unfinished(run: Path) -> set[str]:
    """Names of the steps that Orbax is writing, or was writing when the process was killed."""
    return {path.name for path in (run / 'checkpoints').glob('*tmp*')}


def main() -> None:
    """Prints what was survived; ends with an error where something was not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--n', type=int, default=100, help='kills')
    parser.add_argument('--seed', type=int, default=0)
    values = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='kill-drill-') as folder:
        print(drill(Path(folder), kills=values.n, seed=values.seed))


if __name__ == '__main__':
    main()
