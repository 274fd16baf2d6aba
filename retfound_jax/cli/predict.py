"""`retfound predict`: photographs to probabilities, or to numbers in the label's unit."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from absl import flags

from retfound_jax.cli import _apply_flags

SUMMARY = 'probabilities for photographs: --weights RUN --source DIR|CSV|DATASET --out FILE.csv|FILE.parquet'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    _apply_flags.define(values)


def run(values: flags.FlagValues) -> None:
    """Writes a row a photograph: key, patient, a score for each class or label, and of one label the class it predicts."""
    from retfound_jax.cli._apply import Work

    work = Work(values)
    model = work.model
    model.check_head()
    scores = ['score'] if model.kind == 'regress' else [f'score:{name}' for name in model.score_names]
    work.check_columns([*scores, 'predicted'])
    if not model.names_known:
        shown = ', '.join(model.score_names[:3]) + (', ...' if len(model.score_names) > 3 else '')
        told = f'the weights do not say what their {len(model.score_names)} outputs mean, so they are called {shown}'
        print(f'{told}: give their names in the order of training with --classes', file=sys.stderr)

    def columns(keys: list[str], known: dict[str, list[str]], score_BY: np.ndarray) -> dict[str, Any]:
        made = {'key': keys, **known, **{name: score_BY[:, place] for place, name in enumerate(scores)}}
        if model.classes:
            made['predicted'] = [model.classes[place] for place in score_BY.argmax(axis=1)]
        return made

    count = work.run(desc='predict', metadata=work.header(names_known=model.names_known), columns=columns, apply=model.scores)
    print(f'{count} photographs, {model!r}: {work.out}')
