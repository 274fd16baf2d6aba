"""SimCLR (Chen et al., arXiv 2002.05709) and MoCo v3 (Chen, Xie and He, arXiv 2104.02057) around our encoder.

Both take two views of each image and ask which of all views of the batch is the other one of the same image.

Letters: B batch, G views (2), H W image [px], C channels, D encoder width, O width of what is compared.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models.projection import Projection, spread, unit
from retfound_jax.models.vit import ViT, ViTConfig

_OUT = -1e30  # a logit that takes no part


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
    """An encoder and the MLP whose outputs are compared; defaults are the paper's for 4,096 images a step."""

    encoder: ViTConfig = ViTConfig()
    hidden: int = 2048  # width of the projector's hidden layer; the paper's is as wide as its encoder, of 2,048
    out: int = 128
    temperature: float = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoCoConfig:
    """An encoder, its two MLPs, and how the copies that follow do so; defaults are the paper's for ViTs."""

    encoder: ViTConfig = ViTConfig()
    hidden: int = 4096  # of projector (3 layers) and predictor (2 layers)
    out: int = 256
    temperature: float = 0.2
    momentum: float = 0.99  # of the copies at the start; by a cosine to 1 at the end
    frozen_patch_embed: bool = True  # patches are embedded by a random projection that never learns (section 4.2: stability)


@flax.struct.dataclass
class Compared:
    """What a pass over views gives. Under jit, what the caller does not use is not computed."""

    loss_B: jax.Array
    scalars: dict[str, jax.Array]  # to log


def check_views(image_BGHWC: jax.Array, local: jax.Array | None, *, method: str) -> None:
    """Raises UsageError unless there are two views of each image and no smaller ones."""
    if image_BGHWC.ndim != 5 or image_BGHWC.shape[1] != 2 or local is not None:
        raise UsageError(f'{method} compares two views of each image; set data.views.global_views 2 and local_views 0')


