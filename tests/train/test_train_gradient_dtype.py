"""Gradients summed in bfloat16: the loss keeps its bits, and everything after the sum is float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import train_runs

from retfound_jax.core.config import override
from retfound_jax.core.errors import UsageError
from retfound_jax.train.config import align, assume
from retfound_jax.train.program import make_program


def one_step(*changes):
    config = override(train_runs.mae(), ['task.model.encoder.compute_dtype=bfloat16', 'optim.b2=0.999', *changes])
    program = make_program(assume(config))
    return program.step(program.init_state(), program.random_batch())


@pytest.mark.parametrize('accumulate', [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_loss_is_the_same_and_the_gradient_is_near(accumulate):
    (wide, metrics), (narrow, narrow_metrics) = (
        one_step(f'optim.gradient_dtype={dtype}', f'optim.accumulate={accumulate}') for dtype in ('float32', 'bfloat16')
    )
    np.testing.assert_array_equal(metrics['loss'], narrow_metrics['loss'])
    assert metrics['grad_norm'] != narrow_metrics['grad_norm']
    np.testing.assert_allclose(metrics['grad_norm'], narrow_metrics['grad_norm'], rtol=2**-8)  # bfloat16 keeps eight bits
    leaves = jax.tree.leaves((narrow.params, narrow.opt_state, narrow_metrics))
    assert {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)} == {jnp.dtype('float32')}
    assert jax.tree.structure(wide) == jax.tree.structure(narrow)


def test_a_model_that_computes_in_float32_is_refused():
    with pytest.raises(UsageError, match='the task computes in float32'):
        align(override(train_runs.mae(), ['optim.gradient_dtype=bfloat16']))
