"""The nine datasets with layouts of their own: each cell means what its dataset says, and each fault is one sentence with the way out."""

from __future__ import annotations

import csv
import gzip
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retfound_jax.core.errors import UserError
from retfound_jax.registry import on_disk, reading
from retfound_jax.registry.base import Example
from retfound_jax.registry.build import BuildConfig, build
from retfound_jax.registry.catalogue import find
from retfound_jax.registry.sets_heimed import lesion_map
from retfound_jax.registry.sets_odir5k import as_kaggle, labels_of_eye
from retfound_jax.registry.xlsx import read_xlsx, write_xlsx

Drawn = Callable[[str], Path]
NINE = {'eyepacs', 'odir5k', 'brset', 'retinamnist', 'octmnist', 'kermany_oct2017', 'drive', 'chase_db1', 'hei_med'}
TABLE = 'ODIR-5K_Training_Annotations(Updated)_V2.xlsx'
FINDINGS = {'N': 'normal', 'D': 'diabetic_retinopathy', 'G': 'glaucoma', 'C': 'cataract', 'A': 'amd', 'H': 'hypertensive_retinopathy',
            'M': 'myopia', 'O': 'other'}


@pytest.fixture
def copied(drawn: Drawn, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a fixture that may be spoilt."""
    return lambda name: Path(shutil.copytree(drawn(name), tmp_path / 'data' / name))


def read(name: str, root: Path) -> dict[str, Example]:
    return {example.key: example for example in reading.read(find(name), root).examples}


def refused(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        reading.read(find(name), root)
    sentence = str(caught.value)
    assert str(root) in sentence and '\n' not in sentence
    return sentence


def change(path: Path, old: str, new: str) -> None:
    text = path.read_bytes()
    assert old.encode() in text
    path.write_bytes(text.replace(old.encode(), new.encode(), 1))


def present(example: Example) -> set[str]:
    return {name for name in FINDINGS.values() if example.labels[name] == 'present'}


def flags_of(example: Example) -> set[str]:
    return {name for name, word in example.labels.items() if name.startswith('patient_') and word == 'present'}


def test_all_nine_are_declared_and_what_they_are_made_of() -> None:
    assert find('octmnist').made_from == ('kermany_oct2017',) and {name: find(name).images for name in NINE} == {
        'eyepacs': 88_702, 'odir5k': 7_000, 'brset': 16_266, 'retinamnist': 1_600, 'octmnist': 109_309, 'kermany_oct2017': 109_309,
        'drive': 40, 'chase_db1': 28, 'hei_med': 169}


# EyePACS


def test_eyepacs_takes_the_leaderboards_public_part_for_validation(drawn: Drawn) -> None:
    found = read('eyepacs', drawn('eyepacs'))
    assert Counter(example.split for example in found.values()) == {'train': 20, 'val': 4, 'test': 8}
    left, right = found['10_left'], found['10_right']
    assert (left.patient, left.laterality, right.laterality) == ('10', 'L', 'R')
    assert (left.labels['dr_grade'], right.labels['dr_grade']) == ('no_dr', 'mild') and left.file == 'train/10_left.jpeg'


def test_eyepacs_half_downloaded(copied: Callable[[str], Path]) -> None:
    root = copied('eyepacs')
    (root / 'retinopathy_solution.csv').rename(root / 'solution')
    assert 'retinopathy_solution.csv is missing, and test is there, so the test part of eyepacs is not whole' in refused('eyepacs', root)
    shutil.rmtree(root / 'test')
    assert {example.split for example in read('eyepacs', root).values()} == {'train'}  # a part that many use alone
    shutil.rmtree(root / 'train')
    assert 'train is missing, so eyepacs is not whole' in refused('eyepacs', root)


@pytest.mark.parametrize(('file', 'old', 'new', 'said'), [
    ('trainLabels.csv', '10_left', '10_middle', 'which must be PATIENT_left or PATIENT_right'),
    ('trainLabels.csv', '10_left', '../../10_left', 'none below the dataset'),
    ('trainLabels.csv', '10_left,0', '10_left,5', 'has "5" where a number from 0 to 4'),
    ('retinopathy_solution.csv', 'Private', 'Secret', 'has "Secret" in the column Usage, where Public or Private is needed'),
    ('retinopathy_solution.csv', 'Private', '', 'has an empty Usage'),
    ('retinopathy_solution.csv', 'Usage', 'Use', 'has no column "Usage"'),
    ('trainLabels.csv', '10_left', '9999_left', '1 of 32 images that the labels of eyepacs name are not there'),
])
def test_eyepacs_tables_that_cannot_be_meant(file: str, old: str, new: str, said: str, copied: Callable[[str], Path]) -> None:
    root = copied('eyepacs')
    change(root / file, old, new)
    assert said in refused('eyepacs', root)


# ODIR-5K


@pytest.mark.parametrize(('keywords', 'found', 'grade'), [
    ('normal fundus', {'normal'}, 'no_dr'),
    ('normal fundus，lens dust', {'normal'}, 'no_dr'),
    ('lens dust', set(), ''),
    ('cataract', {'cataract'}, ''),
    ('mild nonproliferative retinopathy', {'diabetic_retinopathy'}, 'mild'),
    ('moderate non proliferative retinopathy, hypertensive retinopathy', {'diabetic_retinopathy', 'hypertensive_retinopathy'}, 'moderate'),
    ('severe nonproliferative retinopathy，mild nonproliferative retinopathy', {'diabetic_retinopathy'}, 'severe'),
    ('severe proliferative diabetic retinopathy', {'diabetic_retinopathy'}, 'proliferative'),
    ('proliferative diabetic retinopathy', {'diabetic_retinopathy'}, 'proliferative'),
    ('diabetic retinopathy', {'diabetic_retinopathy'}, ''),
    ('suspected moderate non proliferative retinopathy', {'diabetic_retinopathy'}, ''),
    ('suspected glaucoma，myopic maculopathy', {'glaucoma', 'myopia'}, ''),
    ('wet age-related macular degeneration，drusen', {'amd', 'other'}, ''),
    ('Pathological Myopia', {'myopia'}, ''),
])
def test_an_eyes_own_labels_are_of_its_keywords(keywords: str, found: set[str], grade: str) -> None:
    labels = labels_of_eye(keywords)
    assert {name for name in FINDINGS.values() if labels[name] == 'present'} == found and labels['dr_grade'] == grade
    assert ('' in labels.values()) == (not found or not grade)


def test_the_flags_are_the_patients_and_the_normal_eye_is_not_ill(drawn: Drawn) -> None:
    found = read('odir5k', drawn('odir5k'))
    ill, normal = found['1_left'], found['1_right']
    assert present(ill) == {'cataract'} and present(normal) == {'normal'}
    assert flags_of(ill) == flags_of(normal) == {'patient_cataract'}
    assert flags_of(found['3_left']) == {'patient_amd', 'patient_hypertension'} and flags_of(found['6_left']) == {'patient_diabetes'}
    assert (ill.laterality, ill.patient, ill.sex, ill.age) == ('L', '1', 'M', 51.0)
    assert math.isnan(found['3_left'].age)  # the placeholder 1


def test_odir_of_kaggle_reads_alike_where_pictures_are_missing_on_purpose(drawn: Drawn, tmp_path: Path) -> None:
    as_kaggle(drawn('odir5k'), tmp_path)
    rows = (tmp_path / 'full_df.csv').read_text().splitlines()
    (tmp_path / 'full_df.csv').write_text('\n'.join(row for row in rows if not row.endswith(',1_left.jpg')))
    (tmp_path / 'preprocessed_images' / '1_left.jpg').unlink()
    mine, theirs = read('odir5k', drawn('odir5k')), read('odir5k', tmp_path)
    assert set(mine) - set(theirs) == {'1_left'}
    for key, example in theirs.items():
        assert example.labels == mine[key].labels and example.patient == mine[key].patient and example.laterality == mine[key].laterality
    change(tmp_path / 'full_df.csv', ',0_left.jpg\n', ',7_left.jpg\n')
    assert 'has the filename "7_left.jpg", which is neither of its eyes' in refused('odir5k', tmp_path)


def test_oia_odir_has_a_split(drawn: Drawn, tmp_path: Path) -> None:
    header, *rows = read_xlsx(drawn('odir5k') / TABLE)
    for folder, start in {'Training Set': 0, 'Off-site Test Set': 4, 'On-site Test Set': 6}.items():
        place, mine = tmp_path / 'OIA-ODIR' / folder, rows[start:start + (4 if start == 0 else 2)]
        (place / 'Annotation').mkdir(parents=True)
        write_xlsx(place / 'Annotation' / f'{folder.split()[0].lower()} annotation (English).xlsx', [list(header), *map(list, mine)])
        write_xlsx(place / 'Annotation' / 'annotation (Chinese).xlsx', [['?']])
        (place / 'Images').mkdir()
        for row in mine:
            for eye in ('left', 'right'):
                shutil.copy(drawn('odir5k') / 'ODIR-5K_Training_Images' / f'{row[0]}_{eye}.jpg', place / 'Images')
    found = read('odir5k', tmp_path)
    assert {key: example.split for key, example in found.items() if key.endswith('left')} == {
        **{f'{number}_left': 'train' for number in range(4)}, '4_left': 'val', '5_left': 'val', '6_left': 'test', '7_left': 'test'}
    assert reading.read(find('odir5k'), tmp_path).split() == 'official'
    (tmp_path / 'OIA-ODIR' / 'On-site Test Set' / 'Annotation' / 'on-site annotation (English).xlsx').unlink()
    assert 'must hold one workbook with English in its name and holds 0' in refused('odir5k', tmp_path)
    shutil.rmtree(tmp_path / 'OIA-ODIR' / 'Off-site Test Set')
    assert 'Off-site Test Set' in refused('odir5k', tmp_path)


@pytest.mark.parametrize(('column', 'value', 'said'), [
    ('N', '2', 'has "2" in the column N, where 0 or 1 is needed'), ('Patient Sex', 'Weiblich', 'and has "0" and "Weiblich"'),
    ('Patient Age', 'old', 'row 2, has the age "old"'), ('Left-Fundus', '', 'names no image in Left-Fundus'),
    ('Left-Fundus', '../../etc/passwd', 'none below the dataset'), ('ID', '', 'must name a patient\'s ID'),
])
def test_odir_workbooks_that_cannot_be_meant(column: str, value: str, said: str, copied: Callable[[str], Path]) -> None:
    root = copied('odir5k')
    table = read_xlsx(root / TABLE)
    table[1][table[0].index(column)] = value
    write_xlsx(root / TABLE, [list(row) for row in table])
    assert said in refused('odir5k', root)
    write_xlsx(root / TABLE, [[cell for cell in row if cell != column] for row in table[:1]] + [list(row[1:]) for row in table[1:]])
    assert f'has no column "{column}"' in refused('odir5k', root)


def test_odir_that_is_not_there_names_what_is_wanted(tmp_path: Path) -> None:
    (tmp_path / 'pictures').mkdir()
    assert f'{TABLE} is missing, so odir5k is not whole; `retfound datasets --name odir5k` tells' in refused('odir5k', tmp_path)


# BRSET


def test_brsets_codes(drawn: Drawn, copied: Callable[[str], Path]) -> None:
    found = read('brset', drawn('brset'))
    first, second = found['img00001'], found['img00002']
    assert (first.patient, first.laterality, second.laterality, first.sex, first.age) == ('1', 'R', 'L', 'F', 41.0)
    assert (first.camera, first.country) == ('NIKON NF5050', 'Brazil')
    assert (first.labels['diabetes'], second.labels['diabetes']) == ('absent', 'present')
    assert (second.labels['dr_grade'], second.labels['dr_grade_scottish'], second.labels['macular_edema']) == (
        'mild', 'mild_background', 'present')
    assert (first.labels['optic_disc'], second.labels['optic_disc'], first.labels['quality']) == ('normal', 'abnormal', 'adequate')
    assert math.isnan(found['img00005'].age) and found['img00003'].labels['insulin'] == ''
    root = copied('brset')
    (root / 'labels_brset.csv').rename(root / 'labels.csv')  # as version 1.0.0 calls it
    assert read('brset', root) == found
    change(root / 'labels.csv', ',1,1,1,0,0,1', ',bv,1,1,0,0,1')  # a cell outside the codebook that the published table has
    assert sorted(word for example in read('brset', root).values() for word in [example.labels['optic_disc']])[0] == ''


@pytest.mark.parametrize(('old', 'new', 'said'), [
    ('Adequate', 'Good', 'has "good" in the column quality, where adequate or inadequate is needed'),
    ('img00001,1,', 'img00001,,', 'line 2, names no patient'), (',41,', ',4I,', 'has the age "4I"'),
    ('macular_edema', 'oedema', 'has no column "macular_edema"'), ('img00001', 'img99999', '1 of 14 images that the labels of brset name'),
    ('img00001', '../../etc/x', '1 of 14 images that the labels of brset name'),  # by its last part alone
])
def test_brset_tables_that_cannot_be_meant(old: str, new: str, said: str, copied: Callable[[str], Path]) -> None:
    root = copied('brset')
    change(root / 'labels_brset.csv', old, new)
    assert said in refused('brset', root)
    (root / 'labels_brset.csv').unlink()
    assert 'labels_brset.csv, the labels of brset, is missing' in refused('brset', root)


# MedMNIST


def test_medmnist_is_read_from_its_archive(drawn: Drawn, copied: Callable[[str], Path]) -> None:
    found = reading.read(find('octmnist'), drawn('octmnist'))
    assert found.split() == 'official' and Counter(e.split for e in found.examples) == {'train': 4, 'val': 4, 'test': 4}
    assert found.examples[0].file == 'octmnist.npz#train_images/0' and found.examples[1].labels == {'oct_disease': 'dme'}
    root = copied('retinamnist')
    with np.load(root / 'retinamnist.npz', allow_pickle=False) as archive:
        arrays = dict(archive)
    for name, value, said in (('val_labels', arrays['val_labels'][1:], 'has 5 images and 4 labels in val'),
                              ('val_labels', arrays['val_labels'] + 1, 'val image 4, has "5" where a number from 0 to 4'),
                              ('test_images', arrays['test_images'].astype(np.float32), 'holds float32'),
                              ('train_labels', None, 'has no array train_labels')):
        changed = {key: kept for key, kept in (arrays | {name: value}).items() if kept is not None}
        np.savez(root / 'retinamnist.npz', **changed)
        assert said in refused('retinamnist', root)
    data = (root / 'retinamnist.npz').read_bytes()
    (root / 'retinamnist.npz').write_bytes(data[:len(data) // 2])
    assert 'cannot be read' in refused('retinamnist', root) and 'download the archive again' in refused('retinamnist', root)


def test_an_archive_of_another_version_has_another_checksum(drawn: Drawn) -> None:
    with pytest.raises(UserError, match=r'retinamnist.npz has the MD5 [0-9a-f]{32} and not bd4c0672f1bba3e3a89f0e4e876791e4, so .*'
                                        'download it again from https://zenodo.org/records/6496656/files/retinamnist.npz'):
        on_disk.checksums(find('retinamnist'), drawn('retinamnist'))


# OCT2017


def test_oct2017_names_the_patient(drawn: Drawn) -> None:
    found = read('kermany_oct2017', drawn('kermany_oct2017'))
    patients = [example.patient for example in found.values() if example.split == 'train' and example.labels['oct_disease'] == 'cnv']
    assert patients == ['1000000', '1000001', '1000001']
    assert Counter(example.split for example in found.values()) == {'train': 12, 'val': 4, 'test': 8}


def test_oct2017s_own_split_leaks_and_is_refused_unless_told(copied: Callable[[str], Path], tmp_path: Path) -> None:
    root = copied('kermany_oct2017')
    train = root / 'OCT2017' / 'train' / 'CNV' / 'CNV-1000000-1.jpeg'
    scan = next((root / 'OCT2017' / 'test' / 'DME').iterdir())
    train.rename(train.with_name(f'CNV-{scan.stem.split("-")[1]}-9.jpeg'))  # a patient of test is in train, as in the original
    with pytest.raises(UserError, match='the official split of kermany_oct2017 leaks .* pass --drop_leaks'):
        build('kermany_oct2017', source=root, out=tmp_path / 'out')
    built = build('kermany_oct2017', source=root, out=tmp_path / 'out', config=BuildConfig(drop_leaks=True))
    assert built.manifest['splits']['test']['images'] == 8 and built.manifest['images'] == 23 and len(built.dropped) == 1


def test_oct2017_with_other_folders_or_names(copied: Callable[[str], Path]) -> None:
    root = copied('kermany_oct2017')
    base = root / 'OCT2017'
    (base / 'train' / 'MACULAR_HOLE').mkdir()
    assert 'MACULAR_HOLE is no class of kermany_oct2017' in refused('kermany_oct2017', root)
    (base / 'train' / 'MACULAR_HOLE').rmdir()
    next((base / 'val' / 'DME').iterdir()).unlink()
    assert 'so the class "dme" of kermany_oct2017 is empty in val' in refused('kermany_oct2017', root)
    shutil.rmtree(base / 'val')
    scan = next((base / 'train' / 'DME').iterdir())
    scan.rename(scan.with_name('scan1.jpeg'))
    assert 'scan1.jpeg must be called CLASS-PATIENT-NUMBER' in refused('kermany_oct2017', root)
    (base / 'test').rename(base / 'tests')
    assert 'test is missing, so kermany_oct2017 is not whole, was it renamed to "tests"?' in refused('kermany_oct2017', root)


# Masks


def test_masks_of_vessels_are_named_and_missing_ones_are_told(drawn: Drawn, copied: Callable[[str], Path]) -> None:
    found = read('drive', drawn('drive'))
    assert found['01_test'].masks == {
        'vessels': 'DRIVE/test/1st_manual/01_manual1.gif', 'vessels_second': 'DRIVE/test/2nd_manual/01_manual2.gif',
        'field_of_view': 'DRIVE/test/mask/01_test_mask.gif'}
    assert 'vessels_second' not in found['21_training'].masks and found['21_training'].split == 'train'
    eye = read('chase_db1', drawn('chase_db1'))['Image_02R']
    assert (eye.patient, eye.laterality) == ('02', 'R')
    assert eye.masks == {'vessels': 'Image_02R_1stHO.png', 'vessels_second': 'Image_02R_2ndHO.png'}
    root = copied('drive')
    shutil.rmtree(root / 'DRIVE' / 'test' / '1st_manual')
    shutil.rmtree(root / 'DRIVE' / 'test' / '2nd_manual')
    assert set(read('drive', root)['01_test'].masks) == {'field_of_view'}  # as the archive of today
    (root / 'DRIVE' / 'training' / '1st_manual' / '22_manual1.gif').unlink()
    assert '22_manual1.gif, a mask of drive, is missing; unpack it again' in refused('drive', root)
    shutil.move(root / 'DRIVE' / 'training' / 'images' / '22_training.tif', root / 'DRIVE' / 'training' / 'images' / 'eye.tif')
    assert 'eye.tif must be called NUMBER_training.tif' in refused('drive', root)
    root = copied('chase_db1')
    (root / 'Image_03L_2ndHO.png').unlink()
    assert 'Image_03L_2ndHO.png, a mask of chase_db1, is missing' in refused('chase_db1', root)
    shutil.copy(root / 'Image_01L.jpg', root / 'photo.jpg')
    shutil.copy(root / 'Image_04L_2ndHO.png', root / 'Image_03L_2ndHO.png')
    assert 'photo.jpg is no image of chase_db1' in refused('chase_db1', root)


def test_hei_meds_lesions_are_of_its_own_files(drawn: Drawn) -> None:
    found = read('hei_med', drawn('hei_med'))
    assert found['00000000'].labels == {'exudate': 'absent', 'bright_lesion': 'absent'}
    assert found['00000001'].labels == {'exudate': 'absent', 'bright_lesion': 'present'}
    assert found['00000006.dcm'].labels == {'exudate': 'present', 'bright_lesion': 'present'}
    assert (found['00000001'].sex, found['00000001'].ethnicity, found['00000002'].sex) == ('M', 'Caucasian', '')
    assert all(math.isnan(example.age) for example in found.values())  # there is a date of birth and no date of the visit
    numbers = lesion_map(drawn('hei_med') / found['00000002'].masks['bright_and_dark_lesions'])
    assert numbers.shape == (64, 64) and np.unique(numbers).tolist() == [0, 1, 2]


@pytest.mark.parametrize(('end', 'content', 'said'), [
    ('.GND', b'two\r\nExudate 1\r\n', 'is no list of lesions'), ('.GND', b'3\r\nExudate 1\r\n', 'is no list of lesions'),
    ('.GND', b'', 'is no list of lesions'), ('.GND', b'1\r\nExudate\r\n', 'is no list of lesions'),
    ('.GND', b'0' * (2 << 20), 'is larger than 1 MiB'), ('.meta', b'~PatientGender~X\r\n', 'has "X" for PatientGender'),
    ('.meta', b'~PatientRace~MARTIAN\r\n', 'has "MARTIAN" for PatientRace'),
])
def test_hei_med_files_that_cannot_be_meant(end: str, content: bytes, said: str, copied: Callable[[str], Path]) -> None:
    root = copied('hei_med')
    path = root / 'DMED' / f'(00000002){end}'
    path.write_bytes(content)
    assert f'{path}' in refused('hei_med', root) and said in refused('hei_med', root)
    path.unlink()
    assert f'(00000002){end} is missing beside (00000002).jpg; download hei_med again' in refused('hei_med', root)


@pytest.mark.parametrize('content', [
    b'', b'no gzip', gzip.compress(b'short'), gzip.compress(np.array([-43, 4, 4], '<i4').tobytes() + bytes(60)),
    gzip.compress(np.array([-43, 1 << 20, 1 << 20], '<i4').tobytes()), gzip.compress(np.array([-43, -4, 4], '<i4').tobytes() + bytes(64)),
    gzip.compress(bytes(1000))[:20],
], ids=['empty', 'no_gzip', 'short', 'too_few_pixels', 'no_pixels', 'negative_height', 'cut'])  # not by content: gzip notes the time
def test_a_map_of_lesions_that_is_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / 'a.map.gz').write_bytes(content)
    with pytest.raises(UserError, match=r'a.map.gz cannot be read as a map of lesions \(.*\); download it again'):
        lesion_map(tmp_path / 'a.map.gz')


# The photographs themselves, where they are


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / 'labels.csv', newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_the_real_keywords_give_the_real_flags(shared_data: Path) -> None:
    rows = rows_of(shared_data / 'odir5k')
    grades = {'0': 'no_dr', '1': 'mild', '2': 'moderate', '3': 'severe', '4': 'proliferative'}
    pairs: dict[str, list[set[str]]] = {}
    alike, wrong_grade = 0, set()
    for row in rows:
        labels = labels_of_eye(row['eye_keywords'])
        pairs.setdefault(row['patient_id'], []).append({name for name in FINDINGS.values() if labels[name] == 'present'})
        alike += labels[FINDINGS[row['eye_label']]] == 'present'
        if labels['dr_grade'] != grades.get(row['dr_grade_from_keywords'], ''):
            wrong_grade.add(row['eye_keywords'])
    flags = {row['patient_id']: {name for letter, name in FINDINGS.items() if row[letter] == '1'} for row in rows}
    whole = {patient: set().union(*eyes) for patient, eyes in pairs.items() if len(eyes) == 2}
    assert len(whole) > 2000 and alike >= len(rows) - 1  # Kaggle's label of one eye is not of its keywords
    for patient, found in whole.items():
        assert flags[patient] == (found if found == {'normal'} else found - {'normal'}), patient
    assert wrong_grade <= {'normal fundus,lens dust', 'normal fundus,normal fundus'}  # which somebody else left without a grade


def test_real_b_scans_in_their_folders(shared_data: Path, tmp_path: Path) -> None:
    rows = rows_of(shared_data / 'oct_kermany')
    for row in rows:
        for split in ('train', 'test'):
            place = tmp_path / 'OCT2017' / split / row['label']
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(shared_data / 'oct_kermany' / 'images' / row['image'], place / f'{Path(row["image"]).stem}.jpeg')
    found = read('kermany_oct2017', tmp_path)
    assert len(found) == 2 * len(rows)
    assert {example.patient for example in found.values()} == {row['patient_id'] for row in rows}


def test_real_masks_in_one_folder(shared_data: Path, tmp_path: Path) -> None:
    for part in ('images', 'vessels'):
        for path in (shared_data / 'chase_db1' / part).iterdir():
            shutil.copy(path, tmp_path)
    found = read('chase_db1', tmp_path)
    assert len(found) == 28 and Counter(Counter(example.patient for example in found.values()).values()) == {2: 14}
