"""RetinaMNIST and OCTMNIST, at 28 and at 224 pixels: each one archive of arrays with a fixed split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.registry import folders, npz
from retfound_jax.registry.base import Dataset, Example, File, Label
from retfound_jax.registry.draw import draw_fundus, seed_of
from retfound_jax.registry.draw_oct import draw_oct
from retfound_jax.registry.labels import DR_GRADE, numbered
from retfound_jax.registry.sets_oct2017 import OCT_DISEASE

_DRAWN = 64  # [px], enlarged where more is needed: it is drawn quickly
_SPLITS = ('train', 'val', 'test')
_CITATION = ('Yang J, Shi R, Wei D, et al. MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image classification. '
             'Scientific Data 2023;10:41. doi:10.1038/s41597-022-01721-8')
_MD5 = {'retinamnist': 'bd4c0672f1bba3e3a89f0e4e876791e4', 'retinamnist_224': 'eae7e3b6f3fcbda4ae613ebdcbe35348',
        'octmnist': 'c68d92d5b585d8d81f7112f81e2d0842', 'octmnist_224': 'abc493b6d529d5de7569faaef2773ba3'}


def _reader(name: str, label: Label) -> Callable[[Path], list[Example]]:
    def read(root: Path) -> list[Example]:
        base = folders.base_of(root, [f'{name}.npz'], name=name)
        path = folders.below(root, (base / f'{name}.npz').relative_to(root).as_posix())
        examples = []
        for split in _SPLITS:
            numbers, images = npz.labels(path, f'{split}_labels'), npz.count(path, f'{split}_images')
            if len(numbers) != images:
                raise UserError(f'{path} has {images} images and {len(numbers)} labels in {split}; download the archive again')
            examples += [Example(
                key=f'{split}_{index:06d}', file=npz.member(path.relative_to(root).as_posix(), f'{split}_images', index), split=split,
                labels={label.name: numbered(str(number), label.classes, where=f'{path}, {split} image {index},')},
            ) for index, number in enumerate(numbers.tolist())]
        return examples

    return read


def _drawer(name: str, label: Label, size: int) -> Callable[[Path], None]:
    def draw(out: Path) -> None:
        arrays, place = {}, 0
        for split in _SPLITS:
            numbers, pictures = range(len(label.classes)), []
            for number in numbers:
                pictures.append(_picture(seed_of(name, place), label, number, size=size))
                place += 1
            arrays |= {f'{split}_images': np.stack(pictures), f'{split}_labels': np.array(numbers, np.uint8)[:, None]}
        with open(out / f'{name}.npz', 'wb') as file:
            np.savez_compressed(file, **arrays)

    return draw


def _picture(seed: int, label: Label, number: int, *, size: int) -> np.ndarray:
    drawn = draw_fundus(seed, grade=number) if label is DR_GRADE else draw_oct(seed, label=label.classes[number])
    return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA if size < _DRAWN else cv2.INTER_CUBIC)


def _declared(name: str, *, size: int) -> Dataset:
    fundus = name == 'retinamnist'
    label, full = (DR_GRADE if fundus else OCT_DISEASE), name if size == 28 else f'{name}_{size}'
    sizes = 'train 1,080, val 120, test 400' if fundus else 'train 97,477, val 10,832, test 1,000'
    address = f'zenodo.org/records/{"6496656" if size == 28 else "10519652"}'
    source = 'DeepDRiD, whose own validation set is its test' if fundus else 'Kermany\'s OCT2017, whose own test set is its test'
    return Dataset(
        name=full, title=f'{"RetinaMNIST" if fundus else "OCTMNIST"}, {size} px', modality='CFP' if fundus else 'OCT',
        images=1_600 if fundus else 109_309, licence='CC BY 4.0', citation=_CITATION, homepage='https://medmnist.com/',
        instructions=f'1. Download {full}.npz from {address}. 2. Put it into {full}/ in the data folder; it is read as it is.',
        files=(File(name=f'{full}.npz', md5=_MD5[full], url=f'https://{address}/files/{full}.npz?download=1'),),
        labels=(label,), patient_key='', demographics=(), official_split=sizes, retfound_split=None,
        made_from=() if fundus and size == 28 else (name,) if size != 28 else ('kermany_oct2017',),
        notes=f'Made of {source}, cut to the middle square and made smaller. Patients are not named'
              + ('.' if fundus else ', and those of OCT2017\'s test are in its train, too.')
              + ('' if size == 28 else ' The rows "(224)" of MedMNIST\'s table are of enlarged 28-px images and not of these.'),
        read=_reader(full, label), draw=_drawer(full, label, size),
    )


SETS: tuple[Dataset, ...] = tuple(_declared(name, size=size) for name in ('retinamnist', 'octmnist') for size in (28, 224))
