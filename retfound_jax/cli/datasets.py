"""`retfound datasets`: the public datasets of the field, what of them is on this disk, how to get one, and one made ready to train on."""

from __future__ import annotations

import contextlib
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from retfound_jax.core.errors import UsageError
from retfound_jax.core.progress import Bar, bar
from retfound_jax.ingest.plan import Plan
from retfound_jax.ingest.splits import SplitConfig
from retfound_jax.ingest.work import WorkOptions
from retfound_jax.registry import catalogue, on_disk
from retfound_jax.registry.base import Dataset
from retfound_jax.registry.build import BuildConfig, Built, build
from retfound_jax.registry.reading import Reading

SUMMARY = 'public datasets: which are on this disk, how to get one (--name), and one made ready to train on (--out)'
_WIDTH = 110  # [characters]
_LICENCE = 34  # [characters] of the list


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('name', '', 'the whole card of one dataset, and how to get it', flag_values=values)
    flags.DEFINE_string('root', 'data', 'data folder: each dataset lies in a folder of its name in it', flag_values=values)
    flags.DEFINE_bool('check', False, 'also compare the checksums of files that have one', flag_values=values)
    flags.DEFINE_string('source', '', 'with --name and --out: the folder of the dataset, to build it from', flag_values=values)
    flags.DEFINE_string('out', '', 'with --name: dataset directory to make; --source left out: from ROOT/NAME', flag_values=values)
    flags.DEFINE_enum(
        'split', '', ['', 'official', 'retfound', 'hash'],
        'left out: RETFound\'s in its layout, the official one where there is one, or by hash of the patients', flag_values=values,
    )
    flags.DEFINE_float('val', SplitConfig.val, 'share for validation: of all by hash, of train where a split has none', flag_values=values)
    flags.DEFINE_float('test', SplitConfig.test, 'share for testing, by hash', flag_values=values)
    flags.DEFINE_string('salt', SplitConfig.salt, 'another word gives another draw of the splits', flag_values=values)
    flags.DEFINE_bool('drop_leaks', False, 'leave out of train and val who is in a later split, too', flag_values=values)
    flags.DEFINE_bool('allow_missing', False, 'pass over images that the labels name and that are not there', flag_values=values)
    flags.DEFINE_integer('size', WorkOptions.shorter_side, 'shorter side of the pictures kept [px]', flag_values=values, lower_bound=32)
    flags.DEFINE_integer('workers', os.cpu_count() or 1, 'processes; 0 works in this one', flag_values=values, lower_bound=0)
    flags.DEFINE_bool('overwrite', False, 'replace the dataset that --out holds', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Lists, shows or builds."""
    if (values.source or values.out) and not (values.name and values.out):
        raise UsageError('to build a dataset, pass both --name NAME and --out DATASET')
    if values.out:
        _build(values)
    elif values.name:
        print('\n'.join(card(on_disk.status(catalogue.find(values.name), values.root, check=values.check))))
    else:
        print('\n'.join(listing([on_disk.status(dataset, values.root, check=values.check) for dataset in catalogue.datasets().values()])))
        print(f'\nlooked for in {values.root}/NAME; `retfound datasets --name NAME` tells how to get one')


def listing(found: list[on_disk.Status]) -> list[str]:
    """One line for each dataset, and one more where something is missing."""
    lines = [f'{"name":17}{"kind":5}{"images":>8}  {"licence":{_LICENCE}}  on this disk']
    for one in found:
        licence = textwrap.shorten(one.dataset.licence, _LICENCE, placeholder='...')
        lines.append(f'{one.dataset.name:17}{one.dataset.modality:5}{one.dataset.images:8,}  {licence:{_LICENCE}}  {_state(one)}')
        if one.reason:
            lines.append(f'{"":17}{one.reason}')
    return lines


def card(one: on_disk.Status) -> list[str]:
    """All that the registry says of a dataset."""
    dataset = one.dataset
    lines = [f'{dataset.name}: {dataset.title}']
    for word, text in _card(dataset):
        lines += _wrapped(text, begin=f'  {word:13}') if text else []
    lines += ['  get it', *(line for step in _steps(dataset.instructions) for line in _wrapped(step, begin='    '))]
    lines.append(f'  on this disk {_state(one)}: {one.folder}')
    return [*lines, f'    {one.reason}'] if one.reason else lines


def _wrapped(text: str, *, begin: str) -> list[str]:
    """Lines of a text, whose names and addresses stay whole."""
    return textwrap.wrap(text, _WIDTH, initial_indent=begin, subsequent_indent=' ' * len(begin), break_on_hyphens=False,
                         break_long_words=False)


def _card(dataset: Dataset) -> Iterator[tuple[str, str]]:
    yield from (('images', f'{dataset.images:,}, {dataset.modality}'), ('licence', dataset.licence), ('cite', dataset.citation))
    yield 'homepage', dataset.homepage
    for label in dataset.labels:
        kind = f'{"grades" if label.ordinal else "classes"} {", ".join(label.classes)}' if label.classes else 'a number'
        yield 'label', f'{label.name}: {label.meaning}; {kind}'
    yield 'patient', dataset.patient_key or 'not named: each image counts as one, unless pictures are alike'
    yield 'demographics', ', '.join(dataset.demographics) or 'none'
    yield 'split', dataset.official_split or 'no official one'
    sizes = dataset.retfound_split
    if sizes:
        yield 'RETFound', f'train {sizes.train}, val {sizes.val}, test {sizes.test} ({sizes.source})'
    yield 'made from', ', '.join(dataset.made_from)
    yield 'notes', dataset.notes
    for file in dataset.files:
        known = f', SHA-256 {file.sha256}' if file.sha256 else f', MD5 {file.md5}' if file.md5 else ''
        yield 'file', f'{file.name}{" (its archive)" if on_disk.is_archive(file) else ""}{f", {file.url}" if file.url else ""}{known}'


def _steps(instructions: str) -> Iterator[str]:
    """The instructions, each numbered step on a line of its own."""
    line: list[str] = []
    for word in instructions.split():
        if line and (word[:-1].isdigit() and word.endswith('.') or word == 'Or,'):
            yield ' '.join(line)
            line = []
        line.append(word)
    yield ' '.join(line)


def _state(one: on_disk.Status) -> str:
    words = {'present': f'present, {one.images:,} images', 'partly': 'partly there', 'absent': 'absent'}
    return words[one.state]


def _build(values: flags.FlagValues) -> None:
    dataset = catalogue.find(values.name)
    source = Path(values.source or Path(values.root) / dataset.name)
    if values.check:
        names = on_disk.checksums(dataset, source)
        print(f'checksums: {", ".join(names) or "no file that has one is there"}')
    config = BuildConfig(
        split=values.split, splits=SplitConfig(val=values.val, test=values.test, salt=values.salt), drop_leaks=values.drop_leaks,
        allow_missing=values.allow_missing, pictures=WorkOptions(shorter_side=values.size), workers=values.workers,
        overwrite=values.overwrite,
    )
    with contextlib.ExitStack() as stack:
        bars: list[Bar] = []

        def begin(plan: Plan, found: Reading) -> None:
            print('\n'.join(found.told()))
            bars.append(stack.enter_context(bar(len(plan.files), desc='reading')))

        built = build(dataset.name, source=source, out=values.out, config=config, begin=begin, done=lambda count: bars[0].update(count))
    _print(built, Path(values.out))


def _print(built: Built, out: Path) -> None:
    for line in built.told():
        print(line)
    print(f'\n{"split":8}{"images":>8}{"patients":>10}   ({built.split})')
    for split, content in built.manifest['splits'].items():
        print(f'{split:8}{content["images"]:8}{content["patients"]:10}')
    print(f'dataset: {out}, {built.manifest["rejects"]["count"]} images rejected (rejects.csv)')
