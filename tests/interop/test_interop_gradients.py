"""MAE's loss and the gradient of every one of its parameters equal PyTorch's, the same mask given to both."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip('torch', reason='PyTorch is not here: launch/test --oracle brings it')

import torch
import torch_models
from torch_names import difference, flatten, numbers, randomise, weights

from retfound_jax.interop.build import build
from retfound_jax.interop.timm_names import from_timm
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import vit_config

pytestmark = pytest.mark.oracle

TOLERANCE = 1e-4  # of the largest magnitude of the loss, and of each tensor's gradient


def torch_gradients(model: torch.nn.Module, image: np.ndarray, noise: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    loss, _, _ = model(torch.from_numpy(image).permute(0, 3, 1, 2), torch.from_numpy(noise))
    loss.backward()
    return loss.item(), {name: param.grad.numpy() for name, param in model.named_parameters() if param.requires_grad}


@pytest.mark.parametrize(
    ('size', 'norm_pix_loss'),
    [('B', True), ('B', False), pytest.param('L', True, marks=pytest.mark.slow), pytest.param('L', False, marks=pytest.mark.slow)],
)
def test_loss_and_every_gradient_equal_pytorch(size: str, norm_pix_loss: bool) -> None:
    config = MAEConfig(encoder=vit_config(size, pool='cls'), norm_pix_loss=norm_pix_loss)
    rng = np.random.default_rng(3)
    image = rng.normal(size=(2, 224, 224, 3)).astype(np.float32)
    noise = rng.uniform(size=(2, 196)).astype(np.float32)
    model = torch_models.MAE(config)
    randomise(model, seed=4)
    graph, params = nnx.split(build(weights(numbers(model), config)))
    loss, gradients = jax.jit(jax.value_and_grad(lambda params: nnx.merge(graph, params)(image, noise_BL=noise).loss))(params)
    want_loss, want = torch_gradients(model, image, noise)
    want = from_timm(want, config=config, outputs=0)
    got = flatten(gradients)
    assert set(got) == set(want)
    found = {name: difference(got[name], want[name]) for name in want}
    worst = max(found, key=found.get)
    print(f'ViT-{size} {norm_pix_loss=}: loss {abs(loss / want_loss - 1):.1e}, worst of {len(found)}: {worst} {found[worst]:.1e}')
    assert abs(loss - want_loss) <= TOLERANCE * abs(want_loss)
    assert found[worst] <= TOLERANCE, {name: value for name, value in found.items() if value > TOLERANCE}