def nt_xent(z_BGO: jax.Array, *, temperature: float, weight_B: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """SimCLR's loss of each image [B] (NT-Xent, section 2.1), and how often its other view is the nearest of all [B].

    Each of the 2 B views has the other one of its image as what it should be near to, and the 2 B - 2 views of other images as what it
    should not; the loss of an image is the mean of its two views'.

    Args:
      z_BGO: float32, G = 2; normalised here.
      weight_B: 0 for rows that only fill up the batch: nothing is compared with them.
    """
    count = z_BGO.shape[0]
    z_NO = unit(z_BGO).reshape(2 * count, -1)  # views of one image next to each other
    logits_NN = _products(z_NO, z_NO) / temperature
    logits_NN = jnp.where(jnp.eye(2 * count, dtype=bool) | ~_present(weight_B, 2 * count), _OUT, logits_NN)
    other_N = jnp.arange(2 * count) ^ 1
    positive_N = jnp.take_along_axis(logits_NN, other_N[:, None], axis=1)[:, 0]
    loss_N = jax.nn.logsumexp(logits_NN, axis=1) - positive_N
    found_N = positive_N >= logits_NN.max(1)
    return loss_N.reshape(count, 2).mean(1), found_N.reshape(count, 2).mean(1)


def info_nce(q_BO: jax.Array, k_BO: jax.Array, *, temperature: float, weight_B: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """MoCo v3's loss of each query [B], and whether its own key is the nearest [B].

    2 x temperature x cross-entropy over the keys of the batch (algorithm 1). No gradient goes to the keys. weight_B as in `nt_xent`.
    """
    logits_BB = _products(unit(q_BO), jax.lax.stop_gradient(unit(k_BO))) / temperature
    logits_BB = jnp.where(_present(weight_B, len(q_BO)), logits_BB, _OUT)
    positive_B = jnp.diagonal(logits_BB)
    loss_B = 2 * temperature * (jax.nn.logsumexp(logits_BB, axis=1) - positive_B)
    return loss_B, (positive_B >= logits_BB.max(1)).astype(loss_B.dtype)


def _present(weight_B: jax.Array | None, count: int) -> jax.Array:
    """[1, count]: which columns take part, each row of the batch being as many columns next to each other as there are views."""
    if weight_B is None:
        return jnp.ones((1, count), bool)
    return jnp.repeat(weight_B > 0, count // len(weight_B))[None]


def _products(one_NO: jax.Array, other_NO: jax.Array) -> jax.Array:
    return jnp.einsum('NO,MO->NM', one_NO, other_NO, precision=jax.lax.Precision.HIGHEST)


def _rows(weight_B: jax.Array | None, views: int) -> jax.Array | None:
    return None if weight_B is None else jnp.repeat(weight_B, views)


def scalar(x_B: jax.Array, weight_B: jax.Array | None) -> jax.Array:
    """The mean over the rows that count, without a gradient."""
    x_B = jax.lax.stop_gradient(x_B)
    return x_B.mean() if weight_B is None else (x_B * weight_B).sum() / weight_B.sum().clip(1)


class SimCLR(nnx.Module):
    """Encoder and projector."""

    def __init__(self, config: SimCLRConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.encoder = ViT(config.encoder, rngs=rngs)
        made = {'hidden': config.hidden, 'out': config.out, 'rngs': rngs}
        self.projector = Projection(config.encoder.width, layers=2, last_norm=False, **made)

    def __call__(self, image_BGHWC: jax.Array, *, key: jax.Array | None = None, weight_B: jax.Array | None = None) -> Compared:
        """Two views of each image; `key` draws dropped paths. weight_B: 0 for rows that only fill up the batch."""
        check_views(image_BGHWC, None, method='SimCLR')
        count = len(image_BGHWC)
        h_ND = self.encoder.embed(image_BGHWC.reshape(2 * count, *image_BGHWC.shape[2:]), key=key)
        z_BGO = self.projector(h_ND, _rows(weight_B, 2)).reshape(count, 2, -1)
        loss_B, found_B = nt_xent(z_BGO, temperature=self.config.temperature, weight_B=weight_B)
        scalars = {
            'accuracy': scalar(found_B, weight_B),
            'embedding_spread': spread(h_ND[::2], weight_B),
            'projection_spread': spread(z_BGO[:, 0], weight_B),
        }
        return Compared(loss_B, scalars)


class MoCo(nnx.Module):
    """`encoder`, `projector` and `predictor` learn; `momentum_encoder` and `momentum_projector` start alike and follow (`followed`)."""

    def __init__(self, config: MoCoConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        start, encoder = rngs.params(), config.encoder
        made = {'hidden': config.hidden, 'out': config.out, 'last_norm': True}

        def parts(encoder: ViTConfig) -> tuple[ViT, Projection]:
            same = nnx.Rngs(params=start)
            return ViT(encoder, rngs=same), Projection(encoder.width, layers=3, rngs=same, **made)

        self.encoder, self.projector = parts(encoder)
        self.momentum_encoder, self.momentum_projector = parts(dataclasses.replace(encoder, drop_path=0.0))
        self.predictor = Projection(config.out, layers=2, rngs=rngs, **made)

    def __call__(self, image_BGHWC: jax.Array, *, key: jax.Array | None = None, weight_B: jax.Array | None = None) -> Compared:
        """Two views of each image: each one's query is compared with the keys of the others. Batch norm sees one view at a time."""
        check_views(image_BGHWC, None, method='MoCo v3')
        count = len(image_BGHWC)
        image_NHWC = image_BGHWC.reshape(2 * count, *image_BGHWC.shape[2:])
        h_BGD = self.encoder.embed(image_NHWC, key=key).reshape(count, 2, -1)
        z_BO = [self.projector(h_BGD[:, view], weight_B) for view in (0, 1)]
        q_BO = [self.predictor(z, weight_B) for z in z_BO]
        target_BGD = jax.lax.stop_gradient(self.momentum_encoder.embed(image_NHWC)).reshape(count, 2, -1)
        k_BO = [self.momentum_projector(target_BGD[:, view], weight_B) for view in (0, 1)]
        given = {'temperature': self.config.temperature, 'weight_B': weight_B}
        first_B, found_B = info_nce(q_BO[0], k_BO[1], **given)
        second_B, also_B = info_nce(q_BO[1], k_BO[0], **given)
        scalars = {
            'accuracy': scalar((found_B + also_B) / 2, weight_B),
            'embedding_spread': spread(h_BGD[:, 0], weight_B),
            'projection_spread': spread(z_BO[0], weight_B),
        }
        return Compared(first_B + second_B, scalars)


def momentum_at(progress: jax.Array, *, start: float) -> jax.Array:
    """The momentum of copies that follow: from `start` by half a cosine to 1 (Grill et al., arXiv 2006.07733, section 3.2)."""
    return 1 - (1 - start) * (1 + jnp.cos(jnp.pi * progress)) / 2
