"""A dataset of the registry to one of ours: its labels as a table, its images through the pipeline of every ingest. Masks are left out."""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import atomic_write, csv_text
from retfound_jax.ingest import pipeline
from retfound_jax.ingest.plan import IngestConfig, Plan, check_out, make_plan, partial_folder
from retfound_jax.ingest.splits import SPLITS, Leak, SplitConfig
from retfound_jax.ingest.work import WorkOptions
from retfound_jax.registry import catalogue, members, reading
from retfound_jax.registry.base import Dataset, Example
from retfound_jax.registry.reading import Reading, Split

_KEY, _SPLIT = 'image', 'split'
_ROLES = ('patient', 'laterality', 'age', 'sex', 'ethnicity', 'country', 'site', 'camera', 'diabetes_type')
_SHOWN = 5  # empty classes that are named


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How a dataset is built."""

    split: Split = ''  # '': RETFound's in its layout, the official one where there is one, or by hash of the patients
    splits: SplitConfig = SplitConfig()  # `val` is also the part of an official train that becomes val where there is none
    drop_leaks: bool = False  # of patients and pictures on two sides of a given split, test keeps its own, and train gives way
    allow_missing: bool = False
    pictures: WorkOptions = WorkOptions()
    workers: int = 0  # processes; 0: this one
    overwrite: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """What was built."""

    manifest: Mapping[str, Any]
    reading: Reading
    split: Split
    dropped: tuple[str, ...]  # keys that `drop_leaks` left out

    def told(self) -> list[str]:
        """What a person should hear of the result, a sentence each."""
        lines = []
        if self.dropped:
            lines.append(f'{len(self.dropped)} images were left out, as their patient or their picture is in a later split, too; the first '
                         f'is {self.dropped[0]}')
        empty = list(self._empty())
        if empty:
            more = f', and {len(empty) - _SHOWN} more' if len(empty) > _SHOWN else ''
            drawn = self.split == 'hash' or self.manifest['provenance']['options']['splits']['val_of_train']
            advice = 'pass --salt WORD or larger shares for another draw' if drawn else 'such a split cannot be scored'
            lines.append(f'empty in their split: {"; ".join(empty[:_SHOWN])}{more}; {advice}')
        return lines

    def _empty(self) -> Iterator[str]:
        splits = self.manifest['splits']
        yield from (split for split in SPLITS if split not in splits)
        for split, content in splits.items():
            for label, counts in content['labels'].items():
                yield from (f'{label} "{word}" in {split}' for word, count in counts.items() if not count and word != 'missing')


def build(name: str, *, source: Path | str, out: Path | str, config: BuildConfig | None = None,
          begin: Callable[[Plan, Reading], None] = lambda plan, found: None, done: Callable[[int], None] = lambda count: None) -> Built:
    """Reads the dataset's folder and makes one of our datasets of it.

    begin: told the plan and the reading before the work; done: told the number of files read, as they are.

    Raises:
      UserError: the folder is not whole or not as it should be, or a given split leaks.
      UsageError: there is no such dataset, or not that split in it, or the output is in the way.
    """
    config = config or BuildConfig()
    dataset = catalogue.find(name)
    found = reading.read(dataset, source, allow_missing=config.allow_missing)
    split = found.split(config.split)
    dropped: tuple[str, ...] = ()
    out = Path(out)
    check_out(out, IngestConfig(source=str(found.root), out=str(out), overwrite=config.overwrite))
    with _workplace(out) as place:
        root, files = members.as_files(found.root, found.examples, into=place / 'images')
        while True:
            without = frozenset(dropped)
            examples = [example for example in found.examples if example.key not in without]
            table = place / f'{name}-{split}.csv'
            plan = _plan(dataset, examples, root=root, files=files, table=table, out=out, split=split, config=config)
            if not dropped:
                begin(plan, found)
            try:
                manifest = pipeline.run(plan, done=(lambda count: None) if dropped else done)
                return Built(manifest=manifest, reading=found, split=split, dropped=dropped)
            except Leak as leak:
                if not config.drop_leaks:
                    raise UserError(f'{found.root}: the {split} split of {name} leaks ({leak}); pass --drop_leaks to leave the images of '
                                    'train and val out, or --split hash') from leak
                dropped += leak.keys
                shutil.rmtree(partial_folder(out))  # it is of more files than are left


def _plan(
    dataset: Dataset, examples: Sequence[Example], *, root: Path, files: Mapping[str, str], table: Path, out: Path, split: Split,
    config: BuildConfig,
) -> Plan:
    given = split != 'hash'
    stated = {example.split for example in examples}
    labels = [label for label in dataset.labels if any(example.labels.get(label.name) for example in examples)]
    roles = [role for role in _ROLES if any(_text(getattr(example, role)) for example in examples)]
    header = (_KEY, 'source', *roles, *([_SPLIT] if given else []), *(label.name for label in labels))
    rows = [
        (example.key, dataset.name, *(_text(getattr(example, role)) for role in roles), *([example.split] if given else []),
         *(example.labels.get(label.name, '') for label in labels))
        for example in examples
    ]
    atomic_write(table, csv_text([header, *rows]))
    return make_plan(IngestConfig(
        source=str(root), out=str(out), labels=str(table), columns=(('key', _KEY), ('source', 'source'), *((role, role) for role in roles)),
        label=tuple(label.name for label in labels), split_column=_SPLIT if given else '', modality=dataset.modality,
        classes=tuple((label.name, label.classes) for label in labels), pictures=config.pictures, workers=config.workers,
        splits=dataclasses.replace(config.splits, val_of_train=given and 'val' not in stated), overwrite=config.overwrite,
    ), files={example.key: files.get(example.key, example.file) for example in examples})


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else '' if math.isnan(value) else f'{value:g}'


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder beside the output for the table, and for pictures that lie in archives; gone at the end."""
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f'.{out.absolute().name}.') as place:
        yield Path(place)
