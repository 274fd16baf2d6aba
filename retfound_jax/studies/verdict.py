"""Is our number the published one? One rule for every table.

First, may the two be compared? Not where one of these differs, and every reason that holds is told:
    another model       width, depth, patch or image size of the vision transformer; or a published model that is none, or is not described
    other weights       ours did not start from a checkpoint the number was made from
    other splits        the images of the training, validation or test part are not as many as published
    contaminated        the checkpoint saw, or perhaps saw, images of the test set, also without labels; that nobody says what it saw is
                        marked, and is no reason
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

from retfound_jax.registry import catalogue, checkpoints
from retfound_jax.registry.checkpoints import Touch
from retfound_jax.studies import published as facts
from retfound_jax.studies.published import Published
from retfound_jax.studies.rows import MACRO, Row

WITHIN, ABOVE, BELOW = 'within interval', 'above', 'below'
INCOMPARABLE, UNPUBLISHED = 'not comparable', 'no published number'
DIGITS = 3  # of the papers; some print more
RANDOM = ('random',)  # names that say there are no weights
_PARTS = ('train', 'val', 'test')
SEEN, UNKNOWN = '†', '‡'  # marks of a number whose test set the checkpoint has seen, and of one where that is not known
_WORDS = {'seen': 'contaminated', 'possible': 'perhaps contaminated', 'unknown': 'not known to be clean'}
# checkpoint, dataset -> why the dataset is not known to be clean for it, or None: `registry.checkpoints.touched`
Touched = Callable[[str, str], Touch | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is to be said of a row."""

    kind: str  # one of the five words above
    why: tuple[str, ...] = ()  # of `not comparable`
    published: Published | None = None
    contamination: Touch | None = None  # why the test set is not known to be clean for our own weights

    @property
    def mark(self) -> str:
        """†, ‡ or nothing, behind our number."""
        return '' if self.contamination is None else UNKNOWN if self.contamination.kind == 'unknown' else SEEN

    @property
    def contamination_text(self) -> str:
        """What the mark means; '' where there is none."""
        return '' if self.contamination is None else _words(self.contamination)

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
    """Of the numbers of the same data, label, target and metric, the one whose weights, method, adaptation and study are ours.

    None where nobody printed one, and for a row of less than all labels. Of equals, the first.
    """
    if row.fraction != 1:
        return None
    wanted = (row.train_on, row.test_on, row.metric)
    found = [one for one in numbers if (one.train_on, one.test_on, one.metric) == wanted and _of_the_same(row, one)]

    def nearness(one: Published) -> tuple[bool, ...]:
        same_weights = bool(row.origin.weights) and row.origin.weights in one.weights
        return same_weights, one.method == row.method, _adapted(row, one), one.study == row.study

    return max(found, key=nearness, default=None)


def contaminated(row: Row, *, touched: Touched) -> Touch | None:
    """Why the test set is not known to be clean for the weights a row began from, or None where it is.

    A study's own weights say themselves what they were pretrained on: `NAME`, or `NAME:train` where it was the training part alone and
    the test images were left out.
    """
    weights, said = row.origin.weights, row.origin.pretrained_on
    if not weights or weights in RANDOM:
        return None
    if not said or weights in checkpoints.checkpoints():
        return touched(weights, row.test_on)
    mine = checkpoints.holds(row.test_on)
    for name in said:
        shared = mine & checkpoints.holds(name)
        if shared and name != f'{row.test_on}:train':
            via = '' if name == row.test_on else f', which has images of {min(shared)}, as has {row.test_on}'
            return Touch(kind='seen', reason=f'{weights} was pretrained on {name}{via}')
    return None


def _words(touch: Touch) -> str:
    return f'{_WORDS[touch.kind]}: {touch.reason}'


def _of_the_same(row: Row, published: Published) -> bool:
    """Whether both are of one label and target; of several labels each is a target of ours, and a label of its own in print."""
    known = catalogue.datasets().get(published.test_on)
    label = published.label or (known.labels[0].name if known is not None and known.labels else '')
    if label and row.label not in ('', label):
        return False
    return row.target == published.target or (published.target == MACRO and row.target == row.label == label)


def _place(row: Row, published: Published) -> str:
    digits = max(DIGITS, len(repr(published.value).partition('.')[2]))
    mean = round(row.mean, digits)
    bounds = [bound for bound in (row.se_low, row.se_high, row.boot_low, row.boot_high, row.mean) if math.isfinite(bound)]
    in_ours = round(min(bounds), digits) <= published.value <= round(max(bounds), digits)
    in_theirs = published.low is not None and published.low <= mean <= published.high
    return WITHIN if in_ours or in_theirs else ABOVE if mean > published.value else BELOW


def _differences(row: Row, published: Published, *, contamination: Touch | None, touched: Touched) -> Iterable[str]:
    """Every reason not to compare, the plainest first."""
    if row.drawn:
        yield f'a fixture: {" and ".join(row.drawn)} drawn by the phantom, no photographs'
    yield from _model(row, published)
    yield from _weights(row, published)
    yield from _splits(row)
    touches = [contamination, *(touched(name, row.test_on) for name in published.weights)]
    seen = [touch for touch in touches if touch is not None and touch.kind != 'unknown']
    if seen:
        yield _words(seen[0])
    if not _adapted(row, published):
        yield f'another protocol: ours is {row.adaptation}, published {published.adaptation or "not described"}'
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
    ours = 'random weights' if row.origin.weights in ('', *RANDOM) else row.origin.weights
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
