"""`retfound bench loader`: its peer is what it says, its ratios are what its times say, its calls fail in one sentence."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_jax.cli.main import main
from retfound_jax.core.errors import UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.sources import open_source
from retfound_jax.data.transforms import Box, crop_resize, open_image
from retfound_jax.speed import loader, pil_loader
from retfound_jax.speed.loader import LIMIT, ORIGINALS, OURS, PEER, Rate

SMALL = ['--set', 'data.image_size=64', '--set', 'data.crop_scale=0.3,1.0', '--batch', '8', '--turns', '2', '--seconds', '0.05']


def picture(number: int, *, height: int = 120, width: int = 150) -> Image.Image:
    """A smooth coloured picture."""
    pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=92, **options)
    return buffer.getvalue()


def bicubic(length: int, size: int) -> np.ndarray:
    """Antialiased cubic interpolation (Keys 1981, a = -1/2) of `length` samples to `size` as a matrix: float64 [size, length]."""
    stretch = max(1.0, length / size)
    centres = (np.arange(size) + 0.5) * length / size
    x = np.abs(np.arange(length) + 0.5 - centres[:, None]) / stretch
    weights = np.where(x < 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty photographs, ingested."""
    folder = tmp_path_factory.mktemp('loader')
    (folder / 'images').mkdir()
    for number in range(20):
        (folder / 'images' / f'eye{number}.jpg').write_bytes(jpeg(picture(number)))
    words = ['--source', str(folder / 'images'), '--out', str(folder / 'dataset'), '--size', '96', '--val', '0', '--test', '0']
    assert main(['ingest', *words, '--workers', '0']) == 0
    return folder / 'dataset'


@pytest.mark.parametrize('flip', [False, True])
def test_the_peer_is_crop_bicubic_flip_and_normalisation(flip: bool) -> None:
    image, config, box = picture(3), DataConfig(image_size=48), Box(top=11, left=20, height=70, width=64)
    window = np.asarray(image).astype(float)[11:81, 20:84]
    small = np.einsum('ih,hwc,jw->ijc', bicubic(70, 48), window, bicubic(64, 48)).clip(0, 255)
    small = small[:, ::-1] if flip else small
    found = pil_loader.transform(image, box=box, flip=flip, config=config)
    assert found.shape == (3, 48, 48) and found.dtype == np.float32 and found.flags.c_contiguous
    levels = 255 * (found.transpose(1, 2, 0) * np.array(config.std) + np.array(config.mean))
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)  # whole grey levels
    assert np.abs(levels - small).max() < 1.1  # each of the two passes rounds


