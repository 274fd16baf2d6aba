"""Who is not in the data: regions, large countries, ages and sexes that are absent or under the floor, as lists, a map and heat tables."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from retfound_jax.core import countries
from retfound_jax.core.countries import REGIONS, Country
from retfound_jax.core.demographics import FLOOR, NOT_A_GROUP
from retfound_jax.report import figures
from retfound_jax.report.blocks import Cell, Picture, Table
from retfound_jax.report.census import AGE, BANDS, Values
from retfound_jax.report.composition import WITHHELD, Composition, Count
from retfound_jax.report.words import count, joined, nice, plural

_SEXES = ('F', 'M')
_SEX_WORDS = {'F': 'women', 'M': 'men'}
_COLUMNS = (('AMR', 'AFR', 'EMR'), ('EUR', 'SEAR', 'WPR'))  # of the map: three regions above each other, of as many rows left as right
_TILES = 12  # in a row
_GAP = 1.5  # [tiles] between regions
_PALE, _EDGE = '#eef1f4', '#9aa5b1'
_KNOWN = 1 / 3  # share of cells that must be shown for a heat table to be worth its place
_MOST_ROWS, _MOST_COLUMNS = 24, 9  # of a heat table


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Who is absent, and who is there with fewer than FLOOR patients."""

    what: str  # 'WHO regions', ...
    absent: tuple[str, ...]
    few: tuple[str, ...]
    unknown: bool = False  # the field is recorded for nobody, so nothing can be said

    @property
    def words(self) -> str:
        """As a sentence."""
        if self.unknown:
            return f'{self.what}: not recorded for anybody, so it is not known who is absent.'
        parts = [f'absent: {joined(self.absent)}'] if self.absent else []
        parts += [f'fewer than {FLOOR} patients or withheld: {joined(self.few)}'] if self.few else []
        return f'{self.what}: {"; ".join(parts)}.' if parts else f'{self.what}: none is absent.'


def gaps(found: Composition) -> list[Gap]:
    """What is not covered, as far as the fields are recorded."""
    place = _by_country(found)
    made = [_regions(found, place), _populous(found, place)]
    for what, field, wanted in (('Age bands', AGE, BANDS), ('Sexes', 'sex', _SEXES)):
        each = {value: found.count(value, fields=(field,)) for value in wanted}
        words = _SEX_WORDS if field == 'sex' else {}
        made.append(Gap(
            what=what, unknown=not found.recorded(field),
            absent=tuple(words.get(value, value) for value, one in each.items() if one.nobody),
            few=tuple(words.get(value, value) for value, one in each.items() if one.hidden),
        ))
    return made


def to_json(found: Composition) -> list[dict[str, Any]]:
    """The same, ready for `composition.json`."""
    return [
        {'what': gap.what, 'recorded': not gap.unknown, 'absent': list(gap.absent), 'few_or_withheld': list(gap.few)} if not gap.unknown
        else {'what': gap.what, 'recorded': False, 'absent': None, 'few_or_withheld': None}
        for gap in gaps(found)
    ]


def gap_table(found: Composition) -> Table:
    """The same as a table, what is absent in red."""
    rows = []
    for gap in gaps(found):
        absent = Cell('not recorded', absent=True) if gap.unknown else Cell(joined(gap.absent) or 'none', absent=bool(gap.absent))
        few = Cell('not recorded', absent=True) if gap.unknown else Cell(joined(gap.few) or 'none', absent=bool(gap.few))
        rows.append((Cell(gap.what), absent, few))
    return Table(
        caption='Who is not in the data', head=('', 'Nobody', f'Fewer than {FLOOR} patients, or withheld'), rows=tuple(rows),
        words=frozenset({1, 2}),
    )


def _by_country(found: Composition) -> dict[str, Count]:
    """Code to count, of countries in which somebody is; what names no country is left out."""
    each = {value: countries.find(value) for value in found.values('country')} if 'country' in found.fields() else {}
    return {
        country.alpha2: found.count(value, fields=('country',))
        for value, country in each.items()
        if country and value not in NOT_A_GROUP and not found.count(value, fields=('country',)).nobody
    }


