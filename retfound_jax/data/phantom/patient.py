"""Who the people are: demographics, the liability of each eye to each disease, and the table of them all, without drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logit, ndtr

from retfound_jax.core.errors import UsageError
from retfound_jax.core.random import example_rng
from retfound_jax.data.phantom.config import PhantomConfig, Stream, later, stream
from retfound_jax.data.phantom.progress import Start, Visit, draw_visits
from retfound_jax.data.phantom.sites import SiteStyle

LATERALITIES = ('R', 'L')
DEMOGRAPHICS = ('age', 'sex', 'ethnicity')


@dataclass(frozen=True, kw_only=True)
class Eye:
    """The truth about one eye. Lengths are in units of the radius of a 45 degree field of view."""

    laterality: str
    dr_grade: int  # ICDR 0 to 4
    glaucoma: int
    amd: int
    cup_to_disc: float  # vertical
    disc_radius: float  # vertical half axis
    tortuosity: float  # 1 is usual


@dataclass(frozen=True, kw_only=True)
class Patient:
    """The truth about one person; `missing` names the fields that the table hides."""

    index: int
    patient_id: str
    source: int  # the patient whose eyes are photographed: `index`, but for near duplicates
    age: float  # [years]
    sex: str
    ethnicity: str
    site: SiteStyle
    pigment: float  # 0 blond to 1 dark brown
    tessellation: float  # how much of the choroid shows, 0 to 1
    haze: float  # veil and yellowing of the lens, 0 to 1
    eyes: tuple[Eye, Eye]
    missing: tuple[str, ...]


def draw_patient(config: PhantomConfig, patient_index: int) -> Patient:
    """The patient of that number; a pure function of both arguments.

    Raises:
      UsageError: the number is outside 0 to `config.patients` - 1.
    """
    if not 0 <= patient_index < config.patients:
        raise UsageError(f'there is no patient {patient_index}: the phantom has patients 0 to {config.patients - 1}')
    source = _source(config, patient_index)
    rng = stream(config, Stream.PATIENT, source)
    site = config.sites[_choose(rng, [s.share for s in config.sites])]
    group = config.ethnicities[_choose(rng, site.ethnicity)]
    sex = 'M' if rng.random() < config.male_fraction else 'F'
    age = float(np.round(np.clip(rng.normal(config.age_mean, config.age_spread), *config.age_range)))
    mean_pigment = float(np.mean([g.pigment for g in config.ethnicities]))
    pigment = mean_pigment + config.pigment_link * (group.pigment - mean_pigment) + group.pigment_spread * rng.standard_normal()
    pigment = float(np.clip(pigment, 0.02, 1.0))
    tessellation = float(np.clip(rng.beta(1.3, 3.2) + 0.25 * (0.4 - pigment) + 0.004 * (age - 55), 0.0, 1.0))
    haze = float(np.clip(config.lens_ageing * (0.5 * ((age - 20) / 70) ** 2 + 0.10 * rng.standard_normal() * (age / 70)), 0.0, 1.0))
    shifts = _log_odds(config, age=age, sex=sex, ethnicity=group.name, site=site)
    hidden = stream(config, Stream.MISSING, patient_index).random(len(DEMOGRAPHICS)) < config.missing_fraction
    return Patient(
        index=patient_index,
        patient_id=f'P{patient_index:06d}',
        source=source,
        age=age,
        sex=sex,
        ethnicity=group.name,
        site=site,
        pigment=pigment,
        tessellation=tessellation,
        haze=haze,
        eyes=_draw_eyes(config, rng, source, shifts),
        missing=tuple(name for name, gone in zip(DEMOGRAPHICS, hidden, strict=True) if gone),
    )


def who(patient: Patient) -> dict[str, str]:
    """What links and planted effects ask of a person."""
    return {'sex': patient.sex, 'ethnicity': patient.ethnicity, 'country': patient.site.country, 'site': patient.site.name}


def marked(config: PhantomConfig, patient: Patient, *, side: int, visit: int, label: int) -> bool:
    """Whether the photograph of that eye (0 right, 1 left) at that visit bears the mark of the planted shortcut; `label` is its label's."""
    if config.shortcut is None:
        return False
    chance = example_rng(config.seed, later(Stream.MARK, visit), 2 * patient.source + side).random()
    return config.shortcut.bears(chance, label=label, site=patient.site.name)


def visits_of(config: PhantomConfig, patient: Patient, side: int) -> tuple[Visit, ...]:
    """What the eye of that side (0 right, 1 left) shows at each visit."""
    eye = patient.eyes[side]
    start = Start(
        dr_grade=eye.dr_grade, glaucoma=eye.glaucoma, amd=eye.amd, cup_to_disc=eye.cup_to_disc, tortuosity=eye.tortuosity
    )
    return draw_visits(config, 2 * patient.source + side, start)


