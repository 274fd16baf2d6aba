"""BRSET: 16,266 photographs of 8,524 Brazilian patients with anatomy, quality, 13 findings and two grades of diabetic retinopathy."""

from __future__ import annotations

from pathlib import Path

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, csv_text
from retfound_jax.registry import folders
from retfound_jax.registry.base import Dataset, Example, File, Label
from retfound_jax.registry.draw import draw_fundus, seed_of, write_image
from retfound_jax.registry.flags import coded, finding, flag, years
from retfound_jax.registry.labels import DR_GRADE, numbered

_NAME, _FOLDER = 'brset', 'fundus_photos'
_TABLES = ('labels_brset.csv', 'labels.csv')  # of version 1.0.1 and of 1.0.0
_FINDINGS = {
    'diabetic_retinopathy': 'diabetic retinopathy of any grade', 'macular_edema': 'diabetic macular oedema',
    'scar': 'scar, such as of toxoplasmosis', 'nevus': 'naevus', 'amd': 'age-related macular degeneration',
    'vascular_occlusion': 'occlusion of a retinal vessel', 'hypertensive_retinopathy': 'hypertensive retinopathy', 'drusens': 'drusen',
    'hemorrhage': 'haemorrhage that is not diabetic', 'retinal_detachment': 'detachment of the retina', 'myopic_fundus': 'myopic fundus',
    'increased_cup_disc': 'large cup of the disc', 'other': 'another finding',
}
_PARTS = {'optic_disc': 'optic disc', 'vessels': 'vessels', 'macula': 'macula'}
_PART_WORDS, _QUALITY = ('normal', 'abnormal'), ('adequate', 'inadequate')
# Two cells of the published table are outside its own codebook; they count as missing.
_PART_CODES = {'1': 'normal', '2': 'abnormal', 'bv': ''}
_SEX, _EYE = {'1': 'M', '2': 'F'}, {'1': 'R', '2': 'L'}
_YES = {'yes': 'present', 'Yes': 'present', 'no': 'absent', 'No': 'absent'}
_SDRG = Label(
    name='dr_grade_scottish', classes=('none', 'mild_background', 'moderate_background', 'severe', 'proliferative'), ordinal=True,
    meaning='diabetic retinopathy by the Scottish grading scheme: none; mild and moderate background; severe non-proliferative or '
            'pre-proliferative; proliferative, or after laser',
)
_LABELS = (
    DR_GRADE, _SDRG, *(finding(name, meaning) for name, meaning in _FINDINGS.items()),
    *(Label(name=name, classes=_PART_WORDS, meaning=f'appearance of the {meaning}') for name, meaning in _PARTS.items()),
    Label(name='quality', classes=_QUALITY, meaning='quality of the image as a whole'),
    finding('diabetes', 'the patient has diabetes, as he says himself'),
    finding('insulin', 'the patient uses insulin, as he says himself; known for a tenth of the images'),
)
_COLUMNS = {
    'image': ['image_id'], 'patient': ['patient_id'], 'camera': ['camera'], 'age': ['patient_age'], 'sex': ['patient_sex'],
    'eye': ['exam_eye'], 'icdr': ['DR_ICDR'], 'sdrg': ['DR_SDRG'], 'quality': ['quality'], 'diabetes': ['diabetes'],
    'insulin': ['insuline', 'insulin'], **{name: [name] for name in (*_FINDINGS, *_PARTS)},
}


def _read(root: Path) -> list[Example]:
    base = folders.base_of(root, [_FOLDER], name=_NAME)
    table = next((base / name for name in _TABLES if (base / name).is_file()), base / _TABLES[0])
    start, on_disk, examples = (base / _FOLDER).relative_to(root), folders.by_stem(base / _FOLDER), []
    for row in folders.table(table, _COLUMNS, name=_NAME):
        where, stem = row['where'], Path(row['image']).stem
        if not row['patient']:
            raise UserError(f'{where} names no patient; download the table again')
        examples.append(Example(
            key=folders.safe_key(stem), file=(start / on_disk.get(stem.lower(), f'{stem}.jpg')).as_posix(), patient=row['patient'],
            labels=_labels(row), laterality=coded(row['eye'], _EYE, where=where, column='exam_eye'), age=years(row['age'], where=where),
            sex=coded(row['sex'], _SEX, where=where, column='patient_sex'), camera=row['camera'], country='Brazil',
        ))
    return examples


