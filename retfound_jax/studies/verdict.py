"""Is our number the published one? One rule for every table.

First, may the two be compared? Not where one of these differs, and every reason that holds is told:
    another model       width, depth, patch or image size of the vision transformer; or a published model that is none, or is not described
    other weights       ours did not start from a checkpoint the number was made from
    other splits        the images of the training, validation or test part are not as many as published
    contaminated        the checkpoint saw images of the test set, also without labels
    another protocol    adaptation or the way of judging
    a range             the source prints the ends of a range over datasets, not a number of one
    doubt               the printed number is probably a slip
    a fixture           the images are drawn by the phantom

Then: `within interval` where the published value lies in ours, or our mean lies in the published interval. Ours is the wider hull of the
interval over seeds and the one over patients: the same images and other seeds move a number, and so do other patients of the same kind.
Otherwise `above` or `below`, by our mean. Numbers are compared as printed: ours are first rounded to the decimals of the published one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

from retfound_jax.studies import published as facts
from retfound_jax.studies.published import Published
from retfound_jax.studies.rows import Row

WITHIN, ABOVE, BELOW = 'within interval', 'above', 'below'
INCOMPARABLE, UNPUBLISHED = 'not comparable', 'no published number'
DIGITS = 3  # of the papers; some print more
_PARTS = ('train', 'val', 'test')
# checkpoint, dataset -> '' or the reason why the dataset is not clean for it
Touched = Callable[[str, str], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be said of a row."""

    kind: str  # one of the five words above
    why: tuple[str, ...] = ()  # of `not comparable`
    published: Published | None = None
    contamination: str = ''  # why the test set is not clean for our own weights; '' clean

    @property
    def text(self) -> str:
        """For a cell of a table."""
        return f'{self.kind}: {"; ".join(self.why)}' if self.why else self.kind


def judge(row: Row, *, touched: Touched, numbers: Iterable[Published] | None = None) -> Verdict:
    """The verdict on a row against the published number that is closest to it in kind."""
    contamination = contaminated(row, touched=touched)
    published = closest(row, numbers=facts.numbers() if numbers is None else numbers)
    if published is None:
        return Verdict(kind=UNPUBLISHED, contamination=contamination)
    why = tuple(_differences(row, published, contamination=contamination, touched=touched))
    if not math.isfinite(row.mean):
        why = (*why, 'our number is undefined, as a class is absent')
    if why:
        return Verdict(kind=INCOMPARABLE, why=why, published=published, contamination=contamination)
    return Verdict(kind=_place(row, published), published=published, contamination=contamination)


def closest(row: Row, *, numbers: Iterable[Published]) -> Published | None:
    """Of the numbers of the same training set, test set, target and metric, the one whose weights, method, adaptation and study are ours.

    None where nobody printed one, and for a row of less than all labels. Of equals, the first.
    """
    if row.fraction != 1:
        return None
    wanted = (row.train_on, row.test_on, row.target, row.metric)
    found = [one for one in numbers if (one.train_on, one.test_on, one.target, one.metric) == wanted]

    def nearness(one: Published) -> tuple[bool, ...]:
        same_weights = bool(row.origin.weights) and row.origin.weights in one.weights
        return same_weights, one.method == row.method, _adapted(row, one), one.study == row.study

    return max(found, key=nearness, default=None)


def contaminated(row: Row, *, touched: Touched) -> str:
    """Why the test set is not clean for the weights a row began from: what is known of the checkpoint, or what the run itself declared."""
    if not row.origin.weights:
        return ''
    if row.test_on in row.origin.pretrained_on:
        return f'{row.origin.weights} was pretrained on {row.test_on}'
    return touched(row.origin.weights, row.test_on)


def _place(row: Row, published: Published) -> str:
    digits = max(DIGITS, len(repr(published.value).partition('.')[2]))
    mean = round(row.mean, digits)
    bounds = [bound for bound in (row.se_low, row.se_high, row.boot_low, row.boot_high, row.mean) if math.isfinite(bound)]
    in_ours = round(min(bounds), digits) <= published.value <= round(max(bounds), digits)
    in_theirs = published.low is not None and published.low <= mean <= published.high
    return WITHIN if in_ours or in_theirs else ABOVE if mean > published.value else BELOW


def _differences(row: Row, published: Published, *, contamination: str, touched: Touched) -> Iterable[str]:
    """Every reason not to compare, the plainest first."""
    drawn = [name for name in dict.fromkeys((row.train_on, row.test_on)) if name in row.origin.drawn]
    if drawn:
        yield f'a fixture: {" and ".join(drawn)} drawn by the phantom, no photographs'
    yield from _model(row, published)
    yield from _weights(row, published)
    yield from _splits(row)
    seen = contamination or next(filter(None, (touched(name, row.test_on) for name in published.weights)), '')
    if seen:
        yield f'contaminated: {seen}'
    if not _adapted(row, published):
        yield f'another protocol: ours is {row.adaptation}, published {published.adaptation or "not described"}'
    if published.protocol and published.protocol != row.adaptation:
        yield f"another protocol: the published number is judged by the protocol '{published.protocol}'"
    if published.value is None:
        yield 'a range over several datasets or diseases, no number of one'
    if published.doubt:
        yield f'doubt: {published.doubt}'


def _model(row: Row, published: Published) -> Iterable[str]:
    if published.shape is None:
        yield f'another model: published with {published.method}'
        return
    ours, theirs = row.origin.model, dataclasses.asdict(published.shape)
    differ = [f'{name.replace("_", " ")} {ours.get(name)}, published {theirs[name]}' for name in theirs if ours.get(name) != theirs[name]]
    if differ:
        yield f'another model: {", ".join(differ)}'


def _weights(row: Row, published: Published) -> Iterable[str]:
    ours = row.origin.weights or 'random weights'
    if published.weights and row.origin.weights not in published.weights:
        yield f'other weights: {ours}, published {" or ".join(published.weights)}'
    elif not published.weights and published.method != row.method:
        yield f'other weights: {ours}, published {published.method}'


def _splits(row: Row) -> Iterable[str]:
    """Both datasets must have the parts that were printed; where nobody printed them they cannot be checked, and that is a reason too."""
    parts = {row.train_on: ('train', 'val'), row.test_on: ('test',)} if row.train_on != row.test_on else {row.test_on: _PARTS}
    for dataset, names in parts.items():
        known = facts.splits(dataset)
        ours = row.origin.images.get(dataset, {})
        if not known:
            yield f'other splits: those of {dataset} are not published in numbers'
        elif not any(all(ours.get(name) == getattr(one, name) for name in names) for one in known):
            have = '/'.join(str(ours.get(name, '?')) for name in names)
            theirs = '/'.join(str(getattr(known[0], name)) for name in names)
            yield f'other splits: {dataset} {"/".join(names)} {have} images, published {theirs}'


def _adapted(row: Row, published: Published) -> bool:
    return published.adaptation == row.adaptation
