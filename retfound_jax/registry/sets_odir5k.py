"""ODIR-5K: both eyes of each patient, with the readers' keywords for each eye and eight flags for the patient.

The flags N, D, G, C, A, H, M and O are the patient's: a normal left eye carries the right eye's cataract. So an eye's own labels are made
of its keywords, and the flags are kept apart as `patient_...`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, csv_text
from retfound_jax.registry import folders
from retfound_jax.registry.base import Dataset, Example, File
from retfound_jax.registry.draw import draw_fundus, seed_of, write_image
from retfound_jax.registry.flags import WORDS, finding, flag, years
from retfound_jax.registry.labels import DR_GRADE
from retfound_jax.registry.xlsx import read_xlsx, write_xlsx

_NAME = 'odir5k'
_FULL_TABLE, _IMAGES = 'ODIR-5K_Training_Annotations(Updated)_V2.xlsx', 'ODIR-5K_Training_Images'
_CHALLENGE = ((_FULL_TABLE, _IMAGES), (_FULL_TABLE, 'ODIR-5K_Training_Dataset'), ('data.xlsx', 'Training Images'))
_KAGGLE_TABLE, _KAGGLE_IMAGES = 'full_df.csv', 'preprocessed_images'
_OIA = {'Training Set': 'train', 'Off-site Test Set': 'val', 'On-site Test Set': 'test'}
_EYES = {'Left': 'L', 'Right': 'R'}
_SEX = {'female': 'F', 'male': 'M', '': ''}
_PLACEHOLDER = 1.0  # [years] written where the age is not known
# Finding: the patient's flag, and what an eye's keyword holds.
_FINDINGS = {
    'normal': ('N', r'^normal fundus$'), 'diabetic_retinopathy': ('D', 'proliferative|diabetic retinopathy'), 'glaucoma': ('G', 'glaucoma'),
    'cataract': ('C', 'cataract'), 'amd': ('A', 'age-related macular degeneration'),
    'hypertensive_retinopathy': ('H', 'hypertensive'), 'myopia': ('M', 'myopi'), 'other': ('O', ''),
}
_MEANINGS = {
    'normal': 'nothing was found', 'diabetic_retinopathy': 'diabetic retinopathy, or suspected', 'glaucoma': 'glaucoma, or suspected',
    'cataract': 'cataract', 'amd': 'age-related macular degeneration', 'hypertensive_retinopathy': 'hypertensive retinopathy',
    'myopia': 'pathological myopia', 'other': 'another finding',
}
# The patient's flag of each finding. What the challenge calls diabetes and hypertension is seen in the photographs, in either eye.
_FLAGS = {name: f'patient_{name}' for name in _FINDINGS} | {
    'diabetic_retinopathy': 'patient_diabetes', 'hypertensive_retinopathy': 'patient_hypertension'}
# Keywords of the image and not of the eye.
_OF_THE_IMAGE = frozenset({'lens dust', 'low image quality', 'optic disk photographically invisible', 'image offset',
                           'anterior segment image', 'no fundus image'})
_GRADES = {'mild non': 'mild', 'moderate non': 'moderate', 'severe non': 'severe'}
_COLUMNS = ('ID', 'Patient Age', 'Patient Sex', *(f'{eye}-{what}' for eye in _EYES for what in ('Fundus', 'Diagnostic Keywords')),
            *(letter for letter, _ in _FINDINGS.values()))


def labels_of_eye(keywords: str) -> dict[str, str]:
    """The findings of an eye, and its grade of diabetic retinopathy, by the readers' keywords for it.

    The grade is known of a normal fundus and where a keyword names the stage; a stage that is suspected only is none.
    """
    words = [word.strip().lower() for word in re.split('[,，]', keywords)]
    words = [word for word in words if word and word not in _OF_THE_IMAGE]
    kinds = [{name for name, (_, pattern) in _FINDINGS.items() if pattern and re.search(pattern, word)} or {'other'} for word in words]
    found = set().union(*kinds)
    labels = {name: WORDS[name in found] if words else '' for name in _FINDINGS}
    stages = {grade for word in words for grade in [_grade(word)] if grade}
    grade = max(stages, key=DR_GRADE.classes.index) if stages else 'no_dr' if found == {'normal'} else ''
    return labels | {DR_GRADE.name: grade}


def _grade(word: str) -> str:
    if 'suspect' in word or 'suspicious' in word or 'proliferative' not in word:
        return ''
    return next((grade for start, grade in _GRADES.items() if word.startswith(start)), 'proliferative' if 'non' not in word else '')


def _read(root: Path) -> list[Example]:
    """Of the three ways it is handed out in: OIA-ODIR with its test sets, the challenge's training part, and Kaggle's cut pictures."""
    if _is_there(root, 'Training Set'):
        base = folders.base_of(root, [f'{folder}/{part}' for folder in _OIA for part in ('Annotation', 'Images')], name=_NAME)
        return [example for folder, split in _OIA.items() for example in _patients(
            root, base / folder / 'Images', _sheet(_english(base / folder / 'Annotation')), split=split)]
    for table, images in _CHALLENGE:
        if _is_there(root, table) and _is_there(root, images):
            base = folders.base_of(root, [table, images], name=_NAME)
            return _patients(root, base / images, _sheet(base / table))
    if _is_there(root, _KAGGLE_TABLE):
        base = folders.base_of(root, [_KAGGLE_TABLE, _KAGGLE_IMAGES], name=_NAME)
        columns = {name: [name] for name in (*_COLUMNS, 'filename')}
        return _patients(root, base / _KAGGLE_IMAGES, folders.table(base / _KAGGLE_TABLE, columns, name=_NAME))
    folders.base_of(root, [_FULL_TABLE, _IMAGES], name=_NAME)  # says what is missing
    raise AssertionError('unreachable')


def _is_there(root: Path, name: str) -> bool:
    return any(next(root.glob(f'{above}{name}'), None) for above in ('', '*/', '*/*/'))


def _english(folder: Path) -> Path:
    found = sorted(path for path in folder.glob('*.xlsx') if 'english' in path.name.lower() and not path.name.startswith(('.', '~')))
    if len(found) != 1:
        raise UserError(f'{folder} must hold one workbook with English in its name and holds {len(found)}; unpack {_NAME} again')
    return found[0]


def _sheet(path: Path) -> list[dict[str, str]]:
    """Rows of a workbook by the names of the columns, with where each is."""
    header, *rows = read_xlsx(path) or [[]]
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise UserError(f'{path} has no column "{missing[0]}"; it has {", ".join(filter(None, header)) or "none"}; unpack {_NAME} again')
    return [{'where': f'{path}, row {number},'} | dict(zip(header, row, strict=True))
            for number, row in enumerate(rows, start=2) if any(row)]


def _patients(root: Path, images: Path, rows: Iterable[dict[str, str]], *, split: str = '') -> list[Example]:
    folders.below(root, images.relative_to(root).as_posix())
    on_disk = folders.by_stem(images)
    return [example for row in rows for example in _eyes(root, images, row, split=split, on_disk=on_disk)]


def _eyes(root: Path, images: Path, row: dict[str, str], *, split: str, on_disk: dict[str, str]) -> Iterator[Example]:
    """Both eyes of a row, or the one whose `filename` it gives."""
    where, sex = row['where'], row['Patient Sex'].lower()
    if sex not in _SEX or not row['ID']:
        raise UserError(f'{where} must name a patient\'s ID, and Female or Male, and has "{row["ID"]}" and "{row["Patient Sex"]}"')
    flags = {_FLAGS[name]: flag(row[letter], where=where, column=letter) for name, (letter, _) in _FINDINGS.items()}
    eyes = [eye for eye in _EYES if row.get('filename', row[f'{eye}-Fundus']) == row[f'{eye}-Fundus']]
    if not eyes:
        raise UserError(f'{where} has the filename "{row["filename"]}", which is neither of its eyes; download the table again')
    for eye in eyes:
        file = Path(row[f'{eye}-Fundus'])
        if not file.stem:
            raise UserError(f'{where} names no image in {eye}-Fundus; download the table again')
        place = images.relative_to(root) / on_disk.get(file.stem.lower(), row[f'{eye}-Fundus'])
        yield Example(
            key=folders.safe_key(file.stem), file=place.as_posix(), labels=labels_of_eye(row[f'{eye}-Diagnostic Keywords']) | flags,
            split=split, patient=row['ID'], laterality=_EYES[eye], sex=_SEX[sex], country='China',
            age=years(row['Patient Age'], where=where, placeholder=_PLACEHOLDER),
        )


_DRAWN = (
    ('normal fundus', 'normal fundus'), ('cataract', 'normal fundus'), ('moderate non proliferative retinopathy', 'glaucoma'),
    ('dry age-related macular degeneration', 'hypertensive retinopathy'), ('pathological myopia', 'drusen'),
    ('mild nonproliferative retinopathy，lens dust', 'severe nonproliferative retinopathy'),
    ('proliferative diabetic retinopathy', 'suspected diabetic retinopathy'), ('normal fundus', 'normal fundus'),
)


def _draw(out: Path) -> None:
    rows: list[list[str | float]] = [list(_COLUMNS)]
    for number, pair in enumerate(_DRAWN):
        found = [labels_of_eye(keywords) for keywords in pair]
        union = {name for labels in found for name in _FINDINGS if labels[name] == 'present'}
        union -= {'normal'} if union != {'normal'} else set()
        cells: list[str | float] = [number, 1.0 if number == 3 else 50.0 + number, ('Female', 'Male')[number % 2]]
        for place, (eye, keywords) in enumerate(zip(_EYES, pair, strict=True)):
            name = f'{number}_{eye.lower()}.jpg'
            grade = DR_GRADE.classes.index(found[place][DR_GRADE.name] or 'no_dr')
            picture = draw_fundus(seed_of(_NAME, 2 * number + place), grade=grade, glaucoma='glaucoma' in keywords, amd='age' in keywords)
            write_image(out / _IMAGES / name, picture)
            cells += [name, keywords]
        rows.append([*cells, *(float(name in union) for name in _FINDINGS)])
    write_xlsx(out / _FULL_TABLE, rows)


def as_kaggle(source: Path, out: Path) -> None:
    """Lays the fixture out as Kaggle does: a row for each eye, which names the eye in `filename`. For tests."""
    import shutil

    header, *rows = read_xlsx(source / _FULL_TABLE)
    lines = [(*header, 'filename')]
    for row in rows:
        named = dict(zip(header, row, strict=True))
        lines += [(*row, named[f'{eye}-Fundus']) for eye in _EYES]
    shutil.copytree(source / _IMAGES, out / _KAGGLE_IMAGES)
    atomic_write(out / _KAGGLE_TABLE, csv_text(lines))


SETS: tuple[Dataset, ...] = (
    Dataset(
        name=_NAME, title='ODIR-5K: Ocular Disease Intelligent Recognition', modality='CFP', images=7_000,
        licence='for research, as released for the challenge; no standard licence is named',
        citation='Li N, Li T, Hu C, Wang K, Kang H. A benchmark of ocular disease intelligent recognition: one shot for multi-disease '
                 'detection. Bench 2020, LNCS 12614:177-193. doi:10.1007/978-3-030-71058-3_11',
        homepage='https://odir2019.grand-challenge.org/',
        instructions='Any of three: 1. of the challenge (log in at grand-challenge.org), its training images and annotations, unpacked so '
                     f'that odir5k/{_IMAGES} and odir5k/{_FULL_TABLE} lie in the data folder; 2. OIA-ODIR with the labels '
                     'of its two test sets (github.com/nkicsl/OIA-ODIR tells how), unpacked so that odir5k/Training Set, odir5k/Off-site '
                     'Test Set and odir5k/On-site Test Set lie there; 3. of Kaggle (andrewmvd/ocular-disease-recognition-odir5k), '
                     f'unpacked so that odir5k/{_KAGGLE_TABLE} and odir5k/{_KAGGLE_IMAGES} lie there: 6,392 pictures, cut and smaller.',
        files=(File(name=_IMAGES), File(name=_FULL_TABLE)),
        labels=(
            *(finding(name, f'of this eye, by its keywords: {meaning}') for name, meaning in _MEANINGS.items()),
            DR_GRADE, *(finding(_FLAGS[name], f'of the PATIENT, either eye: {meaning}') for name, meaning in _MEANINGS.items()),
        ),
        patient_key='column ID', demographics=('age', 'sex', 'country'), official_split='', retfound_split=None,
        notes='The flags N to O are the patient\'s and not the eye\'s: train on an eye\'s own labels. The age 1 is a placeholder and '
              'counts as missing. A few photographs appear under two patients; they are found by their hashes when it is built. OIA-ODIR '
              'has a split of 3,500, 500 and 1,000 patients, taken as train, val (off-site) and test (on-site). The grade is made of '
              'keywords.',
        read=_read, draw=_draw,
    ),
)
