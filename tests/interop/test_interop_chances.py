"""What the training augmentation draws, beside timm's and torchvision's draws: the same distributions, by tests that reject wrong ones.

Seeds are fixed, so a test either always passes or always fails. ALIKE is the p-value that equal distributions must reach, and wrong ones
must stay below DIFFERENT. timm's source of 2020, which RETFound v1 ran, draws the same: two of the fifteen operations, each half of the
time, at the same clipped magnitudes; a lower bound of 0.1 that later versions put on the enhancing factors only catches rounding.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from retfound_jax.core.random import example_rng
from retfound_jax.data import randaugment
from retfound_jax.data.config import DataConfig
from retfound_jax.data.device import prepare
from retfound_jax.data.transforms import random_box, train_image

pytest.importorskip('torch', reason='PyTorch is not here: launch/test --oracle brings it')

import torch
from timm.data import create_transform
from timm.data.auto_augment import AugmentOp, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import Compose, RandomHorizontalFlip, RandomResizedCrop

pytestmark = pytest.mark.oracle

ALIKE, DIFFERENT = 0.01, 1e-6
RECIPE = 'rand-m9-mstd0.5-inc1'
FILL = (124, 116, 104)
SIGNED = ('rotate', 'color', 'contrast', 'brightness', 'sharpness', 'shear_x', 'shear_y', 'translate_x', 'translate_y')
Draws = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def seeds() -> Iterator[None]:
    """timm draws from three global generators."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test; ties only make it larger."""
    return float(stats.ks_2samp(one, other, method='asymp').pvalue)


def alike_counts(one: np.ndarray, other: np.ndarray) -> float:
    """p-value of the chi-square test that two samples of whole numbers have the same frequencies."""
    top = int(max(one.max(), other.max())) + 1
    table = np.stack([np.bincount(values.astype(int), minlength=top) for values in (one, other)])
    return float(stats.chi2_contingency(table[:, table.sum(axis=0) > 0], correction=False).pvalue)


# RandAugment


def ours_randaugment(count: int, monkeypatch: pytest.MonkeyPatch) -> Draws:
    """What `rand_augment` draws: choice and magnitude of each applied operation, its sign where it has one, and how many an image."""
    seen: list[tuple[int, float, int]] = []

    def spy(number: int) -> randaugment.Operation:
        return lambda image, draw: (seen.append((number, 10 * draw.level, draw.sign)), image)[1]

    names = list(randaugment.OPERATIONS)
    monkeypatch.setattr(randaugment, 'OPERATIONS', {name: spy(number) for number, name in enumerate(names)})
    image, applied = np.zeros((4, 4, 3), np.uint8), []
    for index in range(count):
        before = len(seen)
        randaugment.rand_augment(image, rng=example_rng(0, 0, index), magnitude=9.0, fill=FILL)
        applied.append(len(seen) - before)
    return arranged(seen, applied, signed=[name in SIGNED for name in names])


def timms_randaugment(count: int, recipe: str = RECIPE) -> Draws:
    """The same of timm's transform; its magnitude and sign are read where they are drawn."""
    transform = rand_augment_transform(recipe, {'img_mean': FILL, 'interpolation': Image.Resampling.BICUBIC})
    seen: list[tuple[int, float, int]] = []
    for number, operation in enumerate(transform.ops):
        spy_on(operation, number, seen)
    applied = []
    for _ in range(count):
        before = len(seen)
        transform(None)
        applied.append(len(seen) - before)
    return arranged(seen, applied, signed=[name in SIGNED for name in randaugment.OPERATIONS])


def spy_on(operation: AugmentOp, number: int, seen: list[tuple[int, float, int]]) -> None:
    level_function, neutral = operation.level_fn, 1.0 if 'Increasing' in operation.name else 0.0

    def level(magnitude: float, hparams: dict) -> tuple[float, float]:
        return magnitude, level_function(magnitude, hparams)[0]

    operation.level_fn = level if level_function else None
    operation.aug_fn = lambda image, magnitude=np.nan, value=0.0, **_: seen.append((number, magnitude, 1 if value > neutral else -1))


