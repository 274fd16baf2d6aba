"""A public dataset made into one of ours: its splits, who may not stand on two sides of them, and what was left out."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest import pipeline
from retfound_jax.ingest.splits import SplitConfig
from retfound_jax.registry import members, rfsplit
from retfound_jax.registry.base import Example
from retfound_jax.registry.build import BuildConfig, Built, build
from retfound_jax.registry.catalogue import find

Drawn = Callable[[str], Path]


def _rows(out: Path) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(out / 'index.parquet').to_pylist()


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def leaking(drawn: Drawn, tmp_path: Path) -> Path:
    """PAPILA in RETFound's layout, the eyes of one patient on two sides."""
    rfsplit.copy_as_split(find('papila').read(drawn('papila')), drawn('papila'), tmp_path / 'in', name='papila')
    return tmp_path / 'in'


def test_by_hash_the_eyes_of_a_patient_stay_together(drawn: Drawn, tmp_path: Path) -> None:
    config = BuildConfig(splits=SplitConfig(val=0.3, test=0.3))
    built = build('messidor2', source=drawn('messidor2'), out=tmp_path / 'out', config=config)
    rows = _rows(tmp_path / 'out')
    assert built.split == 'hash' and len({row['patient'] for row in rows}) == 8 == len({(row['patient'], row['split']) for row in rows})
    assert {row['laterality'] for row in rows} == {'L', 'R'} and {row['source'] for row in rows} == {'messidor2'}
    provenance = built.manifest['provenance']
    assert provenance['labels']['file'] == 'messidor2-hash.csv' and provenance['options']['modality'] == 'CFP'


def test_an_official_split_without_validation_gives_a_part_of_train_by_hash(drawn: Drawn, tmp_path: Path) -> None:
    def splits(val: float, salt: str = 'retfound') -> dict[str, str]:
        out = tmp_path / f'{val}{salt}'
        config = BuildConfig(splits=SplitConfig(val=val, salt=salt))
        assert build('idrid', source=drawn('idrid'), out=out, config=config).split == 'official'
        return {row['key']: row['split'] for row in _rows(out)}

    none, some, more = splits(0.0), splits(0.3), splits(0.6)
    official = {example.key: example.split for example in find('idrid').read(drawn('idrid'))}
    assert none == official
    validation = {key for key, split in some.items() if split == 'val'}
    assert 0 < len(validation) < 10 and all(official[key] == 'train' for key in validation)
    assert {key for key, split in some.items() if split == 'test'} == {key for key, split in official.items() if split == 'test'}
    assert validation < {key for key, split in more.items() if split == 'val'}  # a larger share moves nobody back
    assert splits(0.3, salt='other') != some


def test_a_split_that_leaks_is_refused_and_can_be_cleaned(leaking: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match='the retfound split of papila leaks .*two sides.*; pass --drop_leaks .* or --split hash') as caught:
        build('papila', source=leaking, out=tmp_path / 'out')
    assert str(leaking) in str(caught.value)
    built = build('papila', source=leaking, out=tmp_path / 'out', config=BuildConfig(drop_leaks=True, overwrite=True))
    rows, order = _rows(tmp_path / 'out'), ('train', 'val', 'test')
    places: dict[str, set[str]] = {}
    for example in find('papila').read(leaking):
        places.setdefault(example.patient, set()).add(example.split)
    wanted = {patient: max(splits, key=order.index) for patient, splits in places.items()}
    assert {row['patient']: row['split'] for row in rows} == wanted
    kept = sum(example.split == wanted[example.patient] for example in find('papila').read(leaking))
    assert len(rows) == kept == 12 - len(built.dropped) and any('were left out' in line for line in built.told())


def test_one_photograph_on_two_sides_of_the_official_split_is_refused(drawn: Drawn, tmp_path: Path) -> None:
    root = Path(shutil.copytree(drawn('idrid'), tmp_path / 'in'))
    images = root / 'B. Disease Grading/1. Original Images'
    shutil.copyfile(images / 'a. Training Set/IDRiD_004.jpg', images / 'b. Testing Set/IDRiD_002.jpg')
    with pytest.raises(UserError, match='the official split of idrid leaks .*test_IDRiD_002 is in test, and train_IDRiD_004'):
        build('idrid', source=root, out=tmp_path / 'out')
    built = build('idrid', source=root, out=tmp_path / 'out', config=BuildConfig(split='hash', overwrite=True))
    assert built.manifest['duplicates']['exact_groups'] == 1


def test_what_is_empty_in_its_split_is_said(drawn: Drawn, tmp_path: Path) -> None:
    built = build('retina', source=drawn('retina'), out=tmp_path / 'out', config=BuildConfig(splits=SplitConfig(val=0.0, test=0.1)))
    (line,) = built.told()
    assert line.startswith('empty in their split: val; ') and line.endswith('; pass --salt WORD or larger shares for another draw')
    manifest = {'splits': {split: {'labels': {'grade': {'a': 1, 'b': count, 'missing': 0}}} for split, count in
                           (('train', 1), ('val', 1), ('test', 0))},
                'provenance': {'options': {'splits': {'val_of_train': False}}}}
    told = Built(manifest=manifest, reading=built.reading, split='retfound', dropped=()).told()
    assert told == ['empty in their split: grade "b" in test; such a split cannot be scored']


