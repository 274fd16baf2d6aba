"""`retfound bench evaluate` in small: it times ours beside scikit-learn and writes what it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_jax.cli.main import main
from retfound_jax.core.files import read_json


def test_an_evaluation_is_timed_beside_scikit_learn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ['--images=1000', '--replicates=20', '--permutations=5', '--peer_replicates=3']
    assert main(['bench', 'evaluate', *small, f'--json={tmp_path / "found.json"}']) == 0
    found = read_json(tmp_path / 'found.json')
    assert len(found['seconds']) == 4 and all(part['wall'] > 0 and part['cpu'] > 0 for part in found['seconds'].values())
    assert found['ratio'] > 0
    assert (found['images'], found['groups'], found['replicates']) == (1000, 5, 20)
    assert 'times as fast as scikit-learn' in capsys.readouterr().out