def arranged(seen: list[tuple[int, float, int]], applied: list[int], *, signed: list[bool]) -> Draws:
    choice, magnitude, sign = (np.array(values) for values in zip(*seen, strict=True))
    return {
        'choice': choice,
        'applied': np.array(applied),
        'magnitude': magnitude[choice >= 3],  # the first three have none, and timm draws none that could be seen
        'sign': (sign[np.array(signed)[choice]] > 0).astype(int),
    }


def test_randaugment_draws_as_timm_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, timms = ours_randaugment(20_000, monkeypatch), timms_randaugment(20_000)
    for name in ('choice', 'applied', 'sign'):
        assert alike_counts(ours[name], timms[name]) > ALIKE, name
    assert alike(ours['magnitude'], timms['magnitude']) > ALIKE
    assert (ours['magnitude'] == 10).mean() == pytest.approx((timms['magnitude'] == 10).mean(), abs=0.005)  # the clipped tail
    for recipe, name in (
        ('m7', 'magnitude'),
        ('m9-mstd0.6', 'magnitude'),
        ('m9-p0.9', 'applied'),
        ('m9-p0.55', 'applied'),
        ('m9-n3', 'applied'),
    ):
        other = timms_randaugment(20_000, RECIPE.replace('m9', recipe, 1) if 'mstd' not in recipe else f'rand-{recipe}-inc1')
        test = alike if name == 'magnitude' else alike_counts
        assert test(ours[name], other[name]) < DIFFERENT, recipe
    rng = np.random.default_rng(0)
    assert alike_counts(ours['sign'], (rng.random(20_000) < 0.55).astype(int)) < DIFFERENT
    assert alike_counts(np.delete(ours['choice'], np.flatnonzero(ours['choice'] == 5)[::4]), timms['choice']) < DIFFERENT


def filled_sides(images: Iterator[np.ndarray]) -> np.ndarray:
    """For each image the sides with pixels of colour FILL in the outermost column: 0 none, 1 left, 2 right, 3 both."""
    sides = [[(image[:, column] == FILL).all(-1).any() for column in (0, -1)] for image in images]
    return np.array(sides) @ [1, 2]


