"""How an eye goes on from visit to visit: its rate, drawn once, and what it shows at each.

Anatomy stays. What grows is the number of lesions of diabetic retinopathy, and the ICDR grade with it, the drusen, and in glaucoma the
cup. Whether and how fast a grade rises is hidden, and the first photograph hints at it: more lesions for the grade, any retinopathy at
all and winding vessels make it likelier and faster, as they do in people (numbers are chosen, not epidemiology). Lesions never go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.special import expit, logit

from retfound_jax.core.random import example_rng
from retfound_jax.data.phantom.config import PhantomConfig, Stream, later, stream
from retfound_jax.data.phantom.draw_lesions import Severity, severity

_GRADE_RISK = (-0.8, 0.3, 0.5, 0.5, 0.0)  # of first grades 0 to 4, in log odds of getting worse
_LOAD_RISK, _TORTUOSITY_RISK = 1.6, 0.9  # of the fullest against a middling grade; of a deviation of log tortuosity
_RATE = 0.4  # [grades/year] of an eye of middling risk that gets worse
_GROWTH = 0.8  # of the counts of lesions between a grade and the next
_MOST = {  # of what grows within a grade, so that it stays that grade: microaneurysms, haemorrhages in a quadrant, exudates, cotton wool
    1: Severity(microaneurysms=14),
    2: Severity(microaneurysms=32, haemorrhages=(19, 19, 19, 19), exudate_clusters=6, cotton_wool=4),
    3: Severity(microaneurysms=44, haemorrhages=(40, 40, 40, 40), exudate_clusters=8, cotton_wool=8),
    4: Severity(microaneurysms=50, haemorrhages=(40, 40, 40, 40), exudate_clusters=8, cotton_wool=8),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """One eye at its first visit."""

    dr_grade: int
    glaucoma: int
    amd: int
    cup_to_disc: float
    tortuosity: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visit:
    """What one eye shows at one visit."""

    number: int
    years: float  # since the first visit
    dr_grade: int
    severity: Severity
    drusen: int  # more than at the first visit
    cup_to_disc: float


def visit_years(config: PhantomConfig, source: int) -> tuple[float, ...]:
    """When the patient `source` comes [years since the first visit]: gaps of a half to one and a half of `config.visit_years`."""
    rng = stream(config, Stream.VISITS, source)
    gaps = config.visit_years * rng.uniform(0.5, 1.5, config.visits - 1)
    return (0.0, *(round(float(years), 2) for years in np.cumsum(gaps)))


def draw_visits(config: PhantomConfig, source_eye: int, start: Start) -> tuple[Visit, ...]:
    """The visits of one eye (2 x patient + eye), a pure function of its arguments; the first is `start` itself."""
    first = severity(stream(config, Stream.HAEMORRHAGES, source_eye), dr_grade=start.dr_grade)
    rng = stream(config, Stream.COURSE, source_eye)
    rate, level = _rate(config, rng, start, first)
    cup_rate = rng.gamma(2.0, 0.012) if start.glaucoma else 0.001  # [1/year]
    drusen_rate = rng.gamma(2.0, 4.0) if start.amd else 0.07  # [1/year]
    visits, years_before, drusen = [], 0.0, 0
    for number, years in enumerate(visit_years(config, source_eye // 2)):
        drusen += int(example_rng(config.seed, later(Stream.COURSE, number), source_eye).poisson(drusen_rate * (years - years_before)))
        grade, share = _grade(level + rate * years, least=start.dr_grade)
        share -= _grade(level, least=0)[1] if grade == start.dr_grade else 0.0  # its first lesions are those of where it began
        shown = _shown(config, source_eye, first, start=start.dr_grade, grade=grade, share=share)
        cup = start.cup_to_disc + min(cup_rate * years, max(0.0, 0.93 - start.cup_to_disc))
        visits.append(Visit(number=number, years=years, dr_grade=grade, severity=shown, drusen=drusen, cup_to_disc=cup))
        years_before = years
    return tuple(visits)


def new_lesions(now: Severity, before: Severity) -> Severity:
    """What came since the visit before."""
    return _joined(now, before, lambda a, b: a - b)


def _rate(config: PhantomConfig, rng: np.random.Generator, start: Start, first: Severity) -> tuple[float, float]:
    """How fast the grade rises [grades/year], and where between this grade and the next the eye begins."""
    load = _load(first, start.dr_grade)
    hidden, position = rng.random(2)
    risk = _GRADE_RISK[start.dr_grade] + _LOAD_RISK * (2 * load - 1) + _TORTUOSITY_RISK * float(np.log(start.tortuosity)) / 0.35
    speed = _RATE * float(np.exp(0.35 * rng.standard_normal() + 0.25 * np.clip(risk, -2, 2)))
    gets_worse = hidden < expit(logit(np.clip(config.progressing, 1e-9, 1 - 1e-9)) + risk)
    return speed if gets_worse else 0.0, start.dr_grade + 0.9 * (float(position) if start.dr_grade == 0 else load)


def _load(state: Severity, grade: int) -> float:
    """How many lesions there are for this grade: 0 the fewest, 1 the most, 0.5 where there is none to count."""
    low, high = ((0, 0), (3, 8), (8, 21), (12, 33), (12, 33))[grade]
    return (state.microaneurysms - low) / (high - low) if grade else 0.5


def _grade(level: float, *, least: int) -> tuple[int, float]:
    """The grade of a level and its share of the way to the next."""
    grade = max(least, min(4, int(level)))
    return grade, float(np.clip(level - grade, 0.0, 1.0))


def _shown(config: PhantomConfig, source_eye: int, first: Severity, *, start: int, grade: int, share: float) -> Severity:
    """All lesions of an eye that began with `first` at grade `start` and has come `share` of the way from `grade` to the next."""
    state = first
    for risen in range(start + 1, grade + 1):
        drawn = severity(example_rng(config.seed, later(Stream.WORSE, risen), source_eye), dr_grade=risen)
        state = _joined(_grown(state, risen - 1, share=1.0), drawn, max)
    return _grown(state, grade, share=share)


def _grown(state: Severity, grade: int, *, share: float) -> Severity:
    if grade not in _MOST:
        return state
    return _joined(state, _MOST[grade], lambda count, most: max(count, min(most, round(count * (1 + _GROWTH * share)))))


def _joined(one: Severity, other: Severity, how: Callable[[int, int], int]) -> Severity:
    """Field by field, quadrant by quadrant."""
    fields = {}
    for field in dataclasses.fields(Severity):
        a, b = getattr(one, field.name), getattr(other, field.name)
        fields[field.name] = tuple(how(x, y) for x, y in zip(a, b, strict=True)) if isinstance(a, tuple) else how(a, b)
    return Severity(**fields)
