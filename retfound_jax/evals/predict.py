"""Run a trained model over a split and keep what it said, image by image.

Letters: N images, B batch, Y label columns, S score columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.progress import bar
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import eval_batches
from retfound_jax.data.sources import Source, open_source
from retfound_jax.evals.predictions import AGE_WORD, KINDS, TEXT_COLUMNS, Predictions

_YES = frozenset({'1', '1.0', 'yes', 'y', 'true', 't', 'positive', 'present'})
_NO = frozenset({'0', '0.0', 'no', 'n', 'false', 'f', 'negative', 'absent'})


class TrainedModel(Protocol):
    """What is needed of a `train.checkpoint.Run`."""

    step: int
    task: Any
    config: Any

    def predict(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]: ...


def predict(run: TrainedModel, *, split: str, data: DataConfig | None = None) -> Predictions:
    """Predict every labelled image of a split, by default of the run's own dataset.

    All patients of the split are taken, whatever fraction the run was trained on, and nothing is augmented. A UserError says so when the
    split has no labelled image; a UsageError when the run is a pretraining run.
    """
    check_supervised(run)
    config = (data or run.config.data).whole(split)
    source = open_source(config)
    if not len(source):
        raise UserError(
            f"the {split} split has no image with a label '{', '.join(config.labels)}': choose another --split, or ingest more patients"
        )
    return collect(run, batches=_watched(eval_batches(config, source), total=len(source), split=split), source=source, split=split)


def check_supervised(run: TrainedModel) -> None:
    """A UsageError for a run that predicts no label."""
    if run.task.kind not in KINDS:
        raise UsageError(f"a run of kind '{run.task.kind}' predicts no label: give the workdir of a fine-tuned run")


def collect(run: TrainedModel, *, batches: Iterable[Mapping[str, np.ndarray]], source: Source, split: str) -> Predictions:
    """Predict the batches and join each row, by its index, to the source's table; padding rows are left out."""
    index, label, score = [], [], []
    for batch in batches:
        mask_B = np.asarray(batch['mask'], bool)
        index.append(np.asarray(batch['index'])[mask_B])
        label.append(np.asarray(batch['labels'], np.float64)[mask_B])
        score.append(np.asarray(run.predict(batch)['score'], np.float64)[mask_B])
    rows_N = np.concatenate(index)
    return Predictions(
        kind=run.task.kind,
        labels=tuple(run.task.labels),
        classes=tuple(run.task.class_names),
        split=split,
        step=int(run.step),
        fingerprint=source.fingerprint,
        columns=columns_of(source.table, rows_N),
        label_NY=align_labels(run.task, label_NY=np.concatenate(label), label_classes=source.label_classes),
        score_NS=np.concatenate(score),
    )


def align_labels(task: Any, *, label_NY: np.ndarray, label_classes: Mapping[str, Sequence[str] | None]) -> np.ndarray:
    """Labels in the run's own numbering: another dataset may number the same class names otherwise, or lack some of them."""
    if task.kind == 'regress':
        return label_NY
    out_NY = np.full(label_NY.shape, np.nan)
    for y, name in enumerate(task.labels):
        found = label_classes.get(name)
        if found is None:
            raise UserError(f"label '{name}' is a number in this dataset, and the run was trained on classes: ingest it as classes")
        codes = _yes_no(found, name=name) if task.kind == 'multi' else _class_codes(found, wanted=task.class_names, name=name)
        present_N = ~np.isnan(label_NY[:, y])
        out_NY[present_N, y] = np.asarray(codes, np.float64)[label_NY[present_N, y].astype(np.int64)]
    return out_NY


def _class_codes(found: Sequence[str], *, wanted: Sequence[str], name: str) -> list[int]:
    unknown = [value for value in found if value not in wanted]
    if unknown:
        raise UserError(f"label '{name}' has a class '{unknown[0]}' that the run has never seen; it knows {', '.join(wanted)}")
    return [list(wanted).index(value) for value in found]


def _yes_no(found: Sequence[str], *, name: str) -> list[int]:
    """Two classes: the second is the finding. One class alone: its name must say which."""
    if len(found) == 2:
        return [0, 1]
    if len(found) == 1 and found[0].strip().lower() in _YES | _NO:
        return [int(found[0].strip().lower() in _YES)]
    raise UserError(f"label '{name}' should be yes or no and has the values {', '.join(found)}: give it two values, such as 0 and 1")


def columns_of(table: Mapping[str, np.ndarray], rows_N: np.ndarray) -> dict[str, np.ndarray]:
    """Key, patient and demographics; what the source does not know is missing in every row."""
    columns = {name: np.asarray(table[name], str)[rows_N] for name in ('key', 'patient')}
    for name in (*TEXT_COLUMNS, AGE_WORD):
        columns[name] = np.asarray(table[name], str)[rows_N] if name in table else np.full(len(rows_N), '')
    columns['age'] = np.asarray(table['age'], np.float64)[rows_N] if 'age' in table else np.full(len(rows_N), np.nan)
    return columns


def _watched(batches: Iterable[Mapping[str, np.ndarray]], *, total: int, split: str) -> Iterator[Mapping[str, np.ndarray]]:
    """The same batches, with a progress bar."""
    with bar(total, desc=f'predict {split}', unit='images') as progress:
        for batch in batches:
            yield batch
            progress.update(int(np.sum(batch['mask'])))
