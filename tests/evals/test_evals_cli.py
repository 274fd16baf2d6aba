"""`retfound evaluate`, with a model in place of a trained one, and (slow) after a real run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retfound_jax.cli.main import main
from retfound_jax.core.files import read_json
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.evals.predictions import read_predictions
from retfound_jax.train import checkpoint

DATA = DataConfig(phantom=PhantomConfig(patients=16), image_size=32, batch_size=8, labels=('sex',))
RUN = SimpleNamespace(
    step=3,
    config=SimpleNamespace(data=DATA, eval_split='val'),
    task=SimpleNamespace(kind='single', labels=('sex',), class_names=('F', 'M')),
    predict=lambda batch: {'score': np.tile([0.4, 0.6], (len(batch['image']), 1))},
)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_run` answers with a constant model."""
    monkeypatch.setattr(checkpoint, 'load_run', lambda workdir, which: RUN)


def test_writes_tables_and_says_where(loaded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        'evaluate',
        '--workdir',
        str(tmp_path),
        '--by',
        'age,sex',
        '--replicates',
        '20',
        '--permutations',
        '20',
        '--min_n',
        '1',
        '--threshold',
        'sensitivity=0.8',
    ]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert 'AUROC by age_band' in shown and 'metrics_test.json' in shown and "positive class is 'M'" in shown
    table = read_json(tmp_path / 'tables' / 'metrics_test.json')
    assert table['threshold']['M']['rule'] == 'sensitivity=0.8' and table['by'] == ['age_band', 'sex']
    assert {path.name for path in (tmp_path / 'predictions').iterdir()} == {'test.parquet', 'val.parquet'}


@pytest.mark.parametrize(
    ('flag', 'said'),
    [
        ('--by=sits', 'did you mean "site"'),
        ('--split=tset', 'did you mean "test"'),
        ('--threshold=best', 'youden, or sensitivity=0.9'),
        ('--dataset=absent_folder', 'is no directory'),
        ('--replicates=0', 'replicates'),
        ('--permutations=0', 'permutations'),
        ('--min_positive=0', 'min_positive'),
        ('--chekpoint=best', 'did you mean "checkpoint"'),
    ],
)
def test_a_wrong_call_is_one_sentence_and_writes_nothing(
    loaded: None, flag: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['evaluate', '--workdir', str(tmp_path), flag]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_after_a_real_run(tmp_path: Path) -> None:
    from retfound_jax.evals.validation import validation_for
    from retfound_jax.models.vit import ViTConfig
    from retfound_jax.optim import OptimConfig
    from retfound_jax.tasks.classify import ClassifyTask
    from retfound_jax.train.config import TrainConfig
    from retfound_jax.train.loop import train

    task = ClassifyTask(labels=('sex',), model=ViTConfig(image_size=32, patch_size=16, width=16, depth=1, heads=2))
    train(
        TrainConfig(name='tiny', task=task, data=DATA, optim=OptimConfig(), steps=2), workdir=tmp_path, validation=validation_for('single')
    )
    assert main(['evaluate', '--workdir', str(tmp_path), '--replicates', '20']) == 0
    assert read_predictions(tmp_path / 'predictions' / 'test.parquet').step == 2
