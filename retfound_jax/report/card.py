"""All that a model card is made from, read from the files of a run and from what its owner says. No number is typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retfound_jax.core.demographics import NOT_A_GROUP
from retfound_jax.core.errors import UsageError
from retfound_jax.core.files import read_json
from retfound_jax.report.card_curves import ByGroup, has_table, read_by_group
from retfound_jax.report.card_read import Evaluation, Weights, config_hash, read_evaluations, read_weights
from retfound_jax.report.census import LABEL
from retfound_jax.report.collect import TrainingRun, read_manifest, read_run
from retfound_jax.report.composition import Composition, compose
from retfound_jax.report.facts import Facts, read_facts
from retfound_jax.report.study import StudyTable, is_study, read_study
from retfound_jax.report.tables import Tables

_ANY = 'retina'  # what ingest calls a dataset when nobody names it
MODALITIES = {
    'CFP': 'colour fundus photographs',
    'OCT': 'optical coherence tomography scans',
    'UWF': 'ultra-widefield photographs',
    'SLO': 'scanning laser ophthalmoscopy images',
    'FAF': 'fundus autofluorescence images',
}


@dataclass(frozen=True, kw_only=True)
class Data:
    """A dataset as far as a card speaks of it."""

    manifest: Mapping[str, Any]
    composition: Composition  # counts that may be shown: those of its data sheet
    role: str  # 'the task' or 'pretraining'

    @property
    def name(self) -> str:
        """As its owner called it; its folder's where it goes by the name that every dataset gets."""
        named = str(self.manifest.get('name') or '')
        return self.composition.names[0] if named in ('', _ANY) else named

    @property
    def fingerprint(self) -> str:
        """Of all its shards."""
        return str(self.manifest.get('fingerprint') or '')

    def modality(self) -> tuple[str, ...]:
        """In words, the most frequent first."""
        found = self.manifest.get('modality')
        counts = found if isinstance(found, Mapping) else {}
        named = [name for name, n in sorted(counts.items(), key=lambda item: (-int(item[1]), item[0])) if int(n) and name != 'missing']
        return tuple(MODALITIES.get(name, f'{name} images') for name in named)

    def total(self, what: str, *, split: str = '') -> int | None:
        """`patients` or `images` of a split, or of all of them; None where it may not be printed."""
        return getattr(self.composition.count(split=split, place=0), what)

    @property
    def splits(self) -> tuple[str, ...]:
        """Their names, training first."""
        order = ('train', 'val', 'test')
        return tuple(sorted(self.composition.splits[0], key=lambda name: (order.index(name) if name in order else len(order), name)))

    def classes(self, label: str, *, split: str = '') -> dict[str, int | None]:
        """Images of each class of a label, None where it may not be printed; {} where it is no label of classes."""
        if (self.manifest.get('labels') or {}).get(label, {}).get('kind') != 'class':
            return {}
        field = f'{LABEL}{label}'
        values = [value for value in self.composition.values(field, place=0) if value not in NOT_A_GROUP]
        return {value: self.composition.count(value, fields=(field,), place=0, split=split).images for value in values}


@dataclass(frozen=True, kw_only=True)
class Start:
    """Public weights that a run started from, as far as somebody says what they have seen."""

    name: str
    seen: tuple[str, ...]  # datasets that they were pretrained on
    whole: bool  # whether these are all
    source: str  # who says so
    doubt: str  # why results on the card's dataset are not known to be clean; '' where they are


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card shows. What is absent is None or empty, and is printed as missing."""

    run: TrainingRun | None  # the adapted model; None where the card is of a pretrained encoder
    pretrain: TrainingRun | None
    data: Data | None
    pretrain_data: Data | None
    evaluations: tuple[Evaluation, ...]  # the one that the card is about first
    weights: Weights | None
    trained_on: str  # fingerprint of the rows it was trained on, '' where the checkpoint does not say
    studies: tuple[StudyTable, ...]
    by_group: tuple[ByGroup, ...]  # what studies say of groups
    facts: Facts
    image_side: int | None  # [px]
    start: Start | None = None  # None where it started from a run of ours, from nothing, or from weights of which nothing is declared
    notice: str = ''  # a sentence above everything else

    @property
    def subject(self) -> TrainingRun:
        """The run that the card is of."""
        found = self.run or self.pretrain
        assert found is not None  # `collect_card` reads at least one
        return found

    @property
    def name(self) -> str:
        """Of the experiment."""
        return str(self.subject.config.get('name') or self.subject.path.name)

    @property
    def main(self) -> Evaluation | None:
        """The evaluation that the card is about: the run's own test split where there is one."""
        return next((one for one in self.evaluations if not one.external), None) or next(iter(self.evaluations), None)

    @property
    def external(self) -> tuple[Evaluation, ...]:
        """Evaluations on other datasets."""
        return tuple(one for one in self.evaluations if one.external)

    @property
    def tables(self) -> Tables | None:
        """Of the main evaluation."""
        return self.main.tables if self.main else None

    @property
    def task(self) -> Mapping[str, Any]:
        """The task's configuration."""
        found = self.subject.config.get('task')
        return found if isinstance(found, Mapping) else {}

    @property
    def labels(self) -> tuple[str, ...]:
        """What the model is asked."""
        return self.tables.labels if self.tables else tuple(map(str, self.task.get('labels') or ()))

    @property
    def drawn(self) -> bool:
        """Whether the images were drawn by a program."""
        configs = [run.config.get('data') for run in (self.run, self.pretrain) if run]
        drawn = any(isinstance(one, Mapping) and one.get('phantom') for one in configs)
        return drawn or any(data is not None and data.manifest.get('drawn') for data in (self.data, self.pretrain_data))

    @property
    def config_hash(self) -> str:
        """SHA-256 of the resolved configuration; '' where the run kept none."""
        return config_hash(self.subject.config) if self.subject.config else ''


