"""Values and gradients of DINO's and DINOv2's losses and head against torch's autograd, from torch's own operations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models_helpers import filled

from retfound_jax.models.dino import DINOConfig, Head, view_loss
from retfound_jax.models.dinov2 import koleo, patch_loss
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViTConfig

pytestmark = pytest.mark.oracle


def compare(ours, theirs, *given: np.ndarray, rtol: float = 1e-4) -> None:
    """The sum of a function's result and its gradient by the first argument; theirs in float64."""
    torch = pytest.importorskip('torch', reason='torch is in the environment of the oracle tier alone')
    value, grad = jax.jit(jax.value_and_grad(lambda *x: ours(*x).sum()))(*(jnp.asarray(x, jnp.float32) for x in given))
    tensors = [torch.tensor(x, dtype=torch.float64) for x in given]
    tensors[0].requires_grad_()
    wanted = theirs(torch, *tensors).sum()
    wanted.backward()
    assert float(value) == pytest.approx(float(wanted.detach()), rel=1e-5)
    scale = float(tensors[0].grad.abs().max())
    np.testing.assert_allclose(grad, tensors[0].grad.numpy(), rtol=rtol, atol=rtol * scale)


def targets(rng: np.random.Generator, *shape: int) -> np.ndarray:
    x = np.exp(3 * rng.normal(size=shape))
    return x / x.sum(-1, keepdims=True)


def test_of_pairs_of_views() -> None:
    rng = np.random.default_rng(0)

    def theirs(torch, student, target):
        total = 0
        for t in range(2):
            for s in range(5):
                if s != t:
                    total = total + torch.nn.functional.cross_entropy(student[:, s] / 0.1, target[:, t], reduction='none')
        return total / 8

    compare(lambda s, t: view_loss(s, t, temperature=0.1), theirs, rng.uniform(-1, 1, (3, 5, 11)), targets(rng, 3, 2, 11))


def test_of_masked_patches() -> None:
    rng = np.random.default_rng(1)
    weight = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])

    def theirs(torch, student, target):
        log_p = torch.log_softmax(student / 0.1, dim=-1)
        return -((target * log_p).sum(-1) * torch.tensor(weight)).sum(1)

    def ours(student, target):
        return patch_loss(student, target, weight_BM=jnp.asarray(weight, jnp.float32), temperature=0.1)

    compare(ours, theirs, rng.uniform(-1, 1, (2, 3, 11)), targets(rng, 2, 3, 11))


def test_of_koleo() -> None:
    def theirs(torch, x):
        x = torch.nn.functional.normalize(x, dim=-1)
        apart = torch.cdist(x, x, compute_mode='donot_use_mm_for_euclid_dist')
        return -torch.log((apart + 1e9 * torch.eye(len(x), dtype=x.dtype)).min(1).values)

    compare(koleo, theirs, np.random.default_rng(2).normal(size=(9, 6)), rtol=1e-3)


def test_of_the_head() -> None:
    rng = np.random.default_rng(3)
    config = DINOConfig(encoder=ViTConfig(width=8, heads=2, pool='cls'), hidden=12, bottleneck=6, prototypes=10)
    graph, state = filled(lambda: Head(config, rngs=nnx.Rngs(0)))
    p = {name: np.asarray(leaf, np.float64) for name, leaf in flat_names(state).items()}
    aim = rng.normal(size=(5, 10))

    def theirs(torch, x):
        functional = torch.nn.functional
        for layer in ('fc1', 'fc2', 'fc3'):
            x = functional.linear(x, torch.tensor(p[f'{layer}.kernel'].T), torch.tensor(p[f'{layer}.bias']))
            x = x if layer == 'fc3' else functional.gelu(x)
        last = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 10, bias=False).double())
        last.parametrizations.weight.original0.data.fill_(1)
        last.parametrizations.weight.original1.data.copy_(torch.tensor(p['last.kernel'].T))
        return last(functional.normalize(x, dim=-1)) * torch.tensor(aim)

    compare(lambda x: nnx.merge(graph, state)(x) * jnp.asarray(aim, jnp.float32), theirs, rng.normal(size=(5, 8)), rtol=1e-3)
