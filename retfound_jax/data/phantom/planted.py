"""Effects that are put into the phantom on purpose, of a size that is known, so that a study can be asked whether it finds them.

Both are off unless a configuration names them, and then nothing else changes: no other structure takes another chance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.data.phantom.sites import SiteStyle

Mark = Literal['cast', 'border', 'notch']
LABELS = ('referable_dr', 'glaucoma', 'amd')
LESIONS = {  # layers of each disease; venous beading and the cup of the disc are shapes and not lesions
    'dr': ('microaneurysm', 'haemorrhage', 'exudate', 'cotton_wool', 'irma', 'new_vessel'),
    'amd': ('drusen',),
}
_CAST = (0.88, 1.0, 1.8)  # gain of red, green and blue at strength 1; a camera's own varies by 4, 6 and 16 %
_BORDER = 40.0  # [grey levels] at strength 1


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """A mark of the camera that goes with a label at most sites and not at one: a model that learns the mark fails there.

    A photograph with the label bears the mark with the probability `agreement` and one without it with 1 - `agreement`. At the site
    `fails_at` it is `there` instead: 0.5 is no association, and below it is reversed. The table has a column `marked` (0, 1).
    """

    label: Literal['referable_dr', 'glaucoma', 'amd']
    fails_at: str  # name of a site
    agreement: float = 0.95
    there: float = 0.05
    mark: Mark = 'cast'  # bluish light; a grey border; a tab on the rim, for cameras that have none
    strength: float = 1.0  # of cast and border

    def __post_init__(self) -> None:
        """Raises UsageError for a number or a name that means nothing."""
        if self.label not in LABELS:
            listed = f'{nearest(self.label, LABELS)}; it can be to {", ".join(LABELS)}'
            raise UsageError(f'a shortcut of the phantom is to "{self.label}"{listed}')
        if not (0 <= self.agreement <= 1 and 0 <= self.there <= 1):
            told = f'agreement={self.agreement} and there={self.there}'
            raise UsageError(f'the shortcut of the phantom has {told} and needs probabilities, 0 to 1')
        if not 0 < self.strength <= 3:
            raise UsageError(f'the shortcut of the phantom has strength={self.strength} and needs one above 0, up to 3')

    def bears(self, chance: float, *, label: int, site: str) -> bool:
        """Whether a photograph bears the mark; `chance` is even over 0 to 1."""
        agrees = chance < (self.there if site == self.fails_at else self.agreement)
        return bool(label) == agrees

    def on(self, style: SiteStyle) -> SiteStyle:
        """The camera with its mark."""
        if self.mark == 'notch':
            return replace(style, notch=True)
        if self.mark == 'border':
            return replace(style, border=style.border + self.strength * _BORDER)
        return replace(style, cast=tuple(gain * mark**self.strength for gain, mark in zip(style.cast, _CAST, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """Lesions of a disease look otherwise in one group: what is learned without that group does not serve it.

    `factor` 1 is as in everybody, 0.5 half as strong, 0 not to be seen, and below 0 the opposite: pale lesions dark and dark ones pale.
    `colour` draws them another way: pale lesions blue, and blood such that it takes the red. Labels do not change. Where several are of one
    person, the factors multiply.
    """

    attribute: Literal['sex', 'ethnicity', 'country', 'site']
    value: str
    disease: Literal['dr', 'amd']
    factor: float = 1.0
    colour: Literal['usual', 'blue'] = 'usual'

    def __post_init__(self) -> None:
        """Raises UsageError for a number or a name that means nothing."""
        if self.disease not in LESIONS:
            raise UsageError(f'the phantom draws no lesions of "{self.disease}"; a visibility is of {" or ".join(LESIONS)}')
        if not -1 <= self.factor <= 1:
            raise UsageError(f'the visibility of {self.disease} in {self.value} has factor={self.factor} and needs one from -1 to 1')


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a layer of lesions shows in a person."""

    strength: float = 1.0
    blue: bool = False


def looks(visibility: tuple[Visibility, ...], *, who: dict[str, str]) -> dict[str, Look]:
    """How each layer of lesions shows in a person who is `who` (attribute to value); a layer that is as in everybody is left out."""
    found: dict[str, Look] = {}
    for one in visibility:
        if who[one.attribute] == one.value:
            for layer in LESIONS[one.disease]:
                before = found.get(layer, Look())
                found[layer] = Look(strength=before.strength * one.factor, blue=before.blue or one.colour == 'blue')
    return found
