"""`retfound evaluate`: predictions, metrics with intervals, subgroups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from retfound_jax.core.errors import UsageError

SUMMARY = 'predictions and metrics with intervals by patient and subgroup'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('workdir', None, 'run directory of a fine-tuned model', flag_values=values, required=True)
    flags.DEFINE_string('dataset', '', "dataset directory to evaluate on; left out: the run's own", flag_values=values)
    flags.DEFINE_string('split', 'test', 'split to evaluate', flag_values=values)
    flags.DEFINE_list('by', [], 'subgroups: columns, age_band, or intersections such as sex+age_band', flag_values=values)
    flags.DEFINE_enum('checkpoint', 'best', ['best', 'latest'], 'which checkpoint', flag_values=values)
    flags.DEFINE_string('threshold', 'youden', 'rule of the threshold chosen on validation: youden, or sensitivity=0.9', flag_values=values)
    flags.DEFINE_enum(
        'style',
        'ours',
        ['ours', 'retfound_v1', 'retfound_v2'],
        "retfound_v1 and retfound_v2 also write the original's metrics file and print its lines",
        flag_values=values,
    )
    flags.DEFINE_list(
        'ensemble', [], 'other run directories, evaluated on this split: their mean with this run is judged too', flag_values=values
    )
    flags.DEFINE_bool('ood', False, 'also hold the photographs against those of training (a pass over some of these)', flag_values=values)
    flags.DEFINE_integer('min_n', 20, 'patients of a subgroup below which its numbers are withheld', flag_values=values, lower_bound=1)
    flags.DEFINE_integer(
        'min_positive',
        10,
        'patients with a finding, and as many without, that a group needs to be compared or to get a threshold of its own',
        flag_values=values,
        lower_bound=1,
    )
    flags.DEFINE_integer('replicates', 1000, 'bootstrap resamples of the patients', flag_values=values, lower_bound=1)
    flags.DEFINE_integer(
        'permutations', 1000, 'of the groups among the patients, for what gap chance alone gives', flag_values=values, lower_bound=1
    )
    flags.DEFINE_integer('seed', 0, 'of the resampling and the permutations', flag_values=values, lower_bound=0)


def run(values: flags.FlagValues) -> None:
    """Predicts validation and the split, writes predictions/ and tables/, and prints the main numbers."""
    from retfound_jax.core.mirror import opened
    from retfound_jax.core.storage import is_remote

    if values.dataset and not is_remote(values.dataset) and not Path(values.dataset).is_dir():
        raise UsageError(f'--dataset {values.dataset} is no directory: give one that `retfound ingest` wrote')
    with opened(values.workdir) as workdir:
        _evaluate(values, workdir)


def _evaluate(values: flags.FlagValues, workdir: Path) -> None:
    from retfound_jax.evals.evaluation import evaluate_ensemble, evaluate_run
    from retfound_jax.evals.retfound_style import check_style
    from retfound_jax.evals.tables import EvalConfig
    from retfound_jax.evals.text import format_table
    from retfound_jax.evals.thresholds import parse_rule
    from retfound_jax.train.checkpoint import load_run

    config = EvalConfig(
        by=tuple(name for name in values.by if name.strip()),
        replicates=values.replicates,
        seed=values.seed,
        min_n=values.min_n,
        min_positive=values.min_positive,
        permutations=values.permutations,
        rule=parse_rule(values.threshold),
    )
    trained = load_run(workdir, which=values.checkpoint)
    if values.style != 'ours':
        check_style(trained.task.kind, style=values.style)
    done = evaluate_run(trained, workdir=workdir, split=values.split, dataset=values.dataset, config=config, ood=values.ood)
    print(format_table(done.table, level='patient'))
    print(f'predictions: {_at(done.predictions_path, workdir, values)}\ntables: {_at(done.table_path, workdir, values)}')
    if done.uncertainty_path:
        print(f'uncertainty: {_at(done.uncertainty_path, workdir, values)}')
    if values.ensemble:
        mean = evaluate_ensemble(workdir, members=values.ensemble, name=done.predictions_path.stem, config=config)
        print(f'{format_table(mean.table, level="patient")}\npredictions of the ensemble: {_at(mean.predictions_path, workdir, values)}')
    if values.style != 'ours':
        _write_style(done.predictions_path, trained=trained, workdir=workdir, values=values)


def _at(path: Path, workdir: Path, values: flags.FlagValues) -> str:
    """Where a file of the run is for the user, who may have given an address."""
    return f'{values.workdir.rstrip("/")}/{path.relative_to(workdir).as_posix()}'


def _write_style(path: Path, *, trained: Any, workdir: Path, values: flags.FlagValues) -> None:
    """The original's metrics file from the predictions just written, named by the same split or NAME-SPLIT."""
    from retfound_jax.evals.predictions import read_predictions
    from retfound_jax.evals.retfound_style import write_style

    written = write_style(
        read_predictions(path),
        style=values.style,
        workdir=workdir,
        name=trained.config.name,
        split=path.stem,
        batch_size=trained.config.data.batch_size,
    )
    print(f'{written.text}\n{values.style}: {_at(written.path, workdir, values)}')
