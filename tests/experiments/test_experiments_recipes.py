"""The published recipes, number by number, against tables typed from the sources and not from the code.

Whoever changes a base rate by accident finds it here; whoever changes it on purpose has to find the source that says so.
"""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
import recipes
from test_experiments_golden import NAMES

from retfound_jax.core import config as config_lib
from retfound_jax.data.config import DataConfig
from retfound_jax.data.device import prepare_batch
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.optim import learning_rate
from retfound_jax.train.loop import train
from retfound_jax.train.state import abstract_params, model_spec


def made(name):
    return config_lib.load_function(f'experiments.{name}')()


def field(config, path):
    for part in path.split('.'):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(('name', 'table'), recipes.TABLES.items())
def test_recipe_has_the_published_numbers(name, table):
    config = made(name)
    assert {path: field(config, path) for path in table} == {
        path: pytest.approx(value) if isinstance(value, float) else value for path, value in table.items()
    }


@pytest.mark.parametrize(('name', 'peak'), recipes.PEAKS.items())
def test_peak_rate_is_the_published_one(name, peak):
    config = made(name)
    rate = learning_rate(dataclasses.replace(config.optim, warmup_steps=10), steps=100, batch_size=config.data.batch_size)
    assert float(rate(10)) == pytest.approx(peak, rel=1e-3)


@pytest.mark.parametrize(('name', 'millions'), recipes.PARAMETERS.items())
def test_model_has_the_published_size(name, millions):
    task = made(name).task
    task = dataclasses.replace(task, classes=tuple('01234')) if hasattr(task, 'classes') else task
    params = abstract_params(model_spec(task))
    trained = {part: params[part] for part in ('encoder', 'head') if part in params}
    assert sum(leaf.size for leaf in jax.tree.leaves(trained)) / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize('name', recipes.TABLES)
def test_published_recipe_says_source_published_unsure_and_measured(name):
    said = config_lib.load_function(f'experiments.{name}').__doc__
    for word in ('Source:', 'Published', 'Unsure:', 'Here:'):
        assert word in said, f'{name} says no "{word}"'
    assert re.search(r'(Nature|arXiv \d{4}\.\d{5}|as `\w+`|as experiments\.\w+:\w+)', said)
    assert re.search(r'not yet measured|[Mm]easured \d{4}-\d\d-\d\d', said)


@pytest.mark.parametrize('name', NAMES)
def test_every_experiment_says_whether_it_was_measured(name):
    module, function = name.split(':')
    words = config_lib.load_function(name).__doc__ + (config_lib.importlib.import_module(module).__doc__ or '')
    assert re.search(r'[Nn]ot yet measured|[Mm]easured (\d{4}-\d\d-\d\d|as part of|here)|\d+ minutes', words), name


def test_what_no_source_confirms_is_marked():
    """The one schedule that we have from memory alone."""
    for name in ('pretrain_mae:retfound_cfp', 'pretrain_mae:retfound_oct'):
        assert re.search(r'(?s)Unsure:.*unconfirmed', config_lib.load_function(f'experiments.{name}').__doc__)


def test_no_two_recipes_share_a_name():
    assert len({made(name).name for name in recipes.TABLES}) == len(recipes.TABLES)


def test_the_small_token_reconstruction_runs(tmp_path):
    config = made('pretrain_green:small_cpu')
    data = dataclasses.replace(config.data, path='', phantom=PhantomConfig(patients=8, image_size=64))
    assert isinstance(data, DataConfig)
    done = train(dataclasses.replace(config, data=data, steps=3, eval_every=0), workdir=tmp_path)
    assert done.step == 3 and done.metrics['loss'] > 0


@pytest.mark.parametrize('name', recipes.TABLES)
def test_loss_and_gradient_of_the_full_size_fit_together(name):
    """Shapes alone, nothing is computed: two photographs through the model as published."""
    task, data = made(name).task, made(name).data
    task = dataclasses.replace(task, classes=tuple('01234')) if hasattr(task, 'classes') else task
    spec = model_spec(task)
    batch = {'image': jnp.zeros((2, data.loaded_size, data.loaded_size, 3), jnp.uint8), 'labels': jnp.zeros((2, 1))}

    def loss(params, key):
        return task.loss(spec.merge(params), prepare_batch(batch, key=key, config=data), key=key)

    def predict(params):
        return task.predict(spec.merge(params), prepare_batch(batch, key=None, config=data))

    grads, _ = jax.eval_shape(jax.grad(loss, has_aux=True), abstract_params(spec), jax.random.key(0))
    assert jax.tree.structure(grads) == jax.tree.structure(abstract_params(spec))
    score = jax.eval_shape(predict, abstract_params(spec))['score']
    assert score.shape == (2, 5 if task.labels else 1)
