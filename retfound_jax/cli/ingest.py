"""`retfound ingest`: a folder of photographs and a table to a dataset."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from absl import logging as absl_logging

from retfound_jax.core.errors import UsageError
from retfound_jax.core.progress import bar
from retfound_jax.ingest import pipeline
from retfound_jax.ingest.columns import ROLES
from retfound_jax.ingest.demographics import LONGEST
from retfound_jax.ingest.duplicates import NEAR_THRESHOLD
from retfound_jax.ingest.ethnicity import SCHEMES
from retfound_jax.ingest.labels import delimiter_word
from retfound_jax.ingest.plan import IngestConfig, Plan, make_plan, partial_folder
from retfound_jax.ingest.sexes import parse_codes
from retfound_jax.ingest.splits import SplitConfig
from retfound_jax.ingest.work import WorkOptions

SUMMARY = 'photographs and labels to a dataset: --source DIR --labels CSV --out DATASET'
_PLACEHOLDER_AGE = 1  # [years] what some tables write for an unknown age
_LOCAL = 'local'
_SHOWN = 5  # reasons of rejection, and classes of a label, that are printed


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('source', None, 'folder of photographs: PNG, JPEG, TIFF, DICOM', flag_values=values, required=True)
    flags.DEFINE_string('out', None, 'dataset directory to make', flag_values=values, required=True)
    flags.DEFINE_string('labels', '', 'CSV with a row for each photograph; left out: for pretraining only', flag_values=values)
    flags.DEFINE_string('key', '', 'column that names the photograph, with or without folder and suffix', flag_values=values)
    flags.DEFINE_string('patient', '', 'column of the patient', flag_values=values)
    flags.DEFINE_multi_string('label', [], 'label columns, separated by commas; left out: all without a role', flag_values=values)
    others = ', '.join(role for role in ROLES if role not in ('key', 'patient'))
    flags.DEFINE_multi_string('column', [], f'ROLE=NAME where a name is not recognised ({others}); ROLE= for none', flag_values=values)
    flags.DEFINE_string('split_column', '', 'column with train, val or test, instead of a split by hash of patients', flag_values=values)
    flags.DEFINE_float('val', SplitConfig.val, 'share of the patients for validation', flag_values=values)
    flags.DEFINE_float('test', SplitConfig.test, 'share of the patients for testing', flag_values=values)
    flags.DEFINE_string('salt', SplitConfig.salt, 'another word gives another draw of the splits', flag_values=values)
    flags.DEFINE_integer('size', WorkOptions.shorter_side, 'shorter side of the pictures kept [px]', flag_values=values, lower_bound=32)
    flags.DEFINE_integer('jpeg_quality', WorkOptions.jpeg_quality, 'of the pictures kept', flag_values=values, lower_bound=1)
    flags.DEFINE_string('modality', '', 'of photographs that do not say, such as CFP', flag_values=values)
    flags.DEFINE_float(
        'min_age', None, 'a lower age is a placeholder and counts as missing [years]; 0 believes all; left out: 0 and 1 are placeholders '
        'where the table has adults and nobody from 2 to 9', flag_values=values, lower_bound=0.0,
    )
    flags.DEFINE_string('sex_codes', '', 'what codes of sex mean, as 0=F,1=M; also missing, declined or another word', flag_values=values)
    flags.DEFINE_string(
        'ethnicity_scheme', '', f'the classification of ethnicity: {", ".join(SCHEMES)}, own or own:NAME', flag_values=values,
    )
    flags.DEFINE_integer(
        'near_threshold', NEAR_THRESHOLD, 'patients with pictures this near are joined for splitting [bits of 256]', flag_values=values,
        lower_bound=0, upper_bound=64,
    )
    flags.DEFINE_bool('allow_missing', False, 'pass over rows without a file instead of stopping', flag_values=values)
    flags.DEFINE_integer('workers', os.cpu_count() or 1, 'processes here; 0 works in this one', flag_values=values, lower_bound=0)
    flags.DEFINE_enum(
        'runner', _LOCAL, [_LOCAL, 'direct', 'dataflow', 'flink', 'spark'],
        f'{_LOCAL}: this machine; the others: an Apache Beam pipeline on one or many, with the same result', flag_values=values,
    )
    flags.DEFINE_multi_string('beam_option', [], 'NAME=VALUE or NAME: a flag of Beam or of its runner, repeatable', flag_values=values)
    flags.DEFINE_bool('overwrite', False, 'replace the dataset that --out holds', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Makes the dataset, saying before and after what it is."""
    _check_runner(values)
    plan = make_plan(_config(values))
    _print_plan(plan)
    if partial_folder(Path(values.out)).exists():
        print('going on with the work of an ingest that was stopped')
    if values.runner == _LOCAL:
        with bar(len(plan.files), desc='reading') as progress:
            content = pipeline.run(plan, done=progress.update)
    else:
        content = _run_beam(plan, values)
    _print_result(content, Path(values.out))


def _run_beam(plan: Plan, values: flags.FlagValues) -> dict[str, Any]:
    from retfound_jax.ingest.beam import run as beam_run

    if absl_logging.get_verbosity() <= absl_logging.ERROR:  # without --debug: what stops it is said in one sentence, at the end
        logging.getLogger('apache_beam').setLevel(logging.CRITICAL)
    options = [f'--{option.removeprefix("--")}' for option in values.beam_option]
    if values.runner == 'direct':
        options = [*beam_run.workers_options(values.workers), *options]
    return beam_run.run(plan, runner=values.runner, options=options, done=lambda step: print(step, flush=True))