def _labels(row: dict[str, str]) -> dict[str, str]:
    where = row['where']
    return {
        DR_GRADE.name: numbered(row['icdr'], DR_GRADE.classes, where=where), _SDRG.name: numbered(row['sdrg'], _SDRG.classes, where=where),
        **{name: flag(row[name], where=where, column=name) for name in _FINDINGS},
        **{name: coded(row[name], _PART_CODES, where=where, column=name) for name in _PARTS},
        'quality': coded(row['quality'].lower(), {word: word for word in _QUALITY}, where=where, column='quality'),
        'diabetes': coded(row['diabetes'], _YES, where=where, column='diabetes'),
        'insulin': coded(row['insulin'], _YES, where=where, column='insuline'),
    }


def _draw(out: Path) -> None:
    header = ('image_id', 'patient_id', 'camera', 'patient_age', 'comorbidities', 'diabetes_time_y', 'insuline', 'patient_sex', 'exam_eye',
              'diabetes', 'nationality', *_PARTS, 'DR_SDRG', 'DR_ICDR', 'focus', 'Illuminaton', 'image_field', 'artifacts', *_FINDINGS,
              'quality')
    lines: list[tuple[object, ...]] = [header]
    for number in range(14):
        patient, grade, name = 1 + number // 2, number % 5, f'img{number + 1:05d}'
        write_image(out / _FOLDER / f'{name}.jpg', draw_fundus(seed_of(_NAME, number), grade=grade, amd=number == 4, glaucoma=number == 11))
        findings = (int(grade > 0), *(int(number == place) for place in range(1, len(_FINDINGS))))
        lines.append((
            name, patient, ('Canon CR', 'NIKON NF5050')[patient % 2], '' if patient == 3 else 40 + patient, 'diabetes1' if grade else '',
            5 if grade else '', ('yes', 'no', '')[number % 3], 1 + patient % 2, 1 + number % 2, 'yes' if grade else 'No', 'Brazil',
            1 + number % 2, 1 + number // 7, 1 + number % 2, grade, grade, 1, 1, 1, 1, *findings, ('Adequate', 'Inadequate')[number % 2],
        ))
    atomic_write(out / _TABLES[0], csv_text(lines))


SETS: tuple[Dataset, ...] = (
    Dataset(
        name=_NAME, title='BRSET: Brazilian Multilabel Ophthalmological Dataset', modality='CFP', images=16_266,
        licence='PhysioNet Credentialed Health Data License 1.5.0',
        citation='Nakayama LF, Restrepo D, Matos J, et al. BRSET: a Brazilian multilabel ophthalmological dataset of retina fundus photos. '
                 'PLOS Digital Health 2024;3(7):e0000454. Data: doi:10.13026/1pht-2b69 (version 1.0.1)',
        homepage='https://physionet.org/content/brazilian-ophthalmological/',
        instructions='1. Get a credentialed account of PhysioNet: its training on human subjects, and the signed agreement on this '
                     'dataset. 2. Download all files: wget -r -N -c -np --user NAME --ask-password '
                     'https://physionet.org/files/brazilian-ophthalmological/1.0.1/. 3. Put them into brset/ in the data folder, so that '
                     'brset/fundus_photos and brset/labels_brset.csv (labels.csv in version 1.0.0) lie there. Sums of all files are in '
                     'its SHA256SUMS.txt: sha256sum -c SHA256SUMS.txt.',
        files=(File(name=_FOLDER), File(name=_TABLES[0])), labels=_LABELS, patient_key='column patient_id',
        demographics=('age', 'sex', 'country', 'camera'), official_split='', retfound_split=None,
        notes='Version 1.0.1 names seven images that it does not hold: pass --allow_missing. A third of the ages and nine tenths of the '
              'insulin answers are missing. The grade and the finding of diabetic retinopathy differ in some 15 rows. Seven images show a '
              'detachment, too few to score.',
        read=_read, draw=_draw,
    ),
)
