"""What compares all images of a batch: eight devices give the step of one, views included; and what it learns."""

from __future__ import annotations

import contrastive_devices
import many_devices
import pytest

MESHES = ((8, 1, 1), (2, 2, 2))


@pytest.mark.slow
@pytest.mark.parametrize('name', contrastive_devices.TASKS)
def test_eight_devices_give_the_steps_of_one(name: str) -> None:
    cases = [['step_is_that_of_one', name, *mesh] for mesh in MESHES]
    for case, failure in many_devices.results('contrastive_devices', cases, devices=8).items():
        assert not failure, f'{case}: {failure}'