def test_the_flip_comes_first_as_in_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vertical shear keeps the left edge in timm, whether the image was mirrored before or not; all other operations are symmetric."""
    shear = {name: operation for name, operation in randaugment.OPERATIONS.items() if name == 'shear_y'}
    monkeypatch.setattr(randaugment, 'OPERATIONS', shear)
    picture, config = np.full((48, 48, 3), 200, np.uint8), DataConfig(image_size=48, randaugment=9.0)
    ours = [train_image(picture, rng=example_rng(0, 0, index), config=config) for index in range(3000)]
    hparams = {'img_mean': FILL, 'interpolation': Image.Resampling.BICUBIC}
    transform = Compose([RandomHorizontalFlip(), rand_augment_transform(RECIPE, hparams, transforms=['ShearY'])])
    timms = filled_sides(np.asarray(transform(Image.fromarray(picture))) for _ in range(3000))
    assert alike_counts(filled_sides(iter(ours)), timms) > ALIKE and set(timms) == {0, 2}
    after = (image[:, ::step] for image, step in zip(ours, np.random.default_rng(0).choice([-1, 1], 3000), strict=True))
    assert alike_counts(filled_sides(after), timms) < DIFFERENT


# Random erasing


def rectangles(erased_NHW: np.ndarray) -> Draws:
    """Share of the area, aspect and place of the erased rectangle of each image that has one."""
    found = {'area': [], 'aspect': [], 'top': [], 'left': []}
    height, width = erased_NHW.shape[1:]
    for mask_HW in erased_NHW[erased_NHW.any((1, 2))]:
        rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
        tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert mask_HW.sum() == tall * wide  # a full rectangle
        found['area'].append(tall * wide / (height * width))
        found['aspect'].append(np.log(tall / wide))
        found['top'].append((rows[0] + 0.5) / (height - tall + 1))
        found['left'].append((columns[0] + 0.5) / (width - wide + 1))
    return {name: np.array(values) for name, values in found.items()} | {'erased': erased_NHW.any((1, 2)).astype(int)}


def ours_erasing(count: int, *, probability: float, side: int = 56) -> tuple[np.ndarray, np.ndarray]:
    """Erased images [N, H, W, C], and where they are [N, H, W]."""
    config = DataConfig(augment='none', random_erasing=probability, image_size=side)
    image_BHWC = np.full((500, side, side, 3), 128, np.uint8)
    step = jax.jit(lambda key: prepare(image_BHWC, key=key, config=config))
    image_NHWC = np.concatenate([np.asarray(step(jax.random.key(index))) for index in range(count // 500)])
    untouched = np.asarray(prepare(image_BHWC[:1], key=None, config=config))
    return image_NHWC, (np.abs(image_NHWC - untouched) > 1e-5).any(-1)


def timms_erasing(count: int, *, probability: float, side: int = 56, **options: object) -> tuple[np.ndarray, np.ndarray]:
    eraser = RandomErasing(probability, **{'mode': 'pixel', 'device': 'cpu', **options})
    image_NCHW = eraser(torch.full((count, 3, side, side), 9.0))
    image_NHWC = image_NCHW.numpy().transpose(0, 2, 3, 1)
    return image_NHWC, (image_NHWC != 9.0).any(-1)


def test_random_erasing_draws_as_timm_does() -> None:
    share = rectangles(ours_erasing(8000, probability=0.25)[1])['erased']
    assert alike_counts(share, rectangles(timms_erasing(8000, probability=0.25)[1])['erased']) > ALIKE
    assert alike_counts(share, rectangles(timms_erasing(8000, probability=0.3)[1])['erased']) < DIFFERENT
    image, mask = ours_erasing(4000, probability=1.0)
    other_image, other_mask = timms_erasing(4000, probability=1.0)
    ours, timms = rectangles(mask), rectangles(other_mask)
    for name in ('area', 'aspect', 'top', 'left'):
        assert alike(ours[name], timms[name]) > ALIKE, name
    for options, name in (({'max_area': 0.4}, 'area'), ({'min_area': 0.05}, 'area'), ({'min_aspect': 0.5}, 'aspect')):
        assert alike(ours[name], rectangles(timms_erasing(4000, probability=1.0, **options)[1])[name]) < DIFFERENT, options
    assert alike(ours['top'], timms['top'] * 0.9) < DIFFERENT
    noise, other = image[mask], other_image[other_mask]  # [pixels, C]
    for channel in range(3):
        assert alike(noise[::7, channel], other[::7, channel]) > ALIKE
        assert alike(noise[::7, channel], 1.03 * other[::7, channel]) < DIFFERENT
        assert alike(noise[::7, channel], other[::7, channel] + 0.03) < DIFFERENT
    assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.01  # each channel of each pixel by itself
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.01


# Random resized crop and flip


def boxes(draw: Callable[[int], tuple[int, int, int, int]], *, count: int, height: int, width: int) -> Draws:
    """Area share, log ratio and centre of `count` boxes (top, left, height, width)."""
    top, left, tall, wide = np.array([draw(index) for index in range(count)]).T
    return {
        'area': tall * wide / (height * width),
        'ratio': np.log(wide / tall),
        'y': (top + tall / 2) / height,
        'x': (left + wide / 2) / width,
    }


@pytest.mark.parametrize(('height', 'width'), [(224, 224), (300, 420), (520, 200)])
@pytest.mark.parametrize('scale', [(0.2, 1.0), (0.08, 1.0)])
def test_crops_are_drawn_as_timm_and_torchvision_do(height: int, width: int, scale: tuple[float, float]) -> None:
    shape, image = {'count': 6000, 'height': height, 'width': width}, Image.new('RGB', (width, height))
    ratio = (3 / 4, 4 / 3)

    def ours(index: int) -> tuple[int, int, int, int]:
        box = random_box(example_rng(0, 0, index), height=height, width=width, scale=scale)
        return box.top, box.left, box.height, box.width

    def timms(scale: tuple[float, float] = scale, ratio: tuple[float, float] = ratio) -> Draws:
        return boxes(lambda _: RandomResizedCropAndInterpolation.get_params(image, scale, ratio), **shape)

    found, expected = boxes(ours, **shape), timms()
    torchvisions = boxes(lambda _: RandomResizedCrop.get_params(image, list(scale), list(ratio)), **shape)
    for name in found:
        assert alike(found[name], expected[name]) > ALIKE and alike(found[name], torchvisions[name]) > ALIKE, name
    low = scale[0]
    assert alike(found['area'], timms(scale=(low + 0.05, 1.0))['area']) < DIFFERENT
    assert alike(found['ratio'], timms(ratio=(0.6, 1 / 0.6))['ratio']) < DIFFERENT
    assert alike(found['x'], 0.5 + 0.7 * (expected['x'] - 0.5)) < DIFFERENT


# The whole of training, at the end


def drawn_images(images: Iterator[np.ndarray]) -> Draws:
    """Numbers of normalised images [H, W, C] that any of the steps would move."""
    found = {'mean': [], 'spread': [], 'left': [], 'tilt': [], 'edges': [], 'corner': []}
    for image in images:
        grey = image.mean(axis=-1)
        half = grey.shape[1] // 2
        found['mean'].append(grey.mean())
        found['spread'].append(grey.std())
        found['left'].append(grey[:, :half].mean() - grey[:, half:].mean())
        found['tilt'].append(grey[:half].mean() - grey[half:].mean())
        found['edges'].append(np.abs(np.diff(grey, axis=1)).mean())
        found['corner'].append(image[-2, 1, 0])
    return {name: np.round(values, 4) for name, values in found.items()}  # equal pixels differ by float32's rounding


def test_whole_training_images_are_drawn_as_timm_does() -> None:
    rng, count, side = np.random.default_rng(5), 6000, 32
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
    picture = np.asarray(coarse.resize((48, 40), Image.Resampling.BICUBIC))
    config = DataConfig(image_size=side, crop_scale=(0.08, 1.0), randaugment=9.0, random_erasing=0.25)

    def ours(config: DataConfig) -> Draws:
        step = jax.jit(lambda image_BHWC, key: prepare(image_BHWC, key=key, config=config))
        raw = np.stack([train_image(picture, rng=example_rng(0, 0, index), config=config) for index in range(count)])
        return drawn_images(iter(np.asarray(step(raw, jax.random.key(1)))))

    transform = create_transform(
        side, is_training=True, color_jitter=None, auto_augment=RECIPE, interpolation='bicubic', re_prob=0.25, re_mode='pixel'
    )
    timms = drawn_images(transform(Image.fromarray(picture)).numpy().transpose(1, 2, 0) for _ in range(count))
    found = ours(config)
    for name, values in found.items():
        assert alike(values, timms[name]) > ALIKE, name
    wrong = {
        'no flip': replace(config, augment='none'),
        'no RandAugment': replace(config, randaugment=0.0),
        'no erasing': replace(config, random_erasing=0.0),
        'another scale': replace(config, crop_scale=(0.2, 1.0)),
    }
    for what, other in wrong.items():
        assert min(alike(values, timms[name]) for name, values in ours(other).items()) < DIFFERENT, what
