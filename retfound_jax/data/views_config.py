"""What the views of a photograph are, by which pretraining without labels compares it with itself."""

from __future__ import annotations

from dataclasses import dataclass

from retfound_jax.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Random views of each image, made on the device from the whole image at `canvas` px (data/views.py). Strengths are torchvision's."""

    canvas: int = 256  # [px] side at which the loader gives the whole image: its central square
    global_views: int = 2  # crops at data.image_size
    global_scale: tuple[float, float] = (0.2, 1.0)  # share of the canvas's area
    local_views: int = 0  # smaller crops (multi-crop, Caron et al., arXiv 2006.09882)
    local_size: int = 96  # [px]; a multiple of the encoder's patch
    local_scale: tuple[float, float] = (0.05, 0.2)
    flip: float = 0.5  # probability of a horizontal flip, which makes a left eye of a right one
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)  # strengths of brightness, contrast, saturation and hue
    jitter_probability: float = 0.8  # of all four together
    grey: float = 0.2  # probability
    blur: tuple[float, ...] = (1.0, 0.1)  # probability for each global view; the last one also for those beyond
    local_blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # [px] deviation of the Gaussian, uniform
    solarize: tuple[float, ...] = (0.0, 0.2)  # as `blur`: what is brighter than half is inverted; never in local views

    def __post_init__(self) -> None:
        """Raises UsageError for a number that means nothing."""
        shares = (self.flip, self.jitter_probability, self.grey, *self.blur, self.local_blur, *self.solarize)
        faults = {
            'canvas': (not 8 <= self.canvas <= 4096, '8 to 4096 px'),
            'global_views': (self.global_views < 1, 'at least 1'),
            'local_views': (self.local_views < 0, '0 or more'),
            'local_size': (not 8 <= self.local_size <= 4096, '8 to 4096 px'),
            'global_scale': (_no_scale(self.global_scale), 'two shares of the area, the smaller first, above 0 and up to 1'),
            'local_scale': (_no_scale(self.local_scale), 'two shares of the area, the smaller first, above 0 and up to 1'),
            'jitter': (min(self.jitter) < 0 or self.jitter[3] > 0.5, 'four strengths of 0 or more, that of the hue up to 0.5'),
            'blur_sigma': (not 0 < self.blur_sigma[0] <= self.blur_sigma[1], 'two deviations above 0 [px], the smaller first'),
            'blur': (not self.blur, 'a probability for each global view'),
            'solarize': (not self.solarize, 'a probability for each global view'),
        }
        for name, (wrong, wanted) in faults.items():
            if wrong:
                raise UsageError(f'data.views.{name} is {getattr(self, name)} and must be {wanted}')
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError('data.views: flip, jitter_probability, grey, blur, local_blur and solarize are probabilities of 0 to 1')


def _no_scale(scale: tuple[float, float]) -> bool:
    return not 0 < scale[0] <= scale[1] <= 1
