"""The comparison of an accelerator with the CPU: its arithmetic, and that it sees what bfloat16 does and nothing else."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from retfound_jax.data.config import DataConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.speed import parity
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import TrainConfig

ENCODER = ViTConfig(image_size=32, patch_size=8, width=32, depth=2, heads=2)
TASKS = {
    'mae': MAETask(model=MAEConfig(encoder=ENCODER, decoder_width=16, decoder_depth=1, decoder_heads=2)),
    'classify': ClassifyTask(model=ENCODER, labels=('grade',)),
}


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='what an accelerator gives is what the comparison is for')
@pytest.mark.parametrize('name', TASKS)
def test_cpu_is_itself_in_float32_and_a_little_off_in_bfloat16(name: str) -> None:
    config = TrainConfig(name='small', task=TASKS[name], data=DataConfig(path='DATASET', image_size=32), optim=OptimConfig(), steps=1)
    exact, as_it_is, half = parity.parity(config, batch=2)
    assert exact['loss_difference'] == exact['gradient_difference'] == 0.0
    assert as_it_is['gradient_difference'] < 1e-5
    assert 1e-4 < half['gradient_difference'] < 0.1 and 0 < half['loss_difference'] < 0.02
    assert half['worst_difference'] >= half['gradient_difference']


def test_differences_are_relative_norms_over_all_and_of_the_worst() -> None:
    known = (2.0, {'a': np.array([3.0, 4.0]), 'b': {'c': np.array([12.0])}})
    found = (2.5, {'a': np.array([3.0, 4.5]), 'b': {'c': np.array([12.0])}})
    record = parity._compare('bfloat16', jax.devices()[0], known, found)
    assert record['loss_difference'] == pytest.approx(0.25)
    assert record['gradient_difference'] == pytest.approx(0.5 / 13)
    assert record['worst_parameter'] == 'a' and record['worst_difference'] == pytest.approx(0.1)


@pytest.mark.parametrize('name', TASKS)
def test_only_the_arithmetic_changes(name: str) -> None:
    way = parity.GPU_WAYS['bfloat16, attention by cuDNN']
    changed = parity.arithmetic(TASKS[name], way)
    assert changed != TASKS[name] and parity.arithmetic(changed, parity.WAYS['float32']) == TASKS[name]
    encoder = getattr(changed.model, 'encoder', changed.model)
    assert (encoder.compute_dtype, encoder.attention) == ('bfloat16', 'cudnn')
    assert getattr(changed.model, 'decoder_attention', 'cudnn') == 'cudnn'
