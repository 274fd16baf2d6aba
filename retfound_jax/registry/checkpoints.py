"""What a checkpoint has seen before it is tested: declared for public ones, compared by hashes for our own datasets.

A number is not clean if the test images were pretrained on, even without labels. Where nobody says what a checkpoint was pretrained on,
the answer is 'unknown', and never 'clean'.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Literal

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.ingest import manifest
from retfound_jax.ingest.duplicates import NEAR_THRESHOLD
from retfound_jax.ingest.hashes import near_across
from retfound_jax.registry import catalogue
from retfound_jax.registry.checkpoints_known import KNOWN, NATURAL, Checkpoint

Kind = Literal['seen', 'possible', 'unknown']
_EXAMPLES = 10
# Sets of images that are parts of others or made from them, and are not in the registry or say it nowhere else.
_MADE_FROM = {
    'retinamnist': ('deepdrid',), 'eyepacs_1098': ('eyepacs',), 'eyeq': ('eyepacs',), 'odir200x3': ('odir5k',), 'oia_odir': ('odir5k',),
    'oia_ddr': ('ddr',),
}
_DRAWN = ('phantom',)
# Screening programmes that gave images to several sets; whether the same ones is not known.
_PROVIDER = {'eyepacs': 'EyePACS', 'airogs': 'EyePACS'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Touch:
    """Why a number of a checkpoint on a dataset is not known to be clean; as text, the reason."""

    kind: Kind  # seen: pretrained on these images; possible: both have images of one source; unknown: nobody says
    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedImage:
    """An image of the test dataset that the training dataset holds, too."""

    train_key: str
    test_key: str
    kind: Literal['exact', 'near']
    distance: int  # [bits of 256]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shared:
    """How many images of a test dataset are in a training dataset, by their hashes."""

    exact: int  # the same pixels
    near: int  # looks the same, and is not exact
    of: int  # images of the test dataset that were compared
    examples: tuple[SharedImage, ...]  # the nearest, at most ten

    def __bool__(self) -> bool:
        """Whether any image is shared."""
        return bool(self.exact or self.near)


@functools.cache
def checkpoints() -> dict[str, Checkpoint]:
    """Every declared checkpoint by its name."""
    return {checkpoint.name: checkpoint for checkpoint in KNOWN}


def find(name: str) -> Checkpoint:
    """The checkpoint of a name, of another name for it, or of a weight file so called; upper and lower case are alike.

    Raises:
      UsageError: none is declared.
    """
    names = {word.casefold(): checkpoint for checkpoint in checkpoints().values() for word in (checkpoint.name, *checkpoint.also)}
    plain = name.casefold()
    found = names.get(plain) or names.get(Path(plain).name) or names.get(Path(plain).stem)
    if found is None:
        known = checkpoints()
        raise UsageError(f'nothing is declared of the checkpoint "{name}"{nearest(name, known)}; known are {", ".join(known)}')
    return found


def touched(checkpoint: str, dataset: str) -> Touch | None:
    """Why results of a checkpoint on a dataset are not known to be clean, or None where they are.

    checkpoint: a declared name, or any other: of that nothing is known. dataset: a name of the registry, or any other: nobody says whose
    images that holds, so after pretraining on eyes the answer is 'unknown', and `shared_images` is the way to know.
    """
    try:
        line = _line(find(checkpoint))
    except UsageError:
        return Touch(kind='unknown', reason=f'nothing is declared of what {checkpoint} was pretrained on')
    touches = [touch for one in line for touch in _touches(one, dataset, above='' if one is line[0] else line[0].name)]
    # The surest reason counts, and of equals the checkpoint's own before those of what it rests on.
    return min(touches, key=lambda touch: ('seen', 'possible', 'unknown').index(touch.kind), default=None)


def _line(checkpoint: Checkpoint) -> list[Checkpoint]:
    """A checkpoint and those it rests on."""
    return [checkpoint, *(_line(find(checkpoint.rests_on)) if checkpoint.rests_on else [])]


def _touches(checkpoint: Checkpoint, dataset: str, *, above: str) -> list[Touch]:
    """Reasons of one checkpoint. above: the name of the one that rests on it, '' where it is asked for itself."""
    who = f'{above} rests on {checkpoint.name}, which' if above else checkpoint.name
    labels = ' with labels' if checkpoint.with_labels else ''
    found = []
    for seen in checkpoint.pretrained_on:
        kind, why = _overlap(seen.dataset, dataset)
        if kind:
            part = f' ({seen.part})' if seen.part else ''
            found.append(Touch(kind=kind, reason=f'{who} was pretrained{labels} on {seen.dataset}{part}{why}'))
    if not checkpoint.whole:
        found.append(Touch(kind='unknown', reason=f'{who} was pretrained on images of which not all are known ({checkpoint.source})'))
    eyes = {seen.dataset for seen in checkpoint.pretrained_on} - NATURAL
    if eyes and dataset not in _declared():
        found.append(Touch(kind='unknown', reason=f'{who} was pretrained on {min(eyes)}{" and others" if len(eyes) > 1 else ""}, and whose '
                                                  f'images {dataset} holds is not declared'))
    return found


def _overlap(trained: str, dataset: str) -> tuple[Kind | None, str]:
    """How sure it is that two sets have images in common, and why."""
    theirs, mine = holds(trained), holds(dataset)
    if trained in mine:
        return 'seen', '' if trained == dataset else f', of which {dataset} is made'
    if dataset in theirs:
        return 'seen', f', which is made of {dataset}'
    if mine & theirs:
        return 'possible', f'; it and {dataset} are both made of {min(mine & theirs)}, perhaps of the same images'
    providers = {_PROVIDER.get(name) for name in mine} & {_PROVIDER.get(name) for name in theirs} - {None}
    if providers:
        return 'possible', f'; its images and those of {dataset} come from {providers.pop()}, and may be the same'
    return None, ''


def _declared() -> set[str]:
    """Sets of images of which it is known what they are made of."""
    trained = {seen.dataset for checkpoint in KNOWN for seen in checkpoint.pretrained_on}
    return trained | {*catalogue.datasets(), *_MADE_FROM, *_DRAWN}


def holds(dataset: str) -> frozenset[str]:
    """The dataset and all whose images it holds, however many steps away."""
    known, found, left = catalogue.datasets(), set(), [dataset]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += (*(known[name].made_from if name in known else ()), *_MADE_FROM.get(name, ()))
    return frozenset(found)


def shared_images(train: Path | str, test: Path | str, *, threshold: int = NEAR_THRESHOLD) -> Shared:
    """Which images of one of our datasets another one holds: by the hash of the pixels, and by the perceptual hash.

    Args:
      train, test: dataset directories; of `test`, and of `train` likewise, all splits count.
      threshold: [bits of 256] within which two pictures look the same. A near pair is a candidate, not a proof.

    Raises:
      UserError: one is no dataset, or its index keeps no hashes.
    """
    (train_keys, train_sha, train_look), (test_keys, test_sha, test_look) = _hashes(Path(train)), _hashes(Path(test))
    place = {sha: row for row, sha in reversed(list(enumerate(train_sha))) if sha}
    found = {row: SharedImage(train_key=train_keys[place[sha]], test_key=test_keys[row], kind='exact', distance=0)
             for row, sha in enumerate(test_sha) if sha in place}
    a, b = ([row for row, look in enumerate(looks) if look] for looks in (train_look, test_look))
    rows_of: dict[str, list[int]] = {}
    for row in b:
        rows_of.setdefault(test_look[row], []).append(row)
    pairs = near_across([train_look[row] for row in a], [test_look[row] for row in b], threshold=threshold)
    for i, j, distance in sorted(pairs, key=lambda pair: pair[2]):
        for row in rows_of[test_look[b[j]]]:
            found.setdefault(row, SharedImage(train_key=train_keys[a[i]], test_key=test_keys[row], kind='near', distance=distance))
    exact = sum(image.kind == 'exact' for image in found.values())
    examples = sorted(found.values(), key=lambda image: (image.kind, image.distance, image.test_key))[:_EXAMPLES]
    return Shared(exact=exact, near=len(found) - exact, of=len(test_keys), examples=tuple(examples))


def _hashes(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Key, hash of the pixels and perceptual hash of each image of a dataset; '' where one is not known."""
    import pyarrow.parquet as pq

    manifest.read(folder)
    path, columns = folder / 'index.parquet', ('key', 'pixel_sha256', 'phash')
    if not path.is_file() or not set(columns) <= set(pq.read_schema(path).names):
        raise UserError(f'{folder} keeps no hashes of its images in index.parquet; ingest the photographs again')
    table = pq.read_table(path, columns=list(columns))
    key, sha, look = (table.column(name).to_pylist() for name in columns)
    return key, sha, look
