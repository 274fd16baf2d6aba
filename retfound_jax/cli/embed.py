"""`retfound embed`: photographs to the encoder's vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from retfound_jax.cli import _apply_flags
from retfound_jax.core.errors import UsageError

SUMMARY = 'embeddings of photographs: --weights RUN --source DIR|CSV|DATASET --out FILE.csv|FILE.parquet'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    _apply_flags.define(values)
    style = "retfound: the columns of RETFound's Feature.csv, name and feature_0, feature_1, ..."
    flags.DEFINE_enum('style', 'plain', ['plain', 'retfound'], style, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Writes a row a photograph: key, patient and the vector, one column of lists in parquet and one column a number in CSV."""
    from retfound_jax.cli._apply import Work

    retfound, is_csv = values.style == 'retfound', Path(values.out).suffix.lower() == '.csv'
    if retfound and not is_csv:
        raise UsageError(f'--style retfound is a CSV, and --out is {values.out}; give it the ending .csv')
    if retfound and values.keep:
        raise UsageError('--style retfound has the columns name and feature_0, ... and no other; leave out --keep or --style')
    work = Work(values)
    vector = 'feature' if is_csv else 'embedding'
    work.check_columns([f'{vector}_{place}' for place in range(work.model.config.width)] if is_csv else [vector])

    def columns(keys: list[str], known: dict[str, list[str]], vector_BD: np.ndarray) -> dict[str, Any]:
        return {'name': keys, vector: vector_BD} if retfound else {'key': keys, **known, vector: vector_BD}

    metadata = work.header(pool=work.model.config.pool, norm_twice=work.model.config.norm_twice)
    count = work.run(desc='embed', metadata=metadata, columns=columns, apply=work.model.vectors)
    print(f'{count} photographs, {work.model.config.width} numbers each, {work.model!r}: {work.out}')
