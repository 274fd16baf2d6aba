"""`retfound quickstart`: the main job from photographs to report, on the phantom or on the user's own photographs."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from pathlib import Path

from absl import flags

from retfound_jax.cli.main import run_verb
from retfound_jax.core.config import load_function
from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.core.files import read_json, write_json

SUMMARY = 'the main job in small: ingest, pretrain, adapt, evaluate, report'

_STUDY = 'experiments.quickstart'
_DRAWN = 'Every photograph in this report was drawn by a program: it shows what the report looks like, and says nothing about patients.'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('source', '', 'folder of photographs; left out: photographs drawn by our own phantom', flag_values=values)
    flags.DEFINE_string('labels', '', 'CSV of keys, patients, labels and demographics', flag_values=values)
    flags.DEFINE_string('label', '', 'column to learn', flag_values=values)
    flags.DEFINE_string('key', '', 'column with the file name; left out: recognised by name', flag_values=values)
    flags.DEFINE_string('patient', '', 'column with the patient; left out: recognised by name', flag_values=values)
    flags.DEFINE_list('by', ['sex', 'age'], 'columns to report subgroups by', flag_values=values)
    flags.DEFINE_string('workdir', 'quickstart_run', 'directory for everything that is made', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Walks the whole way once and prints the path of the report; run again, it goes on where it stopped."""
    begun, root = time.monotonic(), Path(values.workdir).absolute()
    wanted = _Wanted.of(values, root)
    _check(wanted, drawn=not values.source)
    _refuse_another(wanted, root)
    if not values.source:
        _stage('1/5  Photographs: none given, so our phantom draws some')
        _draw(root / 'photographs')
    _stage('1/5  Ingest: photographs and labels to a dataset')
    _ingest(wanted, root)
    _stage('2/5  Pretrain: a masked autoencoder learns to fill in hidden patches, without labels')
    train = ['--set', f'data.path={root / "dataset"}', '--resume']
    _verb('train', '--experiment', f'{_STUDY}:pretrain', '--workdir', root / 'pretrain', *train)
    _draw_triples(root / 'pretrain')
    _stage(f'3/5  Adapt: its encoder learns "{wanted.label}"')
    start = ['--set', f'task.labels={wanted.label}', '--set', f'init_from={root / "pretrain"}']
    _verb('train', '--experiment', f'{_STUDY}:{_recipe(wanted, root)}', '--workdir', root / 'finetune', *train, *start)
    _stage('4/5  Evaluate: on patients the model has never seen, by patient and by subgroup')
    _verb('evaluate', '--workdir', root / 'finetune', '--by', ','.join(wanted.by))
    _stage('5/5  Report')
    notice = [] if values.source else ['--notice', _DRAWN]
    _verb('report', '--card', '--by', ','.join(wanted.by), '--workdir', root / 'finetune', '--out', root / 'report.html', *notice)
    pages = f'{root / "report.html"}\n{root / "card.html"}'
    print(f'\nDone in {(time.monotonic() - begun) / 60:.1f} minutes. Open these pages in a browser:\n{pages}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What is asked, as the verbs that answer it take it."""

    source: str
    labels: str
    label: str
    key: str
    patient: str
    by: tuple[str, ...]

    @classmethod
    def of(cls, values: flags.FlagValues, root: Path) -> _Wanted:
        """From the flags; the phantom's own folder, table and label where no source is given."""
        given = {name: getattr(values, name) for name in ('source', 'labels', 'label', 'key', 'patient')}
        if not given['source']:
            wrong = [name for name in ('labels', 'label', 'key', 'patient') if given[name]]
            if wrong:
                raise UsageError(f'--{wrong[0]} goes with --source, which is missing; give the folder of your photographs too')
            drawn = root / 'photographs'
            given |= {'source': str(drawn / 'images'), 'labels': str(drawn / 'labels.csv'), 'label': 'referable_dr'}
        else:
            for name, meaning in (('labels', 'the CSV of your labels'), ('label', 'the column to learn')):
                if not given[name]:
                    raise UsageError(f'--source needs --{name}; give {meaning}')
            given |= {name: str(Path(given[name]).absolute()) for name in ('source', 'labels')}
        return cls(**given, by=tuple(values.by))


def _check(wanted: _Wanted, *, drawn: bool) -> None:
    """Refuses before any work what would only be refused after pretraining."""
    from retfound_jax.evals.predictions import TEXT_COLUMNS
    from retfound_jax.evals.subgroups import parse_by
    from retfound_jax.ingest.labels import read_table

    parse_by(wanted.by, columns=TEXT_COLUMNS)
    if drawn:
        return
    if not Path(wanted.source).is_dir():
        raise UsageError(f'--source {wanted.source} is not a folder; give the folder of your photographs')
    columns = read_table(wanted.labels).columns
    if wanted.label not in columns:
        listed = f'; it has {", ".join(columns)}'
        raise UsageError(f'--labels {wanted.labels} has no column "{wanted.label}"{nearest(wanted.label, columns) or listed}')


def _refuse_another(wanted: _Wanted, root: Path) -> None:
    """Keeps what was asked in the directory, so that other photographs or another label are not mixed with it."""
    asked = {name: value for name, value in dataclasses.asdict(wanted).items() if name != 'by'}
    path = root / 'quickstart.json'
    if path.exists():
        found = read_json(path)
        for name, value in asked.items():
            if found.get(name) != value:
                raise UsageError(f'--workdir {root} was begun with --{name} {found.get(name)}, not {value}; give another --workdir')
    elif root.exists() and any(root.iterdir()):
        raise UsageError(f'--workdir {root} is not empty and holds no quickstart; give another directory')
    write_json(path, asked)


def _stage(text: str) -> None:
    print(f'\n=== {text}', flush=True)


def _verb(name: str, *words: object) -> None:
    """Runs a verb, and shows it as the command a user would type."""
    typed = [str(word) for word in words]
    print(f'$ retfound {name} {shlex.join(typed)}', flush=True)
    run_verb(name, typed)


def _draw(folder: Path) -> None:
    if (folder / 'labels.csv').exists():
        print(f'{folder} is there already')
        return
    config = load_function(f'{_STUDY}:phantom')()
    _verb('phantom', '--out', folder, '--patients', config.patients, '--seed', config.seed, '--workers', os.cpu_count() or 1)


def _ingest(wanted: _Wanted, root: Path) -> None:
    if (root / 'dataset').exists():
        print(f'{root / "dataset"} is there already')
        return
    columns = [word for role in ('key', 'patient') if getattr(wanted, role) for word in (f'--{role}', getattr(wanted, role))]
    _verb('ingest', '--source', wanted.source, '--labels', wanted.labels, *columns, '--out', root / 'dataset')


def _recipe(wanted: _Wanted, root: Path) -> str:
    """The experiment that fits the label: classes or a number."""
    labels = read_json(root / 'dataset' / 'manifest.json')['labels']
    kind = labels[wanted.label]['kind'] if wanted.label in labels else 'class'  # an unknown label is refused by the data, with the nearest
    return 'adapt_number' if wanted.label == 'age' or kind == 'number' else 'adapt'


def _draw_triples(workdir: Path) -> None:
    from retfound_jax.evals.reconstructions import save_triples
    from retfound_jax.train.checkpoint import load_run

    if not (workdir / 'figures').exists():
        written = save_triples(load_run(workdir, which='latest'))
        print(f'{len(written) // 3} photographs, masked and reconstructed: {workdir / "figures"}')