def unnamed_countries(found: Composition) -> list[str]:
    """Values of the country field that name no country."""
    values = found.values('country') if 'country' in found.fields() else []
    return [value for value in values if value not in NOT_A_GROUP and countries.find(value) is None]


def _regions(found: Composition, place: dict[str, Count]) -> Gap:
    absent, few = [], []
    for region, name in REGIONS.items():
        inside = [one for code, one in place.items() if countries.countries()[code].region == region]
        if region and not inside:
            absent.append(name)
        elif region and all(one.hidden for one in inside):
            few.append(name)
    return Gap(what='WHO regions', absent=tuple(absent), few=tuple(few), unknown=not found.recorded('country'))


def _populous(found: Composition, place: dict[str, Count]) -> Gap:
    large = sorted((country for country in countries.countries().values() if country.populous), key=lambda country: country.name)
    return Gap(
        what='Countries of more than 50 million people', unknown=not found.recorded('country'),
        absent=tuple(country.name for country in large if country.alpha2 not in place),
        few=tuple(country.name for country in large if country.alpha2 in place and place[country.alpha2].hidden),
    )


def world(found: Composition) -> Picture | None:
    """A tile a country, by WHO region, the darker the more patients on a logarithmic scale; None where no country is recorded.

    Absent countries are pale, withheld ones hatched. Territories and states outside the WHO are shown where somebody in the data is from.
    """
    place = _by_country(found)
    if not place:
        return None
    everything = countries.countries().values()
    shown = [country for country in everything if country.member or country.alpha2 in place]
    most = max([one.patients or 0 for one in place.values()] + [10 * FLOOR])
    with figures.chart(size=(9.6, 4.9)) as (figure, axes):
        depth = max(_draw_column(axes, column, shown, place, most, left=(_TILES + _GAP) * at) for at, column in enumerate(_COLUMNS))
        outside = [country for country in shown if not country.region]
        if outside:
            depth = _draw_region(axes, '', outside, place, most, left=0.0, top=depth)
        _draw_legend(axes, most, top=depth)
        axes.set(xlim=(-0.1, 2 * _TILES + _GAP + 0.1), ylim=(depth + 1.7, -0.9), aspect='equal')
        axes.axis('off')
        return figures.picture(figure, alt=_told(place), caption=_caption(place))


def _told(place: dict[str, Count]) -> str:
    known = sorted((one.patients or 0, countries.countries()[code].name) for code, one in place.items() if not one.hidden)[::-1]
    first = joined(f'{name} {count(patients)}' for patients, name in known[:8])
    return f'The countries of the world as tiles by WHO region; patients are from {len(place)} of them. Most: {first or "withheld"}.'


def _caption(place: dict[str, Count]) -> str:
    members = sum(countries.countries()[code].member for code in place)
    return f'A tile is a country. {members} of the 194 member states of the WHO are in the data; the pale ones are not.'


def _draw_column(
    axes: Axes, regions: Sequence[str], shown: Iterable[Country], place: dict[str, Count], most: int, *, left: float
) -> float:
    top = 0.0
    for region in regions:
        top = _draw_region(axes, region, [one for one in shown if one.region == region], place, most, left=left, top=top)
    return top


