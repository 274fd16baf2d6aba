"""Where the model comes from: data, code, configuration, weights, versions, hardware, time, energy; and what its owner says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from retfound_jax.report.blocks import Cell, Section, Table, Text
from retfound_jax.report.card import Card
from retfound_jax.report.collect import TrainingRun
from retfound_jax.report.facts import SENTENCES
from retfound_jax.report.words import clean, duration, joined, number, plural

ID, TITLE = 'origin', 'Provenance'
OWNER_ID, OWNER_TITLE = 'owner', 'What the owner says'
MISSING = 'missing'
_OF_OTHER_LICENCES = ('licence_name', 'licence_link')  # not asked where the licence has an identifier
# Power limits that the makers print, by the start of JAX's device_kind [W]; the board alone, without its host or cooling.
BOARD_POWER = {
    'NVIDIA H100 80GB HBM3': 700,  # H100 SXM5, NVIDIA H100 data sheet
    'NVIDIA H100 PCIe': 350,
    'NVIDIA H200 NVL': 600,
    'NVIDIA H200': 700,  # H200 SXM
    'NVIDIA A100-SXM4': 400,
    'NVIDIA A100 80GB PCIe': 300,
    'NVIDIA A100-PCIE-40GB': 250,
    'NVIDIA L4': 72,
    'Tesla V100-SXM2': 300,
    'Tesla T4': 70,
}


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Energy of the training [kWh] and what it rests on."""

    kwh: float
    basis: str
    grams: float | None  # CO2 equivalent, where the owner gave the carbon intensity


def section(card: Card) -> Section:
    """What is needed to say which model this is, and to make it again."""
    rows = tuple(_row(name, value, missing) for name, value, missing in facts(card))
    table = Table(caption='Which model this is', head=('What', 'Value'), rows=rows, words=frozenset({1}))
    return Section(id=ID, title=TITLE, blocks=(table,))


def owner_section(card: Card) -> Section:
    """What only the owner can answer: the answers, then what is missing."""
    other = card.facts.get('licence') == 'other'
    asked = {key: asks for key, asks in SENTENCES.items() if other or key not in _OF_OTHER_LICENCES or card.facts.get(key)}
    said = [(Cell(asks), Cell(clean(card.facts.get(key)))) for key, asks in asked.items() if card.facts.get(key)]
    silent = [(Cell(asks), Cell('missing', absent=True)) for key, asks in asked.items() if not card.facts.get(key)]
    shared = {'head': ('Question', 'Answer'), 'words': frozenset({1})}
    blocks: list[Any] = [Table(caption='Nobody can compute these', rows=tuple(said), **shared)] if said else []
    if silent:
        blocks.append(Text(f'{plural(len(silent), "question")} that only the owner can answer, and has not (--facts).', 'absent'))
        blocks.append(Table(caption='Not answered by the owner', rows=tuple(silent), **shared))
    return Section(id=OWNER_ID, title=OWNER_TITLE, blocks=tuple(blocks))


def facts(card: Card) -> list[tuple[str, str, str]]:
    """Name, value ('' where it is missing) and why it is missing."""
    run = card.subject
    found = [
        ('Experiment', clean(run.config.get('name') or ''), 'no config.json'),
        ('Configuration, SHA-256', card.config_hash, 'no config.json'),
        ('Seed', clean(run.config.get('seed', '')), 'no config.json'),
        ('Dataset, fingerprint', card.data.fingerprint if card.data else '', 'the dataset was not given'),
        ('Rows it was trained on, fingerprint', clean(card.trained_on), 'the checkpoint does not say'),
        ('Rows it was judged on, fingerprint', clean(card.tables.fingerprint) if card.tables else '', 'it was not evaluated'),
        ('Weights', _weights(card), 'no checkpoint at hand'),
        ('Weights, SHA-256', card.weights.sha256 if card.weights else '', 'no list of files in the checkpoint'),
    ]
    for name, one in _runs(card):
        found += [
            (f'Code, commit{name}', _commit(one), 'the run recorded none'),
            (f'Versions{name}', _versions(one), 'the run recorded none'),
            (f'Hardware{name}', clean(one.environment.get('hardware') or ''), 'the run recorded none'),
            (f'Time{name}', _time(one), 'the run kept no account'),
        ]
    spent = energy(card)
    found.append(('Energy', _energy_words(spent), 'not measured; the power of the hardware is not known (power_watts in the owner’s file)'))
    carbon = f'{number(spent.grams / 1000)} kg CO2e' if spent and spent.grams is not None else ''
    found.append(('Carbon', carbon, 'the carbon intensity is not known (carbon_g_per_kwh in the owner’s file)'))
    return found


