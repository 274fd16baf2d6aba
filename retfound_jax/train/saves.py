"""Saving and restoring the state of a run: parameters, optimiser and data position together, in the background, whole or not at all.

`checkpoints/STEP/` holds the Orbax items `state` and `data`, and beside them where they came from and what they consist of
(`checkpoint_files`). A step counts once it is committed and whole; a save that fails is an error at the next step.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from retfound_jax.core import hosts
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.train import checkpoint_files as files
from retfound_jax.train import save_errors
from retfound_jax.train.config import Keep
from retfound_jax.train.state import TrainState
from retfound_jax.train.workdir import CHECKPOINTS, Better, Origin, as_one

Tree = Any
_COMMIT = 1200  # [s] that the processes wait for each other's part of a save


class Checkpoints:
    """Saves and restores training state under `WORKDIR/checkpoints`.

    Opening looks at what is there: what is not whole is set aside, and told to `say` and in `set_aside`. With several processes all open
    it together, on a directory that they share; the first looks and decides, and the others wait for that up to `patience` [s].
    """

    def __init__(
        self,
        workdir: Path | str,
        *,
        better: Better = Better(),  # noqa: B008 (frozen)
        keep: Keep = Keep(),  # noqa: B008 (frozen)
        origin: Origin | None = None,
        patience: float = 3600.0,
        saved: Callable[[int], None] | None = None,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        """Raises UserError where no whole checkpoint is left of those there were, UsageError where the newest is of another run."""
        self.better = better
        self._root = Path(workdir).absolute() / CHECKPOINTS
        self._origin, self._say, self._saved = origin, say, saved
        self._writing: int | None = None
        self._after: threading.Thread | None = None
        self._failure: UserError | None = None
        save_errors.quiet()
        found = as_one(self._settle, name='which checkpoint to go on from', timeout=patience)
        self.latest: int | None = found['step']  # the newest whole step, or the one whose save has begun since
        self.set_aside: tuple[str, ...] = tuple(found['said'])
        self._manager = _manager(self._root, better=better, keep=keep, seal=self._seal, meet=self._meet)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Waits for what was started; a save that failed is raised, or said where another error is on its way."""
        self._join()
        try:
            self._manager.wait_until_finished()  # raises in each thread that asks, and what is behind it is closed only when nothing does
        except Exception as failed:  # as in `_finish`
            self._failure = self._failure or self._failed(self._writing or 0, failed)
        self._manager.close()
        if self._failure is not None and error is None:
            raise self._failure
        if self._failure is not None and error is not self._failure:
            self._say(str(self._failure))

    def path(self, step: int) -> Path:
        """The directory of one step."""
        return self._root / str(step)

    def save(self, state: TrainState, *, data: Mapping[str, Any], metrics: Mapping[str, float] | None) -> None:
        """Starts writing; returns as soon as the arrays are copied, before the caller draws the next batch.

        A step that is there already is whole, and is left as it is.

        Raises:
          UserError: an earlier save failed, or this one cannot begin.
        """
        step = int(state.step)
        self.wait()
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(_as_dict(state)), data=ocp.args.JsonSave(dict(data)))
        self._writing = step
        try:
            begun = self._manager.save(step, args=items, metrics=None if metrics is None else dict(metrics), force=True)
        except (OSError, ValueError, RuntimeError, TimeoutError) as error:
            self._failure = self._failed(step, error)
            raise self._failure from error
        if not begun:
            raise UserError(f'checkpoint {step} was not written: Orbax left it out without a reason; stop and look at {self._root}')
        before, self.latest = self.latest, step
        self._after = threading.Thread(target=self._finish, args=(step, before), name='checkpoint_finish')
        self._after.start()

    def check(self) -> None:
        """Raises what went wrong in a save that was begun earlier; costs nothing, so that every step can ask."""
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        """Returns once everything started is on disk.

        Raises:
          UserError: it could not be written.
        """
        self._join()
        self.check()

    def restore(self, step: int, *, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Reads a step onto the shardings of `like` (abstract), whatever it was saved from, and the data position that belongs to it.

        Raises:
          UserError: the checkpoint is damaged or of another model, or a save that was begun has failed.
        """
        self.wait()
        wanted = _as_dict(like)
        self._check_origin(step)
        _check_leaves(self.path(step), wanted)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), data=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(step, args=items)
        except Exception as error:  # Orbax wraps what TensorStore says of a damaged file in a bare Exception
            raise save_errors.damaged(step, error) from error
        return TrainState(**found['state']), found['data']

    def _settle(self) -> dict[str, Any]:
        """On the first process: what was set aside, and the newest whole step."""
        self._root.mkdir(parents=True, exist_ok=True)
        found = files.settle(self._root, reads=_unreadable)
        for text in found.said:
            self._say(text)
        if found.step is not None:
            self._check_origin(found.step)
        return {'step': found.step, 'said': list(found.said)}

    def _check_origin(self, step: int) -> None:
        found = files.read_origin(self.path(step)) if self._origin is not None else None
        differs = self._origin.difference(found) if found is not None else ''
        if differs:
            raise UsageError(f'checkpoint {step} in {self._root} is of another run: {differs}; remove it, or give the directory of its run')

    def _seal(self) -> None:
        """Called by Orbax on the first process, in the background, when all is written and before it commits."""
        step = str(self._writing)
        unfinished = self._root / (step + files.UNFINISHED)
        folder = unfinished if unfinished.is_dir() else self._root / step  # the latter on stores that cannot rename
        files.seal(folder, origin=None if self._origin is None else self._origin.to_json())

    def _meet(self, *, key: str, timeout_ms: int) -> None:
        """How Orbax's threads wait for the other processes.

        Where a save failed here, Orbax would still wait for the others before it says so, and they for this process: it is said at once,
        the next step raises it, and the others end as they do when a process goes.
        """
        error = sys.exc_info()[1]
        if isinstance(error, Exception):
            self._failure = self._failure or self._failed(self._writing or 0, error)
            return
        hosts.barrier(key, timeout=timeout_ms / 1000)

    def _finish(self, step: int, before: int | None) -> None:
        """In a thread: waits for the commit, then removes the steps that are no longer kept."""
        try:
            self._manager.wait_until_finished()
            self._look_again(step)
            if self._saved is not None and hosts.is_first():
                self._saved(step)  # before the next save, which drops steps that are no longer kept
        except Exception as error:  # a thread's last stop: whatever it is, `check` raises it in the main thread
            self.latest = before  # first: whoever learns of the failure may ask for it at once
            self._failure = self._failed(step, error)
        if hosts.is_first():
            files.remove(self._root / files.DELETING)

    def _look_again(self, step: int) -> None:
        """What counts is what is there: a directory that was taken away meanwhile is not noticed by whoever writes into it last."""
        why = files.fault(self.path(step), thorough=False) if hosts.is_first() else ''
        if why:
            raise UserError(f'after it was written, {why}')

    def _join(self) -> None:
        if self._after is not None:
            self._after.join()
            self._after = None

    def _failed(self, step: int, error: Exception) -> UserError:
        older = [other for other in files.steps(self._root) if other != step]
        rest = f'checkpoint {older[-1]} is whole' if older else 'there is no earlier one'
        why = save_errors.reason(error)
        failed = UserError(f'checkpoint {step} could not be written to {self._root}: {why}; then go on with --resume ({rest})')
        failed.__cause__ = error
        return failed


@dataclasses.dataclass(frozen=True)
class Retention:
    """Which steps stay, as an Orbax preservation policy: the last, the best, and every k-th."""

    keep: Keep
    better: Better

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """A flag for each of `checkpoints`, which have `step` and `metrics` and come oldest first."""
        ranked = [item for item in checkpoints if item.metrics is not None and self.better.metric in item.metrics]
        ranked.sort(key=lambda item: item.metrics[self.better.metric], reverse=self.better.mode == 'max')
        stay = {item.step for item in [*checkpoints[-self.keep.last :], *ranked[: self.keep.best]]}
        return [item.step in stay or bool(self.keep.every and item.step % self.keep.every == 0) for item in checkpoints]


def _manager(
    root: Path, *, better: Better, keep: Keep, seal: Callable[[], None], meet: Callable[..., None]
) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        preservation_policy=Retention(keep=keep, better=better),
        best_fn=lambda metrics: metrics[better.metric],
        best_mode=better.mode,
        enable_async_checkpointing=True,
        async_options=ocp.options.AsyncOptions(post_finalization_callback=seal, barrier_sync_fn=meet, timeout_secs=_COMMIT),
        todelete_subdir=files.DELETING,  # a rename: a process that is killed meanwhile leaves no half of a step behind
    )
    return ocp.CheckpointManager(root, options=options, item_names=('state', 'data'))


def _as_dict(state: TrainState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _saved_leaves(folder: Path) -> dict[str, Any]:
    """Dotted name to shape and dtype of each array of a step.

    Raises:
      UserError: the description is damaged.
    """
    try:
        tree = ocp.PyTreeCheckpointHandler().metadata(folder / 'state').tree
    except Exception as error:  # as in `restore`
        raise save_errors.damaged(folder.name, error) from error
    return {name: leaf for name, leaf in _leaves(tree).items() if hasattr(leaf, 'shape')}


def _check_leaves(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Names the first array that the checkpoint lacks, has too much, or has in another shape or type."""
    found = _saved_leaves(folder)
    here = _leaves(wanted)
    for name in sorted(here.keys() | found.keys()):
        there, needed = (_form(leaves.get(name)) for leaves in (found, here))
        if there != needed:
            raise UserError(
                f'checkpoint {folder.name} in {folder.parent} does not fit the model: {name} is {there} there and {needed} here; '
                'go on with the configuration that it was saved by'
            )


def _leaves(tree: Tree) -> dict[str, Any]:
    """Leaves by dotted name; a field of a named tuple is named as Orbax names it."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {'.'.join(str(_key(key)) for key in path): leaf for path, leaf in found}


def _key(key: Any) -> Any:
    return next((getattr(key, name) for name in ('key', 'name', 'idx') if hasattr(key, name)), key)


def _form(leaf: Any) -> str:
    return 'missing' if leaf is None else f'{np.dtype(leaf.dtype)}{list(leaf.shape)}'


def _unreadable(folder: Path) -> str:
    """Why the arrays of a step do not read, or ''; for steps without a list, on one process."""
    alone = ocp.options.MultiprocessingOptions(primary_host=hosts.index(), active_processes={hosts.index()})
    try:
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            tree = handler.metadata(folder / 'state').tree
            kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            reader.restore(folder / 'state', args=ocp.args.PyTreeRestore(restore_args=kinds))
    except Exception as error:  # as in `restore`
        return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return ''
