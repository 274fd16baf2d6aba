"""`retfound bench evaluate`: how long the intervals and comparisons of a large test set take, beside scikit-learn on the same rows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from retfound_jax.core import environment

if TYPE_CHECKING:
    from retfound_jax.evals.predictions import Predictions

SUMMARY = 'patient bootstrap and permutations of simulated predictions: --images 100000 --groups 5 --replicates 1000'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_integer('images', 100_000, 'images, two a patient', flag_values=values, lower_bound=100)
    flags.DEFINE_integer('groups', 5, 'groups of patients', flag_values=values, lower_bound=2, upper_bound=64)
    flags.DEFINE_integer('replicates', 1000, 'bootstrap resamples of the patients', flag_values=values, lower_bound=1)
    flags.DEFINE_integer('permutations', 1000, 'of the groups among the patients', flag_values=values, lower_bound=1)
    flags.DEFINE_integer('peer_replicates', 10, 'resamples that scikit-learn is timed on', flag_values=values, lower_bound=1)
    flags.DEFINE_string('json', '', 'file for the result as a JSON line', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Times each part once and prints a line for each as it is done; writes JSON where asked."""
    from retfound_jax.core.files import atomic_write

    print(f'{"":<46}{"time":>9}{"of all cores":>14}')
    found = _measure(values)
    print(f'AUROC alone is {found["ratio"]:.1f} times as fast as scikit-learn, of which {values.peer_replicates} resamples were timed')
    if values.json:
        atomic_write(values.json, json.dumps(found | environment.facts(devices=f'{len(os.sched_getaffinity(0))} CPU cores')) + '\n')


def _measure(values: flags.FlagValues) -> dict[str, Any]:
    from dataclasses import replace

    from retfound_jax.evals.tables import EvalConfig, evaluate

    predictions = _simulated(values.images, groups=values.groups)
    config = EvalConfig(by=('ethnicity',), replicates=values.replicates, permutations=1)
    more, resamples = replace(config, permutations=values.permutations), values.peer_replicates
    ours = _timed('AUROC of everybody and each group', lambda: _auroc(predictions, replicates=values.replicates))
    name = f'the same by scikit-learn, {resamples} resamples'
    peer = _timed(name, lambda: _peer(predictions, replicates=resamples))
    rest = {
        name: _timed(name, lambda how=how: evaluate(predictions, validation=predictions, config=how))
        for name, how in (('all metrics by image and patient, by group', config), ('the same and permutations', more))
    }
    sizes = {'images': values.images, 'groups': values.groups, 'replicates': values.replicates, 'permutations': values.permutations}
    seconds = {'AUROC': ours, 'scikit-learn': {'resamples': resamples, **peer}, **rest}
    return {**sizes, 'seconds': seconds, 'ratio': peer['wall'] * values.replicates / resamples / ours['wall']}


def _timed(name: str, work: Callable[[], object]) -> dict[str, float]:
    """Seconds on the clock, and seconds of all cores, which other work on the machine stretches less."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    found = {'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu}
    print(f'{name:<46}{found["wall"]:7.1f} s{found["cpu"]:12.1f} s', flush=True)
    return found


def _simulated(images: int, *, groups: int) -> Predictions:
    """A finding of one patient in ten, scores that two eyes share in part."""
    import numpy as np

    from retfound_jax.evals.logistic import expit
    from retfound_jax.evals.predictions import Predictions

    rng = np.random.default_rng(0)
    patient = np.arange(images) // 2
    patients = int(patient[-1]) + 1
    label = (rng.random(patients) < 0.1)[patient].astype(float)
    score = expit(1.5 * label - 2.5 + 0.7 * rng.normal(size=patients)[patient] + 0.7 * rng.normal(size=images))
    columns = {
        'key': np.arange(images).astype(str),
        'patient': patient.astype(str),
        'ethnicity': np.array([f'group {g}' for g in range(groups)])[rng.integers(groups, size=patients)][patient],
    }
    shared = {'split': 'test', 'step': 0, 'fingerprint': '', 'classes': (), 'labels': ('finding',)}
    return Predictions(kind='multi', columns=columns, label_NY=label[:, None], score_NS=score[:, None], **shared)


def _rows(predictions: Predictions) -> list[tuple[Any, Any, Any]]:
    """Label, score and patient of everybody, then of each group."""
    import numpy as np

    label_N, score_N, group_N = predictions.label_NY[:, 0] > 0, predictions.score_NS[:, 0], predictions.columns['ethnicity']
    patient_N = np.unique(predictions.columns['patient'], return_inverse=True)[1]
    masks = [np.ones(len(label_N), bool), *(group_N == group for group in np.unique(group_N))]
    return [(label_N[mask], score_N[mask], patient_N[mask]) for mask in masks]


def _auroc(predictions: Predictions, *, replicates: int) -> None:
    from retfound_jax.evals import metrics
    from retfound_jax.evals.bootstrap import map_blocks, patient_counts

    rows = _rows(predictions)
    counts_PR = patient_counts(int(rows[0][2].max()) + 1, replicates=replicates)
    for label, score, patient in rows:
        order = metrics.make_order(label, score=score)
        map_blocks(lambda weights_NR, order=order: metrics.rank(order, weights_NR=weights_NR).auroc(), counts=counts_PR, patient=patient)


def _peer(predictions: Predictions, *, replicates: int) -> None:
    """One weighting at a time, which spares scikit-learn the copies of rows."""
    from sklearn.metrics import roc_auc_score

    from retfound_jax.evals.bootstrap import patient_counts

    rows = _rows(predictions)
    counts_PR = patient_counts(int(rows[0][2].max()) + 1, replicates=replicates)
    for label, score, patient in rows:
        for r in range(replicates):
            roc_auc_score(label, score, sample_weight=counts_PR[patient, r].astype(float))
