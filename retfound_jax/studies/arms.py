"""What is done in a cell: an encoder is adapted, tested on every dataset of the cell, and on its own training images.

Letters: N images, S scores of the model, D encoder width.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import eval_batches
from retfound_jax.data.sources import Source, open_source
from retfound_jax.evals.features import extract
from retfound_jax.evals.green_probe import green_scores
from retfound_jax.evals.predict import align_labels, columns_of
from retfound_jax.evals.predictions import Predictions, write_predictions
from retfound_jax.evals.probe import Part, knn, linear_probe
from retfound_jax.evals.validation import validation_for, validation_metrics
from retfound_jax.studies import labels as labels_lib
from retfound_jax.studies.cells import Place, weights_fingerprint, write_result
from retfound_jax.studies.grid import CellSpec, Study, StudyData
from retfound_jax.studies.pretraining import Made
from retfound_jax.studies.pretraining import place as pretraining_place
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.checkpoint import ReadWeights, load_run, load_start
from retfound_jax.train.config import TrainConfig, align
from retfound_jax.train.loop import train

VALIDATION = '.val'  # after the name of a dataset, for predictions on its validation images
OWN = ('train', 'val')  # splits of the dataset it was trained on that a result keeps metrics of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ground:
    """What the cells of a study stand on: its datasets as they lie here, and what reads weights of other origin."""

    study: Study
    root: Path  # of the study
    paths: Mapping[str, str]  # dataset to its directory; '' drawn
    fingerprints: Mapping[str, str]
    read_weights: ReadWeights | None = None
    notice: Callable[[], str] = str  # as `train` asks it

    def data(self, name: str, like: DataConfig) -> DataConfig:
        """A dataset of the study with the image form of `like`, all patients."""
        one = self.study.dataset(name)
        place = {'path': '' if one.phantom else self.paths[name], 'tfds_name': '', 'phantom': one.phantom}
        return dataclasses.replace(like.whole(like.split), **place, labels=one.labels, stratify='', draw=0, views=None)

    def pretraining(self, spec: CellSpec) -> Made | None:
        """The pretraining that a cell starts from, where the study makes it."""
        method = self.study.method(spec.method)
        if method.pretraining is None:
            return None
        on = method.pretraining.on
        data = self.data(on, method.pretraining.recipe.data)
        return pretraining_place(self.root, method, seed=spec.seed, data=data, fingerprint=self.fingerprints[on])

    def weights(self, spec: CellSpec) -> str:
        """Address of the weights a cell starts from; '' random ones."""
        made = self.pretraining(spec)
        return str(made.folder) if made else self.study.method(spec.method).weights

    def weights_fingerprint(self, spec: CellSpec) -> str:
        """What stands for them; of a pretraining of the study it is what it is made from, so that it is known before it is made."""
        made = self.pretraining(spec)
        return made.fingerprint if made else weights_fingerprint(self.study.method(spec.method).weights)

    def config(self, spec: CellSpec) -> TrainConfig:
        """The whole configuration of a cell's fine-tuning; a probe takes its encoder, its data and its seed."""
        study, one = self.study, self.study.dataset(spec.train_on)
        recipe = study.method(spec.method).recipe or study.recipe
        data = dataclasses.replace(self.data(spec.train_on, recipe.data), balance=recipe.data.balance, groups=recipe.data.groups)
        if one.compose:
            images = max(1, round(spec.fraction * one.compose.images))
            data = dataclasses.replace(data, compose=dataclasses.replace(one.compose, images=images), draw=spec.seed)
        elif spec.fraction < 1:
            data = dataclasses.replace(data, fraction=spec.fraction, stratify=one.stratify or one.labels[0], draw=spec.seed)
        task = dataclasses.replace(recipe.task, labels=one.labels)
        if isinstance(task, ClassifyTask):
            task = dataclasses.replace(task, mode=one.kind, classes=())
        return align(
            dataclasses.replace(recipe, name=study.name, data=data, task=task, seed=spec.seed, init_from=self.weights(spec))
        )


def make(ground: Ground, spec: CellSpec, where: Place) -> None:
    """Makes a cell and writes its result last; begun before, it goes on."""
    begun = time.monotonic()
    found = _fine_tuned(ground, spec, where) if spec.adaptation == 'finetune' else _probed(ground, spec)
    metrics = {}
    for name, predictions in found.tested.items():
        write_predictions(predictions, path=where.folder / 'predictions' / f'{name}.parquet')
        metrics[name] = _metrics(predictions)
    metrics |= {split: _metrics(predictions) for split, predictions in found.own.items()}
    if ground.study.groups:  # thresholds and temperatures of groups are chosen on it
        write_predictions(found.own['val'], path=where.folder / 'predictions' / f'{spec.train_on}{VALIDATION}.parquet')
    method = ground.study.method(spec.method)
    write_result(where, {
        'cell': dataclasses.asdict(spec),
        'fingerprint': where.fingerprint,
        'datasets': {name: _about(ground, name) for name in dict.fromkeys((spec.train_on, *spec.test_on))},
        'weights': {
            'name': method.checkpoint or (method.name if method.starts else ''),
            'pretrained_on': list(method.pretrained_on),
            'fingerprint': ground.weights_fingerprint(spec),
        },
        'model': _model(ground.study.recipe),
        'metrics': metrics,
        'seconds': round(time.monotonic() - begun, 1),
    })


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    tested: dict[str, Predictions]  # by dataset
    own: dict[str, Predictions]  # `train`, the images that were learned from, and `val`


