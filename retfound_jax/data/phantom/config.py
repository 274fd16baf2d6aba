"""The parameters of the phantom: who is in it, what they have, and which cameras looked at them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.core.random import example_rng
from retfound_jax.data.phantom.planted import Shortcut, Visibility
from retfound_jax.data.phantom.sites import ETHNICITIES, LINKS, SITES, EthnicGroup, PrevalenceLink, SiteStyle


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
    COURSE = 40
    VISITS = 41
    WORSE = 42
    MARK = 50


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
    visits: int = 1  # of each patient, both eyes photographed at each; the first is the photograph of a phantom of one visit
    visit_years: float = 2.0  # [years] from a visit to the next in the mean; each gap is a half to one and a half of it
    progressing: float = 0.35  # share of eyes of middling risk whose retinopathy gets worse (data/phantom/progress.py)
    # Effects of known size for studies to find (data/phantom/planted.py); off, and then no picture differs by a byte.
    shortcut: Shortcut | None = None
    visibility: tuple[Visibility, ...] = ()

    def __post_init__(self) -> None:
        _check(self)


def stream(config: PhantomConfig, kind: Stream, index: int) -> np.random.Generator:
    """The generator of one kind of chance for one patient or eye; a pure function of its arguments."""
    return example_rng(config.seed, int(kind), index)


def later(kind: Stream, number: int) -> int:
    """The number of that kind of chance at a later visit; that of visit 0 is the kind's own."""
    return int(kind) + 100 * number


def _check(config: PhantomConfig) -> None:
    if config.patients < 1:
        raise UsageError(f'the phantom has patients={config.patients} and needs at least 1')
    if not 32 <= config.image_size <= 2048:
        raise UsageError(f'the phantom has image_size={config.image_size} and can draw 32 to 2048 pixels')
    if abs(sum(config.dr_grades) - 1) > 1e-6 or min(config.dr_grades) < 0:
        raise UsageError(f'the phantom has dr_grades={config.dr_grades}: five shares from 0 up that sum to 1 are needed')
    for name in ('glaucoma', 'amd', 'male_fraction', 'eye_correlation', 'missing_fraction', 'near_duplicate_fraction', 'progressing'):
        if not 0 <= getattr(config, name) <= 1:
            raise UsageError(f'the phantom has {name}={getattr(config, name)} and needs a share between 0 and 1')
    if not 1 <= config.visits <= 50 or not config.visit_years > 0:
        told = f'visits={config.visits} and visit_years={config.visit_years:g}'
        raise UsageError(f'the phantom has {told}: it draws 1 to 50 visits, some time above 0 years apart')
    if not config.sites or not config.ethnicities:
        raise UsageError('the phantom needs at least one site and one ethnic group')
    _check_names(config)


def _check_names(config: PhantomConfig) -> None:
    for site in config.sites:
        if len(site.ethnicity) != len(config.ethnicities) or sum(site.ethnicity) <= 0:
            given, groups = len(site.ethnicity), len(config.ethnicities)
            raise UsageError(f'site {site.name} has {given} ethnicity weights and needs one, from 0 up, for each of {groups} groups')
    known = {
        'sex': ('F', 'M'),
        'ethnicity': tuple(group.name for group in config.ethnicities),
        'country': tuple(site.country for site in config.sites),
        'site': tuple(site.name for site in config.sites),
    }
    for link in config.links:
        if link.value not in known[link.attribute]:
            near = nearest(link.value, known[link.attribute])
            raise UsageError(f'the phantom links {link.disease} to {link.attribute} "{link.value}", which nobody has{near}')
    for one in config.visibility:
        if one.value not in known[one.attribute]:
            near = nearest(one.value, known[one.attribute])
            raise UsageError(f'the phantom draws {one.disease} otherwise for {one.attribute} "{one.value}", which nobody has{near}')
    if config.shortcut:
        _check_shortcut(config.shortcut, config.sites)


def _check_shortcut(shortcut: Shortcut, sites: tuple[SiteStyle, ...]) -> None:
    names = [site.name for site in sites]
    if shortcut.fails_at not in names:
        near = nearest(shortcut.fails_at, names) or f'; it has {", ".join(names)}'
        raise UsageError(f'the shortcut of the phantom fails at "{shortcut.fails_at}", which is no site{near}')
    own = [site.name for site in sites if site.notch]
    if shortcut.mark == 'notch' and own:
        raise UsageError(f'the shortcut of the phantom is a notch, which the camera of {own[0]} always has; choose cast or border')
