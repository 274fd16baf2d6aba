"""What the card has to say to each question that a reporting guideline may ask, in a sentence, and where it stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_jax.report import card_labels, card_limits, card_means, card_origin, card_people, card_scope, card_validation
from retfound_jax.report.card import Card
from retfound_jax.report.card_people import COLUMNS, NAMES, column, unrecorded
from retfound_jax.report.card_read import Evaluation
from retfound_jax.report.checklist import Answer
from retfound_jax.report.collect import TrainingRun
from retfound_jax.report.facts import SENTENCES
from retfound_jax.report.tables import MACRO
from retfound_jax.report.words import clean, count, interval, joined, metric_name, nice, number, percent, plural

SUMMARY_ID = 'short'  # of the section that sums the card up
_AUGMENT = {'none': '', 'crop_flip': 'random crops and flips', 'flip': 'random flips'}


def answers(card: Card) -> dict[str, Answer]:
    """Every answer by its key; the text is '' where there is none."""
    said = {key: Answer(text=clean(card.facts.get(key)), section=card_origin.OWNER_ID) for key in SENTENCES}
    parts: tuple[tuple[str, dict[str, str]], ...] = (
        (card_scope.ID, _scope(card)),
        (card_people.ID, _people(card)),
        (card_validation.ID, _validation(card)),
        (card_labels.ID, {'events': ' '.join(card_labels.had(card))}),
        (card_limits.ID, {'limitations': _limitations(card)}),
        (card_origin.ID, _origin(card)),
    )
    said |= {'summary': Answer(text='The four questions, in a table.', section=SUMMARY_ID)}
    return said | {key: Answer(text=text, section=section) for section, found in parts for key, text in found.items()}


def _limitations(card: Card) -> str:
    found = card_limits.limits(card)
    return f'{plural(len(found), "limitation")} found in the evidence, each in a row.' if found else ''


def title(card: Card) -> str:
    """The card's heading: that it is a model, for what and from what."""
    labels = [f'“{clean(label)}”' for label in card.labels]
    asked = joined(labels[:5] if len(labels) <= 5 else [*labels[:5], f'{len(labels) - 5} more'])
    return f'{asked} from retinal images' if asked else 'An encoder of retinal images'


def _scope(card: Card) -> dict[str, str]:
    kind = card.tables.kind if card.tables else ''
    output = {'regress': 'a number', 'multi': 'a probability for each finding', 'ordinal': 'a probability for each grade'}
    return {
        'title': f'{title(card)}: a prediction model, {card_scope.model_words(card.subject)}',
        'design': 'A model is developed' + (' and judged on patients kept apart.' if card.main else '; it was not evaluated.'),
        'input': f'One image of {card.image_side} × {card.image_side} px and nothing else.' if card.image_side else '',
        'no_reader': 'The only predictor is the image itself: nobody reads it.',
        'output': f'{output.get(kind, "a probability for each class")}.'.capitalize() if kind else '',
    }


def _people(card: Card) -> dict[str, str]:
    if card.data is None:
        names = (
            'population',
            'sites',
            'cameras',
            'quality',
            'rejects',
            'flow',
            'partition',
            'disjoint',
            'missing_data',
            'label',
            'unrecorded',
        )
        return dict.fromkeys((*names, 'comparison'), '')
    data, manifest = card.data, card.data.manifest
    known = [NAMES[name].lower() for name in COLUMNS if column(data, name).recorded]
    unknown = [NAMES[name].lower() for name in unrecorded(data)]
    sizes = joined(f'{name} {count(data.total("patients", split=name))}' for name in data.splits)
    site, camera = column(data, 'site'), column(data, 'camera')
    return {
        'population': f'“{nice(data.name)}”: {plural(data.total("patients") or 0, "patient")}, described by {joined(known)}.'
        if known
        else '',
        'unrecorded': f'Not recorded: {joined(unknown)}.' if unknown else '',
        'sites': plural(len(site.shown), 'site') + ' of at least 20 patients.' if site.recorded else '',
        'cameras': f'Cameras: {joined(map(nice, list(camera.shown)[:5]))}.' if camera.recorded and camera.shown else '',
        'quality': _duplicates(manifest),
        'rejects': _rejects(manifest),
        'flow': f'Patients: {sizes}.' if sizes else '',
        'partition': f'Patients were divided at random, once: {sizes}.'
        if sizes and not _given(manifest)
        else f'The dataset came divided: {sizes}.'
        if sizes
        else '',
        'disjoint': 'By patient: nobody is in two of them, nor are two who share a picture.' if sizes else '',
        'missing_data': 'An image without the label is left out of that label; people of whom a column is unknown are a row of their own.',
        'label': _label(card),
        'comparison': _comparison(card),
    }


