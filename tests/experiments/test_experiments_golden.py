"""The text of every shipped configuration: a change of a recipe shows in review, as a change of a file.

After a change that is meant: `RETFOUND_JAX_WRITE_GOLDEN=1 python -m pytest tests/experiments`.
"""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path

import jax
import pytest

from experiments import (
    cheaper_mae,
    finetune,
    linear_probe,
    odir5k,
    pretrain_dino,
    pretrain_green,
    pretrain_mae,
    pretrain_ssl,
    pretrain_temporal,
    quickstart,
)
from retfound_jax.core import config as config_lib
from retfound_jax.train.config import TrainConfig, align
from retfound_jax.train.state import abstract_params, model_spec

GOLDEN = Path(__file__).parent / 'golden'
STUDIES = (
    cheaper_mae,
    finetune,
    linear_probe,
    odir5k,
    pretrain_dino,
    pretrain_green,
    pretrain_mae,
    pretrain_ssl,
    pretrain_temporal,
    quickstart,
)
FUNCTIONS = [f for module in STUDIES for _, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]
SHIPPED = [function for function in FUNCTIONS if inspect.signature(function).return_annotation == 'TrainConfig']
NAMES = [f'{function.__module__}:{function.__name__}' for function in SHIPPED if not function.__name__.startswith('_')]


def golden(name: str) -> Path:
    return GOLDEN / f'{name.removeprefix("experiments.").replace(":", "-")}.json'


@pytest.mark.parametrize('name', NAMES)
def test_configuration_has_its_golden_text_and_reads_back(name):
    config = config_lib.load_function(name)()
    text = config_lib.to_json(config)
    if os.environ.get('RETFOUND_JAX_WRITE_GOLDEN'):
        golden(name).write_text(text)
    assert text == golden(name).read_text()
    assert config_lib.from_dict(TrainConfig, json.loads(text)) == config


@pytest.mark.parametrize('name', NAMES)
def test_configuration_fits_together_and_says_what_it_is(name):
    function = config_lib.load_function(name)
    align(function())
    assert function.__doc__


def test_no_golden_text_is_left_over():
    assert {path.name for path in GOLDEN.iterdir()} == {golden(name).name for name in NAMES}


@pytest.mark.parametrize(
    ('name', 'millions'), [('vit_s16', 22 + 26), ('vit_b16', 86 + 26), ('vit_l16', 303 + 26), ('vit_h14', 631 + 26)]
)
def test_pretraining_models_have_the_published_size(name, millions):
    """Encoder as published (86, 303, 631 M) plus MAE's decoder of about 26 M."""
    config = config_lib.load_function(f'experiments.pretrain_mae:{name}')()
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(model_spec(config.task)))) / 1e6
    assert count == pytest.approx(millions, rel=0.03)
