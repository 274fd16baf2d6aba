"""What a worker is told, and how the photographs are dealt out: small files in the folder of unfinished work that all machines see."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, write_json
from retfound_jax.ingest import assemble, work
from retfound_jax.ingest.columns import Person
from retfound_jax.ingest.items import About, Abouts
from retfound_jax.ingest.plan import Plan
from retfound_jax.ingest.splits import SplitConfig
from retfound_jax.ingest.tally import Classes
from retfound_jax.ingest.work import Chunk, WorkOptions

PARTS, FACTS, GROUPS, CENSUS, INDEX, SHARDS, DATASET = 'parts', 'facts', 'groups', 'census', 'index', 'shards', 'dataset'
UNFINISHED = 'unfinished'  # files that are being written
_PART_CHUNKS = 32  # a worker's unit: about a thousand photographs, half a minute to a few minutes
_ENOUGH_PARTS = 1024  # parts are smaller while there are fewer, for all workers to have some


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """All that a worker needs to know. `partial` is seen by every worker, at one path."""

    source: str
    partial: str
    files: int  # to be read
    pictures: WorkOptions
    min_age: float
    modality: str
    splits: SplitConfig
    given: bool  # splits are those of a column
    near_threshold: int
    shard_bytes: int
    classes: Classes
    versions: dict[str, str]  # of what shapes the bytes, where the job was started
    process: work.Process

    def folder(self, name: str) -> Path:
        """A folder of the unfinished work."""
        return Path(self.partial, name)

    def check_versions(self) -> None:
        """Raises UserError where this machine would make other bytes than the one that started the job."""
        here = assemble.versions()
        for name, wanted in self.versions.items():
            if here[name] != wanted:
                raise UserError(f'a worker has {name} {here[name]} where the ingest was started with {wanted}; install the same on both')


def make_job(plan: Plan, *, partial: Path, process: work.Process) -> Job:
    """The job of a plan."""
    config = plan.config
    return Job(
        source=str(Path(config.source).absolute()), partial=str(partial), files=len(plan.files), pictures=config.pictures,
        min_age=plan.least_age, modality=config.modality, splits=config.splits, given=bool(config.split_column),
        near_threshold=config.near_threshold, shard_bytes=config.shard_bytes, classes=plan.classes, versions=assemble.versions(),
        process=process,
    )


def deal(plan: Plan, job: Job) -> int:
    """Writes the parts, each some chunks with what the table says of their files, and returns their number."""
    folder = fresh(job.folder(PARTS))
    abouts = Abouts(plan)
    chunks = work.chunks(Path(job.source), plan.files, folder=job.folder('chunks'))
    size = max(1, min(_PART_CHUNKS, len(chunks) // _ENOUGH_PARTS))
    for number, begin in enumerate(range(0, len(chunks), size)):
        cut = chunks[begin:begin + size]
        told = [{'path': chunk.path, 'files': [(file, _plain(abouts.of(file))) for file in chunk.files]} for chunk in cut]
        _part(folder, number).write_text(json.dumps(told), encoding='utf-8')  # made afresh by every call: nothing to keep safe
    return -(-len(chunks) // size)


def read_part(job: Job, number: int) -> Iterator[tuple[Chunk, dict[str, About]]]:
    """The chunks of one part, each with what is known of its files."""
    for found in json.loads(_part(job.folder(PARTS), number).read_text(encoding='utf-8')):
        abouts = {file: _about(values) for file, values in found['files']}
        yield Chunk(root=job.source, files=tuple(abouts), path=found['path']), abouts


def fresh(folder: Path) -> Path:
    """The folder, with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def bucket(text: str, count: int) -> int:
    """Deals names to `count` buckets alike, the same on every machine (Python's own hash differs from process to process)."""
    return zlib.crc32(text.encode()) % count


def write_lines(path: Path, values: Iterable[Any]) -> None:
    """A JSON value a line, whole or not at all."""
    atomic_write(path, ''.join(json.dumps(value) + '\n' for value in values))


def read_lines(paths: Iterable[Path]) -> Iterator[Any]:
    """The values of `write_lines`."""
    for path in paths:
        with open(path, encoding='utf-8') as file:
            yield from map(json.loads, file)


def write_result(folder: Path, name: str, value: Any) -> None:
    """A small result for the machine that started the job."""
    write_json(folder / f'{name}.json', value)


def _part(folder: Path, number: int) -> Path:
    return folder / f'{number:07d}.json'


@functools.cache
def _person_fields() -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(Person))


def _plain(about: About) -> tuple[Any, ...]:
    person = [getattr(about.person, name) for name in _person_fields()]
    return about.name, person if about.person != Person() else None, about.labels, about.split


def _about(values: Sequence[Any]) -> About:
    name, person, labels, split = values
    known = Person(**dict(zip(_person_fields(), person, strict=True))) if person else Person()
    return About(name=name, person=known, labels=labels, split=split)
