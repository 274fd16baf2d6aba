"""The first screen: what the model does, on whom, how well, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retfound_jax.report import fails
from retfound_jax.report.blocks import Fact, Facts, Section, Text
from retfound_jax.report.collect import Collected, TrainingRun
from retfound_jax.report.tables import MACRO, MISSING, Row, Tables
from retfound_jax.report.words import (
    NONE,
    clean,
    count,
    joined,
    metric_name,
    percent,
    plural,
    together,
    value_and_bounds,
)

_NAMED = 5  # labels spelled out in a sentence
_LEARNED = {  # without labels, by the class of the task
    'MAETask': 'It learned to redraw hidden parts of photographs, and',
    'TokenReconstructionTask': 'It learned to see a disturbed photograph as the model it started from sees the clean one, and',
    'SimCLRTask': 'It learned to tell which two of many altered cuts are of one photograph, and',
    'MoCoTask': 'It learned to tell which two of many altered cuts are of one photograph, and',
    'SwAVTask': 'It learned to sort altered cuts of one photograph alike, and',
}

LIMITS = (
    'Research use only. This is not a medical device: do not use it to diagnose, screen, triage or treat anyone. '
    'The numbers hold for people and cameras like those described on this page; elsewhere they have to be measured anew.'
)


def section(found: Collected, *, notice: str) -> Section:
    """The summary; it says in words what is not there."""
    blocks: list[Any] = [Text(notice, 'warning')] if notice else []
    blocks += [Text(words, 'lead') for words in _story(found)]
    if found.tables:
        blocks.append(Text(*fails.told(found.tables)))
        blocks += [Text(words, 'warning') for words in _cautions(found.tables)]
        blocks.append(Facts(_facts(found)))
    blocks.append(Text(LIMITS, 'warning'))
    return Section(id='summary', title='Summary', blocks=tuple(blocks))


def title(found: Collected) -> str:
    """The page's heading."""
    if found.tables:
        return f'{_quoted(found.tables.labels)} from retinal images'
    if found.run and found.run.config:
        return f'{_quoted(_task(found.run).get("labels") or ()) or "A task"} from retinal images'
    return 'An encoder of retinal images'


def model_words(run: TrainingRun) -> str:
    """The model in a few words."""
    model = _task(run).get('model')
    model = model.get('encoder', model) if isinstance(model, Mapping) else {}
    if not {'depth', 'width', 'patch_size', 'image_size'} <= model.keys():
        return 'a vision transformer'
    return (
        f'a vision transformer ({model["depth"]} blocks of width {model["width"]}, patches of {model["patch_size"]} px, '
        f'images of {model["image_size"]} × {model["image_size"]} px)'
    )


def aim(tables: Tables) -> str:
    """What the model is asked."""
    label = _quoted(tables.labels)
    if tables.kind == 'regress':
        return f'estimates the number {label}'
    if tables.kind == 'multi':
        return f'says how probable each of {plural(len(tables.labels), "finding")} is: {label}'
    if tables.kind == 'ordinal':
        return f'grades {label} from {clean(tables.classes[0])} to {clean(tables.classes[-1])}'
    if len(tables.classes) == 2:
        return f'tells “{clean(tables.classes[1])}” from “{clean(tables.classes[0])}” in {label}'
    return f'sorts images into the {len(tables.classes)} classes of {label}'


def _story(found: Collected) -> list[str]:
    run = found.run or found.pretrain
    story = [_what(found), _whom(found.manifest)] if run else []
    if not found.tables:
        story.append(
            'It has not been evaluated yet: run `retfound evaluate` on the run directory.'
            if found.run
            else f'{_LEARNED.get(run.task_class if run else "", "It")} answers no clinical question: there is no accuracy to report.'
        )
        return [words for words in story if words]
    return [words for words in (*story, _how_well(found.tables)) if words]


def _what(found: Collected) -> str:
    run = found.run or found.pretrain
    model = model_words(run)
    model = model[0].upper() + model[1:]
    if found.run is None:
        return f'{model} was pretrained on photographs without labels.'
    begun = 'was first pretrained on photographs without labels, then' if run.config.get('init_from') else 'was'
    part = ' (only its last layer)' if _task(run).get('adapt') == 'head' else ''
    does = f' It {aim(found.tables)}.' if found.tables else ''
    return f'{model} {begun} trained{part} on labelled ones.{does}'


