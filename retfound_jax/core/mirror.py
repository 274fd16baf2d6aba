"""A run directory whose home is an object store: it is worked on in a local folder, and what is complete is copied home.

At home lie the files of the run under the names that they have locally, and `complete/STEP.json` for each checkpoint: the list of its
files with their sizes and SHA-256, written last of all. A checkpoint counts if that object is there; what a killed copy left behind is
never read, and is deleted after the next whole one. A deleted step loses that object first. The log as it was is copied before the
object is written, so a run that goes on from a step finds every line up to it.

Home is the truth: when a run starts, the local folder is made to agree with it, and what was not copied in time is done again. One
process at a time works on a run: who starts claims it, and a forgotten one that still runs elsewhere finds out at its next checkpoint
and stops. Several processes together cannot: each writes only its own part of a checkpoint to its own disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import re
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import sha256_file
from retfound_jax.core.storage import Store, cache_home, inside, is_remote

CHECKPOINTS, COMPLETE = 'checkpoints', 'complete'
SCRATCH = 'RETFOUND_JAX_SCRATCH'  # the folder below which runs are worked on; XDG_CACHE_HOME/retfound_jax/runs unless set
_OWNER = f'{COMPLETE}/owner'  # which start of the run is the last
_LINKED = '.to_copy'  # steps that wait to be copied, as links, since the run may drop them meanwhile
_PARALLEL = 8  # objects at a time: most files of a checkpoint are small, and a request takes its time
_STEP = re.compile(r'^\d+$')


class Mirror:
    """Keeps a run's local folder and its home alike; copies checkpoints in a thread of its own."""

    def __init__(
        self,
        local: Path | str,
        store: Store,
        *,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
    ) -> None:
        self.local, self._store, self._say = Path(local), store, say
        self._known: dict[str, tuple[int, int]] = {}  # size and time of each file of the log as it is at home
        self._waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failure: UserError | None = None
        self._newest: int | None = None  # of the steps that this process has copied home
        self._logs = threading.Lock()
        self._claim = b''

    def __enter__(self) -> Mirror:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Closes; where another error is on its way, one of the copying is said and not raised."""
        try:
            self.close()
        except UserError as failed:
            if error is None:
                raise
            if failed is not error:
                self._say(str(failed))

    def fetch(self) -> int | None:
        """Makes the local folder agree with home: logs, then every whole checkpoint. Returns the newest of these, or None.

        Raises:
          UserError: home cannot be read, or none of its checkpoints is whole.
        """
        self.fetch_logs()
        return self.fetch_steps()

    def fetch_logs(self) -> None:
        """The files of the run but for its checkpoints. What home does not have is removed here, unfinished checkpoints too."""
        there = {inside(name): size for name, size in self._store.list().items() if not _of_steps(name)}
        self._tidy(there.keys(), self._complete())
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda item: download(self._store, item[0], self.local / item[0], size=item[1]), there.items()))
        self._known = {name: _form(self.local / name) for name in there}

    def fetch_steps(self) -> int | None:
        """The checkpoints that are complete at home; a damaged one is named and left out. Returns the newest, or None.

        Raises:
          UserError: there are some and none of them is whole.
        """
        there, whole = self._complete(), []
        for step in reversed(there):
            try:
                self._fetch_step(step)
                whole.append(step)
            except UserError as error:
                shutil.rmtree(self.local / CHECKPOINTS / str(step), ignore_errors=True)
                self._say(f'checkpoint {step} of {self._store.root} was not used: {error}')
        if there and not whole:
            raise UserError(f'{self._store.root} has no whole checkpoint left of {len(there)}: put a copy of one there, or start anew')
        return max(whole, default=None)

    def claim(self) -> None:
        """Makes this start the one that may change the run; called before the first step of training, and never by a mere reader."""
        self._claim = uuid.uuid4().hex.encode()
        self._store.write(_OWNER, self._claim)

    def begin(self, *, overwrite: bool = False) -> None:
        """Fetches the checkpoints, or deletes all that is home, and claims the run: after `fetch_logs`, before the first step.

        Raises:
          UserError: home cannot be read or written, or none of its checkpoints is whole.
        """
        if overwrite:
            self.clear()
        else:
            self.fetch_steps()
        self.claim()

    def clear(self) -> None:
        """Deletes everything at home, what makes checkpoints count first."""
        for step in self._complete():
            self._store.delete(_marker(step))
        self._delete(list(self._store.list()))
        self._known = {}

    def push_step(self, step: int) -> None:
        """Has a committed checkpoint copied home in the background, and the log before it is called complete.

        To be called when the step is committed and before the next one is begun: it is linked here and now, so that the run may drop it.

        Raises:
          UserError: an earlier copy failed.
        """
        self.check()
        _link_tree(self.local / CHECKPOINTS / str(step), self.local / _LINKED / str(step))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name='mirror', daemon=True)
            self._thread.start()
        self._waiting.put(step)

    def push_logs(self) -> None:
        """Copies home the files of the run that have changed since the last time, checkpoints left out.

        Raises:
          UserError: it could not be done.
        """
        with self._logs:
            changed = {name: form for name in self._log_files() if self._known.get(name) != (form := _form(self.local / name))}
            with ThreadPoolExecutor(_PARALLEL) as pool:
                list(pool.map(lambda name: self._store.upload(name, self.local / name), changed))
            self._known |= changed

    def check(self) -> None:
        """Raises what went wrong in the background; costs nothing, so that every step can ask."""
        if self._failure is not None:
            raise self._failure

    def wait(self) -> None:
        """Returns once every checkpoint given so far is home.

        Raises:
          UserError: one could not be copied.
        """
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None
        self.check()

    def close(self) -> None:
        """Waits for the checkpoints, deletes at home what the run dropped after its last copy, and copies the log a last time.

        Raises:
          UserError: something could not be done.
        """
        self.wait()
        if self._newest is not None:
            self._drop(keep=self._newest)
        self.push_logs()

    def _work(self) -> None:
        while (step := self._waiting.get()) is not None:
            if self._failure is None:
                try:
                    self._push(step)
                except Exception as error:  # a thread's last stop: whatever it is, `check` raises it in the thread that trains
                    self._failure = UserError(f'checkpoint {step} could not be copied to {self._store.root}: {error}')

    def _push(self, step: int) -> None:
        source = self.local / _LINKED / str(step)
        if self._waiting.empty() or (self.local / CHECKPOINTS / str(step)).is_dir():  # else it is dropped already, and a newer one waits
            names = _files(source)
            self._store.delete(_marker(step))  # of an earlier copy of this step: it counts again when all of it is there again
            with ThreadPoolExecutor(_PARALLEL) as pool:
                listed = dict(pool.map(lambda name: (name, self._push_file(source / name, f'{CHECKPOINTS}/{step}/{name}')), names))
            self._compare(step, listed)
            self._check_claim()
            self.push_logs()
            self._store.write(_marker(step), json.dumps({'files': listed}, sort_keys=True).encode())
            self._drop(keep=step)
            self._newest = step
        shutil.rmtree(source)

    def _push_file(self, file: Path, name: str) -> dict[str, Any]:
        self._store.upload(name, file)
        return {'bytes': file.stat().st_size, 'sha256': sha256_file(file)}

    def _check_claim(self) -> None:
        if self._claim and self._store.read(_OWNER) != self._claim:
            raise UserError(f'the run {self._store.root} was started once more since, elsewhere, and goes on there; this one stops')

    def _compare(self, step: int, listed: dict[str, Any]) -> None:
        """What is home has the right sizes, and nothing of an earlier copy is among it."""
        prefix = f'{CHECKPOINTS}/{step}'
        there = {name.removeprefix(f'{prefix}/'): size for name, size in self._store.list(prefix).items()}
        self._delete([f'{prefix}/{name}' for name in there.keys() - listed.keys()])
        wrong = [name for name, item in listed.items() if there.get(name) != item['bytes']]
        if wrong:
            raise UserError(f'{prefix}/{wrong[0]} has {there.get(wrong[0], "no")} bytes there and should have {listed[wrong[0]]["bytes"]}')

    def _drop(self, *, keep: int) -> None:
        """Deletes at home the earlier steps that the run has dropped, and what a killed copy left behind."""
        stay = set(self._local_steps())
        for step in self._complete():
            if step < keep and step not in stay:
                self._store.delete(_marker(step))
        whole = {str(step) for step in self._complete()}
        names = list(self._store.list(CHECKPOINTS))
        self._delete([name for name in names if _of_steps(name) and name.split('/')[1] not in whole])

    def _delete(self, names: list[str]) -> None:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(self._store.delete, names))

    def _complete(self) -> list[int]:
        names = [PurePosixPath(name) for name in self._store.list(COMPLETE)]
        return sorted(int(name.stem) for name in names if _STEP.match(name.stem) and name.suffix == '.json')

    def _local_steps(self) -> list[int]:
        folder = self.local / CHECKPOINTS
        found = os.listdir(folder) if folder.is_dir() else []
        return sorted(int(name) for name in found if _STEP.match(name) and (folder / name).is_dir())

    def _tidy(self, logs: Iterable[str], steps: Iterable[int]) -> None:
        """Removes here what home does not have."""
        for path in sorted(self.local.rglob('*'), reverse=True):  # what is in a folder before the folder
            name = path.relative_to(self.local).as_posix()
            kept = name in logs or any(name.startswith(f'{CHECKPOINTS}/{step}/') for step in steps)
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # it still holds something
                    path.rmdir()
            elif not kept:
                path.unlink()

    def _log_files(self) -> list[str]:
        """Names of the files that belong to the log: all but the steps, and what `atomic_write` has not renamed yet."""
        found = []
        for folder, inner, names in os.walk(self.local):
            at = PurePosixPath(Path(folder).relative_to(self.local).as_posix())
            inner[:] = [name for name in inner if not _of_steps(str(at / name / 'file'))]  # the run drops steps meanwhile
            found += [str(at / name) for name in names if not name.startswith('.')]
        return sorted(found)

    def _fetch_step(self, step: int) -> None:
        folder = self.local / CHECKPOINTS / str(step)
        listed = self._listed(step)
        for name in _files(folder) if folder.is_dir() else []:
            if name not in listed:
                (folder / name).unlink()
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(lambda name: self._fetch_file(f'{CHECKPOINTS}/{step}/{name}', *listed[name]), listed))

    def _fetch_file(self, name: str, size: int, sha256: str) -> None:
        target = self.local / name
        if not (target.is_file() and target.stat().st_size == size and sha256_file(target) == sha256):
            download(self._store, name, target, size=size, sha256=sha256)

    def _listed(self, step: int) -> dict[str, tuple[int, str]]:
        try:
            files = json.loads(self._store.read(_marker(step)))['files']
            return {inside(name): (int(item['bytes']), str(item['sha256'])) for name, item in files.items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f'{self._store.address(_marker(step))} does not read as a list of files') from error


def download(store: Store, name: str, target: Path, *, size: int, sha256: str = '') -> None:
    """Fetches an object into a file, which is there whole or not at all; damaged on the way, it is fetched once more.

    Args:
      sha256: of its content, in hex; '' where it is not known.

    Raises:
      UserError: it cannot be had, is not what was written, or the disk is full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f'.{target.name}.{os.getpid()}.{threading.get_ident()}.part')
    try:
        for _ in range(2):
            digest = hashlib.sha256()
            with open(part, 'wb') as file:
                for piece in store.pieces(name, size=size):
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            if not sha256 or digest.hexdigest() == sha256:
                os.replace(part, target)
                return
    except OSError as error:
        raise UserError(f'{target} could not be written ({error.strerror}); free some space, or see to the disk') from error
    finally:
        part.unlink(missing_ok=True)
    raise UserError(f'{store.address(name)} is damaged: it is not what its list says, twice; copy it there again')


