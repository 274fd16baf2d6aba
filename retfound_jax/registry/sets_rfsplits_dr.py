"""APTOS2019, IDRiD and MESSIDOR-2: diabetic retinopathy graded 0 to 4, as first published or in RETFound's layout."""

from __future__ import annotations

from pathlib import Path

from retfound_jax.core.files import atomic_write, csv_text
from retfound_jax.registry import folders, rfsplit
from retfound_jax.registry.base import Dataset, Example, File, Label, SplitSizes
from retfound_jax.registry.draw import draw_fundus, seed_of, write_image
from retfound_jax.registry.labels import DME_RISK, DR_GRADE, numbered

URFOUND = 'UrFound (MICCAI 2024), Table 2, and a second source'
OR_SPLIT = ('Or, with RETFound\'s split: the archive {archive} that the page BENCHMARK.md of github.com/rmaphoh/RETFound_MAE links to; '
            'unpack it so that {name}/train, {name}/val and {name}/test lie in the data folder.')


def or_split(name: str, archive: str) -> str:
    """How to get a dataset in RETFound's layout."""
    return OR_SPLIT.format(name=name, archive=archive)


def _read_aptos(root: Path) -> list[Example]:
    base = folders.base_of(root, ['train.csv', 'train_images'], name='aptos2019')
    rows = folders.table(base / 'train.csv', {'id': ['id_code'], 'grade': ['diagnosis']}, name='aptos2019')
    start, on_disk = (base / 'train_images').relative_to(root), folders.by_stem(base / 'train_images')
    examples = []
    for row in rows:
        file = start / on_disk.get(row['id'].lower(), f'{row["id"]}.png')
        grade = numbered(row['grade'], DR_GRADE.classes, where=row['where'])
        examples.append(Example(key=folders.safe_key(row['id']), file=file.as_posix(), labels={'dr_grade': grade}, country='India'))
    return examples


def _draw_aptos(out: Path) -> None:
    names = [f'{seed_of("aptos2019", number):012x}' for number in range(17)]
    for number, name in enumerate(names[:15]):
        write_image(out / 'train_images' / f'{name}.png', draw_fundus(seed_of('aptos2019', number), grade=number % 5))
    for number, name in enumerate(names[15:], start=15):
        write_image(out / 'test_images' / f'{name}.png', draw_fundus(seed_of('aptos2019', number)))
    atomic_write(out / 'train.csv', csv_text([('id_code', 'diagnosis'), *((name, number % 5) for number, name in enumerate(names[:15]))]))
    atomic_write(out / 'test.csv', csv_text([('id_code',), *((name,) for name in names[15:])]))


_IDRID_PARTS = {'train': ('a. Training Set', 'a. IDRiD_Disease Grading_Training Labels.csv'),
                'test': ('b. Testing Set', 'b. IDRiD_Disease Grading_Testing Labels.csv')}
_IDRID_IMAGES, _IDRID_TABLES = '1. Original Images', '2. Groundtruths'


def _read_idrid(root: Path) -> list[Example]:
    needed = [path for images, table in _IDRID_PARTS.values() for path in (f'{_IDRID_IMAGES}/{images}', f'{_IDRID_TABLES}/{table}')]
    base = folders.base_of(root, needed, name='idrid')
    examples = []
    for split, (images, table) in _IDRID_PARTS.items():
        columns = {'image': ['Image name'], 'grade': ['Retinopathy grade'], 'risk': ['Risk of macular edema']}
        start, on_disk = (base / _IDRID_IMAGES / images).relative_to(root), folders.by_stem(base / _IDRID_IMAGES / images)
        for row in folders.table(base / _IDRID_TABLES / table, columns, name='idrid'):
            labels = {'dr_grade': numbered(row['grade'], DR_GRADE.classes, where=row['where']),
                      'dme_risk': numbered(row['risk'], DME_RISK.classes, where=row['where'])}
            file = start / on_disk.get(row['image'].lower(), f'{row["image"]}.jpg')
            # The official numbering begins anew in the test set.
            key = folders.safe_key(split, row['image'])
            examples.append(Example(key=key, file=file.as_posix(), labels=labels, split=split, country='India'))
    return examples


