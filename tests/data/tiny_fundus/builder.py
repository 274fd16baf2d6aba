"""The builder of the tiny dataset."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from data_sets import picture
from PIL import Image


class TinyFundus(tfds.core.GeneratorBasedBuilder):
    """Eight images for training and three for validation, as a stranger might have written them."""

    VERSION = tfds.core.Version('1.0.0')

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            'photo': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
            'label': tfds.features.ClassLabel(names=['healthy', 'sick']),
            'patient_id': tfds.features.Text(),
            'filename': tfds.features.Text(),
            'sex': tfds.features.Text(),
            'age': np.float32,
            'grade': np.int64,
            'labels': {'thickness': np.float32},
            'box': tfds.features.Tensor(shape=(4,), dtype=np.float32),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager
        return {'train': self._generate_examples(0, 8), 'validation': self._generate_examples(8, 11)}

    def _generate_examples(self, start: int, end: int) -> Iterator[tuple[int, dict[str, object]]]:
        for number in range(start, end):
            buffer = io.BytesIO()
            Image.fromarray(picture(number, height=30, width=40)).save(buffer, 'PNG')
            buffer.seek(0)
            yield number, {
                'photo': buffer,
                'label': number % 2,
                'patient_id': f'P{number // 2}',
                'filename': f'{number}.png',
                'sex': 'FM'[number % 2],
                'age': 50.0 + number,
                'grade': 10 if number > 8 else number % 3,  # a grade that only validation has
                'labels': {'thickness': number / 8},
                'box': np.zeros(4, np.float32),
            }
