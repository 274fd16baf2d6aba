"""`retfound table`: a table of a paper, made from finished runs: our number, the published one, and a verdict."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from retfound_jax.core.errors import UsageError

SUMMARY = "the papers' tables: our number, the published one with its source, and a verdict; --run makes what is missing"
ARGUMENT = 'name'
_FORMATS = ('md', 'tex', 'csv', 'all')


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('name', '', 'the table, or module:function; left out: lists the tables', flag_values=values)
    flags.DEFINE_string('workdir', '', 'study directory, where finished runs are kept', flag_values=values)
    flags.DEFINE_string('out', '', 'directory for tables/ and figures/; left out: the study directory', flag_values=values)
    flags.DEFINE_enum('format', 'all', list(_FORMATS), 'which files to write', flag_values=values)
    flags.DEFINE_bool('run', False, 'make the runs that are missing first', flag_values=values)
    flags.DEFINE_string('data', '', 'with --run: data folder; each dataset lies in a folder of its name in it', flag_values=values)
    flags.DEFINE_multi_string('weights', [], 'METHOD=run directory, file or hf:owner/name, as often as needed', flag_values=values)
    flags.DEFINE_integer('processes', 1, 'with --run: runs made at once', flag_values=values, lower_bound=1)
    flags.DEFINE_multi_string('set', [], 'path=value of the study, as often as needed', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Lists the tables, or makes one and prints it as Markdown."""
    from retfound_jax.cli import _tables

    if not values.name:
        print('\n'.join(_listing(_tables.entries())))
        return
    if not values.workdir:
        raise UsageError('--workdir is missing; name the study directory, where finished runs are kept')
    study = _tables.load(values.name, values.set)
    if values.weights:
        study = _with_weights(study, values.weights)
    if values.run:
        _run(study, values)
    _table(study, values)


def _listing(entries: dict[str, Any]) -> list[str]:
    width = max(map(len, entries), default=0)
    lines = [f'  {entry.name:<{width}}  {entry.summary}' for entry in entries.values()]
    how = '`retfound table NAME --workdir STUDY --data ROOT --run` makes one.'
    return [*(lines or ['no table is declared in experiments/tables']), '', how]


def _with_weights(study: Any, given: Sequence[str]) -> Any:
    from retfound_jax.studies.grid import with_weights

    pairs = dict(one.partition('=')[::2] for one in given)
    wrong = next((one for one in given if not all(one.partition('=')[::2])), '')
    if wrong:
        raise UsageError(f'--weights {wrong} is not of the form METHOD=ADDRESS, such as mae=runs/mae')
    return with_weights(study, pairs)


def _run(study: Any, values: flags.FlagValues) -> None:
    """Makes what is missing; a notice that this machine is wanted back ends it so that the same command goes on."""
    if not values.data and not all(one.phantom for one in study.data):
        raise UsageError('--data is missing; name the folder in which each dataset lies under its name')
    from retfound_jax.cli.train import read_weights
    from retfound_jax.core import compile_cache
    from retfound_jax.core.notice import Notice
    from retfound_jax.studies import run

    compile_cache.enable()
    where = {'workdir': Path(values.workdir), 'data': Path(values.data)}
    with Notice() as notice:
        run.run(study, **where, processes=values.processes, read_weights=read_weights, notice=lambda: notice.given)


def _table(study: Any, values: flags.FlagValues) -> None:
    from retfound_jax.report import study_figures
    from retfound_jax.report.study import read_table
    from retfound_jax.studies import making, render, tables

    command = _command(study, values)
    table = making.make(study, folder=Path(values.workdir), command=command)
    out = Path(values.out or values.workdir)
    formats = render.FORMATS if values.format == 'all' else (values.format,)
    paths = making.write(table, out=out, formats=formats)
    paths += study_figures.write(read_table(tables.to_json(table), path=paths[-1]), out=out / 'figures')
    print(render.markdown(table))
    if study.groups:
        paths += _groups(study, Path(values.workdir), out=out, formats=formats)
    print('\n'.join(f'wrote {path}' for path in paths))
    if table.missing:
        print(f'{table.missing} of {table.missing + table.cells} runs are missing; `{command}` makes them')


def _groups(study: Any, folder: Path, *, out: Path, formats: Sequence[str]) -> list[Path]:
    """The tables and figures by group; prints what they say."""
    from retfound_jax.report import group_curves
    from retfound_jax.studies import group_tables, making, means_tables

    if study.groups.plain:
        means = making.means(study, folder=folder)
        print('\n'.join(means_tables.sentences(means, study)))
        return means_tables.write(means, study, out=out / 'tables', formats=formats)
    found = making.by_group(study, folder=folder)
    told = [slope for slope in found.slopes if slope.on == 'composition' or slope.found.verdict != 'not shown']
    print('\n'.join(group_tables.sentence(slope, found) for slope in told) or 'too few points yet to say how the groups move')
    paths = group_tables.write(found, study, out=out / 'tables', formats=formats)
    drawn = [path for json in paths if json.suffix == '.json' for path in group_curves.write(json, out=out / 'figures')]
    return [*paths, *drawn]


def _command(study: Any, values: flags.FlagValues) -> str:
    """What makes the missing runs, as it would be typed."""
    words = ['retfound', 'table', values.name, '--workdir', values.workdir, '--data', values.data or 'ROOT', '--run']
    wanted = [f'{method.name}=RUN_OR_FILE' for method in study.methods if method.weights == '?']
    repeated = (('--set', values.set), ('--weights', [*values.weights, *wanted]))
    return shlex.join([*words, *(word for flag, given in repeated for one in given for word in (flag, one))])
