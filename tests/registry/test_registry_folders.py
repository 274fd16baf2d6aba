"""What is wrong with a dataset's folder is one sentence with the path and the way out, and no name in it is trusted."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.registry import folders, on_disk, reading, rfsplit
from retfound_jax.registry.base import Example, File
from retfound_jax.registry.catalogue import find

Drawn = Callable[[str], Path]
WAY_OUT = '`retfound datasets --name {}` tells how to get it'


@pytest.fixture
def copied(drawn: Drawn, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a fixture that may be spoilt, in a data folder of its own."""
    return lambda name: Path(shutil.copytree(drawn(name), tmp_path / 'data' / name))


@pytest.fixture
def in_splits(drawn: Drawn, tmp_path: Path) -> Callable[[str], Path]:
    """A fixture in RETFound's layout, with the archive's own folder around it."""
    def folder(name: str) -> Path:
        examples = find(name).read(drawn(name))
        rfsplit.copy_as_split(examples, drawn(name), tmp_path / 'split' / name / 'ARCHIVE', name=name)
        return tmp_path / 'split' / name

    return folder


def _refused(name: str, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        reading.read(find(name), root)
    sentence = str(caught.value)
    assert str(root) in sentence and '\n' not in sentence
    return sentence


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert _refused('aptos2019', tmp_path / 'none').endswith(WAY_OUT.format('aptos2019'))


@pytest.mark.parametrize(('name', 'part'), [
    ('aptos2019', 'train_images'), ('aptos2019', 'train.csv'), ('messidor2', 'messidor-2.csv'), ('papila', 'ClinicalData'),
    ('idrid', 'B. Disease Grading/2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv'), ('octid', 'MH'),
    ('retina', 'dataset/2_glaucoma'),
])
def test_a_dataset_half_downloaded_names_the_part_that_is_missing(name: str, part: str, copied: Callable[[str], Path]) -> None:
    root = copied(name)
    shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).unlink()
    sentence = _refused(name, root)
    assert part.split('/')[-1] in sentence and WAY_OUT.format(name) in sentence


def test_a_folder_that_somebody_renamed_is_recognised(copied: Callable[[str], Path]) -> None:
    root = copied('aptos2019')
    (root / 'train_images').rename(root / 'train_image')
    assert 'train_images is missing, so aptos2019 is not whole, was it renamed to "train_image"?' in _refused('aptos2019', root)


def test_an_extra_class_is_refused_in_either_layout(copied: Callable[[str], Path], in_splits: Callable[[str], Path]) -> None:
    root = copied('octid')
    (root / 'Glaukoma').mkdir()
    assert f'{root / "Glaukoma"} is no class of octid; rename or remove it: the classes are NORMAL, ' in _refused('octid', root)
    root = in_splits('glaucoma_fundus')
    (root / 'ARCHIVE' / 'val' / 'bearly_glaucoma').rename(root / 'ARCHIVE' / 'val' / 'early_glaucoma')
    assert 'early_glaucoma is no class of glaucoma_fundus, did you mean "bearly_glaucoma"?' in _refused('glaucoma_fundus', root)


def test_an_empty_class_in_a_split(in_splits: Callable[[str], Path]) -> None:
    root = in_splits('aptos2019')
    shutil.rmtree(root / 'ARCHIVE' / 'val' / 'dsevereDR')
    (root / 'ARCHIVE' / 'val' / 'dsevereDR').mkdir()
    assert 'so the class "severe" of aptos2019 is empty in val; unpack it again' in _refused('aptos2019', root)
    shutil.rmtree(root / 'ARCHIVE' / 'val')
    assert 'val is missing, so RETFound\'s split of aptos2019 is not whole' in _refused('aptos2019', root)


def test_retfounds_layout_gives_split_and_class_and_who_the_patient_is_where_the_name_tells(in_splits: Callable[[str], Path]) -> None:
    found = reading.read(find('papila'), in_splits('papila'))
    assert found.retfound_layout and found.split() == 'retfound' and found.published == 488
    (example,) = (example for example in found.examples if 'RET003OS' in example.file)
    assert (example.patient, example.labels) == ('RET003', {'glaucoma': 'suspect'})  # as the fixture's workbook says: 1 + 1
    assert example.file == f'ARCHIVE/{example.split}/bsuspectglaucoma/RET003OS.jpg'
    with pytest.raises(UsageError, match='is in RETFound\'s layout; pass --split retfound'):
        found.split('official')


def test_labels_for_missing_files_are_counted_and_can_be_passed_over(copied: Callable[[str], Path]) -> None:
    root = copied('idrid')
    images = root / 'B. Disease Grading/1. Original Images/b. Testing Set'
    (images / 'IDRiD_001.jpg').unlink()
    (images / 'IDRiD_003.jpg').unlink()
    sentence = _refused('idrid', root)
    assert '2 of 15 images that the labels of idrid name are not there, the first B. Disease Grading' in sentence
    assert 'IDRiD_001.jpg; download or unpack them again, or pass --allow_missing' in sentence
    found = reading.read(find('idrid'), root, allow_missing=True)
    assert len(found.examples) == 13 and len(found.missing) == 2
    assert any(line.startswith('2 images that the labels name are not there') for line in found.told())


