"""One TFDS builder a dataset, made from its declaration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from retfound_jax.ingest.splits import SPLITS, SplitConfig, split_of
from retfound_jax.registry import catalogue, folders, members, npz, reading
from retfound_jax.registry.base import Dataset, Example
from retfound_jax.registry.tfds import encode

_VERSION = '1.0.0'
_TFDS_SPLITS = {'val': 'validation'}  # the others have the same name
_TEXT = ('laterality', 'sex', 'ethnicity', 'country', 'site', 'camera')
_MISSING = -1  # TFDS's number for a class that is not known


class RegistryBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset of the registry: `image`, `key`, `patient`, demographics, and each label as a class or a number.

    The split is RETFound's where its layout lies there, the official one where there is one, and else by a hash of the patient. Pictures
    are kept as they are: copies of one under two patients are sought only when one of our own datasets is built.
    """

    DATASET: ClassVar[Dataset]
    VERSION = tfds.core.Version(_VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        dataset = self.DATASET
        return tfds.core.DatasetInfo(
            builder=self, description=f'{dataset.title}. {dataset.notes}', features=features(dataset), homepage=dataset.homepage,
            citation=dataset.citation, license=dataset.licence,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        found = reading.read(self.DATASET, Path(dl_manager.manual_dir) / self.DATASET.name)
        given = found.split() != 'hash'
        by_split: dict[str, list[Example]] = {}
        for example in found.examples:
            split = example.split if given else split_of(example.patient or example.key, config=SplitConfig())
            by_split.setdefault(split, []).append(example)
        present = (split for split in SPLITS if split in by_split)
        return {_TFDS_SPLITS.get(split, split): self._generate_examples(found.root, by_split[split]) for split in present}

    def _generate_examples(self, root: Path, examples: list[Example]) -> Iterator[tuple[str, dict[str, Any]]]:
        modality = self.DATASET.modality
        for example in examples:
            if not npz.split_member(example.file):
                image = encode.file_bytes(folders.below(root, example.file), modality=modality)
                yield example.key, self._features(example, image)
        for example, pixels in members.walk(root, examples):
            yield example.key, self._features(example, encode.array_bytes(pixels, modality=modality))

    def _features(self, example: Example, image: bytes) -> dict[str, Any]:
        labels = {label.name: _label(example.labels.get(label.name, ''), number=not label.classes) for label in self.DATASET.labels}
        return {'image': image, 'key': example.key, 'patient': example.patient or example.key, 'age': np.float32(example.age),
                **{name: getattr(example, name) for name in _TEXT}, **labels}


def features(dataset: Dataset) -> tfds.features.FeaturesDict:
    """What a record of the dataset holds."""
    spec: dict[str, Any] = {'image': tfds.features.Image(shape=(None, None, encode.channels(dataset.modality)))}
    spec |= {name: tfds.features.Text() for name in ('key', 'patient', *_TEXT)} | {'age': np.float32}
    for label in dataset.labels:
        spec[label.name] = tfds.features.ClassLabel(names=list(label.classes)) if label.classes else np.float32
    return tfds.features.FeaturesDict(spec)


def _label(word: str, *, number: bool) -> str | int | np.float32:
    if number:
        return np.float32(word or math.nan)
    return word or _MISSING


def _builder(dataset: Dataset) -> type[RegistryBuilder]:
    """The class; to be made registers it with TFDS under the dataset's name."""
    name = ''.join(part.capitalize() for part in dataset.name.split('_'))
    sums = ', '.join(f'{file.name} {file.sha256 or file.md5}' for file in dataset.files if file.sha256 or file.md5)
    instructions = (f'In the manual_dir, which is the data folder: {dataset.instructions} Licence: {dataset.licence}.'
                    + (f' Checksums, which `retfound datasets --check` compares: {sums}.' if sums else ''))
    return type(name, (RegistryBuilder,), {
        '__module__': __name__, '__doc__': f'{dataset.title}; see the registry for all that is known of it.', 'name': dataset.name,
        'DATASET': dataset, 'MANUAL_DOWNLOAD_INSTRUCTIONS': instructions,
    })


BUILDERS: dict[str, type[RegistryBuilder]] = {name: _builder(dataset) for name, dataset in catalogue.datasets().items()}
