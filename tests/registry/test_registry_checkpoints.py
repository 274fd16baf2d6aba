"""What a checkpoint has seen is declared, unknown is never clean, and two of our datasets are compared by their pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.registry import checkpoints
from retfound_jax.registry.catalogue import datasets
from retfound_jax.registry.checkpoints import find, holds, shared_images, touched
from retfound_jax.registry.checkpoints_known import KNOWN, NATURAL, Checkpoint, Seen
from retfound_jax.registry.draw import draw_fundus, seed_of


def kind(checkpoint: str, dataset: str) -> str:
    touch = touched(checkpoint, dataset)
    return touch.kind if touch else 'clean'


@pytest.mark.parametrize(('checkpoint', 'dataset', 'expected'), [
    ('RETFound_mae_natureCFP', 'eyepacs', 'seen'),
    ('RETFound_mae_natureCFP', 'eyepacs_1098', 'seen'),  # a part of it
    ('RETFound_mae_natureCFP', 'odir5k', 'clean'),
    ('RETFound_mae_natureCFP', 'octmnist', 'clean'),
    ('RETFound_mae_natureOCT', 'kermany_oct2017', 'seen'),
    ('RETFound_mae_natureOCT', 'octmnist', 'seen'),  # made of it
    ('RETFound_mae_natureOCT', 'octmnist_224', 'seen'),  # made of what is made of it
    ('RETFound_mae_natureOCT', 'octid', 'clean'),
    ('RETFound_mae_natureOCT', 'eyepacs', 'clean'),
    ('RETFound_mae_meh', 'eyepacs', 'clean'),
    ('RETFound_mae_shanghai', 'octmnist', 'clean'),
    ('RETFound-Green', 'odir5k', 'seen'),
    ('RETFound-Green', 'eyepacs', 'possible'),  # AIROGS is of the same programme
    ('RETFound-Green', 'brset', 'unknown'),  # DINOv2's images are not listed
    ('UrFound', 'retinamnist', 'seen'),  # made of DeepDRiD
    ('UrFound', 'octmnist', 'seen'),
    ('UrFound', 'papila', 'clean'),
    ('FLAIR', 'brset', 'seen'),
    ('FLAIR', 'messidor2', 'clean'),
    ('FLAIR', 'retinamnist', 'clean'),  # it tested on DeepDRiD and did not train on it
    ('RetiZero', 'eyepacs', 'seen'),  # what it rests on had it
    ('RetiZero', 'brset', 'unknown'),
    ('DERETFound', 'idrid', 'unknown'),
    ('VisionFM', 'octid', 'unknown'),
    ('mae_imagenet', 'eyepacs', 'clean'),
    ('random', 'eyepacs', 'clean'),
    ('DINOv2', 'eyepacs', 'unknown'),
    ('our_run', 'eyepacs', 'unknown'),
])
def test_who_has_seen_what(checkpoint: str, dataset: str, expected: str) -> None:
    assert kind(checkpoint, dataset) == expected


def test_a_reason_is_a_sentence_that_names_the_set_and_how_much_of_it() -> None:
    assert str(touched('RETFound_mae_natureCFP', 'eyepacs')) == 'RETFound_mae_natureCFP was pretrained on eyepacs (88,702 CFP)'
    assert str(touched('RETFound_mae_natureOCT', 'octmnist')).endswith('(about 109,309 B-scans), of which octmnist is made')
    assert 'pretrained with labels on aptos2019' in str(touched('FLAIR', 'aptos2019'))
    assert str(touched('RetiZero', 'eyepacs')).startswith('RetiZero rests on RETFound_mae_natureCFP, which was pretrained on eyepacs')
    assert 'come from EyePACS, and may be the same' in str(touched('RETFound-Green', 'eyepacs'))


def test_a_dataset_of_which_nothing_is_declared_is_clean_only_of_what_never_saw_an_eye() -> None:
    assert kind('RETFound_mae_natureCFP', 'my_copy_of_something') == kind('FLAIR', 'my_copy_of_something') == 'unknown'
    assert kind('mae_imagenet', 'my_copy_of_something') == kind('random', 'my_copy_of_something') == 'clean'
    assert kind('RETFound_mae_natureCFP', 'phantom') == 'clean'  # drawn


def test_images_of_a_set_that_is_made_of_the_tested_one_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Checkpoint(name='small', pretrained_on=(Seen('octmnist'),), whole=True, evaluated_on=(), source='a test', certainty='paper')
    monkeypatch.setattr(checkpoints, 'checkpoints', lambda: {'small': small})
    assert str(touched('small', 'kermany_oct2017')) == 'small was pretrained on octmnist, which is made of kermany_oct2017'
    small = dataclasses.replace(small, pretrained_on=(Seen('eyeq'),))
    touch = touched('small', 'eyepacs_1098')
    assert touch and touch.kind == 'possible' and 'are both made of eyepacs, perhaps of the same images' in touch.reason


def test_every_declaration_has_a_source_and_leads_somewhere() -> None:
    names = [word.casefold() for one in KNOWN for word in (one.name, *one.also)]
    assert len(set(names)) == len(names)
    for one in KNOWN:
        assert one.source and (one.pretrained_on or not one.whole or one.name == 'random')
        seen, above = set(), one
        while above.rests_on:
            assert above.name not in seen
            seen.add(above.name)
            above = find(above.rests_on)
    public = {seen.dataset for one in KNOWN for seen in one.pretrained_on} - NATURAL
    # A set of the registry that is meant must be written as the registry writes it.
    near = {name.replace('_', '') for name in datasets()}
    assert not {name for name in public if name.replace('_', '') in near} - set(datasets())
    assert holds('octmnist_224') == {'octmnist_224', 'octmnist', 'kermany_oct2017'}


@pytest.mark.parametrize('name', ['RETFound_cfp_weights.pth', 'weights/RETFound_mae_natureCFP.pth', 'retfound_MAE_natureCFP'])
def test_a_weight_file_is_known_by_its_name(name: str) -> None:
    assert find(name).name == 'RETFound_mae_natureCFP'


def test_an_unknown_checkpoint_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match='of the checkpoint "RETFound_mae_natureCPF", did you mean "RETFound_mae_nature'):
        find('RETFound_mae_natureCPF')


@pytest.fixture(scope='module')
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, dict[str, np.ndarray]], Path]:
    """Makes one of our datasets of pictures by their file names."""
    from retfound_jax.ingest import pipeline
    from retfound_jax.ingest.plan import IngestConfig, make_plan

    def make(name: str, pictures: dict[str, np.ndarray]) -> Path:
        place = tmp_path_factory.mktemp(name)
        (place / 'source').mkdir()
        for file, picture in pictures.items():
            cv2.imwrite(str(place / 'source' / file), picture[..., ::-1])
        pipeline.run(make_plan(IngestConfig(source=str(place / 'source'), out=str(place / 'out'), modality='CFP')))
        return place / 'out'

    return make


def test_images_that_two_of_our_datasets_share_are_counted(ingested: Callable[[str, dict[str, np.ndarray]], Path]) -> None:
    eyes = [draw_fundus(seed_of('shared_images', number), size=96) for number in range(8)]
    smaller = cv2.resize(eyes[1], (80, 80), interpolation=cv2.INTER_AREA)
    train = ingested('train', {f'a{number}.png': eye for number, eye in enumerate(eyes[:5])})
    test = ingested('test', {'copy.png': eyes[0], 'saved_anew.jpg': smaller, 'new1.png': eyes[6], 'new2.png': eyes[7]})
    found = shared_images(train, test)
    assert (found.exact, found.near, found.of) == (1, 1, 4) and found
    first, second = found.examples
    assert (first.train_key, first.test_key, first.kind, first.distance) == ('a0.png', 'copy.png', 'exact', 0)
    assert (second.train_key, second.test_key, second.kind) == ('a1.png', 'saved_anew.jpg', 'near') and second.distance <= 10
    other = ingested('other', {'new1.png': eyes[6], 'new2.png': eyes[7]})
    assert not shared_images(train, other) and shared_images(test, other).exact == 2
    assert shared_images(train, train).exact == 5


def test_what_is_no_dataset_or_keeps_no_hashes(ingested: Callable[[str, dict[str, np.ndarray]], Path], tmp_path: Path) -> None:
    whole = ingested('whole', {'a.png': draw_fundus(seed_of('shared_images', 0), size=96)})
    with pytest.raises(UserError, match='is not a dataset; make one with `retfound ingest`'):
        shared_images(whole, tmp_path)
    (whole / 'index.parquet').unlink()
    with pytest.raises(UserError, match='keeps no hashes of its images in index.parquet; ingest the photographs again'):
        shared_images(whole, whole)
