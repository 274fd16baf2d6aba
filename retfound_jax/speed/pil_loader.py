"""The usual loader of the field, as a peer: files opened by Pillow, then what torchvision's training transforms do to each.

`RandomResizedCrop` (bicubic, ratio 3/4 to 4/3), `RandomHorizontalFlip`, `ToTensor` and `Normalize`, by Pillow and NumPy as torchvision
itself does them on a CPU, without torchvision: what they cost is Pillow's work and the passes over float32 that follow it.
C channels, H W image height and width [px].
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from retfound_jax.core.errors import UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.transforms import Box, random_box

SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff')


def photographs(folder: Path | str) -> list[Path]:
    """The photographs of a folder and its subfolders, in order.

    Raises:
      UserError: the folder is missing or holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'there is no folder {folder}; name one that holds photographs')
    found = sorted(path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f'the folder {folder} holds no photograph ({", ".join(SUFFIXES)}); name one that does')
    return found


def load_file(path: Path, *, rng: np.random.Generator, config: DataConfig) -> np.ndarray:
    """One photograph of a folder, read and transformed: float32 [C, H, W].

    Raises:
      UserError: the file is no photograph, or is damaged.
    """
    return load(path.read_bytes(), rng=rng, config=config, name=str(path))


def load(data: bytes, *, rng: np.random.Generator, config: DataConfig, name: str = 'the image') -> np.ndarray:
    """One encoded image, transformed: float32 [C, H, W].

    Raises:
      UserError: the bytes are no photograph, or are damaged.
    """
    try:
        image = Image.open(io.BytesIO(data)).convert('RGB')
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f'{name} cannot be read ({str(error).split(" <")[0]}); remove it or repair it') from error
    box = random_box(rng, height=image.height, width=image.width, scale=config.crop_scale)
    return transform(image, box=box, flip=rng.random() < 0.5, config=config)


def transform(image: Image.Image, *, box: Box, flip: bool, config: DataConfig) -> np.ndarray:
    """The crop resized, mirrored or not, scaled to 0..1 and normalised: float32 [C, H, W], contiguous."""
    size = (config.image_size, config.image_size)
    image = image.crop((box.left, box.top, box.left + box.width, box.top + box.height)).resize(size, Image.Resampling.BICUBIC)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # The arrays that torchvision makes: `ToTensor` a copy, channels apart, float32, the quotient; `Normalize` a copy it then works in.
    pixels_CHW = np.ascontiguousarray(np.array(image).transpose(2, 0, 1)).astype(np.float32)
    pixels_CHW = (pixels_CHW / np.float32(255)).copy()
    pixels_CHW -= np.asarray(config.mean, np.float32)[:, None, None]
    pixels_CHW /= np.asarray(config.std, np.float32)[:, None, None]
    return pixels_CHW


def batch(datas: Sequence[bytes], *, rng: np.random.Generator, config: DataConfig) -> np.ndarray:
    """Encoded images as the collate function of a data loader gives them: float32 [B, C, H, W].

    Raises:
      UserError: an image is damaged.
    """
    return np.stack([load(data, rng=rng, config=config) for data in datas])
