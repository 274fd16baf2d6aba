"""Where the phantom's people come from: ethnic groups, sites with their cameras, and links of a group to a disease.

The numbers are chosen to give later studies known differences to find. They are not epidemiology, and the cameras are no real models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class EthnicGroup:
    """A group of people and the fundus pigmentation usual in it (0 blond, 1 dark brown)."""

    name: str
    pigment: float
    pigment_spread: float = 0.09


@dataclass(frozen=True, kw_only=True)
class SiteStyle:
    """A place where photographs are taken: its people, its camera and the habits of both."""

    name: str
    country: str
    camera: str
    share: float = 1.0  # weight among the sites
    ethnicity: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)  # weights, in the order of PhantomConfig.ethnicities
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)  # gain of red, green, blue
    gamma: float = 1.0  # above 1: darker mid-tones, more contrast
    saturation: float = 1.0
    softness: float = 0.5  # blur [px at 256 px]
    sharpening: float = 0.0  # strength of the camera's unsharp mask
    noise: float = 1.5  # standard deviation [grey levels]
    jpeg_quality: int = 88
    crop: Literal['circle', 'cut', 'overfill'] = 'circle'  # whole circle; flat at top and bottom; circle larger than the frame
    field: float = 1.0  # angle seen, relative to 45 degrees
    centre: float = 0.0  # 0 between disc and fovea; 1 on the fovea; -1 on the disc
    notch: bool = False  # the little tab on the rim that tells which way is up
    border: float = 0.0  # grey level outside the field of view
    flare: float = 0.1  # pale light creeping in from the rim
    vignette: float = 0.25
    dust: float = 0.0  # mean number of out-of-focus specks


@dataclass(frozen=True, kw_only=True)
class PrevalenceLink:
    """Multiplies the odds of a disease in one subgroup, such as glaucoma by 2 where ethnicity is Black."""

    attribute: Literal['sex', 'ethnicity', 'country', 'site']
    value: str
    disease: Literal['dr', 'glaucoma', 'amd']
    odds: float


ETHNICITIES = (
    EthnicGroup(name='Asian', pigment=0.48),
    EthnicGroup(name='Black', pigment=0.86),
    EthnicGroup(name='Hispanic', pigment=0.55),
    EthnicGroup(name='South Asian', pigment=0.68),
    EthnicGroup(name='White', pigment=0.20, pigment_spread=0.12),
)

SITES = (
    SiteStyle(
        name='Guangzhou',
        country='China',
        camera='NM-45',
        share=1.3,
        ethnicity=(1.0, 0.0, 0.0, 0.02, 0.01),
        cast=(1.02, 1.0, 0.80),
        softness=0.45,
        noise=1.2,
        jpeg_quality=90,
        flare=0.16,
        vignette=0.22,
        dust=0.5,
    ),
    SiteStyle(
        name='Madurai',
        country='India',
        camera='FC-50',
        ethnicity=(0.02, 0.0, 0.0, 1.0, 0.01),
        cast=(0.98, 0.90, 0.78),
        gamma=1.1,
        softness=0.35,
        sharpening=0.5,
        noise=2.2,
        jpeg_quality=82,
        crop='cut',
        field=1.05,
        centre=0.3,
        flare=0.05,
        vignette=0.34,
    ),
    SiteStyle(
        name='Leeds',
        country='United Kingdom',
        camera='CM-2',
        ethnicity=(0.05, 0.06, 0.01, 0.13, 0.75),
        cast=(1.08, 0.95, 0.95),
        softness=0.3,
        sharpening=0.35,
        noise=1.0,
        jpeg_quality=92,
        crop='cut',
        centre=0.35,
        notch=True,
        flare=0.08,
        vignette=0.22,
    ),
    SiteStyle(
        name='Nairobi',
        country='Kenya',
        camera='HH-40',
        share=0.8,
        ethnicity=(0.02, 0.92, 0.0, 0.05, 0.01),
        cast=(1.08, 1.04, 1.06),
        gamma=0.95,
        saturation=0.86,
        softness=0.85,
        noise=3.2,
        jpeg_quality=74,
        field=0.92,
        border=4.0,
        flare=0.22,
        vignette=0.34,
        dust=1.0,
    ),
    SiteStyle(
        name='Los Angeles',
        country='United States',
        camera='EP-45',
        share=1.2,
        ethnicity=(0.14, 0.13, 0.45, 0.05, 0.23),
        cast=(1.0, 0.98, 0.88),
        gamma=1.04,
        softness=0.55,
        noise=1.8,
        jpeg_quality=80,
        crop='overfill',
        centre=0.45,
        notch=True,
        flare=0.10,
        vignette=0.28,
    ),
    SiteStyle(
        name='Sao Paulo',
        country='Brazil',
        camera='NM-45',
        share=0.9,
        ethnicity=(0.03, 0.22, 0.35, 0.0, 0.40),
        cast=(1.08, 0.88, 0.72),
        saturation=1.05,
        softness=0.5,
        sharpening=0.2,
        noise=1.6,
        jpeg_quality=86,
        notch=True,
        flare=0.12,
        vignette=0.26,
        dust=0.3,
    ),
)

LINKS = (
    PrevalenceLink(attribute='ethnicity', value='Black', disease='glaucoma', odds=2.0),
    PrevalenceLink(attribute='ethnicity', value='White', disease='amd', odds=1.8),
    PrevalenceLink(attribute='ethnicity', value='South Asian', disease='dr', odds=1.5),
    PrevalenceLink(attribute='ethnicity', value='Hispanic', disease='dr', odds=1.4),
    PrevalenceLink(attribute='sex', value='F', disease='amd', odds=1.2),
)
