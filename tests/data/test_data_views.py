"""Views made on the device: each operation against Pillow, SciPy, matplotlib or a loop in NumPy, and what a batch of them depends on."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy.ndimage import gaussian_filter1d
from scipy.stats import ks_2samp

from retfound_jax.core.errors import UsageError
from retfound_jax.data import transforms, views
from retfound_jax.data.config import DataConfig
from retfound_jax.data.device import prepare_batch
from retfound_jax.data.loader import Loader, eval_batches
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source
from retfound_jax.data.views_config import ViewsConfig

RNG = np.random.default_rng(0)
PHOTOGRAPH = np.asarray(Image.fromarray(RNG.integers(0, 256, (12, 12, 3), np.uint8)).resize((40, 40), Image.Resampling.BICUBIC))
PLANES = np.moveaxis(PHOTOGRAPH, -1, 0) / 255
PLAIN = ViewsConfig(canvas=16, flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0), grey=0.0, blur=(0.0,), solarize=(0.0,), local_blur=0.0)
GIVEN = {'size': 12, 'mean': (0.5, 0.4, 0.3), 'std': (0.2, 0.3, 0.4)}
IMAGES = RNG.integers(0, 256, (6, 16, 16, 3), np.uint8)

make = jax.jit(views.make_views, static_argnames=('config', 'size', 'mean', 'std'))


def normal(images: np.ndarray) -> np.ndarray:
    return (images / 255 - np.array(GIVEN['mean'])) / np.array(GIVEN['std'])


@pytest.mark.parametrize('box', [(0, 0, 40, 40), (3, 8, 10, 13), (20, 1, 20, 27), (39, 0, 1, 40)])
def test_crop_and_resize_are_pillows(box: tuple[int, int, int, int]) -> None:
    """In Pillow's mode F, which rounds and clips nothing."""
    top, left, height, width = box
    resize = jax.jit(views.crop_resize, static_argnames=('size',))
    found = np.asarray(resize(PHOTOGRAPH / 255, box_4=jnp.asarray(box, jnp.float32), size=16))
    planes = [Image.fromarray(plane.astype(np.float32)).crop((left, top, left + width, top + height)) for plane in PLANES]
    expected = np.stack([np.asarray(plane.resize((16, 16), Image.Resampling.BICUBIC)) for plane in planes])
    np.testing.assert_allclose(found, expected.clip(0, 1), atol=1e-5)
    mirrored = resize(PHOTOGRAPH / 255, box_4=jnp.asarray(box, jnp.float32), size=16, mirrored=True)
    np.testing.assert_allclose(mirrored, found[:, :, ::-1], atol=1e-6)


def test_boxes_are_drawn_as_on_the_host() -> None:
    """The host's own draw is held against torchvision."""
    side, scale, count = 64, (0.1, 0.9), 3000
    draw = jax.jit(jax.vmap(lambda key: views.random_box(key, side=side, scale=scale)))
    boxes = np.asarray(draw(jax.random.split(jax.random.key(1), count)))
    top, left, height, width = boxes.T
    assert (boxes == np.round(boxes)).all() and (boxes[:, :2] >= 0).all() and (height >= 1).all() and (width >= 1).all()
    assert (top + height <= side).all() and (left + width <= side).all()
    rng = np.random.default_rng(5)
    host = [transforms.random_box(rng, height=side, width=side, scale=scale) for _ in range(count)]
    for mine, theirs in ((top, 'top'), (left, 'left'), (height, 'height'), (width, 'width')):
        assert ks_2samp(mine, [getattr(box, theirs) for box in host]).pvalue > 1e-3, theirs


def test_brightness_contrast_and_saturation_by_their_formulas() -> None:
    factors = np.array([1.3, 0.6, 1.7])
    found = np.asarray(jax.jit(views.jitter)(jnp.asarray(PLANES), drawn_4=jnp.asarray([*factors, 0.0])))
    image = np.clip(PLANES * factors[0], 0, 1)
    grey = np.tensordot([0.299, 0.587, 0.114], image, 1)
    image = np.clip(factors[1] * image + (1 - factors[1]) * grey.mean(), 0, 1)
    grey = np.tensordot([0.299, 0.587, 0.114], image, 1)
    image = np.clip(factors[2] * image + (1 - factors[2]) * grey, 0, 1)
    np.testing.assert_allclose(found, image, atol=1e-5)


@pytest.mark.parametrize('turns', [0.0, 0.1, -0.5, 0.37])
def test_the_hue_turns_as_in_matplotlibs_colours(turns: float) -> None:
    planes = PLANES.copy()
    planes[:, 0], planes[:, 1] = planes[:1, 0], 0.0  # greys and black have no hue
    found = np.asarray(jax.jit(views.jitter)(jnp.asarray(planes), drawn_4=jnp.asarray([1.0, 1.0, 1.0, turns])))
    hsv = rgb_to_hsv(np.moveaxis(planes, 0, -1))
    hsv[..., 0] = (hsv[..., 0] + turns) % 1
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), hsv_to_rgb(hsv), atol=2e-5)


@pytest.mark.parametrize('sigma', [0.1, 0.7, 2.0])
def test_blur_is_scipys(sigma: float) -> None:
    radius = 8
    expected = PLANES
    for axis in (1, 2):
        expected = gaussian_filter1d(expected, sigma, axis=axis, mode='mirror', radius=radius)
    found = jax.jit(views.blur, static_argnames=('radius',))(jnp.asarray(PLANES), sigma=sigma, radius=radius)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_with_everything_off_a_view_is_the_photograph() -> None:
    config = dataclasses.replace(PLAIN, global_scale=(1.0, 1.0))
    found = make(IMAGES, key=jax.random.key(0), config=config, **{**GIVEN, 'size': 16})
    assert set(found) == {'image'} and found['image'].shape == (6, 2, 16, 16, 3) and found['image'].dtype == jnp.float32
    np.testing.assert_allclose(found['image'], np.broadcast_to(normal(IMAGES)[:, None], (6, 2, 16, 16, 3)), atol=1e-5)