def test_files_without_labels_are_counted_and_said(copied: Callable[[str], Path]) -> None:
    root = copied('papila')
    shutil.copyfile(root / 'FundusImages/RET002OD.jpg', root / 'FundusImages/RET999OD.jpg')
    found = reading.read(find('papila'), root)
    assert found.unlabelled == ('FundusImages/RET999OD.jpg',)
    assert any('1 pictures have no label and are passed over, the first FundusImages/RET999OD.jpg' in line for line in found.told())
    assert not reading.read(find('aptos2019'), copied('aptos2019')).unlabelled  # its test images lie elsewhere


@pytest.mark.parametrize(('old', 'new', 'said'), [
    ('diagnosis', 'stage', 'has no column "diagnosis"; it has id_code, stage'),
    (',4\n', ',7\n', 'line 6, has "7" where a number from 0 to 4'),
    (',4\n', ',mild\n', 'has "mild" where a number'),
    ('id_code,diagnosis\n', 'id_code,diagnosis\n../../secret,1\n', 'is none below the dataset\'s folder'),
    ('id_code,diagnosis\n', 'id_code,diagnosis\n/etc/passwd,1\n', 'is none below the dataset\'s folder'),
])
def test_a_table_that_cannot_be_meant(old: str, new: str, said: str, copied: Callable[[str], Path]) -> None:
    root = copied('aptos2019')
    text = (root / 'train.csv').read_text()
    (root / 'train.csv').write_text(text.replace(old, new, 1))
    assert said in _refused('aptos2019', root)


@pytest.mark.parametrize('file', ['../x.png', 'a/../../x.png', '/etc/x.png', 'C:/x.png', 'a\\..\\x.png', '', 'a/\x00.png'])
def test_a_path_that_leads_out_is_refused(file: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='is none below'):
        folders.below(tmp_path, file)


def test_a_link_that_leads_out_is_refused(copied: Callable[[str], Path], tmp_path: Path) -> None:
    root = copied('octid')
    shutil.move(root / 'MH', tmp_path / 'MH')
    (root / 'MH').symlink_to(tmp_path / 'MH')
    assert 'MH is a link that leaves the dataset\'s folder' in _refused('octid', root)
    secret = tmp_path / 'secret.png'
    secret.write_bytes(b'x')
    root = copied('aptos2019')
    image = next((root / 'train_images').iterdir())
    image.unlink()
    image.symlink_to(secret)
    assert 'is a link that leaves the dataset\'s folder' in _refused('aptos2019', root)


def test_two_images_of_one_name(copied: Callable[[str], Path]) -> None:
    root = copied('retina')
    shutil.copyfile(root / 'dataset/1_normal/NL_001.png', root / 'dataset/1_normal/NL 001.png')
    assert 'have one name, 1_normal_NL_001; remove the one that is too many' in _refused('retina', root)


def test_the_disk_is_told_apart_into_present_partly_and_absent(copied: Callable[[str], Path], tmp_path: Path) -> None:
    root = copied('idrid')
    small = dataclasses.replace(find('idrid'), images=15)
    assert on_disk.status(small, root.parent).state == 'present' and on_disk.status(find('octid'), root.parent).state == 'absent'
    whole = on_disk.status(find('idrid'), root.parent)
    assert (whole.state, whole.images) == ('partly', 15) and 'has 15 of 516 images' in whole.reason
    shutil.rmtree(root / 'B. Disease Grading/2. Groundtruths')
    broken = on_disk.status(find('idrid'), root.parent)
    assert broken.state == 'partly' and 'is missing' in broken.reason


def test_a_checksum_that_is_off_names_the_file_both_sums_and_the_address(copied: Callable[[str], Path]) -> None:
    root = copied('papila')
    archive = find('papila').files[-1]
    (root / archive.name).write_bytes(b'half of it')
    found = on_disk.status(find('papila'), root.parent, check=True)
    assert found.state == 'partly' and found.reason == (
        f'{root / archive.name} has the SHA-256 {hashlib.sha256(b"half of it").hexdigest()} and not {archive.sha256}, so it is damaged or '
        f'another version; download it again from {archive.url}')
    assert on_disk.status(find('papila'), root.parent).state == 'partly'  # fewer images than published, and no checksum asked for
    md5 = File(name='PAPILA.zip', md5=hashlib.md5(b'half of it').hexdigest().upper())
    assert on_disk.checksums(dataclasses.replace(find('papila'), files=(md5,)), root) == ['PAPILA.zip']


def test_an_unknown_dataset_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match='there is no dataset "papilla", did you mean "papila"'):
        find('papilla')


def test_a_class_may_have_several_spellings(tmp_path: Path) -> None:
    from retfound_jax.registry.draw import write_image
    from retfound_jax.registry.draw_oct import draw_oct

    for place, folder in enumerate(('NORMAL', 'ARMD', 'CSR', 'DR', 'MH')):  # the original spells the second AMRD
        write_image(tmp_path / folder / '1.jpeg', draw_oct(place, label='normal'))
    found: list[Example] = find('octid').read(tmp_path)
    assert [example.labels['disease'] for example in found] == ['amd', 'csr', 'dr', 'macular_hole', 'normal']