def test_a_split_that_is_not_there_is_a_wrong_call(drawn: Drawn, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='has not RETFound\'s split'):
        build('retina', source=drawn('retina'), out=tmp_path / 'out', config=BuildConfig(split='retfound'))
    with pytest.raises(UsageError, match='has no official split; pass --split hash'):
        build('retina', source=drawn('retina'), out=tmp_path / 'out', config=BuildConfig(split='official'))
    with pytest.raises(UsageError, match='there is no dataset "retna", did you mean "retina"'):
        build('retna', source=drawn('retina'), out=tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_build_that_was_stopped_goes_on_and_ends_in_the_same_bytes(drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build('papila', source=drawn('papila'), out=tmp_path / 'whole')

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline.assemble, 'write', stop)
        with pytest.raises(KeyboardInterrupt):
            build('papila', source=drawn('papila'), out=tmp_path / 'out')
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith('.')] == []
    counted: list[int] = []
    build('papila', source=drawn('papila'), out=tmp_path / 'out', done=counted.append)
    assert counted == [12]  # all at once: none was read again
    assert _bytes(tmp_path / 'out') == _bytes(tmp_path / 'whole')


def _archive(path: Path, **arrays: np.ndarray) -> list[Example]:
    np.savez_compressed(path, **arrays)
    return [Example(key=f'{name}_{index}', file=f'{path.name}#{name}/{index}', labels={}) for name, array in arrays.items()
            for index in range(len(array))]


def test_images_of_an_archive_become_files_as_old_as_it(tmp_path: Path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    grey, colour = rng.integers(0, 256, (3, 40, 50), np.uint8), rng.integers(0, 256, (2, 40, 40, 3), np.uint8)
    examples = _archive(tmp_path / 'a.npz', grey=grey, colour=colour)
    root, files = members.as_files(tmp_path, [*examples[1:], examples[0]], into=tmp_path / 'out')
    assert root == tmp_path / 'out' and files['grey_2'] == 'grey_2.png' and len(files) == 5
    assert (cv2.imread(str(root / 'grey_2.png'), cv2.IMREAD_GRAYSCALE) == grey[2]).all()
    assert (cv2.imread(str(root / 'colour_1.png'))[..., ::-1] == colour[1]).all()
    small = _archive(tmp_path / 'small.npz', tiny=rng.integers(0, 256, (1, 28, 28, 3), np.uint8))
    members.as_files(tmp_path, small, into=tmp_path / 'doubled')
    doubled = cv2.imread(str(tmp_path / 'doubled' / 'tiny_0.png'))[..., ::-1]
    assert doubled.shape == (56, 56, 3) and (doubled[1::2, ::2] == np.load(tmp_path / 'small.npz')['tiny'][0]).all()
    assert (root / 'grey_0.png').stat().st_mtime_ns == (tmp_path / 'a.npz').stat().st_mtime_ns
    assert members.as_files(tmp_path, [Example(key='x', file='x.png', labels={})], into=tmp_path / 'none') == (tmp_path, {})


def test_an_archive_that_holds_no_images_is_one_sentence(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (print, ('it ran',))

    np.savez(tmp_path / 'pickled.npz', images=np.array([Evil()], object))
    np.savez(tmp_path / 'numbers.npz', images=np.zeros((2, 40, 40)))
    _archive(tmp_path / 'short.npz', images=np.zeros((1, 40, 40), np.uint8))
    (tmp_path / 'cut.npz').write_bytes((tmp_path / 'numbers.npz').read_bytes()[:200])
    cases = {'pickled.npz#images/0': 'it is object', 'numbers.npz#images/0': 'holds float64', 'short.npz#images/3': 'has no image 3',
             'short.npz#masks/0': 'has no array masks', 'cut.npz#images/0': 'cannot be read', '../cut.npz#images/0': 'is none below'}
    for file, said in cases.items():
        with pytest.raises(UserError, match=said):
            members.as_files(tmp_path, [Example(key='x', file=file, labels={})], into=tmp_path / 'out')


def test_real_photographs_of_idrid_in_its_own_layout(shared_data: Path, tmp_path: Path) -> None:
    base, rows = tmp_path / 'in' / 'B. Disease Grading', {}
    with open(shared_data / 'tiny' / 'labels.csv', newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            if row['path'].startswith('cfp_idrid/'):
                rows[row['path']] = int(float(row['dr_grade']))
    if not rows:
        pytest.skip('the sample of IDRiD is not in ../shared/data/tiny')
    for part, name, chosen in (('a. Training Set', 'a. IDRiD_Disease Grading_Training Labels.csv', sorted(rows)[:28]),
                               ('b. Testing Set', 'b. IDRiD_Disease Grading_Testing Labels.csv', sorted(rows)[28:])):
        (base / '1. Original Images' / part).mkdir(parents=True)
        (base / '2. Groundtruths').mkdir(exist_ok=True)
        lines = ['Image name,Retinopathy grade,Risk of macular edema ,,,,']
        for path in chosen:
            shutil.copyfile(shared_data / 'tiny' / path, base / '1. Original Images' / part / Path(path).name)
            lines.append(f'{Path(path).stem},{rows[path]},,,,,')
        (base / '2. Groundtruths' / name).write_text('\n'.join(lines) + '\n')
    manifest = build('idrid', source=tmp_path / 'in', out=tmp_path / 'out').manifest
    assert manifest['images'] == len(rows) and manifest['splits']['test']['images'] == len(rows) - 28
    classes, splits = manifest['labels']['dr_grade']['classes'], manifest['splits'].values()
    counted = [sum(split['labels']['dr_grade'][word] for split in splits) for word in classes]
    assert counted == [sum(grade == place for grade in rows.values()) for place in range(5)]
    assert 'dme_risk' not in manifest['labels']  # this sample says nothing of it
