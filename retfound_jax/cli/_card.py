"""What `retfound report --card` does besides the report: judges by groups that were left out, and writes the card and the data sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retfound_jax.core.errors import UsageError
from retfound_jax.core.storage import is_remote

_BY = ('sex', 'age_band')  # of a dataset that does not say what it records, as a drawn one


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a run and what belongs to it lie."""

    workdir: Path
    pretrain: Path | None
    dataset: Path | None
    pretrain_dataset: Path | None


def evaluate_missing(places: Places, *, by: Sequence[str]) -> str:
    """Judges a run of a task by the groups `by` where it was not judged by them yet; groups judged before are kept.

    Args:
      by: columns or intersections; none: every column that the dataset records for anybody.

    Returns:
      The name of the split that was evaluated, '' where nothing was to be done.

    Raises:
      UsageError: a group does not exist, or the dataset to judge on is not there.
    """
    from retfound_jax.evals.evaluation import evaluate_run
    from retfound_jax.evals.predictions import TEXT_COLUMNS
    from retfound_jax.evals.subgroups import parse_by
    from retfound_jax.report.card_read import read_evaluations
    from retfound_jax.report.collect import read_run

    run = read_run(places.workdir)
    if run.is_pretraining:
        return ''
    before = next((one for one in read_evaluations(places.workdir) if not one.external), None)
    judged = before.tables.by if before else ()
    wanted = parse_by(tuple(by) or _recorded(places.dataset), columns=TEXT_COLUMNS)
    if before is not None and set(wanted) <= set(judged):
        return ''
    _check_data(run.config, places.workdir, evaluated=before is not None)
    trained, split, config = _as_before(places.workdir, before, by=tuple(dict.fromkeys((*judged, *wanted))))
    evaluate_run(trained, workdir=places.workdir, split=split, config=config)
    return split


def write_card(places: Places, *, studies: Sequence[str], facts: str, notice: str, out: Path, command: str) -> list[tuple[str, Path]]:
    """Writes the card of a run, and the data sheets of its datasets; returns what each file is and its path.

    Raises:
      UsageError: a directory is not what it was given as, or the owner's file is wrong.
      UserError: a file is damaged.
    """
    from retfound_jax.report import card_page
    from retfound_jax.report.card import collect_card

    card = collect_card(
        places.workdir,
        pretrain=places.pretrain,
        dataset=places.dataset,
        pretrain_dataset=places.pretrain_dataset,
        studies=tuple(map(Path, studies)),
        facts=Path(facts) if facts else None,
        start=_start(places),
        notice=notice,
    )
    page, markdown = card_page.write(card, out=out)
    return [('card', page), ('card for the Hub', markdown), *_sheets(places, out=out, command=command)]


def _start(places: Places) -> Any:
    """What is declared of the public weights that a run started from; None where it did not, or nothing is."""
    from retfound_jax.registry import checkpoints
    from retfound_jax.report.card import Start
    from retfound_jax.report.collect import read_run

    begun = str(read_run(places.workdir).config.get('init_from') or '').rstrip('/')
    if not begun or places.pretrain is not None:
        return None
    try:
        found = checkpoints.find(begun.rpartition('/')[2])
    except UsageError:  # nobody has declared what these weights have seen
        return None
    touch = checkpoints.touched(found.name, places.dataset.resolve().name if places.dataset else '')
    seen = tuple(f'{one.dataset} ({one.part})' if one.part else one.dataset for one in found.pretrained_on)
    return Start(name=found.name, seen=seen, whole=found.whole, source=found.source, doubt=touch.reason if touch else '')


def _sheets(places: Places, *, out: Path, command: str) -> list[tuple[str, Path]]:
    """The data sheet of the run's dataset, and another one of its pretraining's where that had its own."""
    from retfound_jax.report import datasheet

    both = [
        ('datasheet', 'data sheet', places.dataset),
        ('datasheet_pretraining', 'data sheet of the pretraining', places.pretrain_dataset),
    ]
    if places.dataset is not None and places.pretrain_dataset is not None and places.dataset.resolve() == places.pretrain_dataset.resolve():
        both = both[:1]
    written = []
    for name, what, dataset in both:
        if dataset is not None:
            datasheet.write(datasheet.read([dataset]), out=out / name, command=command)
            written.append((what, out / name / datasheet.PAGE))
    return written


def _recorded(dataset: Path | None) -> tuple[str, ...]:
    """The groups that a dataset has something to say of."""
    from retfound_jax.report.card import Data
    from retfound_jax.report.card_people import COLUMNS, column
    from retfound_jax.report.collect import read_manifest
    from retfound_jax.report.composition import compose

    if dataset is None:
        return _BY
    data = Data(manifest=read_manifest(dataset), composition=compose([dataset]), role='')
    return tuple('age_band' if name == 'age' else name for name in COLUMNS if column(data, name).recorded)


def _check_data(config: Any, workdir: Path, *, evaluated: bool) -> None:
    data = config.get('data') if isinstance(config.get('data'), dict) else {}
    path = str(data.get('path') or '')
    gone = path and not is_remote(path) and not Path(path).is_dir()
    if not config or gone:
        what = 'was not evaluated by all of these groups' if evaluated else 'was not evaluated'
        where = f'its dataset {path} is not there' if gone else 'it has no config.json to evaluate it by'
        raise UsageError(f'{workdir} {what} and {where}: put it back, or run `retfound evaluate` where it is')


def _as_before(workdir: Path, before: Any, *, by: tuple[str, ...]) -> tuple[Any, str, Any]:
    """The run, split and settings of the evaluation before, so that only groups are added to it."""
    from retfound_jax.evals.tables import EvalConfig
    from retfound_jax.evals.thresholds import parse_rule
    from retfound_jax.train.checkpoint import load_run

    trained, config = load_run(workdir), EvalConfig(by=by)
    if before is None:
        return trained, 'test', config
    if before.step is not None and trained.step != before.step:
        trained = load_run(workdir, which='latest')
    rule = next((str(entry['rule']) for entry in before.tables.thresholds.values() if entry.get('rule')), None)
    config = replace(config, replicates=before.tables.replicates, level=before.tables.interval, min_n=before.tables.min_n)
    return trained, before.tables.split, replace(config, rule=parse_rule(rule)) if rule else config
