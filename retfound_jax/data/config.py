"""What a batch is made of: which images, which labels, which size, which augmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from retfound_jax.core.errors import UsageError
from retfound_jax.data.balance import BalanceConfig
from retfound_jax.data.compose import ComposeConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.views_config import ViewsConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from (exactly one of `path`, `tfds_name` and `phantom`) and how they become batches."""

    path: str = ''  # dataset directory written by ingest, or its address in an object store
    tfds_name: str = ''  # any TFDS image dataset, such as `my_dataset` or `my_dataset:1.0.0`
    tfds_dir: str = ''  # where TFDS keeps it; '' for its own default
    phantom: PhantomConfig | None = None  # drawn on the fly
    split: str = 'train'
    labels: tuple[str, ...] = ()  # columns to deliver, labels or demographics such as age and sex; rows that miss all of them are dropped
    fraction: float = 1.0  # of the patients of the training split, chosen by a stable hash (label efficiency); evaluation takes all of them
    # Label whose classes keep their shares among the chosen patients, each patient by the highest class of his images; '': none. A class
    # that exists keeps at least one patient.
    stratify: str = ''
    draw: int = 0  # which choice of patients: another number, another hash
    compose: ComposeConfig | None = None  # training only: so many images (of the `fraction`), with given shares of a column's values
    balance: BalanceConfig | None = None  # training only: how often each value of a column is drawn
    # Training only: columns, joined with '+' such as 'sex+age_band', whose value together comes with each image as `group`, for losses
    # that look at groups (task.robust); validation then also tells the worst group's metrics.
    groups: str = ''
    # Training only: label, or age, that orders the visits of an eye: rows 2i and 2i+1 of a batch are an earlier and a later one, each
    # cropped by itself, flipped alike. An epoch goes over each row that has a later visit, which is drawn anew. '': no pairs.
    pairs: str = ''
    image_size: int = 224  # [px]
    # Training only: (from step, [px]), the first from step 0 and the last at image_size; empty for image_size throughout. The step is
    # compiled once a size (progressive resizing; for ViTs, Touvron et al., arXiv 1906.06423).
    resolution: tuple[tuple[int, int], ...] = ()
    batch_size: int = 256  # [samples] of a step, over all hosts
    # Training only: samples made of each decoded image, with flips and masks of their own (Hoffer et al., arXiv 1901.09335; for masked
    # autoencoders Feichtenhofer et al., arXiv 2205.09113). An epoch counts samples, so that k = 2 decodes half as many images.
    repeat: int = 1
    # For tasks that compare views of one image: the loader gives the whole image at `views.canvas` px, in training and in validation, and
    # the device makes views of it at image_size. Then augment, crop_scale, randaugment and random_erasing have no effect.
    views: ViewsConfig | None = None
    augment: Literal['none', 'crop_flip'] = 'crop_flip'  # random resized crop and horizontal flip
    crop_scale: tuple[float, float] = (0.2, 1.0)  # share of the image's area
    eval_crop: float | None = None  # side of the central crop; None: 0.875 at 224 px, as in RETFound, and the whole image at other sizes
    randaugment: float = 0.0  # magnitude of RandAugment (2 layers, deviation 0.5, increasing severity); 0 is off, RETFound has 9
    random_erasing: float = 0.0  # probability for an image; filled with noise for each pixel
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of each channel on a scale of 0 to 1
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    workers: int = 0  # decoding processes; 0: threads of this process
    most_bad: float = 0.05  # share of unreadable records that training passes over; beyond it, it stops

    def __post_init__(self) -> None:
        _check(self)

    def whole(self, split: str) -> DataConfig:
        """The same images for evaluation: all rows of a split, whatever part of them is trained on and however often."""
        return replace(self, split=split, fraction=1.0, compose=None, balance=None, groups='')

    @property
    def central_share(self) -> float:
        """`eval_crop` with its default settled."""
        return self.eval_crop if self.eval_crop is not None else (0.875 if self.image_size == 224 else 1.0)

    @property
    def decoded(self) -> int:
        """[images] decoded for one training step, over all hosts."""
        return self.batch_size // self.repeat

    @property
    def loaded_size(self) -> int:
        """Side of the images [px] as the loader gives them, but for `resolution`: `image_size`, or the canvas that views are made of."""
        return self.views.canvas if self.views else self.image_size

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the images [px] as the loader gives them for training, in the order of the steps."""
        return tuple(size for _, size in self.resolution) or (self.loaded_size,)

    def size_at(self, step: int) -> int:
        """Side of the images [px] as the loader gives them for training step `step`, counted from 0."""
        return [size for start, size in self.resolution or ((0, self.loaded_size),) if start <= step][-1]

    @property
    def flips_on_host(self) -> bool:
        """The flip comes before RandAugment, as in timm: a shear that keeps the left edge keeps the right one if it is mirrored after."""
        return self.augment != 'none' and self.randaugment > 0


def _check(config: DataConfig) -> None:
    low, high = config.crop_scale
    faults = {
        'fraction': (not 0 < config.fraction <= 1, 'a share above 0 and up to 1'),
        'image_size': (not 8 <= config.image_size <= 4096, '8 to 4096 px'),
        'batch_size': (config.batch_size < 1, 'at least 1'),
        'resolution': (bool(config.resolution) and not _rises(config), 'steps that rise from 0 with 8 to 4096 px each, image_size last'),
        'repeat': (config.repeat < 1 or config.batch_size % config.repeat != 0, 'at least 1, and batch_size a multiple of it'),
        'views': (_viewed_otherwise(config), 'null with data.resolution, data.pairs or data.repeat above 1'),
        'pairs': (_torn(config), "'' with data.repeat above 1 or with RandAugment, which flips each image by itself"),
        'balance': (bool(config.pairs) and config.balance is not None, 'null with data.pairs, which are drawn by their own order'),
        'groups': (bool(config.pairs) and bool(config.groups), "'' with data.pairs"),
        'crop_scale': (not 0 < low <= high <= 1, 'two shares of the area, the smaller first, above 0 and up to 1'),
        'eval_crop': (config.eval_crop is not None and not 0 < config.eval_crop <= 1, 'a share above 0 and up to 1'),
        'randaugment': (not 0 <= config.randaugment <= 10, 'a magnitude of 0 to 10'),
        'random_erasing': (not 0 <= config.random_erasing <= 1, 'a probability of 0 to 1'),
        'std': (min(config.std) <= 0, 'deviations above 0'),
        'most_bad': (not 0 <= config.most_bad < 1, 'a share of 0 up to but not 1'),
        'workers': (config.workers < 0, '0 or more processes'),
        'labels': (len(set(config.labels)) != len(config.labels), 'each label once'),
    }
    for name, (wrong, wanted) in faults.items():
        if wrong:
            raise UsageError(f'data.{name} is {getattr(config, name)} and must be {wanted}')


def _torn(config: DataConfig) -> bool:
    return bool(config.pairs) and (config.repeat > 1 or config.flips_on_host)


def _viewed_otherwise(config: DataConfig) -> bool:
    return config.views is not None and (bool(config.resolution) or bool(config.pairs) or config.repeat > 1)


def _rises(config: DataConfig) -> bool:
    starts, sizes = zip(*config.resolution, strict=True)
    ordered = starts[0] == 0 and all(one < other for one, other in zip(starts, starts[1:], strict=False))
    return ordered and all(8 <= size <= 4096 for size in sizes) and sizes[-1] == config.image_size
