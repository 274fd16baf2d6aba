"""The cheaper recipes are one change each, see the same number of samples, and compile at each of their resolutions."""

from __future__ import annotations

import json

import jax
import pytest

from experiments import cheaper_mae
from retfound_jax.core import config as config_lib
from retfound_jax.train.config import assume
from retfound_jax.train.program import make_program


def differing(a: dict, b: dict, path: str = '') -> set[str]:
    """Dotted names of the fields in which two configurations differ."""
    if not isinstance(a, dict):
        return {path.strip('.')} if a != b else set()
    return {name for key in a for name in differing(a[key], b[key], f'{path}.{key}')}


@pytest.mark.parametrize(
    ('recipe', 'changed'),
    [
        (cheaper_mae.mask_85, {'task.model.mask_ratio'}),
        (cheaper_mae.decoder_1, {'task.model.decoder_depth'}),
        (cheaper_mae.progressive, {'data.resolution'}),
        (cheaper_mae.repeat_2, {'data.repeat'}),
        (cheaper_mae.all_together, {'task.model.mask_ratio', 'task.model.decoder_depth', 'data.resolution', 'data.repeat'}),
    ],
)
def test_a_recipe_changes_what_it_says_and_nothing_else(recipe, changed: set[str]) -> None:
    as_json = [json.loads(config_lib.to_json(config)) for config in (cheaper_mae.baseline(), recipe())]
    assert differing(*as_json) - {'name'} == changed


@pytest.mark.parametrize('recipe', cheaper_mae.RECIPES)
def test_stages_cover_the_steps_and_trace(recipe) -> None:
    found = cheaper_mae.stages(recipe())
    assert sum(share for share, _ in found) == pytest.approx(1.0)
    assert [config.data.image_size for _, config in found] == list(recipe().data.sizes)
    for _, config in found:
        program = make_program(assume(config))
        _, metrics = jax.eval_shape(program.step.compiled, program.abstract_state(), program.abstract_batch(), jax.numpy.uint32(0))
        assert metrics['loss'].shape == ()