def _check_runner(values: flags.FlagValues) -> None:
    """Raises UsageError where Beam is asked for and not installed, or not asked for and told something."""
    if values.runner != _LOCAL:
        from retfound_jax.ingest.beam.run import require

        require()
    elif values.beam_option:
        raise UsageError(f'--beam_option {values.beam_option[0]} is for Beam: pass --runner direct, dataflow, flink or spark with it')


def _config(values: flags.FlagValues) -> IngestConfig:
    columns = {}
    for assignment in values.column:
        role, equals, name = assignment.partition('=')
        if not equals:
            raise UsageError(f'--column {assignment} has no "=": write --column ROLE=NAME')
        columns[role.strip()] = name.strip()
    columns |= {role: name for role, name in (('key', values.key), ('patient', values.patient)) if name}
    return IngestConfig(
        source=values.source, out=values.out, labels=values.labels, columns=tuple(columns.items()),
        label=tuple(name.strip() for names in values.label for name in names.split(',') if name.strip()),
        split_column=values.split_column, allow_missing=values.allow_missing, min_age=values.min_age, modality=values.modality,
        pictures=WorkOptions(shorter_side=values.size, jpeg_quality=values.jpeg_quality),
        splits=SplitConfig(val=values.val, test=values.test, salt=values.salt),
        sex_codes=parse_codes(values.sex_codes), ethnicity_scheme=values.ethnicity_scheme,
        near_threshold=values.near_threshold, workers=values.workers, overwrite=values.overwrite,
    )


def _print_plan(plan: Plan) -> None:
    print(f'{plan.config.source}: {len(plan.listing.files)} files, {len(plan.files)} to read, {plan.listing.ignored} that are no pictures')
    if plan.table is None:
        print('no labels: each file is its own patient, unless its DICOM header names one')
        return
    table, columns = plan.table, plan.columns
    form = f'{table.encoding}, separated by {delimiter_word(table.delimiter)}'
    print(f'{table.name}: {len(table.rows)} rows, {len(table.columns)} columns, {form}')
    print('  roles: ' + ', '.join(f'{role} = {name}' for role, name in columns.roles.items()))
    print('  labels: ' + (', '.join(label.name for label in columns.labels) or 'none'))
    for name, reason in columns.passed_over.items():
        print(f'  "{name}" is not taken as a label: {reason}')
    if 'patient' not in columns.roles:
        print('  no column names the patient: each photograph is its own patient, unless its header names one; see --patient')
    if plan.people.odd['laterality']:
        print(f'  {plan.people.odd["laterality"]} cells of laterality are not understood and count as missing')
    _print_people(plan)
    if len(table.rows) > len(plan.rows):
        print(f'  {len(table.rows) - len(plan.rows)} rows have no file and are passed over')


def _print_people(plan: Plan) -> None:
    """What the cells of the demographic columns were made to be; the manifest has all of it but free text."""
    account = plan.people.account
    for name in account.fields:
        changes = [change for change in account.changes if change.field == name]
        for change in changes[:_SHOWN]:
            reason = f' ({change.reason})' if change.reason else ''
            said, to = change.said[:LONGEST], change.to[:LONGEST]
            print(f'  {name}: "{said}" becomes {to} in {change.cells} rows of {change.patients} patients{reason}')
        rest = changes[_SHOWN:]
        if rest:
            print(f'  {name}: {len(rest)} other changes in {sum(change.cells for change in rest)} rows')
        if account.fields[name]['kept'] and name != 'ethnicity':
            print(f'  {name}: {account.fields[name]["kept"]} rows hold words of no list, which are kept')
    if 'ethnicity' in account.fields and not account.options.ethnicity_scheme:
        print(f'  ethnicity: no classification is named, so the words are kept; pass --ethnicity_scheme {", ".join(SCHEMES)} or own')
    young = {person.patient for person in plan.people.of_rows if plan.least_age <= person.age <= _PLACEHOLDER_AGE}
    if young:
        print(f'  {len(young)} patients are {_PLACEHOLDER_AGE} year old or less; if that stands for unknown, pass --min_age 2')


def _print_result(content: Mapping[str, Any], out: Path) -> None:
    print(f'\n{"split":8}{"images":>8}{"patients":>10}  class balance')
    for split, found in content['splits'].items():
        balance = '; '.join(f'{name}: {_counts(counts)}' for name, counts in list(found['labels'].items())[:_SHOWN])
        more = len(found['labels']) - _SHOWN
        print(f'{split:8}{found["images"]:8}{found["patients"]:10}  {balance}{f"; and {more} more labels" if more > 0 else ""}'.rstrip())
    twins = content['duplicates']
    print(f'duplicates: {twins["exact_groups"]} pictures are there more than once, {twins["near_groups"]} nearly so with other patients; '
          f'{twins["joined_patients"]} patients were joined for splitting (duplicates.csv)')
    rejects = content['rejects']
    print(f'files: {content["files"]["found"]} found, {content["files"]["read"]} read, {rejects["count"]} rejected (rejects.csv)')
    for reason, count in list(rejects['reasons'].items())[:_SHOWN]:
        print(f'  {count}: {reason}')
    print(f'dataset: {out}')


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f'{name} {count}' for name, count in counts.items() if count or name != 'missing']
    return ', '.join(shown[:_SHOWN]) + (f', and {len(shown) - _SHOWN} more' if len(shown) > _SHOWN else '')
