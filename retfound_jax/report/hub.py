"""The metadata of a model card on the Hugging Face Hub: licence, tags, and every number with its interval as `model-index`; as YAML.

The YAML is written here and by one rule: every text stands in double quotes with all but printable ASCII escaped, so that no name from a
label file can be read as anything else. YAML 1.1 and 1.2 read the same from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from retfound_jax.report.card import Card
from retfound_jax.report.card_origin import energy
from retfound_jax.report.card_read import Evaluation
from retfound_jax.report.tables import GAP, Row, Tables
from retfound_jax.report.words import clean, metric_name

LIBRARY = 'retfound-jax'
NO_LICENCE = 'unknown'  # the Hub's word for it
_TAGS = ('medical', 'ophthalmology', 'retina', 'jax', 'vision-transformer', 'research-only')
# The Hub's name of a metric where it has one.
METRICS = {'AUROC': 'roc_auc', 'AUPRC': 'average_precision', 'F1': 'f1', 'accuracy': 'accuracy', 'balanced_accuracy': 'balanced_accuracy',
           'sensitivity': 'recall', 'specificity': 'specificity', 'Brier': 'brier_score', 'ECE': 'expected_calibration_error', 'MAE': 'mae',
           'RMSE': 'rmse', 'R2': 'r_squared', 'pearson': 'pearsonr', 'kappa_quadratic': 'quadratic_kappa'}  # fmt: skip
_PIPELINE = {'regress': 'other'}  # the Hub knows no task that gives a number from an image
_PLAIN = re.compile(r'[a-z][a-z0-9_-]*')
_SPOKEN = frozenset({'y', 'n', 'yes', 'no', 'on', 'off', 'true', 'false', 'null'})  # plain keys that YAML 1.1 takes for something else
_ESCAPES = {'"': '\\"', '\\': '\\\\', '\n': '\\n', '\t': '\\t'}


def metadata(card: Card) -> dict[str, Any]:
    """What stands between the dashes at the head of `card.md`; what is not known is left out, but for the licence, which is `unknown`."""
    licence = card.facts.get('licence') or NO_LICENCE
    found: dict[str, Any] = {'license': licence}
    found |= {
        key: clean(card.facts.get(ours))
        for key, ours in (('license_name', 'licence_name'), ('license_link', 'licence_link'))
        if card.facts.get(ours)
    }
    found |= {'library_name': LIBRARY, 'pipeline_tag': _pipeline(card), 'tags': list(_TAGS)}
    names = list(dict.fromkeys(slug(data.name) for data in (card.data, card.pretrain_data) if data is not None))
    found |= {'datasets': names} if names else {}
    rows = [row for one in card.evaluations for row in one.tables.rows if row.value is not None and not row.by]
    found |= {'metrics': list(dict.fromkeys(_metric(row.metric) for row in rows))} if rows else {}
    found |= _emissions(card)
    results = [result for one in card.evaluations for result in _results(card, one)]
    return found | ({'model-index': [{'name': clean(card.name), 'results': results}]} if results else {})


def front_matter(card: Card) -> str:
    """The metadata as YAML between its dashes."""
    return f'---\n{yaml(metadata(card))}---\n'


def yaml(value: Mapping[str, Any]) -> str:
    """A mapping of texts, numbers, lists and mappings as YAML in block style."""
    return ''.join(f'{line}\n' for line in _lines(value))


def slug(name: str) -> str:
    """A name as the Hub allows it for a dataset."""
    return re.sub(r'[^A-Za-z0-9._]+', '-', name).strip('-.')[:96] or 'unnamed'


def _pipeline(card: Card) -> str:
    if card.run is None:
        return 'image-feature-extraction'
    return _PIPELINE.get(card.tables.kind if card.tables else '', 'image-classification')


def _metric(name: str) -> str:
    return METRICS.get(name, slug(name).lower())


def _emissions(card: Card) -> dict[str, Any]:
    spent = energy(card)
    if spent is None or spent.grams is None:
        return {}
    return {
        'co2_eq_emissions': {
            'emissions': spent.grams,
            'source': clean(spent.basis),
            'hardware_used': clean(card.subject.environment.get('hardware', '')),
        }
    }


def _results(card: Card, one: Evaluation) -> list[dict[str, Any]]:
    """One result for everybody and one for each group: all that the table holds but the gaps and what is withheld."""
    groups = dict.fromkeys((row.by, row.group) for row in one.tables.rows if row.group != GAP and row.value is not None)
    return [_result(card, one, by, group) for by, group in groups if _kept(one.tables, by, group)]


def _kept(tables: Tables, by: str, group: str) -> list[Row]:
    """Both levels for everybody; for a group, the level that a clinician decides about."""
    return [
        row for row in tables.rows if (row.by, row.group) == (by, group) and row.value is not None and (not by or row.level == tables.level)
    ]


def _result(card: Card, one: Evaluation, by: str, group: str) -> dict[str, Any]:
    name = one.dataset if one.external else card.data.name if card.data else 'unnamed'
    dataset = {'name': clean(name), 'type': slug(name)}
    dataset |= {'config': clean(f'{by}={group}')} if by else {}
    dataset |= {'split': clean(one.tables.split)}
    dataset |= {'revision': clean(one.tables.fingerprint)} if one.tables.fingerprint else {}
    return {
        'task': {
            'type': 'image-regression' if one.tables.kind == 'regress' else 'image-classification',
            'name': clean(', '.join(one.tables.labels)),
        },
        'dataset': dataset,
        'metrics': [_entry(row, level=one.tables.interval) for row in _kept(one.tables, by, group)],
    }


def _entry(row: Row, *, level: float) -> dict[str, Any]:
    about: dict[str, Any] = {'level': row.level, 'target': clean(row.target), 'interval': level, 'low': row.low, 'high': row.high}
    about |= {'n_patients': row.n_patients, 'n_images': row.n_images, 'n_positive': row.n_positive}
    known = {name: value for name, value in about.items() if value is not None}
    return {'type': _metric(row.metric), 'name': metric_name(row.metric), 'value': row.value, 'args': known, 'verified': False}


def _lines(value: Mapping[str, Any] | Sequence[Any], indent: str = '') -> list[str]:
    lines: list[str] = []
    entries = [(f'{_key(key)}:', item) for key, item in value.items()] if isinstance(value, Mapping) else [('-', item) for item in value]
    for head, item in entries:
        if not isinstance(item, Mapping | list):
            lines.append(f'{indent}{head} {_scalar(item)}')
        elif not item:
            lines.append(f'{indent}{head} {"{}" if isinstance(item, Mapping) else "[]"}')
        elif head == '-':  # the first line of what it holds stands beside the dash
            inner = _lines(item, f'{indent}  ')
            lines += [f'{indent}- {inner[0].strip()}', *inner[1:]]
        else:
            lines += [f'{indent}{head}', *_lines(item, f'{indent}  ')]
    return lines


def _key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) and key not in _SPOKEN else _quoted(key)


def _scalar(value: Any) -> str:
    if value is None:
        return 'null'
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        mantissa, letter, exponent = repr(value).partition('e')  # YAML 1.1 takes 1e-05 for a text
        return f'{mantissa}{"" if "." in mantissa or not letter else ".0"}{letter}{exponent}'
    return _quoted(str(value))


def _quoted(text: str) -> str:
    return '"' + ''.join(_escaped(char) for char in clean(text)) + '"'


def _escaped(char: str) -> str:
    code = ord(char)
    if char in _ESCAPES:
        return _ESCAPES[char]
    if 0x20 <= code < 0x7F:
        return char
    return f'\\x{code:02x}' if code < 0x100 else f'\\u{code:04x}' if code < 0x10000 else f'\\U{code:08x}'