@contextlib.contextmanager
def opened(workdir: Path | str, *, store: Store | None = None, purpose: str = 'read') -> Iterator[Path]:
    """A run directory as a local folder: itself, or a copy of what an object store has. What was written there is copied home at the end.

    Args:
      purpose: of the copy: readers do not share a folder with the process that trains.

    Raises:
      UserError: the store cannot be read, or another process works on the same copy.
    """
    if not is_remote(workdir):
        yield Path(workdir)
        return
    store = store or Store(str(workdir))
    with scratch(store.root, purpose=purpose) as local, _named(local, store.root), Mirror(local, store) as mirror:
        mirror.fetch()
        if not any(local.iterdir()):
            raise UsageError(f'{store.root} holds no run; give the --workdir of a training run')
        yield local


@contextlib.contextmanager
def training(workdir: Path | str, *, processes: int = 1, store: Store | None = None) -> Iterator[tuple[Path, Mirror | None]]:
    """The folder that a run is trained in, and what keeps it at home: the directory itself and None, or a local one and its mirror.

    The files of the run but for its checkpoints are there; `Mirror.begin` brings those, once it is known that the run may go on.

    Raises:
      UsageError: the run has several processes, and its home is an object store.
      UserError: the store cannot be read, or another process works on the run.
    """
    check_alone(workdir, processes=processes)
    if not is_remote(workdir):
        yield Path(workdir), None
        return
    store = store or Store(str(workdir))
    with scratch(store.root) as local, _named(local, store.root), Mirror(local, store) as mirror:
        mirror.fetch_logs()
        yield local, mirror


