"""Does pretraining help? Real photographs of 2,749 patients, five tasks, five seeds, on two CPU cores.

Fixed before any held-out result was seen: the split (by patient, a quarter held out), the tasks, the recipes, the seeds 0 to 4, the last
checkpoint of each run (no selection), and the judgement: the 95 % interval of the difference, patients resampled in pairs.

- cataract, myopia: this eye's own keywords, judged by eye (a normal left eye does not carry the right eye's cataract); diabetes,
  sex and age in years: of the patient, judged by patient; the placeholder age 1 counts as missing.
- `pretrain`: a masked autoencoder on the training patients alone, without labels; one run, seed 0.
- `findings`, `age`: fine-tuning, from random weights or from the autoencoder, everything else alike.
- linear probe: standardised features and a linear model, on the frozen mean-pooled features of random encoders and of the autoencoder.

    python -m experiments.odir5k --source ODIR5K --workdir RUN        # ODIR5K holds images/ and labels.csv

Run again, it goes on where it stopped. Result: RUN/tables/pretraining_gain.json, and the table in README.md, made by this command.
The fine-tuning recipe was cut once, from 6 epochs of batch 64 to 4 of batch 32, for time, when training losses alone had been seen.
Measured 2026-11-22 on two shared CPU cores (AMD EPYC, jax 0.10.2): fine-tuning and probes by the code of commit b64c463 with the step
and recipe of a01f599 and the label alignment of 101bc12; pretraining by the tree of an hour before b64c463.
Pretraining took 33 min, 183 images/s; each fine-tuning
3.5 min on one core. Gain of fine-tuning: cataract +.179, myopia +.179, diabetes +.065, sex -.026 (interval holds 0), age .35 years.
Data: ODIR-5K (Li et al. 2021), research use, not part of this project.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

from experiments import finetune, pretrain_mae
from retfound_jax.core.files import atomic_write, write_json
from retfound_jax.core.mesh import make_mesh
from retfound_jax.evals.compare import Difference, paired_difference
from retfound_jax.evals.features import extract
from retfound_jax.evals.predict import predict
from retfound_jax.evals.predictions import Predictions, write_predictions
from retfound_jax.evals.probe import Part, linear_probe
from retfound_jax.ingest import pipeline
from retfound_jax.ingest.plan import IngestConfig, make_plan
from retfound_jax.ingest.splits import SplitConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import TrainConfig, align
from retfound_jax.train.loop import train
from retfound_jax.train.state import init_params, model_spec, param_shardings

FINDINGS = ('cataract', 'myopia', 'diabetes', 'sex')
TASKS = {  # how each is judged: metric, and by eye or by patient
    'cataract': ('AUROC', 'image'),
    'myopia': ('AUROC', 'image'),
    'diabetes': ('AUROC', 'patient'),
    'sex': ('AUROC', 'patient'),
    'age': ('MAE', 'patient'),
}
STARTS = ('random', 'mae')
IMAGE_SIZE = 96  # [px]


def pretrain() -> TrainConfig:
    """MAE of 6 blocks of width 192, 96 px, 16-px patches, decoder of one block; 33 minutes on two shared cores."""
    config = pretrain_mae.small_cpu(image_size=IMAGE_SIZE)
    return dataclasses.replace(config, name='odir5k_pretrain', epochs=100.0, warmup_epochs=5.0)


def findings() -> TrainConfig:
    """Cataract, myopia, diabetes and sex together, a sigmoid each."""
    config = _short(finetune.small_cpu(image_size=IMAGE_SIZE), name='odir5k_findings')
    task = ClassifyTask(model=config.task.model, labels=FINDINGS, mode='multi', label_smoothing=0.1)
    return dataclasses.replace(config, task=task)


def age() -> TrainConfig:
    """Age in years."""
    return _short(finetune.small_cpu_age(image_size=IMAGE_SIZE), name='odir5k_age')


def _short(config: TrainConfig, *, name: str) -> TrainConfig:
    data = dataclasses.replace(config.data, batch_size=32)
    return dataclasses.replace(config, name=name, data=data, epochs=4.0, warmup_epochs=1.0, eval_every=-1)


def derive_labels(source: Path, *, out: Path) -> None:
    """Writes the study's table: this eye's cataract and myopia, the patient's diabetes, sex, and age without placeholders."""
    with open(source / 'labels.csv', newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    lines = ['image,patient_id,eye,age,sex,cataract,myopia,diabetes']
    for row in rows:
        found = [int(word in row['eye_keywords'].lower()) for word in ('cataract', 'myopi')]
        years = row['age'] if float(row['age']) > 1 else ''
        lines.append(','.join(map(str, [row['image'], row['patient_id'], row['eye'], years, row['sex'], *found, row['D']])))
    atomic_write(out, '\n'.join(lines) + '\n')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """The directories and seeds of one walk through the study."""

    source: Path
    root: Path
    seeds: tuple[int, ...]

    @property
    def dataset(self) -> Path:
        """The ingested photographs."""
        return self.root / 'dataset'

    def configured(self, config: TrainConfig, *, seed: int = 0, start: str = 'random') -> TrainConfig:
        """A recipe on this study's dataset, from random weights or from the autoencoder."""
        init_from = str(self.root / 'pretrain') if start == 'mae' else ''
        data = dataclasses.replace(config.data, path=str(self.dataset))
        return align(dataclasses.replace(config, data=data, seed=seed, init_from=init_from))

    def ingest(self) -> None:
        """Makes the dataset once."""
        if self.dataset.exists():
            return
        table = self.root / 'labels.csv'
        derive_labels(self.source, out=table)
        splits = SplitConfig(test=0.25, val=0.05)
        label = ('cataract', 'myopia', 'diabetes')
        files = {'source': str(self.source / 'images'), 'labels': str(table), 'out': str(self.dataset)}
        pipeline.run(make_plan(IngestConfig(**files, label=label, modality='CFP', splits=splits, workers=2)))

    def pretrain(self) -> None:
        """Trains the autoencoder, or goes on with it."""
        train(self.configured(pretrain()), workdir=self.root / 'pretrain', resume=True)

    def fine_tune(self, start: str, seed: int) -> None:
        """Both tasks of one arm and seed: trains and keeps the predictions on the held-out patients."""
        for config in (findings(), age()):
            out = self.predictions(config.name, f'finetune_{start}', seed)
            if not out.exists():
                workdir = self.root / 'runs' / f'{config.name}_{start}_{seed}'
                train(self.configured(config, seed=seed, start=start), workdir=workdir, resume=True)
                write_predictions(predict(load_run(workdir, which='latest'), split='test'), path=out)

    def probe(self, start: str, seed: int) -> None:
        """Linear models on frozen features; what is tuned is tuned on the validation patients."""
        for config in (findings(), age()):
            out = self.predictions(config.name, f'probe_{start}', seed)
            if not out.exists():
                encoder = self.root / 'pretrain' if start == 'mae' else None
                write_predictions(probe(self.configured(config, seed=seed), encoder=encoder), path=out)

    def predictions(self, name: str, arm: str, seed: int) -> Path:
        """Where an arm's predictions on the held-out patients are kept."""
        return self.root / 'predictions' / f'{name}_{arm}_{seed}.parquet'

    def compare(self) -> list[dict[str, Any]]:
        """One row a task and adaptation: both arms, and the paired difference (positive where the autoencoder is ahead)."""
        rows = []
        for target, (metric, level) in TASKS.items():
            name = 'odir5k_age' if target == 'age' else 'odir5k_findings'
            for adaptation in ('finetune', 'probe'):
                mae, random = (self._files(name, adaptation, start) for start in ('mae', 'random'))
                found = paired_difference(mae, b=random, target=target, metric=metric, level=level)
                rows.append(_row(target, adaptation, metric, level, found))
        write_json(self.root / 'tables' / 'pretraining_gain.json', rows)
        return rows

    def _files(self, name: str, adaptation: str, start: str) -> list[Path]:
        return [self.predictions(name, f'{adaptation}_{start}', seed) for seed in self._seeds(adaptation, start)]

    def _seeds(self, adaptation: str, start: str) -> tuple[int, ...]:
        # The probe of the one autoencoder has no randomness: one fit says all.
        return self.seeds[:1] if (adaptation, start) == ('probe', 'mae') else self.seeds


def probe(config: TrainConfig, *, encoder: Path | None) -> Predictions:
    """Linear models on the frozen features of a pretraining run's encoder, or of random weights, judged on the held-out patients."""
    spec = model_spec(config.task)
    params = init_params(config.task, seed=config.seed, shardings=param_shardings(spec, mesh=make_mesh(config.mesh), rules=config.rules))
    if encoder is not None:
        params = config.task.load_pretrained(params, load_run(encoder, which='latest').params)
    parts, sources = {}, {}
    for split in ('train', 'val', 'test'):
        features, sources[split] = extract(spec, params, data=config.data, split=split)
        labels = sources[split].labels if config.task.kind == 'multi' else sources[split].labels[:, 0]
        parts[split] = Part(features=features, label=labels, patient=sources[split].table['patient'])
    found = linear_probe(parts['train'], validation=parts['val'], test=parts['test'], kind=config.task.kind)
    like = sources['test']
    return Predictions(
        kind=config.task.kind,
        labels=config.task.labels,
        classes=(),
        split='test',
        step=0,
        fingerprint=like.fingerprint,
        columns={name: like.table[name] for name in ('key', 'patient')},
        label_NY=like.labels.astype(np.float64),
        score_NS=found.score_test,
    )


def _row(target: str, adaptation: str, metric: str, level: str, found: Difference) -> dict[str, Any]:
    sign = 1 if found.higher_is_better else -1
    low, high = sorted((sign * found.interval.low, sign * found.interval.high))
    return {
        'task': target,
        'adaptation': adaptation,
        'metric': metric,
        'level': level,
        'random': found.b,
        'mae': found.a,
        'gain': sign * (found.a - found.b),
        'low': low,
        'high': high,
        'per_seed_random': list(found.per_seed_b),
        'per_seed_mae': list(found.per_seed_a),
        'n_images': found.n_images,
        'n_patients': found.n_patients,
    }


def run(study: Study) -> list[dict[str, Any]]:
    """The whole study, in order; returns the table's rows."""
    study.ingest()
    study.pretrain()
    for seed in study.seeds:
        for start in STARTS:
            study.fine_tune(start, seed)
            if seed in study._seeds('probe', start):
                study.probe(start, seed)
    return study.compare()


def main(arguments: Sequence[str]) -> None:
    """Runs the study and prints its table as Markdown."""
    del arguments
    given = flags.FLAGS
    study = Study(source=Path(given.source), root=Path(given.workdir), seeds=tuple(range(given.seeds)))
    print(f'devices: {jax.devices()}')
    print('| task | adaptation | metric | from random | from MAE | gain (95 % interval) |\n|---|---|---|---|---|---|')
    for row in run(study):
        gain = f'{row["gain"]:+.3f} ({row["low"]:+.3f} to {row["high"]:+.3f})'
        print(f'| {row["task"]} | {row["adaptation"]} | {row["metric"]} | {row["random"]:.3f} | {row["mae"]:.3f} | {gain} |')


if __name__ == '__main__':
    flags.DEFINE_string('source', None, 'folder with images/ and labels.csv', required=True)
    flags.DEFINE_string('workdir', None, 'directory for everything that is made', required=True)
    flags.DEFINE_integer('seeds', 5, 'runs of each arm', lower_bound=1)
    app.run(main)
