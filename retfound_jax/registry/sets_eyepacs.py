"""EyePACS, as Kaggle gave it out for its competition of 2015: diabetic retinopathy graded 0 to 4, both eyes of each patient."""

from __future__ import annotations

from pathlib import Path

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, csv_text
from retfound_jax.registry import folders
from retfound_jax.registry.base import Dataset, Example, File
from retfound_jax.registry.draw import draw_fundus, seed_of, write_image
from retfound_jax.registry.flags import coded
from retfound_jax.registry.labels import DR_GRADE, numbered

_NAME = 'eyepacs'
_TRAIN, _TEST = ('train', 'trainLabels.csv'), ('test', 'retinopathy_solution.csv')
_USAGE = {'Public': 'val', 'Private': 'test'}
_COLUMNS = {'image': ['image'], 'grade': ['level']}


def _read(root: Path) -> list[Example]:
    base = folders.base_of(root, _TRAIN, name=_NAME)
    on_disk, table = folders.by_stem(base / _TRAIN[0]), folders.table(base / _TRAIN[1], _COLUMNS, name=_NAME)
    examples = [_example(root, base / _TRAIN[0], row, split='train', on_disk=on_disk) for row in table]
    there = [(base / part).exists() for part in _TEST]
    if not any(there):
        return examples
    if not all(there):
        missing = base / _TEST[there.index(False)]
        raise UserError(f'{missing} is missing, and {_TEST[there.index(True)]} is there, so the test part of {_NAME} is not whole; '
                        f'{folders.get_it(_NAME)}, or take that away to use the training part alone')
    on_disk = folders.by_stem(base / _TEST[0])
    for row in folders.table(base / _TEST[1], _COLUMNS | {'usage': ['Usage']}, name=_NAME):
        split = coded(row['usage'], _USAGE, where=row['where'], column='Usage')
        if not split:
            raise UserError(f'{row["where"]} has an empty Usage, which must be Public or Private; download the table again')
        examples.append(_example(root, base / _TEST[0], row, split=split, on_disk=on_disk))
    return examples


def _example(root: Path, folder: Path, row: dict[str, str], *, split: str, on_disk: dict[str, str]) -> Example:
    patient, _, eye = row['image'].rpartition('_')
    if not patient or eye not in ('left', 'right'):
        raise UserError(f'{row["where"]} names the image "{row["image"]}", which must be PATIENT_left or PATIENT_right; see to that line')
    file = folder.relative_to(root) / on_disk.get(row['image'].lower(), f'{row["image"]}.jpeg')
    return Example(
        key=folders.safe_key(row['image']), file=file.as_posix(), split=split, patient=patient, laterality=eye[0].upper(),
        labels={'dr_grade': numbered(row['grade'], DR_GRADE.classes, where=row['where'])},
    )


def _draw(out: Path) -> None:
    rows: dict[str, list[tuple[object, ...]]] = {'train': [('image', 'level')], 'test': [('image', 'level', 'Usage')]}
    for number in range(16):
        part, patient = ('train', 10 + 3 * number) if number < 10 else ('test', 11 + 3 * number)
        usage = () if part == 'train' else ('Public',) if number < 12 else ('Private',)
        for place, eye in enumerate(('left', 'right')):
            grade = (number + place) % 5
            write_image(out / part / f'{patient}_{eye}.jpeg', draw_fundus(seed_of(_NAME, 2 * number + place), grade=grade))
            rows[part].append((f'{patient}_{eye}', grade, *usage))
    for folder, file in (_TRAIN, _TEST):
        atomic_write(out / file, csv_text(rows[folder]))


SETS: tuple[Dataset, ...] = (
    Dataset(
        name=_NAME, title='EyePACS: Diabetic Retinopathy Detection (Kaggle 2015)', modality='CFP', images=88_702,
        licence='rules of the Kaggle competition; no right to pass the images on is given',
        citation='Dugas E, Jared, Jorge, Cukierski W. Diabetic Retinopathy Detection. Kaggle, 2015. Images: EyePACS; Cuadros J, Bresnick '
                 'G. EyePACS: an adaptable telemedicine system for diabetic retinopathy screening. Journal of Diabetes Science and '
                 'Technology 2009;3(3):509-516',
        homepage='https://www.kaggle.com/competitions/diabetic-retinopathy-detection',
        instructions='1. Join the competition on its Kaggle page and accept the rules. 2. Download train.zip.001 to .005, test.zip.001 to '
                     '.007 and trainLabels.csv.zip; join the parts of each archive (cat train.zip.0* > train.zip) and unpack them. '
                     '3. Download retinopathy_solution.csv, the labels of the test part, from the discussion of that competition. 4. Put '
                     'all into eyepacs/ in the data folder, so that eyepacs/train, eyepacs/test, eyepacs/trainLabels.csv and '
                     'eyepacs/retinopathy_solution.csv lie there. The training part alone (35,126 images) is read, too.',
        files=tuple(File(name=name) for name in (*_TRAIN, *_TEST)), labels=(DR_GRADE,),
        patient_key='the number in the name of the file: 10_left and 10_right are the eyes of one patient', demographics=(),
        official_split='train 35,126; of the test part (53,576) what the solution calls Public is val here, Private is test',
        retfound_split=None,
        notes='The images, those of the test part among them, were in the pretraining of RETFound (CFP), UrFound and FLAIR. Grades are of '
              'one reader and noisy; some images are black or out of focus.',
        read=_read, draw=_draw,
    ),
)
