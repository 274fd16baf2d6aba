"""Evaluate a run directory: predict validation and the asked split, write predictions and tables beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retfound_jax.core.files import write_json
from retfound_jax.data.config import DataConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.ensemble import PREFIX, ensemble_runs
from retfound_jax.evals.mitigation import mitigations
from retfound_jax.evals.ood import ood_of_run
from retfound_jax.evals.predict import TrainedModel, check_supervised, predict
from retfound_jax.evals.predictions import TEXT_COLUMNS, Predictions, write_predictions
from retfound_jax.evals.subgroups import parse_by
from retfound_jax.evals.tables import EvalConfig, evaluate, plan_of
from retfound_jax.evals.uncertainty import uncertainty
from retfound_jax.evals.withholding import Withholding
from retfound_jax.train.checkpoint import read_config


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an evaluation wrote."""

    table: dict[str, Any]
    predictions_path: Path
    table_path: Path
    uncertainty_path: Path | None = None  # None where there is no other split to calibrate on


def evaluate_run(
    run: TrainedModel, *, workdir: Path | str, split: str = 'test', dataset: str = '', config: EvalConfig | None = None, ood: bool = False
) -> Evaluated:
    """Write `predictions/SPLIT.parquet`, the validation split's file beside it, `tables/metrics_SPLIT.json` and `uncertainty_SPLIT.json`.

    Thresholds come from the run's own validation split, also where another `dataset` is judged: an operating point belongs to the model
    and has to hold elsewhere. Files of another dataset are named `NAME-SPLIT`, so the run's own are never overwritten. With `ood` the
    photographs are also held against those of training, which takes a pass over some of these.
    """
    check_supervised(run)
    config, workdir = config or EvalConfig(), Path(workdir)
    parse_by(config.by, columns=TEXT_COLUMNS)  # a wrong name is told before the work
    own, data = run.config.data, _on_dataset(run.config.data, dataset)
    name = split if data == own else f'{Path(dataset).resolve().name}-{split}'
    judged = predict(run, split=split, data=data)
    write_predictions(judged, path=_path(workdir, name))  # first: what took the model's time is not lost to a --by of too many groups
    validation = judged if name == run.config.eval_split else _validation(run)
    plan, strange = plan_of(judged, config=config), None
    if ood and validation is not None and validation is not judged:
        strange = ood_of_run(run, judged=judged, validation=validation, data=data, plan=plan, level=config.level)
    return _write(judged, validation=validation, name=name, workdir=workdir, config=config, plan=plan, ood=strange)


def evaluate_ensemble(
    workdir: Path | str, *, members: Sequence[Path | str], name: str = 'test', config: EvalConfig | None = None
) -> Evaluated:
    """Write the mean of the predictions of this run and of `members` as `ensemble-NAME`, with tables of its own.

    All of them must have been evaluated on that split already: `predictions/NAME.parquet` and the validation file are read, and no model is
    run. UserError where files are absent or are not of the same images.
    """
    workdir, every = Path(workdir), [Path(workdir), *map(Path, members)]
    judged, split = ensemble_runs(every, split=name), read_config(workdir).eval_split
    validation = judged if name == split else ensemble_runs(every, split=split) if _any_has(every, split) else None
    config = config or EvalConfig()
    write_predictions(judged, path=_path(workdir, f'{PREFIX}{name}'))
    plan = plan_of(judged, config=config)
    done = _write(judged, validation=validation, name=f'{PREFIX}{name}', workdir=workdir, config=config, plan=plan, ood=None)
    done.table['notes'].append(f'The mean of the scores of {len(every)} runs.')
    write_json(done.table_path, done.table)
    return done


def _any_has(workdirs: Sequence[Path], split: str) -> bool:
    return any((workdir / 'predictions' / f'{split}.parquet').exists() for workdir in workdirs)


def _write(
    judged: Predictions,
    *,
    validation: Predictions | None,
    name: str,
    workdir: Path,
    config: EvalConfig,
    plan: Withholding,
    ood: dict[str, Any] | None,
) -> Evaluated:
    if validation is not None:
        write_predictions(validation, path=workdir / 'predictions' / f'{validation.split}.parquet')
    uncertain = workdir / 'tables' / f'uncertainty_{name}.json'
    done = Evaluated(
        table=evaluate(judged, validation=validation, config=config, plan=plan),
        predictions_path=_path(workdir, name),
        table_path=workdir / 'tables' / f'metrics_{name}.json',
        uncertainty_path=None if validation is None or validation is judged else uncertain,
    )
    write_json(done.table_path, done.table)
    mitigated = workdir / 'tables' / f'mitigation_{name}.json'
    for path in (uncertain, mitigated):
        path.unlink(missing_ok=True)  # one of an earlier evaluation would stand beside numbers it does not belong to
    if config.by and validation is not None and validation is not judged and judged.kind != 'regress':
        write_json(mitigated, mitigations(judged, validation=validation, by=config.by, config=config, plan=plan))
    if done.uncertainty_path:
        write_json(uncertain, uncertainty(judged, validation=validation, config=config, plan=plan, ood=ood))
    return done


def _path(workdir: Path, name: str) -> Path:
    """Where the predictions of a split are kept."""
    return workdir / 'predictions' / f'{name}.parquet'


def _on_dataset(data: DataConfig, dataset: str) -> DataConfig:
    """The same preprocessing on another dataset directory; the very same one counts as the run's own."""
    if not dataset or (data.path and Path(dataset).resolve() == Path(data.path).resolve()):
        return data
    return replace(data, path=dataset, tfds_name='', tfds_dir='', phantom=None)


def _validation(run: TrainedModel) -> Predictions | None:
    """Predictions of the run's own validation split; None where it has no labelled image."""
    if not len(open_source(run.config.data.whole(run.config.eval_split))):
        return None
    return predict(run, split=run.config.eval_split)