def collect_card(
    workdir: Path,
    *,
    pretrain: Path | None = None,
    dataset: Path | None = None,
    pretrain_dataset: Path | None = None,
    studies: Sequence[Path] = (),
    facts: Path | None = None,
    start: Start | None = None,
    notice: str = '',
) -> Card:
    """Reads a run directory and what belongs to it.

    Args:
      workdir: a run of a task, evaluated or not, or of pretraining.
      pretrain: the run that the task started from.
      dataset, pretrain_dataset: of the task, and of the pretraining.
      studies: directories of label curves (`retfound table`).
      facts: the owner's file.
      start: the public weights that it started from.
      notice: a sentence above everything else, such as that the photographs are drawn.

    Raises:
      UsageError: a directory is not what it was given as, or the owner's file is wrong.
      UserError: a file is damaged.
    """
    if is_study(workdir):
        raise UsageError(f'{workdir} is a study, and a card is of one model: give a run as --workdir and the study as --study')
    said = read_facts(facts)
    run = read_run(workdir)
    before = read_run(pretrain) if pretrain else None
    if run.is_pretraining and before is None:
        run, before = None, run
    evaluations = read_evaluations(workdir)
    step = next((one.step for one in evaluations if one.step is not None), _last_step(workdir))
    return Card(
        run=run,
        pretrain=before,
        data=_data(dataset, 'the task' if run else 'pretraining'),
        pretrain_data=_data(pretrain_dataset, 'pretraining') if run else None,
        evaluations=evaluations,
        weights=read_weights(workdir, step=step),
        trained_on=_trained_on(workdir, step=step),
        studies=tuple(table for folder in studies for table in _study(folder)),
        by_group=tuple(one for folder in studies for one in read_by_group(folder)),
        facts=said,
        image_side=_side((run or before).config),
        start=start,
        notice=notice,
    )


def _study(folder: Path) -> tuple[StudyTable, ...]:
    if not folder.is_dir() or not is_study(folder):
        raise UsageError(f'--study {folder} is not the directory of a study; give the --workdir of `retfound table`')
    return () if read_by_group(folder) and not has_table(folder) else read_study(folder)


def _data(folder: Path | None, role: str) -> Data | None:
    return Data(manifest=read_manifest(folder), composition=compose([folder]), role=role) if folder else None


def _side(config: Mapping[str, Any]) -> int | None:
    task = config.get('task')
    model = task.get('model') if isinstance(task, Mapping) else None
    model = model.get('encoder', model) if isinstance(model, Mapping) else {}
    side = model.get('image_size')
    return side if isinstance(side, int) else None


def _last_step(workdir: Path) -> int | None:
    """Of a run that was not evaluated: its latest committed checkpoint."""
    root = workdir / 'checkpoints'
    names = [path.name for path in root.iterdir() if path.name.isdecimal()] if root.is_dir() else []
    return max(map(int, names), default=None)


def _trained_on(workdir: Path, *, step: int | None) -> str:
    path = workdir / 'checkpoints' / str(step) / 'origin.json'
    found = read_json(path) if step is not None and path.exists() else {}
    return str(found.get('data') or '') if isinstance(found, dict) else ''
