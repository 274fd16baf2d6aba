"""What to ingest and what will be done: every check that needs no picture passes here, before any work starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest import columns as columns_lib
from retfound_jax.ingest import duplicates, manifest, source, splits
from retfound_jax.ingest.columns import Columns, People
from retfound_jax.ingest.demographics import Options
from retfound_jax.ingest.ethnicity import check_scheme
from retfound_jax.ingest.labels import Table, read_table, refuse
from retfound_jax.ingest.splits import SplitConfig
from retfound_jax.ingest.work import WorkOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """What to read, how to shape it, where to put it."""

    source: str  # folder of photographs
    out: str  # dataset directory to make
    labels: str = ''  # CSV; without it the photographs are for pretraining only
    columns: tuple[tuple[str, str], ...] = ()  # (role, column) over what is recognised by name
    label: tuple[str, ...] = ()  # label columns; none given: all columns without a role
    classes: tuple[tuple[str, tuple[str, ...]], ...] = ()  # (label, its classes in the order of their numbers; none for a number)
    split_column: str = ''  # take the splits from this column (train, val, test) instead of hashing
    allow_missing: bool = False  # rows without a file are counted and passed over
    modality: str = ''  # of files and rows that do not say, such as CFP
    min_age: float | None = None  # [years] below it an age is a placeholder and counts as missing; None: see `ingest.demographics`
    sex_codes: tuple[tuple[str, str], ...] = ()  # (cell, F, M, another word, missing or declined)
    ethnicity_scheme: str = ''  # the classification of `ethnicity`: a key of `ingest.ethnicity.SCHEMES`, own, own:NAME
    pictures: WorkOptions = WorkOptions()
    splits: SplitConfig = SplitConfig()
    near_threshold: int = duplicates.NEAR_THRESHOLD  # [bits of 256]
    shard_bytes: int = 128 << 20  # aimed at
    workers: int = 0  # processes; 0: this one
    overwrite: bool = False  # replace an older dataset, and drop an unfinished one that does not fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What will be done: every check that needs no picture has passed."""

    config: IngestConfig
    listing: source.Listing
    table: Table | None
    columns: Columns
    rows: Mapping[str, int]  # file to row of the table
    people: People
    files: tuple[str, ...]  # to be read

    @property
    def least_age(self) -> float:
        """[years] below it an age is missing, whoever says it."""
        return self.config.min_age or 0.0

    @property
    def classes(self) -> dict[str, tuple[str, ...] | None]:
        """The labels and their classes, None for a number."""
        return {label.name: label.classes for label in self.columns.labels}


def make_plan(config: IngestConfig, *, files: Mapping[str, str] | None = None) -> Plan:
    """Lists the files, reads the labels and matches them.

    files: of each key of the labels, as a path below the source, where somebody knows; nothing else is then looked at or told of.

    Raises:
      UserError: the source or the labels cannot be used. UsageError: an option is wrong, or the output is in the way.
    """
    out = Path(config.out)
    check_out(out, config)
    leave_out = (out, partial_folder(out))
    listing = source.scan(Path(config.source), leave_out=leave_out, only=None if files is None else frozenset(files.values()))
    found = len(listing.files) + len(listing.refused)
    if not found:
        raise UserError(f'no photograph was found in {config.source} ({listing.ignored} other files); give the folder that holds them')
    if not config.labels:
        if config.columns or config.label or config.split_column:
            raise UsageError('columns are given and no table: pass --labels FILE.csv')
        nothing = Columns(roles={}, labels=(), passed_over={})
        return Plan(config=config, listing=listing, table=None, columns=nothing, rows={}, people=People(),
                    files=tuple(file.path for file in listing.files))
    table = read_table(config.labels)
    reserved = (config.split_column,) if config.split_column else ()
    columns = columns_lib.assign(table, given=dict(config.columns), labels=config.label, reserved=reserved, classes=dict(config.classes))
    keys = table.column(columns.roles['key'])
    keys = keys if files is None else [files[key] for key in keys]
    rows = source.match(keys, table.lines, listing.files, name=table.name, allow_missing=config.allow_missing)
    people = columns_lib.people(table, columns, rows=rows.values(), options=_options(config))
    _check_split_column(table, config.split_column)
    return Plan(config=config, listing=listing, table=table, columns=columns, rows=rows, people=people,
                files=tuple(file.path for file in listing.files if file.path in rows))


def check_out(out: Path, config: IngestConfig) -> None:
    """Raises UsageError where a dataset made of `config` would be in the way of something."""
    if out.resolve() == Path(config.source).resolve():
        raise UsageError(f'--out {out} is the source itself; give another folder')
    if out.is_dir() and not any(out.iterdir()) or not out.exists():
        return
    if not (out / manifest.FILE).is_file():
        raise UsageError(f'--out {out} exists and is not a dataset; give another folder')
    if not config.overwrite:
        raise UsageError(f'--out {out} holds a dataset already; pass --overwrite to replace it, or give another folder')


def _options(config: IngestConfig) -> Options:
    return Options(sex_codes=config.sex_codes, ethnicity_scheme=check_scheme(config.ethnicity_scheme), placeholders=config.min_age is None)


def _check_split_column(table: Table, name: str) -> None:
    if not name:
        return
    cells = zip(table.column(name), table.lines, strict=True)
    problems = [f'line {line} has "{cell}"' for cell, line in cells if not splits.split_word(cell)]
    refuse(problems, what=f'the column "{name}" of {table.name} must hold train, val or test')


def partial_folder(out: Path) -> Path:
    """Where an unfinished ingest keeps what it has."""
    out = out.absolute()  # '.' has no name of its own
    return out.with_name(f'{out.name}.partial')