def _given(manifest: Mapping[str, Any]) -> bool:
    options = (manifest.get('provenance') or {}).get('options') or {}
    return bool(options.get('split_column'))


def _duplicates(manifest: Mapping[str, Any]) -> str:
    found = manifest.get('duplicates')
    if not isinstance(found, Mapping):
        return ''
    exact, near = (plural(int(found.get(f'{kind}_groups') or 0), 'group') for kind in ('exact', 'near'))
    return f'Pictures found twice: {exact} alike, {near} near; kept in one split.'


def _rejects(manifest: Mapping[str, Any]) -> str:
    rejects, files = manifest.get('rejects') or {}, manifest.get('files') or {}
    if 'count' not in rejects:
        return ''
    of = f' of {plural(int(files["found"]), "file")}' if files.get('found') is not None else ''
    return f'{count(rejects["count"])}{of} rejected, each with its reason.'


def _label(card: Card) -> str:
    assert card.data is not None
    parts = []
    for label in card.labels[:5]:
        known = card.data.classes(label)
        if known:
            classes = joined(f'{"few" if n is None else count(n)} {card_labels.class_words(name, known)}' for name, n in known.items())
            parts.append(f'“{nice(label)}”, images: {classes}')
    return '; '.join(parts)


def _comparison(card: Card) -> str:
    """How common each class is where it was trained and where it was judged."""
    assert card.data is not None
    if not {'train', 'test'} <= set(card.data.splits):
        return ''
    parts = []
    for label in card.labels[:5]:
        pair = [card.data.classes(label, split=split) for split in ('train', 'test')]
        if not all(pair) or any(None in one.values() for one in pair):
            continue
        totals = [sum(n or 0 for n in one.values()) for one in pair]
        for value in list(pair[0])[1:4]:
            shares = [percent(one.get(value) or 0, total) for one, total in zip(pair, totals, strict=True)]
            words = card_labels.class_words(value, pair[0])
            parts.append(f'“{nice(label)}”, {words}: {shares[0]} of images in train, {shares[1]} in test')
    return '; '.join(parts)


def _validation(card: Card) -> dict[str, str]:
    one = card.main
    empty = ('performance', 'subgroups', 'metrics', 'uncertainty', 'thresholds', 'power', 'clusters', 'external', 'diagnostic', 'failures')
    more = ('differences', 'updating', 'robustness', 'ensemble', 'explanation')
    found = dict.fromkeys((*empty, *more), '') | {'ensemble': 'None: this is one model.'}
    if one is None:
        return found
    tables = one.tables
    metrics = list(dict.fromkeys(row.metric for row in tables.rows if not row.by))
    clusters = [by for by in tables.by if set(by.split('+')) & {'site', 'country', 'camera'}]
    return found | {
        'performance': card_validation.overall(one),
        'subgroups': f'By {joined(card_validation.by_name(by).lower() for by in tables.by)}, each group with its interval.'
        if tables.by
        else '',
        'metrics': joined(metric_name(name) for name in metrics) + '.',
        'uncertainty': f'{100 * tables.interval:.0f} % intervals from {count(tables.replicates)} resamplings of whole patients.',
        'thresholds': _thresholds(card),
        'power': ' '.join(clean(power.sentence) for power in card_validation.blind_spots(one)[:1]),
        'clusters': f'Judged by {joined(card_validation.by_name(by).lower() for by in clusters)}.' if clusters else '',
        'external': ' '.join(card_validation.overall(other) for other in card.external[:3]),
        'differences': f'Also judged on {joined(f"“{clean(other.dataset)}”" for other in card.external)}.' if card.external else '',
        'diagnostic': _diagnostic(card),
        'failures': 'The table of confusion and the surest mistakes are in report.html.' if tables.confusion else '',
        'updating': _updating(one),
        'robustness': 'Images unlike those it was trained on are looked for.' if (one.uncertainty and one.uncertainty.strange) else '',
    }


def _updating(one: Evaluation) -> str:
    """What a temperature from validation does to calibration; the weights stay as they are."""
    found = next(iter(one.uncertainty.temperature.values()), None) if one.uncertainty else None
    if found is None or found.value is None or found.before.get('ECE') is None:
        return ''
    before, after = (number(which.get('ECE'), metric='ECE') for which in (found.before, found.after))
    return (
        f'Tried, not built in: a temperature of {number(found.value)} from validation takes the calibration error from {before} to {after}.'
    )