def _whom(manifest: Mapping[str, Any] | None) -> str:
    if manifest is None:
        return ''
    train = manifest['splits'].get('train', {})
    if 'patients' not in train:
        return ''
    people = manifest.get('summary_patients') or manifest.get('summary') or {}
    age, sex = (people.get(name) or {} for name in ('age', 'sex'))
    words = [f'It learned from {plural(train["images"], "image")} of {plural(train["patients"], "patient")}.']
    if age.get('mean') is not None:  # the youngest and the oldest are one person each
        words.append(f'The people in the dataset are {age["mean"]:.0f} years old on average.')
    known = sum(n for name, n in sex.items() if name != MISSING)
    if known and {'F', 'M'} & sex.keys():
        words.append(f'Where the sex is known, {percent(sex.get("F", 0), known)} are women.')
    return ' '.join(words)


def _how_well(tables: Tables) -> str:
    row = tables.find(metric=tables.metric)
    if row is None:
        return ''
    scope = _scope(row, tables)
    if row.value is None:
        return f'On {scope} no {metric_name(tables.metric)} can be given: {row.note or "it is not defined there"}.'
    shown, low, high = together((row.value, row.low, row.high), metric=row.metric)
    if NONE not in (low, high):
        shown += f' ({100 * tables.interval:.0f} % interval {low} to {high})'
    if tables.kind == 'regress':
        return f'On {scope} its estimate is off by {shown} on average, in the unit of the label.'
    if row.metric == 'kappa_quadratic':
        return f'On {scope} it agrees with the labels with a quadratic kappa of {shown}; 0 is chance, 1 is perfect.'
    mean = ' (mean over the classes)' if row.target == MACRO else ''
    return (
        f'On {scope} its AUROC{mean} is {shown}: given one case with the finding and one without, it scores the right one higher '
        f'about {100 * row.value:.0f} times in 100.'
    )


def _scope(row: Row, tables: Tables) -> str:
    seen = {'train': 'it was trained on', 'val': 'of the validation split'}.get(
        tables.split, f'of the {clean(tables.split)} split, which it never saw'
    )
    return f'{plural(row.n_patients, "patient")} ({plural(row.n_images, "image")}) {seen},'


def _cautions(tables: Tables) -> list[str]:
    cautions = []
    if tables.split in ('train', 'val'):
        why = 'the model was trained on' if tables.split == 'train' else 'the checkpoint and the thresholds were chosen on'
        cautions.append(f'These numbers are from the {tables.split} split, which {why}: they flatter the model.')
    row = tables.find(metric=tables.metric)
    if row is not None and row.n_patients < 100:
        cautions.append(f'Only {plural(row.n_patients, "patient")} stand behind these numbers: read the intervals, not the values.')
    return cautions


def _facts(found: Collected) -> tuple[Fact, ...]:
    tables = found.tables
    names = {
        'regress': ('MAE', 'R2', 'pearson'),
        'ordinal': ('kappa_quadratic', 'AUROC', 'accuracy'),
        'multi': ('AUROC', 'AUPRC', 'F1'),
    }.get(tables.kind, ('AUROC', 'sensitivity', 'specificity') if len(tables.targets) == 1 else ('AUROC', 'accuracy', 'balanced_accuracy'))
    facts = []
    for name in names:
        row = tables.find(metric=name)
        if row is not None:
            shown, bounds = value_and_bounds(row.value, row.low, row.high, metric=name)
            facts.append(Fact(metric_name(name), shown, bounds if row.value is not None else row.note))
    row = tables.find(metric=tables.metric)
    if row is not None:
        facts.append(Fact(f'Patients, {clean(tables.split)}', count(row.n_patients), plural(row.n_images, 'image')))
    return tuple(facts)


def _quoted(names: Iterable[object]) -> str:
    """Names in quotation marks; the first few where there are many."""
    names = [f'“{clean(name)}”' for name in names]
    return joined(names if len(names) <= _NAMED else [*names[:_NAMED], f'{len(names) - _NAMED} more'])


def _task(run: TrainingRun) -> Mapping[str, Any]:
    task = run.config.get('task')
    return task if isinstance(task, Mapping) else {}
