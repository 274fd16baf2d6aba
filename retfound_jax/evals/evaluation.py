"""Evaluate a run directory: predict validation and the asked split, write predictions and tables beside each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retfound_jax.core.files import write_json
from retfound_jax.data.config import DataConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.predict import TrainedModel, check_supervised, predict
from retfound_jax.evals.predictions import TEXT_COLUMNS, Predictions, write_predictions
from retfound_jax.evals.subgroups import parse_by
from retfound_jax.evals.tables import EvalConfig, evaluate


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What an evaluation wrote."""

    table: dict[str, Any]
    predictions_path: Path
    table_path: Path


def evaluate_run(
    run: TrainedModel, *, workdir: Path | str, split: str = 'test', dataset: str = '', config: EvalConfig | None = None
) -> Evaluated:
    """Write `predictions/SPLIT.parquet`, the validation split's file beside it, and `tables/metrics_SPLIT.json`.

    Thresholds come from the run's own validation split, also where another `dataset` is judged: an operating point belongs to the model
    and has to hold elsewhere. Files of another dataset are named `NAME-SPLIT`, so the run's own are never overwritten.
    """
    check_supervised(run)
    config, workdir = config or EvalConfig(), Path(workdir)
    parse_by(config.by, columns=TEXT_COLUMNS)  # a wrong name is told before the work
    own, data = run.config.data, _on_dataset(run.config.data, dataset)
    name = split if data == own else f'{Path(dataset).resolve().name}-{split}'
    judged = predict(run, split=split, data=data)
    validation = judged if name == run.config.eval_split else _validation(run)
    if validation is not None:
        write_predictions(validation, path=workdir / 'predictions' / f'{validation.split}.parquet')
    done = Evaluated(
        table=evaluate(judged, validation=validation, config=config),
        predictions_path=workdir / 'predictions' / f'{name}.parquet',
        table_path=workdir / 'tables' / f'metrics_{name}.json',
    )
    write_predictions(judged, path=done.predictions_path)
    write_json(done.table_path, done.table)
    return done


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