def table(config: PhantomConfig) -> dict[str, np.ndarray]:
    """The columns of `labels.csv` for every photograph (row = (2 x patient + eye) x visits + visit), without drawing a picture.

    Text columns hold '' and `age` holds NaN where the demographic is missing. Where there is more than one visit, `visit` counts them
    from 0, `visit_years` [years] is the time since the first, and `progresses` is 1 where the DR grade is higher at the last visit than
    at this one (NaN at the last). Without, there are no such columns.
    """
    rows = [row for index in range(config.patients) for row in _rows(config, draw_patient(config, index))]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _rows(config: PhantomConfig, patient: Patient) -> list[dict[str, object]]:
    eyes = [[row] for row in _first_rows(patient)]
    if config.visits > 1:
        eyes = [_visit_rows(row, visits_of(config, patient, side)) for side, (row,) in enumerate(eyes)]
    if config.shortcut:
        for side, visit, row in ((side, visit, row) for side, rows in enumerate(eyes) for visit, row in enumerate(rows)):
            row['marked'] = int(marked(config, patient, side=side, visit=visit, label=int(row[config.shortcut.label])))
    return [row for rows in eyes for row in rows]


def _visit_rows(first: dict[str, object], visits: tuple[Visit, ...]) -> list[dict[str, object]]:
    name, last = str(first['image']).removesuffix('.jpg'), visits[-1]
    return [
        first
        | {
            'image': f'{name}_V{visit.number}.jpg',
            'age': float(np.floor(first['age'] + visit.years)),
            'dr_grade': visit.dr_grade,
            'referable_dr': int(visit.dr_grade >= 2),
            'cup_to_disc': round(visit.cup_to_disc, 3),
            'visit': visit.number,
            'visit_years': visit.years,
            'progresses': float(last.dr_grade > visit.dr_grade) if visit is not last else float('nan'),
        }
        for visit in visits
    ]


def _first_rows(patient: Patient) -> list[dict[str, object]]:
    shown = {name: getattr(patient, name) for name in DEMOGRAPHICS}
    shown.update({name: float('nan') if name == 'age' else '' for name in patient.missing})
    return [
        {
            'image': f'{patient.patient_id}_{eye.laterality}.jpg',
            'patient_id': patient.patient_id,
            'eye': eye.laterality,
            'age': shown['age'],
            'sex': shown['sex'],
            'ethnicity': shown['ethnicity'],
            'country': patient.site.country,
            'site': patient.site.name,
            'camera': patient.site.camera,
            'dr_grade': eye.dr_grade,
            'referable_dr': int(eye.dr_grade >= 2),
            'glaucoma': eye.glaucoma,
            'amd': eye.amd,
            'cup_to_disc': round(eye.cup_to_disc, 3),
        }
        for eye in patient.eyes
    ]


def _source(config: PhantomConfig, index: int) -> int:
    """Follows a near duplicate back to the patient it repeats (each step goes to a smaller number, so this ends)."""
    while index > 0:
        rng = stream(config, Stream.DUPLICATE, index)
        if rng.random() >= config.near_duplicate_fraction:
            break
        index = int(rng.integers(index))
    return index


def _choose(rng: np.random.Generator, weights: object) -> int:
    shares = np.cumsum(np.asarray(weights, dtype=float))
    return int(np.searchsorted(shares, rng.random() * shares[-1], side='right'))


def _log_odds(config: PhantomConfig, *, age: float, sex: str, ethnicity: str, site: SiteStyle) -> dict[str, float]:
    """How far this person's odds of each disease are from those of the reference person, as a logarithm."""
    who = {'sex': sex, 'ethnicity': ethnicity, 'country': site.country, 'site': site.name}
    shifts = {name: np.log(odds) * (age - 60) / 10 for name, odds in zip(('dr', 'glaucoma', 'amd'), config.age_odds, strict=True)}
    for link in config.links:
        if who[link.attribute] == link.value:
            shifts[link.disease] += np.log(link.odds)
    return shifts


def _draw_eyes(config: PhantomConfig, rng: np.random.Generator, source: int, shifts: dict[str, float]) -> tuple[Eye, Eye]:
    """Both eyes share a part of every hidden normal variable, and have a part of their own."""
    shared, weight = rng.standard_normal(6), np.sqrt(config.eye_correlation)
    eyes = []
    for side, laterality in enumerate(LATERALITIES):
        own = stream(config, Stream.EYE, 2 * source + side).standard_normal(6)
        z = weight * shared + np.sqrt(1 - config.eye_correlation) * own
        # A liability with a logistic distribution, so that adding a log odds multiplies the odds at every cut point.
        liability = logit(np.clip(ndtr(z[:3]), 1e-9, 1 - 1e-9)) + [shifts['dr'], shifts['glaucoma'], shifts['amd']]
        cuts = logit(np.clip(np.cumsum(config.dr_grades)[:-1], 1e-12, 1 - 1e-12))
        glaucoma = int(liability[1] > -logit(config.glaucoma))
        eyes.append(
            Eye(
                laterality=laterality,
                dr_grade=int(np.searchsorted(cuts, liability[0], side='right')),
                glaucoma=glaucoma,
                amd=int(liability[2] > -logit(config.amd)),
                cup_to_disc=_cup_to_disc(z[3], glaucoma=glaucoma),
                disc_radius=float(np.clip(0.152 + 0.011 * z[4], 0.125, 0.18)),
                tortuosity=float(np.exp(0.35 * z[5])),
            )
        )
    return eyes[0], eyes[1]


def _cup_to_disc(z: float, *, glaucoma: int) -> float:
    """Vertical cup-to-disc ratio; the ranges of healthy and glaucomatous eyes overlap a little, as they do in people."""
    return float(np.clip(0.74 + 0.075 * z, 0.56, 0.92) if glaucoma else np.clip(0.37 + 0.11 * z, 0.12, 0.64))