def _thresholds(card: Card) -> str:
    assert card.tables is not None
    entries = [entry for entry in card.tables.thresholds.values() if entry.get('value') is not None]
    if not entries:
        return ''
    return f'Chosen on the split “{clean(entries[0].get("chosen_on"))}” by the rule {clean(entries[0].get("rule"))}, one for everybody.'


def _diagnostic(card: Card) -> str:
    assert card.tables is not None
    parts = []
    for name in ('sensitivity', 'specificity', 'kappa_quadratic', 'accuracy', 'MAE'):
        row = card.tables.find(metric=name)
        if row is not None and row.value is not None:
            parts.append(f'{metric_name(name)} {interval(row.value, row.low, row.high, metric=name)}')
    where = ', mean over the classes' if card.tables.overall == MACRO else ''
    return f'{", ".join(parts)}{where}.' if parts else ''


def _origin(card: Card) -> dict[str, str]:
    run = card.subject
    data = run.config.get('data')
    data = data if isinstance(data, Mapping) else {}
    share = data.get('fraction', 1.0)
    versions = run.environment.get('versions')
    found, untouched = card.main.remedies if card.main else None, 'Nothing was done.' if data else ''
    return {
        'preprocessing': _preprocessing(card, data),
        'subset': f'{percent(share, 1)} of the training patients were used.' if share != 1.0 else 'No subset was taken.' if data else '',
        'model': f'{card_scope.model_words(run)}.'.capitalize() if run.config else '',
        'initialisation': _initialisation(card),
        'training': _training(run, data),
        'selection': _selection(run),
        'imbalance': card_means.in_training(run.config) or untouched,
        'fairness': ' '.join(filter(None, (card_means.in_training(run.config), card_means.measured(found)))) or untouched,
        'predicting': '`retfound predict` with these weights gives the same numbers.' if card.weights else '',
        'weights': f'Checkpoint of step {card.weights.step}, SHA-256 {card.weights.sha256[:16] or "not kept"}…' if card.weights else '',
        'code': card_origin.code_commit(card),
        'versions': clean(', '.join(f'{name} {version}' for name, version in list(versions.items())[:6]))
        if isinstance(versions, Mapping)
        else '',
        'config': f'Configuration {card.config_hash[:16]}…' if card.config_hash else '',
    }


def _preprocessing(card: Card, data: Mapping[str, Any]) -> str:
    options = ((card.data.manifest.get('provenance') or {}).get('options') or {}) if card.data else {}
    side = options.get('shorter_side')
    stored = f'Stored with a shorter side of {side} px; ' if side else ''
    return (
        f'{stored}read at {card.image_side} px, scaled by fixed mean and spread; alike for everybody.' if card.image_side and data else ''
    )


def _initialisation(card: Card) -> str:
    if card.run is None:
        return 'At random.' if not card.subject.config.get('init_from') else 'From earlier weights.'
    if card.pretrain is not None:
        return f'From its pretraining ({card.pretrain.task_class or "a run"}).'
    return 'From earlier weights.' if card.run.config.get('init_from') else 'At random.' if card.run.config else ''


def _training(run: TrainingRun, data: Mapping[str, Any]) -> str:
    optim, steps = run.config.get('optim'), run.config.get('steps')
    if not isinstance(optim, Mapping) or not isinstance(steps, int):
        return ''
    augment = _AUGMENT.get(str(data.get('augment')), clean(data.get('augment')))
    words = [f'{plural(steps, "step")} of {plural(int(data.get("batch_size") or 0), "image")}', 'AdamW']
    words += [f'learning rate up to {float(optim["lr"]):g}'] if isinstance(optim.get('lr'), float) else []
    return ', '.join([*words, *([augment] if augment else [])]) + f', seed {clean(run.config.get("seed"))}.'


def _selection(run: TrainingRun) -> str:
    metrics = sorted({name.partition('/')[2] for name in run.curves if name.partition('/')[0] == run.config.get('eval_split')} - {''})
    if not metrics:
        return 'The last checkpoint was taken.' if run.config else ''
    by = clean(run.config.get('best_by') or 'its own metric')
    return f'The best checkpoint by the “{clean(run.config.get("eval_split"))}” split ({by}).'
