"""The loader that ours is timed against gives torchvision's pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from retfound_jax.data.config import DataConfig
from retfound_jax.data.transforms import Box
from retfound_jax.speed import pil_loader

pytest.importorskip('torch', reason='PyTorch is not here: launch/test --oracle brings it')

from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('box', [Box(top=5, left=30, height=90, width=100), Box(top=0, left=0, height=30, width=24)])
def test_the_peer_of_the_loader_is_torchvisions_chain(box: Box, flip: bool) -> None:
    config = DataConfig(image_size=48)
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).resize((140, 110), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    coarse.save(buffer, 'JPEG')
    image = Image.open(buffer)
    theirs = vision.resized_crop(image, box.top, box.left, box.height, box.width, [48, 48], InterpolationMode.BICUBIC)
    theirs = vision.to_tensor(vision.hflip(theirs) if flip else theirs)
    expected = vision.normalize(theirs, config.mean, config.std).numpy()
    np.testing.assert_array_equal(pil_loader.transform(image, box=box, flip=flip, config=config), expected)
