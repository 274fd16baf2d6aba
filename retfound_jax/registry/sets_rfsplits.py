"""PAPILA, Glaucoma fundus, JSIEC, Retina and OCTID: as first published or in RETFound's layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from retfound_jax.core.errors import UserError
from retfound_jax.registry import folders, rfsplit
from retfound_jax.registry.base import NAN, Dataset, Example, File, Label, SplitSizes
from retfound_jax.registry.draw import draw_fundus, seed_of, write_image
from retfound_jax.registry.draw_oct import draw_oct
from retfound_jax.registry.labels import numbered
from retfound_jax.registry.sets_rfsplits_dr import URFOUND, or_split
from retfound_jax.registry.xlsx import read_xlsx, write_xlsx

_GLAUCOMA_WORDS = ('healthy', 'glaucoma', 'suspect')  # as PAPILA numbers them
_SEX = ('M', 'F')
_EYES = {'od': 'R', 'os': 'L'}
_IMAGE = re.compile(r'RET(\d+)(OD|OS)', re.IGNORECASE)
_NORMAL, _EARLY = ('normal_control', 'early_glaucoma')
_STAGES = {_NORMAL: 'normal', _EARLY: 'early', 'advanced_glaucoma': 'advanced'}
_RETINA = {'1_normal': 'normal', '2_cataract': 'cataract', '2_glaucoma': 'glaucoma', '3_retina_disease': 'retina_disease'}
_OCTID = {'NORMAL': 'normal', 'AMRD': 'amd', 'ARMD': 'amd', 'CSR': 'csr', 'DR': 'dr', 'MH': 'macular_hole'}
_OCT_DRAWN = {'NORMAL': 'normal', 'AMRD': 'drusen', 'CSR': 'csr', 'DR': 'dr', 'MH': 'hole'}


def _read_papila(root: Path) -> list[Example]:
    needed = ['FundusImages', *(f'ClinicalData/patient_data_{eye}.xlsx' for eye in _EYES)]
    base = folders.base_of(root, needed, name='papila')
    start, on_disk = (base / 'FundusImages').relative_to(root), folders.by_stem(base / 'FundusImages')
    examples = []
    for eye, laterality in _EYES.items():
        for row in _papila_rows(base / 'ClinicalData' / f'patient_data_{eye}.xlsx'):
            stem = f'RET{row["id"]}{eye.upper()}'
            file = start / on_disk.get(stem.lower(), f'{stem}.jpg')
            examples.append(Example(
                key=stem, file=file.as_posix(), patient=f'RET{row["id"]}', laterality=laterality,
                labels={'glaucoma': numbered(row['Diagnosis'], _GLAUCOMA_WORDS, where=row['where'])}, age=_number(row['Age'], row['where']),
                sex=numbered(row['Gender'], _SEX, where=row['where']), country='Spain',
            ))
    return examples


def _papila_rows(path: Path) -> list[dict[str, str]]:
    """Rows of patients. Three lines of headings come before them, the names of the columns in any of these."""
    cells = read_xlsx(path)
    places: dict[str, int] = {}
    for line in cells[:3]:
        places |= {word: line.index(word) for word in ('Age', 'Gender', 'Diagnosis') if word in line}
    missing = [word for word in ('Age', 'Gender', 'Diagnosis') if word not in places]
    if missing:
        raise UserError(f'{path} has no column "{missing[0]}" in its first three rows; {folders.get_it("papila")}')
    return [
        {'where': f'{path}, row {number},', 'id': line[0].lstrip('#')} | {word: line[place] for word, place in places.items()}
        for number, line in enumerate(cells, start=1) if re.fullmatch(r'#?\d{1,4}', line[0])
    ]


def _number(cell: str, where: str) -> float:
    if cell and not re.fullmatch(r'\d{1,3}(\.\d+)?', cell):
        raise UserError(f'{where} has the age "{cell}"; see to that cell')
    return float(cell) if cell else NAN


def _papila_patient(stem: str) -> str:
    match = _IMAGE.match(stem)
    return f'RET{match[1]}' if match else ''


def _draw_papila(out: Path) -> None:
    patients = [(f'#{number:03d}', 50 + number, number % 2) for number in range(2, 8)]
    for place, eye in enumerate(_EYES):
        rows: list[list[str | float]] = [['', 'Age', 'Gender', 'Diagnosis', 'Refractive_Defect'], ['', '', '', '', 'dioptre_1'], ['ID']]
        for number, (patient, age, sex) in enumerate(patients):
            diagnosis = (number + place) % 3
            rows.append([patient, age, sex, diagnosis, 0.75])
            picture = draw_fundus(seed_of('papila', 2 * number + place), glaucoma=diagnosis == 1)
            write_image(out / 'FundusImages' / f'RET{patient[1:]}{eye.upper()}.jpg', picture)
        (out / 'ClinicalData').mkdir(exist_ok=True)
        write_xlsx(out / 'ClinicalData' / f'patient_data_{eye}.xlsx', rows)
    contour = out / 'ExpertsSegmentations' / 'Contours' / 'RET002OD_disc_exp1.txt'
    contour.parent.mkdir(parents=True)
    contour.write_text('10.0 10.0\n20.0 10.0\n20.0 20.0\n', encoding='utf-8')


def _classes(name: str, label: str, classes: Mapping[str, str]) -> Callable[[Path], list[Example]]:
    """A reader of one folder a class."""
    def read(root: Path) -> list[Example]:
        first = next(iter(classes))
        base = folders.base_of(root, [first], name=name)
        return folders.class_folders(root, base, name=name, label=label, classes=classes)

    return read


def _draw_glaucoma(out: Path) -> None:
    for place, folder in enumerate(_STAGES):
        for number in range(1, 5):  # the numbers begin anew in each folder
            write_image(out / folder / f'{number}.png', draw_fundus(seed_of('glaucoma_fundus', 10 * place + number), glaucoma=place > 0))


def _draw_jsiec(out: Path) -> None:
    for place, folder in enumerate(rfsplit.JSIEC):
        seed = seed_of('jsiec', place)
        picture = draw_fundus(seed, grade=place % 5, glaucoma=folder.startswith('10.'))
        write_image(out / '1000images' / folder / f'{seed:032x}..JPG', picture)


def _draw_retina(out: Path) -> None:
    for place, (folder, stem) in enumerate(zip(_RETINA, ('NL', 'cataract', 'Glaucoma', 'Retina'), strict=True)):
        for number in range(1, 4):
            picture = draw_fundus(seed_of('retina', 10 * place + number), grade=4 if place == 3 else 0, glaucoma=place == 2)
            write_image(out / 'dataset' / folder / f'{stem}_{number:03d}.png', picture)


def _draw_octid(out: Path) -> None:
    for place, (folder, label) in enumerate(_OCT_DRAWN.items()):
        for number in range(1, 5):
            write_image(out / folder / f'{folder}{number}.jpeg', draw_oct(seed_of('octid', 10 * place + number), label=label))


SETS: tuple[Dataset, ...] = (
    Dataset(
        name='papila', title='PAPILA: fundus images and clinical data of both eyes', modality='CFP', images=488, licence='CC BY 4.0',
        citation='Kovalyk O, Morales-Sanchez J, Verdu-Monedero R, et al. PAPILA: dataset with fundus images and clinical data of both '
                 'eyes of the same patient for glaucoma assessment. Scientific Data 2022;9:291. doi:10.1038/s41597-022-01388-1',
        homepage='https://figshare.com/articles/dataset/PAPILA/14798004/1',
        instructions='1. Download PAPILA.zip from its figshare page. 2. Unpack it in papila/ in the data folder, so that FundusImages and '
                     'ClinicalData lie in it (a folder of the archive around them does no harm). ' + or_split('papila', 'PAPILA'),
        files=(File(name='FundusImages'), File(name='ClinicalData'),
               File(name='PAPILA.zip', url='https://figshare.com/ndownloader/files/28454352',
                    sha256='f72ed286a63e40c13fb70802d4e600cc0c74110c01da1ec33201f0389d058c98')),
        labels=(Label(name='glaucoma', classes=('healthy', 'suspect', 'glaucoma'),
                      meaning='diagnosis of the eye by clinical examination'),),
        patient_key='the number in the name of the file: RET002OD and RET002OS are the eyes of one patient',
        demographics=('age', 'sex', 'country'), official_split='',
        retfound_split=SplitSizes(
            train=311, val=79, test=98, source=f'{URFOUND}: they differ, 311 or 313 and 79 or 77 and 98, and no archive was counted',
        ),
        notes='The checksum is that of version 1 of the archive, as another project\'s downloader has it; a later version has another '
              'one. RETFound\'s layout has neither age nor sex.',
        read=rfsplit.either('papila', _read_papila, patient=_papila_patient), draw=_draw_papila,
    ),
    Dataset(
        name='glaucoma_fundus', title='Glaucoma fundus (Kim\'s Eye Hospital)', modality='CFP', images=1544,
        licence='CC0 1.0, as a catalogue of datasets gives it; see its Dataverse page',
        citation='Ahn JM, Kim S, Ahn KS, et al. A deep learning model for the detection of both advanced and early glaucoma using fundus '
                 'photography. PLoS ONE 2018;13(11):e0207982. Data: Kim U. Machine learn for glaucoma. Harvard Dataverse 2018. '
                 'doi:10.7910/DVN/1YRRAC',
        homepage='https://doi.org/10.7910/DVN/1YRRAC',
        instructions='1. Download the archives of its Harvard Dataverse page. 2. Unpack them, so that normal_control, early_glaucoma and '
                     'advanced_glaucoma lie in glaucoma_fundus/ in the data folder. ' + or_split('glaucoma_fundus', 'Glaucoma_fundus'),
        files=tuple(File(name=folder) for folder in _STAGES),
        labels=(Label(name='glaucoma_stage', classes=('normal', 'early', 'advanced'), ordinal=True,
                      meaning='stage of glaucoma of the eye'),),
        patient_key='', demographics=(), official_split='', retfound_split=SplitSizes(train=861, val=218, test=465, source=URFOUND),
        notes='788 normal, 289 early, 467 advanced; cut to the disc and its surroundings, 240 px. Patients are not named.',
        read=rfsplit.either('glaucoma_fundus', _classes('glaucoma_fundus', 'glaucoma_stage', _STAGES)), draw=_draw_glaucoma,
    ),
    Dataset(
        name='jsiec', title='JSIEC: 1,000 fundus images of 39 categories', modality='CFP', images=1000,
        licence='open access on Zenodo; no standard licence is named',
        citation='Cen LP, Ji J, Lin JW, et al. Automatic detection of 39 fundus diseases and conditions in retinal photographs using deep '
                 'neural networks. Nature Communications 2021;12:4828. doi:10.1038/s41467-021-25138-w. Data: doi:10.5281/zenodo.3477553',
        homepage='https://zenodo.org/records/3477553',
        instructions='1. Download 1000images.zip from Zenodo. 2. Unpack it, so that jsiec/1000images with its 39 folders lies in the data '
                     'folder. ' + or_split('jsiec', 'JSIEC'),
        files=(File(name='1000images'), File(name='1000images.zip', url='https://zenodo.org/records/3477553/files/1000images.zip')),
        labels=(Label(name='disease', classes=tuple(rfsplit.JSIEC.values()),
                      meaning='the one disease or condition that the folder names'),),
        patient_key='', demographics=(), official_split='', retfound_split=SplitSizes(train=534, val=150, test=313, source=URFOUND),
        notes='RETFound\'s tables have 997 of the 1,000 images. Classes are small: a hashed split leaves some of them out of val or test.',
        read=rfsplit.either('jsiec', _classes('jsiec', 'disease', rfsplit.JSIEC)), draw=_draw_jsiec,
    ),
    Dataset(
        name='retina', title='Retina (cataract dataset)', modality='CFP', images=601, licence='none is stated',
        citation='Retina dataset. Kaggle, jr2ngb/cataractdataset; also github.com/yiweichen04/retina_dataset',
        homepage='https://www.kaggle.com/datasets/jr2ngb/cataractdataset',
        instructions='1. Download the dataset from Kaggle. 2. Unpack it, so that retina/dataset with its folders lies in the data folder. '
                     + or_split('retina', 'Retina'),
        files=(File(name='dataset'),),
        labels=(Label(name='disease', classes=tuple(_RETINA.values()),
                      meaning='the one group that the folder names'),),
        patient_key='', demographics=(), official_split='', retfound_split=SplitSizes(train=336, val=84, test=181, source=URFOUND),
        notes='300 normal, 100 cataract, 101 glaucoma, 100 with another disease of the retina. Patients are not named.',
        read=rfsplit.either('retina', _classes('retina', 'disease', _RETINA)), draw=_draw_retina,
    ),
    Dataset(
        name='octid', title='OCTID: Optical Coherence Tomography Image Database', modality='OCT', images=572,
        licence='CC0 1.0, as a catalogue of datasets gives it; see each of its Dataverse pages',
        citation='Gholami P, Roy P, Parthasarathy MK, Lakshminarayanan V. OCTID: Optical coherence tomography image database. Computers & '
                 'Electrical Engineering 2020;81:106532',
        homepage='https://borealisdata.ca/dataverse/OCTID',
        instructions='1. Download the archive of each class from the Borealis page. 2. Unpack them, so that NORMAL, AMRD, CSR, DR and MH '
                     'lie in octid/ in the data folder. ' + or_split('octid', 'OCTID'),
        files=tuple(File(name=folder) for folder in _OCT_DRAWN),
        labels=(Label(name='disease', classes=('normal', 'amd', 'csr', 'dr', 'macular_hole'),
                      meaning='normal; age-related macular degeneration; central serous retinopathy; diabetic retinopathy; macular hole'),),
        patient_key='', demographics=(), official_split='', retfound_split=SplitSizes(train=317, val=80, test=175, source=URFOUND),
        notes='206 normal, 55 AMD (the folder spells it AMRD), 102 CSR, 107 DR, 102 macular hole; one B-scan through the fovea of an eye. '
              'Patients are not named.',
        read=rfsplit.either('octid', _classes('octid', 'disease', _OCTID)), draw=_draw_octid,
    ),
)
