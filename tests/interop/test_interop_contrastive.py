"""Views and contrastive losses against PyTorch and torchvision: values, and gradients by its own differentiation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='PyTorch is not installed: make the oracle environment (BUILD.md) to run this tier')

from torch.nn import functional as F  # noqa: E402, N812
from torchvision.transforms import InterpolationMode  # noqa: E402
from torchvision.transforms import functional as V  # noqa: E402, N812

from retfound_jax.data import views  # noqa: E402
from retfound_jax.models.contrastive import info_nce, nt_xent  # noqa: E402
from retfound_jax.models.projection import BatchNorm, Projection  # noqa: E402
from retfound_jax.models.swav import swapped_prediction  # noqa: E402

pytestmark = pytest.mark.oracle
RNG = np.random.default_rng(0)
PLANES = V.resize(torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(0)), [36, 36], antialias=True).clip(0, 1)


def close(found: jax.Array, expected: torch.Tensor, atol: float) -> None:
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=atol)


@pytest.mark.parametrize('box', [(0, 0, 36, 36), (3, 8, 10, 13), (15, 1, 20, 27)])
def test_a_crop_is_torchvisions(box: tuple[int, int, int, int]) -> None:
    found = views.crop_resize(jnp.asarray(PLANES.permute(1, 2, 0).numpy()), box_4=jnp.asarray(box, jnp.float32), size=16)
    expected = V.resized_crop(PLANES, *box, [16, 16], interpolation=InterpolationMode.BICUBIC, antialias=True).clip(0, 1)
    close(found, expected, 2e-5)


def test_colours_are_torchvisions() -> None:
    """Its grey is 0.2989, 0.587, 0.114 of the channels on floats; ours 0.299, as of Pillow."""
    brightness, contrast, saturation, hue = 1.3, 0.7, 1.6, -0.23
    expected = V.adjust_brightness(PLANES, brightness)
    expected = V.adjust_contrast(expected, contrast)
    expected = V.adjust_saturation(expected, saturation)
    expected = V.adjust_hue(expected, hue)
    found = views.jitter(jnp.asarray(PLANES.numpy()), drawn_4=jnp.asarray([brightness, contrast, saturation, hue]))
    close(found, expected, 1e-3)


@pytest.mark.parametrize('sigma', [0.3, 1.0, 2.0])
def test_blur_is_torchvisions(sigma: float) -> None:
    found = views.blur(jnp.asarray(PLANES.numpy()), sigma=jnp.float32(sigma), radius=8)
    close(found, V.gaussian_blur(PLANES, [17, 17], [sigma, sigma]), 1e-5)


def test_nt_xent_and_its_gradient() -> None:
    z_BGO, temperature = RNG.normal(size=(6, 2, 5)), 0.2
    z = torch.tensor(z_BGO, requires_grad=True)
    flat = F.normalize(z, dim=-1).reshape(12, 5)
    logits = flat @ flat.T / temperature
    logits = logits.masked_fill(torch.eye(12, dtype=torch.bool), -torch.inf)
    loss = F.cross_entropy(logits, torch.arange(12) ^ 1)
    loss.backward()
    found, grad = jax.value_and_grad(lambda z: nt_xent(z, temperature=temperature)[0].mean())(jnp.asarray(z_BGO, jnp.float32))
    assert float(found) == pytest.approx(loss.item(), rel=1e-5)
    close(grad, z.grad, 1e-5)


def test_info_nce_and_its_gradient() -> None:
    q_BO, k_BO, temperature = RNG.normal(size=(6, 5)), RNG.normal(size=(6, 5)), 0.2
    q = torch.tensor(q_BO, requires_grad=True)
    logits = F.normalize(q, dim=1) @ F.normalize(torch.tensor(k_BO), dim=1).T / temperature
    loss = F.cross_entropy(logits, torch.arange(6)) * 2 * temperature
    loss.backward()
    given = jnp.asarray(q_BO, jnp.float32), jnp.asarray(k_BO, jnp.float32)
    found, grad = jax.value_and_grad(lambda q, k: info_nce(q, k, temperature=temperature)[0].mean())(*given)
    assert float(found) == pytest.approx(loss.item(), rel=1e-5)
    close(grad, q.grad, 1e-5)


def test_swapped_prediction_and_its_gradient() -> None:
    scores_BVY = RNG.uniform(-1, 1, (8, 4, 5))
    scores, total = torch.tensor(scores_BVY, requires_grad=True), 0.0
    for view in (0, 1):
        with torch.no_grad():
            q = torch.exp(scores[:, view] / 0.05).T
            q = q / q.sum()
            for _ in range(3):
                q = q / q.sum(1, keepdim=True) / 5
                q = q / q.sum(0, keepdim=True) / 8
            q = (q * 8).T
        for other in {0, 1, 2, 3} - {view}:
            total = total + F.cross_entropy(scores[:, other] / 0.1, q) / 3 / 2
    total.backward()
    given = {'views': 2, 'temperature': 0.1, 'epsilon': 0.05, 'iterations': 3}
    found, grad = jax.value_and_grad(lambda s: swapped_prediction(s, **given).mean())(jnp.asarray(scores_BVY, jnp.float32))
    assert float(found) == pytest.approx(total.item(), rel=1e-5)
    close(grad, scores.grad, 1e-5)


def test_the_projector_and_its_gradient() -> None:
    from flax import nnx

    x_BD = RNG.normal(size=(9, 4)).astype(np.float32)
    model = Projection(4, hidden=6, out=5, layers=2, last_norm=True, rngs=nnx.Rngs(0))
    assert isinstance(model.norm1, BatchNorm)
    x = torch.tensor(x_BD, requires_grad=True)
    hidden = torch.relu(F.batch_norm(x @ torch.tensor(np.asarray(model.fc1.kernel[...])), None, None, training=True))
    out = F.batch_norm(hidden @ torch.tensor(np.asarray(model.fc2.kernel[...])), None, None, training=True)
    weights = RNG.normal(size=(9, 5)).astype(np.float32)
    (out * torch.tensor(weights)).sum().backward()
    close(model(x_BD), out, 1e-5)
    close(jax.grad(lambda x: (model(x) * weights).sum())(x_BD), x.grad, 1e-4)
