"""The parameters of the phantom: who is in it, what they have, and which cameras looked at them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.core.random import example_rng


class Stream(IntEnum):
    """One number for each independent source of chance: a new structure takes a new number, so the others keep their pictures."""

    PATIENT = 1
    EYE = 2
    MISSING = 3
    DUPLICATE = 4
    VESSELS = 10
    CHOROID = 11
    TEXTURE = 12
    DISC = 13
    MICROANEURYSMS = 20
    HAEMORRHAGES = 21
    EXUDATES = 22
    COTTON_WOOL = 23
    NEW_VESSELS = 24
    DRUSEN = 25
    IRMA = 26
    POSE = 30
    CAMERA = 31
    NOISE = 32


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
    SiteStyle(name='Guangzhou', country='China', camera='NM-45', share=1.3, ethnicity=(1.0, 0.0, 0.0, 0.02, 0.01), cast=(1.02, 1.0, 0.80),
              saturation=1.0, softness=0.45, noise=1.2, jpeg_quality=90, flare=0.16, vignette=0.22, dust=0.5),
    SiteStyle(name='Madurai', country='India', camera='FC-50', ethnicity=(0.02, 0.0, 0.0, 1.0, 0.01), cast=(0.98, 0.90, 0.78), gamma=1.1,
              softness=0.35, sharpening=0.5, noise=2.2, jpeg_quality=82, crop='cut', field=1.05, centre=0.3, flare=0.05, vignette=0.34),
    SiteStyle(name='Leeds', country='United Kingdom', camera='CR-2', ethnicity=(0.05, 0.06, 0.01, 0.13, 0.75), cast=(1.08, 0.95, 0.95),
              softness=0.30, sharpening=0.35, noise=1.0, jpeg_quality=92, crop='cut', centre=0.35, notch=True, flare=0.08, vignette=0.22),
    SiteStyle(name='Nairobi', country='Kenya', camera='HH-40', share=0.8, ethnicity=(0.02, 0.92, 0.0, 0.05, 0.01), cast=(1.04, 1.0, 1.02),
              gamma=0.95, saturation=0.86, softness=0.85, noise=3.2, jpeg_quality=74, field=0.92, border=4.0, flare=0.22, vignette=0.34, dust=1.0),
    SiteStyle(name='Los Angeles', country='United States', camera='EP-45', share=1.2, ethnicity=(0.14, 0.13, 0.45, 0.05, 0.23),
              cast=(1.0, 0.98, 0.88), gamma=1.04, softness=0.55, noise=1.8, jpeg_quality=80, crop='overfill', centre=0.45, notch=True, flare=0.10,
              vignette=0.28),
    SiteStyle(name='Sao Paulo', country='Brazil', camera='NM-45', share=0.9, ethnicity=(0.03, 0.22, 0.35, 0.0, 0.40), cast=(1.08, 0.88, 0.72),
              saturation=1.08, softness=0.5, sharpening=0.2, noise=1.6, jpeg_quality=86, notch=True, flare=0.12, vignette=0.26, dust=0.3),
)

LINKS = (
    PrevalenceLink(attribute='ethnicity', value='Black', disease='glaucoma', odds=2.0),
    PrevalenceLink(attribute='ethnicity', value='White', disease='amd', odds=1.8),
    PrevalenceLink(attribute='ethnicity', value='South Asian', disease='dr', odds=1.5),
    PrevalenceLink(attribute='ethnicity', value='Hispanic', disease='dr', odds=1.4),
    PrevalenceLink(attribute='sex', value='F', disease='amd', odds=1.2),
)


@dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Everything that decides a phantom population; the same configuration draws the same bytes.

    Prevalences are those of a person of 60 years in a group without a link; `links` and `age_odds` move them from there.
    """

    seed: int = 0
    patients: int = 300
    image_size: int = 256  # width and height [px]
    sites: tuple[SiteStyle, ...] = SITES
    ethnicities: tuple[EthnicGroup, ...] = ETHNICITIES
    links: tuple[PrevalenceLink, ...] = LINKS
    dr_grades: tuple[float, float, float, float, float] = (0.49, 0.15, 0.17, 0.10, 0.09)  # share of ICDR grades 0 to 4
    glaucoma: float = 0.19
    amd: float = 0.15
    age_mean: float = 59.0  # [years]
    age_spread: float = 13.0  # [years]
    age_range: tuple[float, float] = (20.0, 90.0)  # [years]
    age_odds: tuple[float, float, float] = (1.1, 1.35, 1.8)  # odds of dr, glaucoma, amd, for each decade of age
    male_fraction: float = 0.48
    eye_correlation: float = 0.85  # of the two eyes' liability to a disease, and of their anatomy
    lens_ageing: float = 1.0  # how much an old lens yellows and veils; 0 cuts the link of age to colour
    pigment_link: float = 1.0  # how much ethnicity decides pigmentation; 0 gives every group the mean
    missing_fraction: float = 0.04  # of each demographic field in the table
    near_duplicate_fraction: float = 0.0  # of patients that are an earlier patient photographed again under another id

    def __post_init__(self) -> None:
        _check(self)


def stream(config: PhantomConfig, kind: Stream, index: int) -> np.random.Generator:
    """The generator of one kind of chance for one patient or eye; a pure function of its arguments."""
    return example_rng(config.seed, int(kind), index)


def _check(config: PhantomConfig) -> None:
    if config.patients < 1:
        raise UsageError(f'the phantom has patients={config.patients} and needs at least 1')
    if not 32 <= config.image_size <= 2048:
        raise UsageError(f'the phantom has image_size={config.image_size} and can draw 32 to 2048 pixels')
    if abs(sum(config.dr_grades) - 1) > 1e-6 or min(config.dr_grades) < 0:
        raise UsageError(f'the phantom has dr_grades={config.dr_grades}: five shares from 0 up that sum to 1 are needed')
    for name in ('glaucoma', 'amd', 'male_fraction', 'eye_correlation', 'missing_fraction', 'near_duplicate_fraction'):
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f'the phantom has {name}={getattr(config, name)} and needs a share between 0 and 1')
    if not config.sites or not config.ethnicities:
        raise UsageError('the phantom needs at least one site and one ethnic group')
    _check_names(config)


def _check_names(config: PhantomConfig) -> None:
    for site in config.sites:
        if len(site.ethnicity) != len(config.ethnicities) or sum(site.ethnicity) <= 0:
            raise UsageError(f'site {site.name} has {len(site.ethnicity)} ethnicity weights and needs one for each of {len(config.ethnicities)} groups')
    known = {
        'sex': ('F', 'M'),
        'ethnicity': tuple(group.name for group in config.ethnicities),
        'country': tuple(site.country for site in config.sites),
        'site': tuple(site.name for site in config.sites),
    }
    for link in config.links:
        if link.value not in known[link.attribute]:
            raise UsageError(f'the phantom links {link.disease} to {link.attribute} "{link.value}", which nobody has{nearest(link.value, known[link.attribute])}')
