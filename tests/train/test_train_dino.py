"""DINO and DINOv2 on several devices: centre, balance, neighbours and teacher are those of the global batch."""

from __future__ import annotations

import many_devices
import pytest

MESHES = ((8, 1, 1), (2, 2, 2))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dino', 'dinov2'])
def test_eight_devices_give_the_steps_of_one(name: str) -> None:
    cases = [['eight_are_as_one', name, *mesh] for mesh in MESHES]
    for case, failure in many_devices.results('dino_cases', cases, devices=8).items():
        assert not failure, f'{case}: {failure}'