@contextlib.contextmanager
def _named(local: Path, address: str) -> Iterator[None]:
    """Errors speak of the address that the user gave, not of a folder that he never heard of."""
    try:
        yield
    except UserError as error:
        error.args = tuple(arg.replace(str(local), address) if isinstance(arg, str) else arg for arg in error.args)
        raise


@contextlib.contextmanager
def scratch(address: str, *, purpose: str = 'train') -> Iterator[Path]:
    """The local folder of a run whose home is at `address`, for one process at a time. It may be deleted when nobody works on it.

    Raises:
      UserError: another process of this machine works on it.
    """
    import filelock

    root = Path(os.environ.get(SCRATCH) or cache_home() / 'runs').absolute()
    folder = root / f'{PurePosixPath(address).name}-{hashlib.sha256(address.encode()).hexdigest()[:16]}-{purpose}'
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = filelock.FileLock(f'{folder}.lock', timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f'another process of this machine works on {address}: wait for it, or end it') from error
    try:
        yield folder
    finally:
        lock.release()


def check_alone(workdir: Path | str, *, processes: int) -> None:
    """Refuses an object store as the work directory of several processes, before anything is computed.

    Raises:
      UsageError: there are several.
    """
    if is_remote(workdir) and processes > 1:
        raise UsageError(
            f'--workdir {workdir} is an object store, and {processes} processes cannot put one checkpoint together there; '
            'give a directory on a file system that all of them share (NFS, Lustre, Filestore, a mounted bucket)'
        )


def _marker(step: int) -> str:
    return f'{COMPLETE}/{step}.json'


def _of_steps(name: str) -> bool:
    """Whether a file is part of a checkpoint, says that one is complete, or lies in a folder beside the checkpoints."""
    parts = name.split('/')
    return parts[0] in (COMPLETE, _LINKED) or (parts[0] == CHECKPOINTS and len(parts) > 2)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file() and not path.is_symlink())


def _form(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _link_tree(source: Path, target: Path) -> None:
    """The same files under another name; a file of a committed step is never written to again."""
    shutil.rmtree(target, ignore_errors=True)
    for name in _files(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(source / name, target / name)
