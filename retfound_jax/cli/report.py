"""`retfound report`: one page a clinician can read, from the files of a run directory; with --card also its model card and data sheet."""

from __future__ import annotations

import dataclasses
import io
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from retfound_jax.core.errors import UsageError
from retfound_jax.core.storage import is_remote

SUMMARY = 'one self-contained page a clinician can read, and with --card the model card'

_THUMBNAIL = 224  # [px], the longer side


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_multi_string('workdir', None, 'run directory or study directory to report on', flag_values=values)
    flags.DEFINE_string('pretrain', '', 'run directory of the pretraining; left out: the one the run started from', flag_values=values)
    flags.DEFINE_string('dataset', '', "dataset directory; left out: the run's own", flag_values=values)
    flags.DEFINE_string('out', '', 'file to write; left out: report.html in the run directory', flag_values=values)
    flags.DEFINE_string('notice', '', 'a sentence to put above everything else', flag_values=values)
    flags.DEFINE_bool('show_keys', False, 'name the image under each mistake', flag_values=values)
    flags.DEFINE_bool('photographs', True, 'show photographs; a photograph can identify a person', flag_values=values)
    flags.DEFINE_bool('card', False, 'also the model card and the data sheet; evaluates by groups that were left out', flag_values=values)
    flags.DEFINE_list('by', [], 'with --card: groups to judge by; left out: every column that the dataset records', flag_values=values)
    flags.DEFINE_string('facts', '', 'with --card: TOML file of what only the owner knows', flag_values=values)
    flags.DEFINE_bool('questions', False, 'print an empty file of --facts to fill in, and do nothing else', flag_values=values)
    flags.DEFINE_multi_string('study', [], 'study directory with curves over the number of labels, of all and by group', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Writes the pages of each run and prints their paths."""
    from retfound_jax.core.mirror import opened
    from retfound_jax.report import facts

    if values.questions:
        print(facts.template(), end='')
        return
    _check(values)
    for address in dict.fromkeys(values.workdir):
        with opened(address) as workdir:
            for what, path in _pages(values, workdir=workdir):
                inside = path.is_relative_to(workdir)
                print(f'{what}: {address.rstrip("/") + "/" + path.relative_to(workdir).as_posix() if inside else path}')


def _check(values: flags.FlagValues) -> None:
    """Tells what does not go together before any work."""
    from retfound_jax.report.study import is_study

    if not values.workdir:
        raise UsageError('missing --workdir (run directory or study directory to report on)')
    given = [name for name in ('by', 'facts') if values[name].value]
    if given and not values.card:
        raise UsageError(f'--{given[0]} belongs to the model card: add --card')
    if values.facts:
        from retfound_jax.report.facts import read_facts

        read_facts(values.facts)
    runs = len(set(values.workdir))
    for name in ('out', 'pretrain', 'dataset'):
        if runs > 1 and values[name].value:
            raise UsageError(f'--{name} is for one --workdir, and there are {runs}: leave it out, or call once for each')
    for folder in values.study:
        if not is_study(Path(folder)):
            raise UsageError(f'--study {folder} is not the directory of a study; give the --workdir of `retfound table`')
    for folder in values.workdir if values.card else ():
        if is_study(Path(folder)):
            raise UsageError(f'{folder} is a study, and a card is of one model: give a run as --workdir and the study as --study')


def _pages(values: flags.FlagValues, *, workdir: Path) -> list[tuple[str, Path]]:
    """What was written, and where."""
    command = shlex.join(['retfound', *sys.argv[1:]])
    if not values.card:
        return [('report', write_report(values, workdir=workdir, command=command))]
    from retfound_jax.cli import _card

    places = find_places(values, workdir=workdir)
    _card.evaluate_missing(places, by=tuple(name for name in values.by if name.strip()))
    written = [('report', write_report(values, workdir=workdir, command=command))]
    out = Path(values.out).parent if values.out else workdir
    said = {'studies': values.study, 'facts': values.facts, 'notice': values.notice}
    return written + _card.write_card(places, **said, out=out, command=command)


def find_places(values: flags.FlagValues, *, workdir: Path) -> Any:
    """The run, what it started from, and the datasets of both, as far as they are still there."""
    from retfound_jax.cli._card import Places
    from retfound_jax.report.collect import read_run

    config = read_run(workdir).config
    pretrain = _given_or(values.pretrain, str(config.get('init_from') or ''), beside='config.json')
    before = read_run(pretrain).config if pretrain else {}
    return Places(
        workdir=workdir,
        pretrain=pretrain,
        dataset=_given_or(values.dataset, _data_path(config), beside='manifest.json'),
        pretrain_dataset=_given_or('', _data_path(before), beside='manifest.json'),
    )


def _data_path(config: Any) -> str:
    data = config.get('data')
    return str(data.get('path') or '') if isinstance(data, dict) else ''


def write_report(values: flags.FlagValues, *, workdir: Path, command: str) -> Path:
    """Finds what the run started from, writes the page, and returns its path; a study's directory gives the page of its tables."""
    from retfound_jax.report import page, study_page
    from retfound_jax.report.collect import collect, read_run
    from retfound_jax.report.study import is_study

    if is_study(workdir):
        return study_page.write(workdir, out=values.out or None, command=command, notice=values.notice)
    config = read_run(workdir).config
    data = _data(config, dataset=values.dataset)
    pretrain = _given_or(values.pretrain, str(config.get('init_from') or ''), beside='config.json')
    dataset = _given_or(values.dataset, data.path if data else '', beside='manifest.json')
    found = collect(workdir, pretrain=pretrain, dataset=dataset)
    shown = data is not None and values.photographs and found.predictions is not None
    notices = [values.notice, _mismatch(data, found) if shown else '']
    return page.write(
        workdir,
        out=values.out or None,
        pretrain=pretrain,
        dataset=dataset,
        thumbnail=Thumbnails(data) if shown else None,
        command=command,
        notice=' '.join(filter(None, notices)),
        show_keys=values.show_keys,
        photographs=values.photographs,
        studies=tuple(values.study),
    )


class Thumbnails:
    """From a record key to a small JPEG; a split is opened when a key is not in those before it."""

    def __init__(self, data: Any) -> None:
        self._sources = _sources(data)
        self._rows: dict[str, tuple[Any, int]] = {}

    def __call__(self, key: str) -> bytes | None:
        while key not in self._rows:
            source = next(self._sources, None)
            if source is None:
                return None
            self._rows |= {str(name): (source, row) for row, name in enumerate(source.table['key'])}
        source, row = self._rows[key]
        return small_jpeg(source[row]['image'])


def small_jpeg(image: Any) -> bytes:
    """Encoded bytes or uint8 [H,W,3] as a JPEG of at most 224 px."""
    from PIL import Image

    opened = Image.open(io.BytesIO(image)) if isinstance(image, bytes) else Image.fromarray(image)
    opened = opened.convert('RGB')
    opened.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    opened.save(buffer, 'JPEG', quality=82)
    return buffer.getvalue()


def _data(config: Any, *, dataset: str) -> Any:
    """The data configuration to read images by; None where the run recorded none that this version reads, or the data are gone."""
    from retfound_jax.core.config import from_dict
    from retfound_jax.data.config import DataConfig

    if dataset:
        return DataConfig(path=dataset, augment='none')
    if not isinstance(config.get('data'), dict):
        return None
    data = dataclasses.replace(from_dict(DataConfig, config['data']).whole('test'), labels=())
    return None if data.path and not is_remote(data.path) and not Path(data.path).is_dir() else data


def _given_or(given: str, recorded: str, *, beside: str) -> Path | None:
    """What the user named, or what the run recorded where it is still there; of a dataset in an object store its manifest is fetched."""
    address = given or recorded
    if is_remote(address) and beside == 'manifest.json':
        from retfound_jax.data.remote import open_remote

        return open_remote(address).folder
    if given:
        return Path(given)
    return Path(recorded) if recorded and (Path(recorded) / beside).exists() else None


def _sources(data: Any) -> Iterator[Any]:
    from retfound_jax.core.errors import UserError
    from retfound_jax.data.sources import open_source

    for split in ('test', 'val', 'train'):
        try:
            yield open_source(dataclasses.replace(data, split=split))
        except UserError:  # not every dataset has every split
            continue


def _mismatch(data: Any, found: Any) -> str:
    """A sentence where the images at hand are not the ones that were evaluated."""
    from retfound_jax.data.sources import open_source

    asked = dataclasses.replace(data, split=found.tables.split, labels=found.predictions.labels)
    if open_source(asked).fingerprint == found.predictions.fingerprint:
        return ''
    return 'The dataset given to this report is not the one the model was evaluated on: what is said about people may not fit.'