def test_the_peer_crops_and_flips_by_chance_and_makes_three_channels(tmp_path: Path) -> None:
    config = DataConfig(image_size=32)
    data, grey = jpeg(picture(1)), jpeg(picture(2).convert('L'))
    one, same, other = (pil_loader.load(data, rng=np.random.default_rng(seed), config=config) for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()
    assert pil_loader.batch([data, grey], rng=np.random.default_rng(0), config=config).shape == (2, 3, 32, 32)
    (tmp_path / 'a.jpg').write_bytes(data)
    assert (pil_loader.load_file(tmp_path / 'a.jpg', rng=np.random.default_rng(0), config=config) == one).all()


def test_the_limit_makes_the_very_crops_of_the_loader(dataset: Path) -> None:
    config = DataConfig(path=str(dataset), image_size=64, crop_scale=(0.2, 1.0))
    sample = loader.Sample(config, open_source(config))
    assert len(sample.datas) == 20
    sample._limit()
    for place, (data, box) in enumerate(zip(sample.datas, sample.boxes, strict=True)):
        assert (sample.out[place] == crop_resize(open_image(data), box=box, size=64)).all()


def test_the_limit_reduces_where_the_loader_does(dataset: Path) -> None:
    config = DataConfig(path=str(dataset), image_size=16, crop_scale=(0.2, 1.0))
    sample = loader.Sample(config, open_source(config))
    assert len(set(sample.reductions)) > 1
    sample._limit()
    for place, (data, box) in enumerate(zip(sample.datas, sample.boxes, strict=True)):
        assert (sample.out[place] == crop_resize(open_image(data), box=box, size=16)).all()


def test_a_ratio_is_the_median_of_turns_side_by_side() -> None:
    others = [Rate(cpu=cpu, wall=9.0) for cpu in (1.0, 2.0, 8.0)]
    ours = [Rate(cpu=cpu, wall=7.0) for cpu in (2.0, 2.0, 2.0)]
    assert loader.ratio(others, ours) == 1.0


def test_records_and_table(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    originals = tmp_path / 'camera' / 'deeper'
    originals.mkdir(parents=True)
    (originals / 'big.JPG').write_bytes(jpeg(picture(5, height=1400, width=1700)))
    words = ['--data', str(dataset), '--originals', str(tmp_path / 'camera'), '--workers', '0', '--json', str(tmp_path / 'out.jsonl')]
    assert main(['bench', 'loader', *words, *SMALL]) == 0
    first, *records = map(json.loads, (tmp_path / 'out.jsonl').read_text().splitlines())
    assert first['kind'] == 'run' and {'command', 'versions', 'hardware', 'libraries'} <= first.keys()
    stages = {record['name']: record for record in records if record['kind'] == 'stage'}
    assert {'read', 'decode', 'crop', OURS, 'host to device', 'limit: decode', LIMIT, 'limit: window', PEER, ORIGINALS} <= stages.keys()
    for record in stages.values():
        core = record['per_core_second']
        assert 0 < core['low'] <= core['median'] <= core['high']
        assert record['image_size'] == 64 and record['batch_size'] == 8 and record['turns'] == 2
    # Loose bounds: a busy machine moves times, and no order of these moves with it.
    assert stages['crop']['per_core_second']['median'] < stages['read']['per_core_second']['median']
    assert stages[ORIGINALS]['per_core_second']['median'] < stages[PEER]['per_core_second']['median']
    assert 0.05 < stages['crop']['ratio'] < 1.5
    ratios = stages[OURS]['ratios']
    assert {name: found['target'] for name, found in ratios.items()} == {LIMIT: 0.85, PEER: 4.0, ORIGINALS: 50.0}
    assert ratios[ORIGINALS]['ratio'] > ratios[PEER]['ratio'] > ratios[LIMIT]['ratio'] > 0
    (scaling,) = (record for record in records if record['kind'] == 'workers')
    assert scaling['workers'] == 0 and scaling['per_second']['median'] > 0 and scaling['cores_busy'] > 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in stages) and '(target 0.85)' in shown and '0 (threads)' in shown


@pytest.mark.slow
def test_a_dataset_is_drawn_workers_are_counted_and_training_goes_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ['--phantom', '12', '--original_px', '300', '--experiment', 'experiments.pretrain_mae:small_cpu', '--end_to_end']
    shape = ['--steps', '1', '--batch', '4', '--turns', '1', '--seconds', '0.1', '--workers', '0,1', '--json', str(tmp_path / 'out.jsonl')]
    assert main(['bench', 'loader', *words, *shape]) == 0
    _, *records = map(json.loads, (tmp_path / 'out.jsonl').read_text().splitlines())
    assert ORIGINALS in {record.get('name') for record in records}
    threads, worker = (record for record in records if record['kind'] == 'workers')
    # Work of the other process is counted: with it alone at work, this one's share would be far below.
    assert worker['per_core_second']['median'] < 20 * threads['per_core_second']['median']
    (training,) = (record for record in records if record['kind'] == 'end to end')
    assert training['ratio'] == pytest.approx(training['loader']['median'] / training['synthetic']['median'])
    assert 0.1 < training['ratio'] < 2 and 'ratio' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        ([], 'give either --data'),
        (['--data', 'x', '--phantom', '4'], 'give either --data'),
        (['--data', 'nowhere'], 'there is no dataset nowhere'),
        (['--data', '{}', '--workers', '0,two'], 'has "two"'),
        (['--data', '{}', '--workers', '-1'], 'has "-1"'),
        (['--data', '{}', '--originals', 'nowhere'], 'there is no folder nowhere'),
        (['--data', '{}', '--originals', '{}'], 'holds no photograph'),
        (['--data', '{}', '--turns', '0'], 'turns'),
        (['--data', '{}', '--secondz', '1'], 'secondz'),
        (['--data', '{}', '--set', 'data.split=tset'], 'no split "tset", did you mean "test"'),
        (['--data', '{}', '--set', 'data.split=test'], 'has no image to load'),
        (['--data', '{}', '--experiment', 'experiments.pretrain_mae:vit_q'], 'vit_q'),
    ],
)
def test_a_wrong_call_is_one_sentence(words: list[str], told: str, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['bench', 'loader', *(word.replace('{}', str(dataset)) for word in words)]) in (1, 2)
    error = capsys.readouterr().err
    assert told in error and error.count('\n') == 1 and 'internal' not in error


def test_a_broken_original_is_named(tmp_path: Path) -> None:
    for number, data in enumerate([b'no picture', jpeg(picture(1))[:900]]):
        path = tmp_path / f'{number}.jpg'
        path.write_bytes(data)
        with pytest.raises(UserError, match=f'{number}.jpg cannot be read'):
            pil_loader.load_file(path, rng=np.random.default_rng(0), config=DataConfig())


def test_a_damaged_dataset_is_told(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(dataset, tmp_path / 'damaged')
    (shard,) = (tmp_path / 'damaged').glob('*.array_record*')
    data = bytearray(shard.read_bytes())
    data[5000:9000] = bytes(4000)
    shard.write_bytes(data)
    assert main(['bench', 'loader', '--data', str(tmp_path / 'damaged'), '--workers', '', *SMALL]) == 1
    assert 'damaged' in capsys.readouterr().err