def _fine_tuned(ground: Ground, spec: CellSpec, where: Place) -> _Found:
    config, workdir = ground.config(spec), where.folder / 'run'
    validation = validation_for(config.task.kind, best_by=config.best_by)
    train(config, workdir=workdir, resume=True, validation=validation, read_weights=ground.read_weights, notice=ground.notice)
    run = load_run(workdir, which=ground.study.which)

    def scores(data: DataConfig, source: Source) -> np.ndarray:
        rows = []
        for batch in eval_batches(data, source):
            # The labels of another dataset may be numbered otherwise; the score does not ask for them.
            unknown = np.full((len(batch['mask']), len(run.task.labels)), np.nan, np.float32)
            found = run.predict({'image': batch['image'], 'mask': batch['mask'], 'labels': unknown})['score']
            rows.append(np.asarray(found, np.float64)[batch['mask']])
        return np.concatenate(rows)

    def said(name: str, split: str, data: DataConfig | None = None) -> Predictions:
        data = dataclasses.replace(data or ground.data(name, config.data), split=split)
        source = _labelled(data, name, split)
        return _judged(ground, spec, name, split, source, scores(data, source), classes=tuple(run.task.class_names), step=run.step)

    own = {'train': run.config.data, 'val': None}
    return _Found(
        tested={name: said(name, 'test') for name in spec.test_on},
        own={split: said(spec.train_on, split, data) for split, data in own.items()},
    )


def _probed(ground: Ground, spec: CellSpec) -> _Found:
    config = ground.config(spec)
    train, val = (_part(ground, spec, spec.train_on, split) for split in OWN)
    learned = _labelled(dataclasses.replace(config.data, split='train'), spec.train_on, 'train')  # the share of the labels
    rows = np.flatnonzero(np.isin(train.source.table['key'], learned.table['key']))
    part = Part(**{name: getattr(train.part, name)[rows] for name in ('features', 'label', 'patient')})
    classes = () if config.task.kind == 'multi' else tuple(train.source.label_classes[config.task.labels[0]] or ())
    tests = {name: _part(ground, spec, name, 'test') for name in spec.test_on}
    judged = {(spec.train_on, 'train'): (part.features, learned), (spec.train_on, 'val'): (val.part.features, val.source)}
    judged |= {(name, 'test'): (one.part.features, one.source) for name, one in tests.items()}
    features = np.concatenate([features for features, _ in judged.values()])
    score_NS = _scores(spec, part, val.part, features, kind=config.task.kind, classes=max(2, len(classes)))
    ends = np.cumsum([len(features) for features, _ in judged.values()])
    said = {
        (name, split): _judged(ground, spec, name, split, source, scores, classes=classes, step=0)
        for ((name, split), (_, source)), scores in zip(judged.items(), np.split(score_NS, ends[:-1]), strict=True)
    }
    return _Found(tested={name: said[name, 'test'] for name in spec.test_on}, own={split: said[spec.train_on, split] for split in OWN})


def _scores(spec: CellSpec, train: Part, val: Part, features: np.ndarray, *, kind: str, classes: int) -> np.ndarray:
    """One fit for all that is to be scored, [N, D] to [N, S]; whose the images are does not matter to it."""
    blank = np.full((len(features), *np.shape(train.label)[1:]), np.nan)
    scored = Part(features=features, label=blank, patient=np.full(len(features), ''))
    if spec.adaptation == 'green_probe':
        return _green(train, scored, kind=kind, classes=classes)
    fit = linear_probe if spec.adaptation == 'probe' else knn
    return fit(train, validation=val, test=scored, kind=kind, classes=classes).score_test


