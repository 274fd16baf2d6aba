"""Two studies on real photographs that two CPU cores finish within the hour: what labels pretraining saves, and whether it carries over.

    python -m experiments.tables.real --odir5k ODIR5K --eyepacs_1098 EYEPACS_1098 --out DATA           # ingests both, once
    retfound train --experiment experiments.odir5k:pretrain --set data.path=DATA/odir5k --workdir MAE  # 100 epochs, no labels
    retfound table odir_labels --data DATA --weights mae=MAE --workdir LABELS --run --processes 2
    retfound table dr_external --data DATA --weights mae=MAE --workdir DR --run --processes 2

Fixed before any held-out result was seen: the split (by patient and look-alike photograph, a quarter held out), the labels, recipes,
seeds 0 to 4, the last checkpoint of each run (no selection), the judgement. The autoencoder saw the training patients of ODIR-5K alone.
Fine-tuning takes equally many steps at every share of the labels, so that small shares are seen more often and not trained less.

Data: ODIR-5K (Li et al. 2021; 5,236 photographs of 2,749 patients at 256 px) and 1,098 photographs of 549 patients of EyePACS (Kaggle 2015,
400 px), research use, not part of this project. ODIR's grades of diabetic retinopathy are derived from its readers' keywords.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from experiments import finetune, odir5k
from retfound_jax.core.files import atomic_write, csv_text
from retfound_jax.ingest import pipeline
from retfound_jax.ingest.plan import IngestConfig, make_plan
from retfound_jax.ingest.splits import SplitConfig
from retfound_jax.registry.labels import DR_GRADES
from retfound_jax.studies.grid import Method, Study, StudyData
from retfound_jax.studies.rows import Judged
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.config import TrainConfig

EYE_LABELS = ('cataract', 'myopia', 'diabetes')
METHODS = (Method(name='random'), Method(name='mae', weights='?', pretrained_on=('odir5k:train',)))


def odir_labels() -> Study:
    """Label efficiency on ODIR-5K: cataract and myopia of the eye, diabetes of the patient, from random weights and from our autoencoder.

    Zhou et al., Nature 2023, figure 4, ask this of other data. Measured: see the table in README.md.
    """
    return Study(
        name='odir_labels',
        title='Labels that pretraining saves, on ODIR-5K',
        data=(StudyData(name='odir5k', labels=EYE_LABELS, kind='multi', stratify='cataract'),),
        methods=METHODS,
        adaptations=('finetune', 'probe'),
        fractions=(0.1, 0.25, 1.0),
        recipe=short(steps=450),
        judged=Judged(reference='random', by_patient=('diabetes',)),
    )


def dr_external() -> Study:
    """Grades of diabetic retinopathy learned on 1,098 photographs of EyePACS, tested there and on ODIR-5K, which nobody saw in training.

    EyePACS is in the pretraining of RETFound's CFP weights; it is in none of ours. Measured: see the table in README.md.
    """
    return Study(
        name='dr_external',
        title='Diabetic retinopathy, external evaluation',
        data=(StudyData(name='eyepacs_1098', labels=('dr_grade',)), StudyData(name='odir5k', labels=('dr_grade',))),
        train_on=('eyepacs_1098',),
        external=True,
        methods=METHODS,
        adaptations=('finetune', 'probe'),
        recipe=short(steps=300),
        judged=Judged(reference='random'),
    )


def short(*, steps: int) -> TrainConfig:
    """Fine-tuning of the small encoder at 96 px, batches of 32."""
    config = finetune.small_cpu(image_size=odir5k.IMAGE_SIZE)
    return dataclasses.replace(
        config,
        task=ClassifyTask(model=config.task.model, labels=('label',), label_smoothing=0.1),
        data=dataclasses.replace(config.data, batch_size=32),
        optim=dataclasses.replace(config.optim, warmup_steps=steps // 10),
        steps=steps,
        epochs=0.0,
        warmup_epochs=0.0,
        eval_every=-1,
    )


def ingest_odir5k(source: Path, *, out: Path) -> None:
    """Makes the dataset; the grade is '' where the keywords tell none. The same patients are held out as in experiments.odir5k."""
    table = out.with_name(f'{out.name}.csv')
    odir5k.derive_labels(source, out=table)
    with open(source / 'labels.csv', newline='', encoding='utf-8') as file:
        grades = [_grade(row['dr_grade_from_keywords']) for row in csv.DictReader(file)]
    with open(table, newline='', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    atomic_write(table, csv_text([[*header, 'dr_grade'], *([*row, grade] for row, grade in zip(rows, grades, strict=True))]))
    _ingest(source / 'images', table, out=out, labels=(*EYE_LABELS, 'dr_grade'), splits=SplitConfig(test=0.25, val=0.05))


def ingest_eyepacs_1098(source: Path, *, out: Path) -> None:
    """Makes the dataset: a quarter of the patients held out, a tenth for validation."""
    table = out.with_name(f'{out.name}.csv')
    with open(source / 'labels.csv', newline='', encoding='utf-8') as file:
        rows = [[row['image'], row['patient_id'], row['eye'], _grade(row['dr_grade'])] for row in csv.DictReader(file)]
    atomic_write(table, csv_text([['image', 'patient_id', 'eye', 'dr_grade'], *rows]))
    _ingest(source / 'images', table, out=out, labels=('dr_grade',), splits=SplitConfig(test=0.25, val=0.1))


def _grade(number: str) -> str:
    return DR_GRADES[int(number)] if number else ''


def _ingest(images: Path, table: Path, *, out: Path, labels: tuple[str, ...], splits: SplitConfig) -> None:
    classes = (('dr_grade', DR_GRADES),)
    files = {'source': str(images), 'labels': str(table), 'out': str(out)}
    pipeline.run(make_plan(IngestConfig(**files, label=labels, classes=classes, modality='CFP', splits=splits, workers=2)))


def main(arguments: Sequence[str]) -> None:
    """Ingests what is not there yet."""
    del arguments
    out = Path(flags.FLAGS.out)
    for name, ingest in (('odir5k', ingest_odir5k), ('eyepacs_1098', ingest_eyepacs_1098)):
        if not (out / name).exists():
            out.mkdir(parents=True, exist_ok=True)
            ingest(Path(flags.FLAGS[name].value), out=out / name)


if __name__ == '__main__':
    flags.DEFINE_string('odir5k', None, 'folder with images/ and labels.csv', required=True)
    flags.DEFINE_string('eyepacs_1098', None, 'folder with images/ and labels.csv', required=True)
    flags.DEFINE_string('out', None, 'folder for both datasets', required=True)
    app.run(main)
