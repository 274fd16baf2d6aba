"""How to get the same numbers again: commands, configuration, versions, data fingerprint, hardware, time; and the glossary."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

from retfound_jax.report.blocks import Cell, Code, Section, Table, Terms, Text
from retfound_jax.report.collect import Collected, TrainingRun
from retfound_jax.report.words import GLOSSARY, clean, duration, metric_name

_PACKAGES = ('retfound-jax', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'pandas', 'pyarrow', 'matplotlib')
WORDS = (
    (
        '95 % interval',
        'A range made so that, over many studies like this one with other patients, about 95 of 100 such ranges hold the true value. '
        'Wide: too few patients to be sure.',
    ),
    ('Threshold', 'The score from which a case is called positive. It is chosen on validation patients and then left alone.'),
    (
        'Split',
        'Patients are divided into those the model learns from (train), those by which it is tuned (val) and those it is judged on (test).',
    ),
    ('Pretraining', 'Learning what retinal photographs look like, without any label, for example by redrawing hidden parts of them.'),
)


def section(found: Collected, *, command: str) -> Section:
    """Everything needed to repeat the run, as far as it was kept."""
    runs = [(name, run) for name, run in (('pretraining', found.pretrain), ('task', found.run)) if run]
    rows = [(Cell(name), Cell(value)) for name, value in _facts(found, runs)]
    table = Table(caption='Run', head=('What', 'Value'), rows=tuple(rows), words=frozenset({1}))
    blocks: list[Any] = [table]
    for name, run in runs:
        if run.environment.get('command'):
            blocks.append(Code(f'Command of the {name} run', clean(run.environment['command'])))
    blocks += [Code('Command that made this page', clean(command))] if command else []
    for name, run in runs:
        if run.config:
            blocks.append(Code(f'Configuration of the {name} run', clean(json.dumps(run.config, indent=1, ensure_ascii=False))))
        else:
            blocks.append(Text(f'The {name} run holds no config.json.', 'quiet'))
    return Section(id='repeat', title='How to repeat this', blocks=tuple(blocks))


def glossary(found: Collected) -> Section:
    """The words of this page in plain language: the metrics it shows, then the rest."""
    shown = list(dict.fromkeys(row.metric for row in found.tables.rows)) if found.tables else ['AUROC']
    terms = [(metric_name(name), GLOSSARY[name]) for name in shown if name in GLOSSARY]
    return Section(id='glossary', title='Words used', blocks=(Terms((*terms, *WORDS)),))


def _facts(found: Collected, runs: list[tuple[str, TrainingRun]]) -> list[tuple[str, str]]:
    facts = []
    for name, run in runs:
        facts.append((f'Experiment, {name}', clean(run.config.get('name', 'not recorded'))))
        facts.append((f'Seed, {name}', clean(run.config.get('seed', 'not recorded'))))
        facts.append((f'Run time, {name}', duration(run.seconds)))
        facts.append((f'Hardware, {name}', clean(run.environment.get('hardware', 'not recorded'))))
    if found.predictions and found.predictions.step is not None:
        facts.append(('Checkpoint evaluated', f'step {found.predictions.step}'))
    facts.append(('Fingerprint of the dataset', clean((found.manifest or {}).get('fingerprint') or 'not recorded: no dataset was given')))
    if found.predictions:
        facts.append(('Fingerprint of the evaluated rows', clean(found.predictions.fingerprint or 'not recorded')))
    facts.append(('Versions', _versions(runs)))
    return facts


def _versions(runs: list[tuple[str, TrainingRun]]) -> str:
    """As recorded by the run; of this machine, and said so, where the run recorded none."""
    for _, run in reversed(runs):
        recorded = run.environment.get('versions')
        if isinstance(recorded, Mapping) and recorded:
            return clean(', '.join(f'{name} {version}' for name, version in recorded.items()))
    found = [f'Python {platform.python_version()}']
    for name in _PACKAGES:
        try:
            found.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a source tree: the package itself is not installed
    return f'{", ".join(found)} (of the machine that made this page; the run recorded none)'
