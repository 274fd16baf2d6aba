"""What compares all images of a batch: eight devices give the step of one, views included; and what it learns."""

from __future__ import annotations

from pathlib import Path

import contrastive_devices
import contrastive_probe
import many_devices
import pytest

MESHES = ((8, 1, 1), (2, 2, 2))


@pytest.mark.slow
@pytest.mark.parametrize('name', contrastive_devices.TASKS)
def test_eight_devices_give_the_steps_of_one(name: str) -> None:
    cases = [['step_is_that_of_one', name, *mesh] for mesh in MESHES]
    for case, failure in many_devices.results('contrastive_devices', cases, devices=8).items():
        assert not failure, f'{case}: {failure}'


@pytest.mark.slow
def test_features_of_simclr_tell_left_from_right_where_random_weights_do_not(tmp_path: Path) -> None:
    found = contrastive_probe.auroc('simclr', tmp_path / 'run')
    assert found['random'] < 0.7 and found['trained'] > 0.8 and found['trained'] > found['random'] + 0.2