def _draw_region(
    axes: Axes, region: str, tiles: Sequence[Country], place: dict[str, Count], most: int, *, left: float, top: float
) -> float:
    """Draws a region and returns where the next one begins."""
    states = [one for one in tiles if one.member]
    title = f'{REGIONS[region]}: {sum(one.alpha2 in place for one in states)} of {len(states)}' if states else 'In no WHO region'
    axes.text(left, top - 0.2, title, fontweight='bold', color=figures.INK, fontsize=9.5)
    for at, country in enumerate(sorted(tiles, key=lambda one: one.alpha2)):
        _draw_tile(axes, left + at % _TILES, top + at // _TILES, place.get(country.alpha2), most, country.alpha2)
    return top + math.ceil(len(tiles) / _TILES) + 1.0


def _draw_tile(axes: Axes, x: float, y: float, one: Count | None, most: int, text: str) -> None:
    share = 0.0 if one is None or one.hidden else _strength(one.patients or 0, most)
    face = _PALE if one is None else '#ffffff' if one.hidden else _blue(share)
    edge = _EDGE if one is not None else '#d9dee3'
    hatch = '/////' if one is not None and one.hidden else None
    axes.add_patch(Rectangle((x + 0.04, y + 0.04), 0.92, 0.92, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.6))
    ink = '#ffffff' if share > 0.55 else figures.INK if one is not None else '#52606d'
    box = {'facecolor': '#ffffff', 'edgecolor': 'none', 'pad': 0.8} if hatch and text else None
    axes.text(x + 0.5, y + 0.52, text, ha='center', va='center', fontsize=7.2, color=ink, bbox=box)


def _draw_legend(axes: Axes, most: int, *, top: float) -> None:
    """What a pale tile, a hatched one and the shades mean."""
    steps = [step for step in (FLOOR, 100, 1000, 10_000, 100_000, 1_000_000) if step <= most]
    marks = [(None, 'nobody'), (Count(patients=None, images=None, note=WITHHELD), 'withheld')]
    marks += [(Count(patients=step, images=step), count(step) + (' patients' if step == steps[-1] else '')) for step in steps]
    x = 0.0
    for one, words in marks:
        _draw_tile(axes, x, top - 0.1, one, most, '')
        axes.text(x + 1.2, top + 0.42, words, va='center', fontsize=8.5, color=figures.INK)
        x += 2.2 + 0.25 * len(words)


def _strength(patients: int, most: int) -> float:
    """0.1 to 1 for FLOOR patients to `most`, by the logarithm."""
    return 0.1 + 0.9 * max(0.0, min(1.0, math.log(max(patients, FLOOR) / FLOOR) / math.log(max(most, FLOOR + 1) / FLOOR)))


def _blue(strength: float) -> tuple[float, float, float]:
    """From pale to the dark end of one blue."""
    pale, dark = (0.87, 0.93, 0.97), (0.03, 0.27, 0.48)
    return tuple(a + (b - a) * strength for a, b in zip(pale, dark, strict=True))


def heat_tables(found: Composition) -> tuple[list[Table], list[Values]]:
    """Patients by two fields, for each intersection that was counted; and those of which most had to be withheld."""
    shown, left = [], []
    for pair in found.pairs():
        each = [[value for value in _somebody(found, name) if value not in NOT_A_GROUP] for name in pair]
        cells = [found.count(*values, fields=pair) for values in itertools.product(*each)]
        known = sum(not cell.hidden and not cell.nobody for cell in cells)
        (shown if known > _KNOWN * sum(not cell.nobody for cell in cells) else left).append(pair)
    return [_heat(found, pair) for pair in shown], left


def _somebody(found: Composition, field: str) -> list[str]:
    return [value for value in found.values(field) if not found.count(value, fields=(field,)).nobody]


def _heat(found: Composition, pair: Values) -> Table:
    down, across = (_somebody(found, name) for name in pair)
    rows_left, columns_left = max(0, len(down) - _MOST_ROWS), max(0, len(across) - _MOST_COLUMNS)
    down, across = down[:_MOST_ROWS], across[:_MOST_COLUMNS]
    cells = {(row, column): found.count(row, column, fields=pair) for row in down for column in across}
    most = max([one.patients or 0 for one in cells.values()] + [1])
    rows = tuple((Cell(nice(row), quiet=row in NOT_A_GROUP), *(heat_cell(cells[row, column], most) for column in across)) for row in down)
    left = joined(filter(None, (
        plural(rows_left, 'row') if rows_left else '', plural(columns_left, 'column') if columns_left else '',
    )))
    names = [name.replace('_', ' ') for name in pair]
    return Table(
        caption=f'Patients by {names[0]} and {names[1]}', head=(names[0].capitalize(), *map(nice, across)), rows=rows,
        note=f'{left} more are in composition.csv.' if left else '',
    )


def heat_cell(one: Count, most: int) -> Cell:
    """A count with a shade, or the word for why there is none."""
    if one.nobody:
        return Cell('nobody', absent=True)
    if one.hidden:
        return Cell('withheld', quiet=True)
    return Cell(count(one.patients), shade=(one.patients or 0) / most)
