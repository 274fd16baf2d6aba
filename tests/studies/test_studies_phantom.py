"""Every table's twin from weights to the written table: all paths of the code, on drawn photographs."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.tables import _common
from experiments.tables import pretraining_methods as ways
from retfound_jax.cli import _tables
from retfound_jax.cli import main as cli
from retfound_jax.train.loop import train

# Studies of groups have an effect to find and so take longer; they are run by test_studies_bias.py and test_studies_fairness.py.
TWINS = tuple(name for name in _tables.entries() if name.endswith('_phantom') and not name.startswith(('bias', 'fairness')))
WAYS = ('pretraining_methods_phantom', 'pretraining_visits_phantom')


@pytest.fixture(scope='module')
def mae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for the twins."""
    folder = tmp_path_factory.mktemp('weights') / 'mae'
    train(_common.tiny_mae(), workdir=folder)
    return folder


def given(name: str, *, mae: Path, runs: Path) -> list[str]:
    """--weights of every method; for a comparison of ways of pretraining, each way's own."""
    words = []
    for method in _tables.load(name).methods:
        if not method.weights:
            continue
        weights = mae
        if name in WAYS and method.name != 'mae':
            weights = runs / method.name
            train(ways.pretraining(method.name, size='tiny', images=32), workdir=weights)
        words += ['--weights', f'{method.name}={weights}']
    return words


@pytest.mark.slow
@pytest.mark.parametrize('name', TWINS)
def test_a_twin_runs_from_weights_to_its_table(name: str, mae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = given(name, mae=mae, runs=tmp_path)
    study = _tables.load(name)
    command = ['table', name, '--workdir', str(tmp_path / 'study'), '--run', *weights]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert 'missing' not in printed.splitlines()[-1] and 'drawn' in printed
    assert len(list((tmp_path / 'study' / 'cells').glob('*/result.json'))) == len(study.cells())
    written = {path.name: path.read_bytes() for path in (tmp_path / 'study' / 'tables').iterdir()}
    assert {f'{study.name}.{suffix}' for suffix in ('md', 'tex', 'csv', 'json')} <= set(written)
    assert cli.main(command) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / 'study' / 'tables').iterdir()} == written


def test_every_table_has_a_twin_of_its_kind() -> None:
    """Each file of tables that public data are needed for has a twin; experiments/tables/real.py is run on real photographs."""
    entries = _tables.entries()
    modules = {entry.module for entry in entries.values()} - {'experiments.tables.real'}
    assert modules == {entry.module for name, entry in entries.items() if name.endswith('_phantom')}
