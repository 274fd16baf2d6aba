"""The way of a folder of photographs to a dataset: read in parallel, resume where stopped, publish in one step."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.ingest import assemble, work
from retfound_jax.ingest.plan import Plan, partial_folder
from retfound_jax.ingest.process import process
from retfound_jax.ingest.records import SCHEMA_VERSION

_NO_ROW = 'no row in labels'


def run(plan: Plan, *, done: Callable[[int], None] = lambda count: None, process: work.Process = process) -> dict[str, Any]:
    """Makes the dataset and returns its manifest. done: told the number of files read, as they are.

    Everything is made in `OUT.partial`, which a later call goes on with, and renamed to `OUT` at the very end.

    Raises:
      UserError: the disk is full, nothing could be read, or an unfinished ingest of something else is in the way.
    """
    config, out = plan.config, Path(plan.config.out).absolute()
    partial = partial_folder(out)
    open_partial(partial, plan)
    todo = work.chunks(Path(config.source), plan.files, folder=partial / 'chunks')
    work.run(todo, options=config.pictures, workers=config.workers, done=done, process=process)
    pictures, unread = work.load(todo)
    rejects = all_rejects(plan, unread)
    _check_all_there(plan, pictures, rejects)
    folder = partial / 'dataset'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    content = assemble.write(folder, plan=plan, pictures=pictures, rejects=rejects)
    publish(folder, out)
    shutil.rmtree(partial)
    return content


def open_partial(partial: Path, plan: Plan) -> None:
    """Makes the folder of unfinished work, or goes on with the one that is there where it fits.

    Raises:
      UserError: it holds the work of another ingest.
    """
    read, digest = frozenset(plan.files), hashlib.sha256()
    for file in plan.listing.files:
        if file.path in read:
            digest.update(f'{file.size} {file.modified} {file.path}\n'.encode())
    wanted = {'files': digest.hexdigest(), 'chunk_files': work.CHUNK_FILES, 'schema_version': SCHEMA_VERSION,
              'versions': assemble.versions(), **dataclasses.asdict(plan.config.pictures)}
    marker = partial / 'options.json'
    found = read_json(marker) if marker.exists() else {}
    if found == wanted:
        return
    if any(path.is_file() for path in partial.rglob('*')):
        if not plan.config.overwrite:
            changed = ', '.join(sorted(key for key in wanted if found.get(key) != wanted[key]))
            raise UserError(f'{partial} holds an unfinished ingest that differs in {changed}; delete it, or pass --overwrite')
        shutil.rmtree(partial)
    (partial / 'chunks').mkdir(parents=True, exist_ok=True)
    write_json(marker, wanted)


def all_rejects(plan: Plan, unread: Mapping[str, str]) -> dict[str, str]:
    """Why each file without a picture has none. unread: of those that were opened.

    Raises:
      UserError: no file has one.
    """
    no_row = {file.path: _NO_ROW for file in plan.listing.files if plan.table and file.path not in plan.rows}
    rejects = {**plan.listing.refused, **no_row, **unread}
    if len(unread) == len(plan.files):
        first, reason = min(rejects.items())
        raise UserError(f'none of the {len(rejects)} files in {plan.config.source} gave a picture; the first, {first}: {reason}')
    return rejects


def _check_all_there(plan: Plan, pictures: Sequence[work.Picture], rejects: Mapping[str, str]) -> None:
    read = {picture.file for picture in pictures}
    found = {file.path for file in plan.listing.files} | plan.listing.refused.keys()
    if read | rejects.keys() != found or read & rejects.keys():
        raise AssertionError(f'{len(found)} files were found, {len(read)} read and {len(rejects)} rejected: some are lost, or twice')


def publish(folder: Path, out: Path) -> None:
    """Renames the finished dataset to its place; an older one leaves only when the new one is ready."""
    old = out.with_name(f'{out.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)