def test_a_view_depends_on_its_image_its_place_and_its_number_alone() -> None:
    config = dataclasses.replace(PLAIN, local_views=1, local_size=8)  # crops alone: quick to compile
    more = dataclasses.replace(config, local_views=3)
    key = jax.random.key(7)
    few, many = (make(IMAGES, key=key, config=which, **GIVEN) for which in (config, more))
    assert few['local'].shape == (6, 1, 8, 8, 3) and many['local'].shape == (6, 3, 8, 8, 3)
    np.testing.assert_allclose(few['image'], many['image'], atol=1e-5)
    np.testing.assert_allclose(few['local'], many['local'][:, :1], atol=1e-5)
    others = np.concatenate([IMAGES[:2], 255 - IMAGES[2:]])
    again = make(others, key=key, config=more, **GIVEN)
    np.testing.assert_array_equal(again['local'][:2], many['local'][:2])
    same = make(np.repeat(IMAGES[:1], 6, 0), key=key, config=more, **GIVEN)['image'].reshape(12, -1)
    assert len(np.unique(np.round(same, 4), axis=0)) == 12  # all draws differ


def test_each_chance_comes_as_often_as_asked_for() -> None:
    count = 400
    config = ViewsConfig(
        canvas=8,
        global_scale=(1.0, 1.0),
        flip=0.3,
        jitter=(0.0, 0.0, 0.0, 0.0),
        grey=0.25,
        blur=(0.6, 0.0),
        blur_sigma=(1.0, 1.0),
        solarize=(0.0, 0.4),
    )
    image = np.zeros((8, 8, 3))
    image[:, :4, 0], image[:, 4:, 1] = 200, 90  # red on the left, green on the right
    images, plain = np.broadcast_to(image, (count, 8, 8, 3)).astype(np.uint8), {'mean': (0, 0, 0), 'std': (1, 1, 1)}
    found = np.asarray(make(images, key=jax.random.key(2), config=config, size=8, **plain)['image'])
    grey = np.isclose(found[..., 0], found[..., 1], atol=1e-5).all((2, 3))
    blurred = ~np.isclose(found[:, :, 0, 3], found[:, :, 0, 2], atol=1e-3).all(-1)
    edges = found[:, :, 0, 0]  # of the left
    solarized = np.where(grey, edges[..., 0] > 0.5, False) | (~grey & (found.max((2, 3, 4)) < 0.5))
    flipped = ~grey & (found[:, :, 0, 0, 1] > found[:, :, 0, 0, 0])

    def about(happened: np.ndarray, share: float) -> None:
        assert abs(happened.mean() - share) < 4 * np.sqrt(share * (1 - share) / happened.size) + 1e-9

    about(grey, 0.25)
    about(flipped[~grey], 0.3)
    about(blurred[:, 0], 0.6)
    about(blurred[:, 1], 0.0)
    about(solarized[:, 0][~grey[:, 0]], 0.0)
    about(solarized[:, 1][~grey[:, 1]], 0.4)


def test_the_loader_gives_whole_photographs_and_evaluation_fixed_views() -> None:
    config = DataConfig(phantom=PhantomConfig(patients=6, image_size=40), image_size=16, batch_size=4, views=ViewsConfig(canvas=24))
    source = open_source(config)
    loader = Loader(config, source, seed=0)
    batch = next(loader)
    loader.close()
    assert batch['image'].shape == (4, 24, 24, 3)
    drawn = source.reader.read(batch['index'])
    for given, whole in zip(batch['image'], drawn, strict=True):
        smooth = np.asarray(Image.fromarray(whole).resize((24, 24), Image.Resampling.BOX), int)
        assert np.abs(given.astype(int) - smooth).mean() < 6  # the whole of it, not a part
    held = next(eval_batches(dataclasses.replace(config, split='val'), open_source(dataclasses.replace(config, split='val'))))
    assert held['image'].shape == (4, 24, 24, 3)
    ready = jax.jit(lambda batch: prepare_batch(batch, key=None, config=config))
    one, other = (ready({'image': held['image'], 'mask': held['mask']}) for _ in range(2))
    assert set(one) == {'image', 'mask'} and one['image'].shape == (4, 2, 16, 16, 3)
    np.testing.assert_array_equal(one['image'], other['image'])


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({'views': ViewsConfig(), 'repeat': 2, 'batch_size': 4}, 'data.views'),
        ({'views': ViewsConfig(), 'resolution': ((0, 112), (5, 224))}, 'data.views'),
        ({'views': ViewsConfig(), 'pairs': 'age'}, 'data.views'),
    ],
)
def test_what_does_not_go_with_views_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(UsageError, match=f'{told} is .* must be null'):
        DataConfig(**changes)


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({'global_views': 0}, 'global_views is 0'),
        ({'global_scale': (0.0, 1.0)}, 'global_scale'),
        ({'local_scale': (0.3, 0.1)}, 'local_scale'),
        ({'jitter': (0.1, 0.1, 0.1, 0.6)}, 'jitter'),
        ({'blur': ()}, 'blur'),
        ({'blur_sigma': (0.0, 1.0)}, 'blur_sigma'),
        ({'solarize': (1.2,)}, 'probabilities'),
        ({'canvas': 4}, 'canvas'),
    ],
)
def test_views_that_cannot_be_are_refused(changes: dict, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ViewsConfig(**changes)
