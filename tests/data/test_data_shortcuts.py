"""What the loader does to be fast gives what the plain way gives: numbers, pixels, records."""

from __future__ import annotations

import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from data_sets import jpeg, picture, records, write_dataset

from retfound_jax.core.random import ExampleRng, example_rng
from retfound_jax.data import dataset_source
from retfound_jax.data.config import DataConfig
from retfound_jax.data.dataset_source import open_dataset
from retfound_jax.data.decode import open_image
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import open_source
from retfound_jax.data.stream import _Memory
from retfound_jax.data.transforms import random_box, train_image
from retfound_jax.ingest.records import decode_image, encode


@pytest.mark.parametrize('seed', [0, 7, 2**64 - 1, 0xDA7A << 40])
def test_one_generator_set_anew_gives_the_numbers_of_a_new_one(seed: int) -> None:
    numbers = ExampleRng(seed)
    for step, index in [(0, 0), (3, 1), (3, 2), (2**40, 2**33), (0, 0)]:
        found, expected = numbers.at(step, index), example_rng(seed, step, index)
        for draw in ('random', 'standard_normal'):
            assert getattr(found, draw)() == getattr(expected, draw)()
        # Half a word stays behind after a small whole number, and must not be there for the next example.
        assert found.integers(7) == expected.integers(7)


def test_boxes_are_those_of_numpys_own_uniform_draws() -> None:
    for index in range(200):
        rng = example_rng(1, 0, index)
        box = random_box(example_rng(1, 0, index), height=300, width=300, scale=(0.2, 0.5))
        area, aspect = 300 * 300 * rng.uniform(0.2, 0.5), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        assert (box.width, box.height) == (round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect)))
        assert (box.top, box.left) == (rng.integers(301 - box.height), rng.integers(301 - box.width))


def test_borrowed_pixels_are_those_of_a_decode_of_its_own() -> None:
    for number, size in enumerate([64, 200, 37, 2000]):
        image = open_image(jpeg(picture(number, height=size, width=size + 3)))
        for reduction in (1, 2):
            own = image.pixels(reduction=reduction)
            assert (image.pixels(reduction=reduction, borrow=True) == own).all()


def test_pixels_that_are_not_borrowed_stay() -> None:
    image, other = (open_image(jpeg(picture(number))) for number in (1, 2))
    kept = image.pixels()
    before = kept.copy()
    other.pixels(borrow=True)
    assert (kept == before).all()


def test_threads_borrow_apart() -> None:
    datas = [jpeg(picture(number, height=90, width=90)) for number in range(2)]
    expected = [open_image(data).pixels() for data in datas]
    wrong = []

    def decode(number: int) -> None:
        for _ in range(200):
            wrong.append((open_image(datas[number]).pixels(borrow=True) != expected[number]).any())

    threads = [threading.Thread(target=decode, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 400 and not any(wrong)


@pytest.mark.parametrize('options', [{}, {'randaugment': 9.0}, {'augment': 'none'}])
@pytest.mark.parametrize('encoded', [True, False])
def test_an_image_in_its_place_is_the_image(options: dict[str, object], encoded: bool) -> None:
    config = DataConfig(image_size=48, **options)
    for number in range(12):
        pixels = picture(number, height=70, width=90) if number else picture(0, height=48, width=48)
        data = jpeg(pixels) if encoded else pixels
        place = np.zeros((3, 48, 48, 3), np.uint8)
        alone = train_image(data, rng=example_rng(0, 0, number), config=config)
        made = train_image(data, rng=example_rng(0, 0, number), config=config, out=place[1])
        assert (place[1] == alone).all() and np.shares_memory(made, place) and not place[::2].any()


def test_the_image_of_a_record_alone() -> None:
    (record,) = records(1)
    assert decode_image(encode(record)) == record.image
    for data in (b'', b'not a record', encode(record)[:40]):
        with pytest.raises(ValueError, match='not a record of schema'):
            decode_image(data)


def test_records_come_in_the_order_asked_one_by_one_and_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = records(23, size=40)
    store = open_dataset(write_dataset(tmp_path / 'eyes', {'train': made}, shard=5), split='train').store
    wanted = [22, 0, 4, 5, 4, 17, 9, 10]
    expected = [made[place].image for place in wanted]
    assert store.read(wanted) == expected
    monkeypatch.setattr(dataset_source, '_WAITED', 0.0)  # as if storage were slow: three alone, all others at once
    assert store.read(wanted) == expected
    assert store._open._calls_in_parallel == dataset_source._CALLS_IN_PARALLEL
    assert store.read(wanted) == expected and store.read([3]) == [made[3].image] and store.read([]) == []
    assert store._open._calls_in_parallel == dataset_source._CALLS_IN_PARALLEL - 3


def test_memory_is_written_anew_only_when_nobody_holds_it() -> None:
    memory = _Memory()
    first = memory.take((4, 3))
    place = first.ctypes.data
    part = first[1:, 0]  # a view holds what it is of
    del first
    second = memory.take((4, 3))
    assert second.ctypes.data != place
    del part
    assert memory.take((4, 3)).ctypes.data == place
    held = [memory.take((4, 3)) for _ in range(20)]  # more than are kept
    assert len({array.ctypes.data for array in [second, *held]}) == 21
    assert memory.take((5,)).shape == (5,)


def test_what_a_jax_array_shares_is_held() -> None:
    memory = _Memory()
    first = memory.take((64, 64, 3))
    first[...] = 7
    shared = jax.device_put(first, may_alias=True)
    del first
    memory.take((64, 64, 3))[...] = 9
    assert (np.asarray(shared) == 7).all()


def test_batches_that_are_kept_stay_and_others_share_memory(tmp_path: Path) -> None:
    config = DataConfig(path=str(write_dataset(tmp_path / 'eyes', {'train': records(9, size=40)})), image_size=16, batch_size=4)
    source = open_source(config)
    loader, again = Loader(config, source, seed=1), Loader(config, source, seed=1)
    places, kept, copies = set(), [], []
    for _ in range(20):
        batch = next(loader)
        places.add(batch['image'].ctypes.data)
        kept.append(next(again))
        assert (batch['image'] == kept[-1]['image']).all()
        copies.append(batch['image'].copy())
    loader.close()
    again.close()
    assert len(places) < 10
    assert all((one['image'] == copy).all() for one, copy in zip(kept, copies, strict=True))