def _draw_idrid(out: Path) -> None:
    base, seed = out / 'B. Disease Grading', iter(range(100))
    for split, (images, table) in _IDRID_PARTS.items():
        # Empty columns at the right are in the original, too.
        lines: list[tuple[object, ...]] = [('Image name', 'Retinopathy grade', 'Risk of macular edema ', '', '', '')]
        for number in range(10 if split == 'train' else 5):
            grade, name = number % 5, f'IDRiD_{number + 1:03d}'
            write_image(base / _IDRID_IMAGES / images / f'{name}.jpg', draw_fundus(seed_of('idrid', next(seed)), grade=grade))
            lines.append((name, grade, min(2, grade), '', '', ''))
        atomic_write(base / _IDRID_TABLES / table, csv_text(lines))


def _pairs(path: Path) -> dict[str, tuple[str, str]]:
    """Stem of an image to its examination and its eye."""
    found = {}
    for row in folders.table(path, {'L': ['left'], 'R': ['right']}, name='messidor2'):
        patient = Path(row['L'] or row['R']).stem
        found |= {Path(row[eye]).stem.lower(): (patient, eye) for eye in 'LR' if row[eye]}
    return found


def _read_messidor(root: Path) -> list[Example]:
    base = folders.base_of(root, ['IMAGES', 'messidor-2.csv', 'messidor_data.csv'], name='messidor2')
    pairs, on_disk = _pairs(base / 'messidor-2.csv'), folders.by_stem(base / 'IMAGES')
    columns = {'image': ['image_id', 'id_code'], 'grade': ['adjudicated_dr_grade', 'diagnosis'], 'oedema': ['adjudicated_dme']}
    start, examples = (base / 'IMAGES').relative_to(root), []
    for row in folders.table(base / 'messidor_data.csv', columns, name='messidor2'):
        stem = Path(row['image']).stem
        patient, eye = pairs.get(stem.lower(), ('', ''))
        labels = {'dr_grade': numbered(row['grade'], DR_GRADE.classes, where=row['where']),
                  'dme': numbered(row['oedema'], _DME.classes, where=row['where'])}
        file = start / on_disk.get(stem.lower(), row['image'])
        examples.append(Example(key=folders.safe_key(stem), file=file.as_posix(), labels=labels, patient=patient, laterality=eye,
                                country='France'))
    return examples


def _draw_messidor(out: Path) -> None:
    names = [f'2005{number:04d}_4{number:04d}_0100_PP.png' for number in range(10)] + [f'IM{number:06d}.JPG' for number in range(6)]
    grades = [*(number % 5 for number in range(15)), '']  # the last one could not be graded
    for number, name in enumerate(names):
        write_image(out / 'IMAGES' / name, draw_fundus(seed_of('messidor2', number), grade=int(grades[number] or 0)))
    pairs = zip(names[::2], names[1::2], strict=True)
    atomic_write(out / 'messidor-2.csv', 'left;right\n' + ''.join(f'{left};{right}\n' for left, right in pairs))
    header = ('image_id', 'adjudicated_dr_grade', 'adjudicated_dme', 'adjudicated_gradable')
    # The table of grades writes suffixes in lower case, the disk in upper.
    rows = [(name.replace('.JPG', '.jpg'), grade, '' if grade == '' else int(grade > 2), int(grade != ''))
            for name, grade in zip(names, grades, strict=True)]
    atomic_write(out / 'messidor_data.csv', csv_text([header, *rows]))


_DME = Label(name='dme', classes=('absent', 'present'), meaning='hard exudate within a disc diameter of the fovea')

