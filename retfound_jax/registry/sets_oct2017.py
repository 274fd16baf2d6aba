"""Kermany's OCT2017: B-scans with neovascularisation, diabetic oedema, drusen or none of these, many of each patient."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from retfound_jax.core.errors import UserError
from retfound_jax.registry import folders
from retfound_jax.registry.base import Dataset, Example, File, Label
from retfound_jax.registry.draw import seed_of, write_image
from retfound_jax.registry.draw_oct import draw_oct

_NAME = 'kermany_oct2017'
_CLASSES = {'CNV': 'cnv', 'DME': 'dme', 'DRUSEN': 'drusen', 'NORMAL': 'normal'}
_SCAN = re.compile(r'(?:CNV|DME|DRUSEN|NORMAL)-(\d+)-\d+', re.ASCII)
OCT_DISEASE = Label(
    name='oct_disease', classes=tuple(_CLASSES.values()),
    meaning='choroidal neovascularisation; diabetic macular oedema; drusen; none of these',
)


def _read(root: Path) -> list[Example]:
    base = folders.base_of(root, ['train', 'test'], name=_NAME)
    examples = []
    for split in ('train', 'val', 'test'):
        if (base / split).is_dir():
            folders.below(root, (base / split).relative_to(root).as_posix())
            examples += folders.class_folders(root, base / split, name=_NAME, label=OCT_DISEASE.name, classes=_CLASSES, split=split)
    return [dataclasses.replace(example, patient=_patient(root / example.file)) for example in examples]


def _patient(path: Path) -> str:
    match = _SCAN.fullmatch(path.stem)
    if not match:
        raise UserError(f'{path} must be called CLASS-PATIENT-NUMBER, so that the patient is known; remove it, or unpack {_NAME} again')
    return match[1]


def _draw(out: Path) -> None:
    seed = iter(range(1000))
    for split, each in (('train', 3), ('val', 1), ('test', 2)):
        for folder, label in _CLASSES.items():
            for number in range(1, each + 1):
                place = next(seed)
                patient = 1_000_000 + (place if number < 3 else place - 1)  # the third B-scan is of the second's patient
                path = out / 'OCT2017' / split / folder / f'{folder}-{patient}-{number}.jpeg'
                write_image(path, draw_oct(seed_of(_NAME, place), label=label))


SETS: tuple[Dataset, ...] = (
    Dataset(
        name=_NAME, title='OCT2017: labelled optical coherence tomography (Kermany)', modality='OCT', images=109_309, licence='CC BY 4.0',
        citation='Kermany DS, Goldbaum M, Cai W, et al. Identifying medical diagnoses and treatable diseases by image-based deep learning. '
                 'Cell 2018;172(5):1122-1131. Data: doi:10.17632/rscbjbr9sj',
        homepage='https://data.mendeley.com/datasets/rscbjbr9sj',
        instructions='1. Download the archive of OCT images from Mendeley Data (version 3 is whole; version 2, which is also Kaggle\'s '
                     'paultimothymooney/kermany2018, has 84,484 B-scans). 2. Unpack it into kermany_oct2017/ in the data folder, so that '
                     'OCT2017/train and OCT2017/test with CNV, DME, DRUSEN and NORMAL lie in it (val, too, where there is one).',
        files=(File(name='OCT2017'),), labels=(OCT_DISEASE,),
        patient_key='the first number in the name of the file: CNV-1016042-1', demographics=(),
        official_split='train and test (250 B-scans a class); Kaggle\'s copy has also a val of 8 a class',
        retfound_split=None,
        notes='Patients of test are in train, too (some 3,700 of the 108,300 training B-scans), so the official split leaks: pass '
              '--drop_leaks to keep the official test, or --split hash. The images were in the pretraining of RETFound (OCT) and '
              'UrFound; OCTMNIST is made of them. B-scans are from Spectralis devices of five centres.',
        read=_read, draw=_draw,
    ),
)