def energy(card: Card) -> Energy | None:
    """Time times power, where a power is known: the owner's first, else the board's limit; None where there is none."""
    runs = [one for _, one in _runs(card)]
    if any(one.seconds is None for one in runs):
        return None
    stated = card.facts.numbers.get('power_watts')
    if stated is not None:
        watts, basis = [stated] * len(runs), f'{number(stated)} W, stated by the owner, times the time of {_all_runs(runs)}'
    else:
        boards = [_board(one) for one in runs]
        if None in boards:
            return None
        watts = [n * limit for n, limit, _ in boards]  # type: ignore[misc]
        named = joined(dict.fromkeys(f'{n} × {limit} W ({kind})' for n, limit, kind in boards))  # type: ignore[misc]
        basis = f'at most: the maker’s limit of the accelerators, {named}, times the time of {_all_runs(runs)}; without host and cooling'
    kwh = sum(power * (one.seconds or 0.0) for power, one in zip(watts, runs, strict=True)) / 3.6e6
    intensity = card.facts.numbers.get('carbon_g_per_kwh')
    return Energy(kwh=kwh, basis=basis, grams=None if intensity is None else kwh * intensity)


def code_commit(card: Card) -> str:
    """Of the run that the card is of, '' where it recorded none."""
    return _commit(card.subject)


def _all_runs(runs: list[TrainingRun]) -> str:
    return 'this run and its pretraining' if len(runs) > 1 else 'this run'


def _runs(card: Card) -> list[tuple[str, TrainingRun]]:
    before = [(', pretraining', card.pretrain)] if card.run and card.pretrain else []
    return [('', card.subject), *before]


def _row(name: str, value: str, missing: str) -> tuple[Cell, ...]:
    return Cell(name), Cell(value) if value else Cell(f'{MISSING}: {missing}', absent=True)


def _weights(card: Card) -> str:
    if card.weights is None:
        return ''
    listed = f', {plural(card.weights.files, "file")}, {card.weights.bytes / 1e6:.1f} MB' if card.weights.files else ''
    return f'checkpoint of step {card.weights.step}{listed}'


def _commit(run: TrainingRun) -> str:
    code = run.environment.get('code')
    if not isinstance(code, Mapping) or not code.get('commit'):
        return ''
    return clean(code['commit']) + (' with changes that were not committed' if code.get('dirty') else '')


def _versions(run: TrainingRun) -> str:
    found = run.environment.get('versions')
    return clean(', '.join(f'{name} {version}' for name, version in found.items())) if isinstance(found, Mapping) else ''


def _time(run: TrainingRun) -> str:
    if run.seconds is None:
        return ''
    share = f', {100 * run.account.goodput:.0f} % of it in steps that count' if run.account and run.account.total else ''
    return f'{duration(run.seconds)}{share}'


def _board(run: TrainingRun) -> tuple[int, int, str] | None:
    """How many accelerators, the limit of each [W] and its kind, as the run recorded them: `8 NVIDIA H100 80GB HBM3 device(s); ...`."""
    first, _, rest = str(run.environment.get('hardware') or '').partition(' ')
    kind = rest.partition(' device(s)')[0]
    limit = next((watts for start, watts in BOARD_POWER.items() if kind.startswith(start)), None)
    return (int(first), limit, kind) if first.isdecimal() and limit is not None else None


def _energy_words(spent: Energy | None) -> str:
    return f'{number(spent.kwh)} kWh ({spent.basis})' if spent else ''