SETS: tuple[Dataset, ...] = (
    Dataset(
        name='aptos2019', title='APTOS 2019 Blindness Detection', modality='CFP', images=3662,
        licence='rules of the Kaggle competition; no standard licence is named',
        citation='Asia Pacific Tele-Ophthalmology Society. APTOS 2019 Blindness Detection. Kaggle, 2019',
        homepage='https://www.kaggle.com/competitions/aptos2019-blindness-detection',
        instructions='1. Join the competition on its Kaggle page and accept the rules. 2. Download all its data. 3. Unpack them, so that '
                     'aptos2019/train.csv and aptos2019/train_images lie in the data folder. ' + or_split('aptos2019', 'APTOS2019'),
        files=(File(name='train.csv'), File(name='train_images')), labels=(DR_GRADE,), patient_key='', demographics=('country',),
        official_split='', retfound_split=SplitSizes(train=2048, val=514, test=1100, source=URFOUND),
        notes='The 1,928 images of the competition\'s test set have no public labels and are not read. Patients are not named, so both '
              'eyes of one may stand on two sides of a split; known copies of photographs in it are found by their hashes when it is '
              'built.',
        read=rfsplit.either('aptos2019', _read_aptos), draw=_draw_aptos,
    ),
    Dataset(
        name='idrid', title='Indian Diabetic Retinopathy Image Dataset, disease grading', modality='CFP', images=516, licence='CC BY 4.0',
        citation='Porwal P, Pachade S, Kamble R, et al. Indian Diabetic Retinopathy Image Dataset (IDRiD): a database for diabetic '
                 'retinopathy screening research. Data 2018;3(3):25. doi:10.3390/data3030025',
        homepage='https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid',
        instructions='1. Log in to IEEE DataPort (free). 2. Download "B. Disease Grading.zip". 3. Unpack it, so that "idrid/B. Disease '
                     'Grading" lies in the data folder, with "1. Original Images" and "2. Groundtruths" in '
                     'it. ' + or_split('idrid', 'IDRID'),
        files=(File(name=f'B. Disease Grading/{_IDRID_IMAGES}'), File(name=f'B. Disease Grading/{_IDRID_TABLES}'),
               File(name='B. Disease Grading.zip')),
        labels=(DR_GRADE, DME_RISK), patient_key='', demographics=('country',),
        official_split='train 413 and test 103; a part of train becomes val when it is built',
        retfound_split=SplitSizes(train=329, val=84, test=103, source=URFOUND),
        notes='RETFound\'s layout has the grade of retinopathy only. Patients are not named.',
        read=rfsplit.either('idrid', _read_idrid), draw=_draw_idrid,
    ),
    Dataset(
        name='messidor2', title='Messidor-2 with adjudicated grades', modality='CFP', images=1748,
        licence='images: for research and education, after registration with ADCIS; grades: terms of their Kaggle page (not confirmed)',
        citation='Decenciere E, Zhang X, Cazuguel G, et al. Feedback on a publicly distributed database: the Messidor database. Image '
                 'Analysis & Stereology 2014;33(3):231-234. doi:10.5566/ias.1155. Abramoff MD, et al. JAMA Ophthalmology 2013. '
                 'doi:10.1001/jamaophthalmol.2013.1743. Grades: Krause J, et al. Ophthalmology 2018;125(8):1264-1272',
        homepage='https://www.adcis.net/en/third-party/messidor2/',
        instructions='1. Register at the ADCIS page and download the images; unpack them to messidor2/IMAGES in the data folder, with '
                     'messidor2/messidor-2.csv, which pairs the eyes of a patient. 2. Download messidor_data.csv from Kaggle '
                     '(google-brain/messidor2-dr-grades) to messidor2/messidor_data.csv. ' + or_split('messidor2', 'MESSIDOR2'),
        files=(File(name='IMAGES'), File(name='messidor-2.csv'), File(name='messidor_data.csv')), labels=(DR_GRADE, _DME),
        patient_key='messidor-2.csv: an examination is a pair of eyes', demographics=('country',), official_split='',
        retfound_split=SplitSizes(train=972, val=246, test=526, source=f'{URFOUND}; the former prints 264 for val against its own sum'),
        notes='Four of the 1,748 images could not be graded, so tables have 1,744. RETFound\'s layout does not say who the patients are '
              'and has no macular oedema: both eyes of a patient may stand on two sides of its split.',
        read=rfsplit.either('messidor2', _read_messidor), draw=_draw_messidor,
    ),
)