def _green(train: Part, test: Part, *, kind: str, classes: int) -> np.ndarray:
    if kind != 'multi':
        seen = np.unique(train.labelled().label).astype(np.int64)
        out_NS = np.zeros((len(test.features), classes))
        out_NS[:, seen] = green_scores(train, test=test)
        return out_NS
    columns = [dataclasses.replace(train, label=train.label[:, y]) for y in range(train.label.shape[1])]
    return np.stack([green_scores(column, test=test)[:, 1] for column in columns], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Frozen:
    """A split as an encoder sees it."""

    part: Part
    source: Source


def _part(ground: Ground, spec: CellSpec, name: str, split: str) -> _Frozen:
    """Features of a split, made once for each encoder and kept; all its patients."""
    data = ground.data(name, ground.study.recipe.data)
    source = _labelled(dataclasses.replace(data, split=split), name, split)
    file = _kept(ground, spec, source, data)
    if file.is_file():
        features = np.load(file, allow_pickle=False)
    else:
        features, _ = extract(*_encoder(ground, spec), data=data, split=split)
        atomic_write(file, _npy(features))
    label = source.labels.astype(np.float64)
    label = label if ground.study.dataset(name).kind == 'multi' else label[:, 0]
    return _Frozen(part=Part(features=features, label=label, patient=source.table['patient']), source=source)


def _kept(ground: Ground, spec: CellSpec, source: Source, data: DataConfig) -> Path:
    method = ground.study.method(spec.method)
    seed = '' if method.starts else spec.seed  # random weights are those of the seed
    form = (data.image_size, data.central_share, data.mean, data.std)
    told = repr((ground.weights_fingerprint(spec), seed, source.fingerprint, form, ground.study.recipe.task.model))
    return ground.root / 'features' / f'{hashlib.sha256(told.encode()).hexdigest()[:24]}.npy'


def _encoder(ground: Ground, spec: CellSpec) -> tuple[Any, Any]:
    """The model and its parameters, from random weights of the seed or from those of the method."""
    from retfound_jax.core.mesh import make_mesh
    from retfound_jax.train.state import init_params, model_spec, param_shardings

    config = ground.config(spec)
    task = _with_a_head(config.task)
    made = model_spec(task)
    params = init_params(task, seed=config.seed, shardings=param_shardings(made, mesh=make_mesh(config.mesh), rules=config.rules))
    if config.init_from:
        params = task.load_pretrained(params, load_start(config.init_from, read=ground.read_weights, image_size=task.image_size))
    return made, params


def _with_a_head(task: Any) -> Any:
    """The task with a head of a width that does not depend on the data, for those who want the encoder alone."""
    return dataclasses.replace(task, mode='multi') if isinstance(task, ClassifyTask) else task


def _npy(array: np.ndarray) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _labelled(data: DataConfig, name: str, split: str) -> Source:
    source = open_source(data)
    if not len(source):
        raise UserError(f'the {split} split of {name} has no image with the label {", ".join(data.labels)}; build it with another split')
    return source


def _judged(
    ground: Ground, spec: CellSpec, name: str, split: str, source: Source, score_NS: np.ndarray, *, classes: tuple[str, ...], step: int
) -> Predictions:
    """Labels and scores in the classes that are judged: the dataset's own, or the common ones."""
    one, trained = ground.study.dataset(name), ground.study.dataset(spec.train_on)
    labels, label_NY = one.labels, source.labels.astype(np.float64)
    if trained.kind == 'multi':
        pass
    elif one.common is None:
        as_trained = ClassifyTask(model=ground.study.recipe.task.model, labels=one.labels, classes=classes)
        label_NY = align_labels(as_trained, label_NY=label_NY, label_classes=source.label_classes)
    else:
        labels, own = (one.common.label,), source.label_classes[one.labels[0]] or ()
        label_NY = labels_lib.to_common(one.common, label_NY[:, 0], classes=own, dataset=name)[:, None]
        score_NS = labels_lib.scores_in_common(trained.common, score_NS, classes=classes, dataset=spec.train_on)
        classes = one.common.classes
    return Predictions(
        kind=trained.kind,
        labels=labels,
        classes=classes,
        split=split,
        step=step,
        fingerprint=source.fingerprint,
        columns=columns_of(source.table, np.arange(len(source))),
        label_NY=label_NY,
        score_NS=score_NS,
    )


def _metrics(predictions: Predictions) -> dict[str, float | None]:
    label = predictions.label_NY if predictions.kind == 'multi' else predictions.label_NY[:, 0]
    found = validation_metrics(predictions.kind, label=label, score=predictions.score_NS)
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def _about(ground: Ground, name: str) -> dict[str, Any]:
    one: StudyData = ground.study.dataset(name)
    images, patients = {}, {}
    for split in ('train', 'val', 'test'):
        table = open_source(dataclasses.replace(ground.data(name, ground.study.recipe.data), split=split)).table
        images[split], patients[split] = len(table['key']), len(set(table['patient'].tolist()))
    about = {'fingerprint': ground.fingerprints[name], 'images': images, 'patients': patients}
    return about | ({'drawn': True} if one.phantom else {})


def _model(recipe: TrainConfig) -> dict[str, int]:
    import jax

    from retfound_jax.train.state import abstract_params, model_spec

    model = recipe.task.model
    encoder = abstract_params(model_spec(_with_a_head(recipe.task)))['encoder']
    parameters = sum(leaf.size for leaf in jax.tree.leaves(encoder))
    shape = {'width': model.width, 'depth': model.depth, 'patch': model.patch_size, 'image_size': model.image_size}
    return {**shape, 'parameters': parameters}
