"""SwAV (Caron et al., arXiv 2006.09882): predict, from one view, which prototypes another view of the image was assigned to.

Letters: B batch, G global views, K local views, V all of them, H W image [px], C channels, D encoder width, O width of what is compared,
Y prototypes.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models.contrastive import Compared, scalar
from retfound_jax.models.projection import Projection, spread, unit
from retfound_jax.models.vit import ViT, ViTConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwAVConfig:
    """An encoder, its projector and the prototypes. The paper's queue of earlier batches, for steps of few images, is left out."""

    encoder: ViTConfig = ViTConfig()
    hidden: int = 2048  # of the projector
    out: int = 128
    prototypes: int = 3000
    temperature: float = 0.1
    epsilon: float = 0.05  # softness of the assignment
    iterations: int = 3  # of Sinkhorn and Knopp
    frozen_prototypes: float = 0.0  # share of the steps, the first ones, in which prototypes stay as they start


def sinkhorn(scores_BY: jax.Array, *, epsilon: float, iterations: int, weight_B: jax.Array | None = None) -> jax.Array:
    """Soft assignments [B, Y] that use all prototypes equally (Sinkhorn and Knopp; section 3.1 and appendix A); rows sum to 1.

    In float32 and without a gradient. Rows of weight 0 are assigned to nothing and take no share.
    """
    scores_BY = jax.lax.stop_gradient(scores_BY).astype(jnp.float32)
    weight_B1 = jnp.ones((len(scores_BY), 1)) if weight_B is None else weight_B.astype(jnp.float32)[:, None]
    best = jnp.where(weight_B1 > 0, scores_BY, -jnp.inf).max()  # a factor for all, which the first division takes out again
    q_BY = jnp.where(weight_B1 > 0, jnp.exp((scores_BY - best) / epsilon), 0)

    def balanced(_: int, q_BY: jax.Array) -> jax.Array:
        q_BY = _over(q_BY, q_BY.sum(0, keepdims=True))
        return _over(q_BY, q_BY.sum(1, keepdims=True))

    return jax.lax.fori_loop(0, iterations, balanced, q_BY)


def _over(x: jax.Array, total: jax.Array) -> jax.Array:
    return x / jnp.where(total > 0, total, 1)


def swapped_prediction(
    scores_BVY: jax.Array,
    *,
    views: int,
    temperature: float,
    epsilon: float,
    iterations: int,
    weight_B: jax.Array | None = None,
) -> jax.Array:
    """The loss of each image [B]: cross-entropy of each view's prediction against the assignment of each other global view, in the mean.

    Args:
      scores_BVY: cosines with the prototypes.
      views: how many, the first ones, are global: those are assigned, all predict.
    """
    log_p_BVY = jax.nn.log_softmax(scores_BVY / temperature, axis=-1)
    parts = []
    for view in range(views):
        q_BY = sinkhorn(scores_BVY[:, view], epsilon=epsilon, iterations=iterations, weight_B=weight_B)
        loss_BV = -(q_BY[:, None] * log_p_BVY).sum(-1)
        parts.append((loss_BV.sum(1) - loss_BV[:, view]) / (scores_BVY.shape[1] - 1))
    return sum(parts) / views


class SwAV(nnx.Module):
    """Encoder, projector and `prototypes` [Y, O] of length 1."""

    def __init__(self, config: SwAVConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.encoder = ViT(config.encoder, rngs=rngs)
        made = {'hidden': config.hidden, 'out': config.out, 'rngs': rngs}
        self.projector = Projection(config.encoder.width, layers=2, last_norm=False, **made)
        start_YO = jax.random.normal(rngs.params(), (config.prototypes, config.out), jnp.float32)
        self.prototypes = nnx.Param(unit(start_YO), letters='YO')

    def __call__(
        self,
        image_BGHWC: jax.Array,
        local_BKHWC: jax.Array | None = None,
        *,
        key: jax.Array | None = None,
        weight_B: jax.Array | None = None,
        progress: jax.Array | float = 1.0,
    ) -> Compared:
        """Global and local views of each image. Batch norm sees all views together.

        Args:
          key: draws dropped paths.
          weight_B: 0 for rows that only fill up the batch.
          progress: share of the steps that is done.
        """
        if image_BGHWC.ndim != 5 or image_BGHWC.shape[1] < 2:
            raise UsageError('SwAV compares at least two views of each image; set data.views.global_views 2 or more')
        config, views = self.config, image_BGHWC.shape[1]
        keys = [None, None] if key is None else [jax.random.fold_in(key, i) for i in (0, 1)]
        h_BVD = self._embed(image_BGHWC, keys[0])
        if local_BKHWC is not None:
            h_BVD = jnp.concatenate([h_BVD, self._embed(local_BKHWC, keys[1])], axis=1)
        count, every, _ = h_BVD.shape
        rows = None if weight_B is None else jnp.repeat(weight_B, every)
        z_BVO = unit(self.projector(h_BVD.reshape(count * every, -1), rows)).reshape(count, every, -1)
        held = self.prototypes[...]
        prototypes_YO = jnp.where(progress < config.frozen_prototypes, jax.lax.stop_gradient(held), held)
        scores_BVY = jnp.einsum('BVO,YO->BVY', z_BVO, prototypes_YO, precision=jax.lax.Precision.HIGHEST)
        given = {'temperature': config.temperature, 'epsilon': config.epsilon, 'iterations': config.iterations}
        loss_B = swapped_prediction(scores_BVY, views=views, weight_B=weight_B, **given)
        scalars = {
            'prototypes_used': _used(scores_BVY[:, 0], temperature=config.temperature, weight_B=weight_B),
            'embedding_spread': spread(h_BVD[:, 0], weight_B),
            'projection_spread': spread(z_BVO[:, 0], weight_B),
        }
        return Compared(loss_B, scalars)

    def _embed(self, image_BVHWC: jax.Array, key: jax.Array | None) -> jax.Array:
        count, views = image_BVHWC.shape[:2]
        return self.encoder.embed(image_BVHWC.reshape(count * views, *image_BVHWC.shape[2:]), key=key).reshape(count, views, -1)


def _used(scores_BY: jax.Array, *, temperature: float, weight_B: jax.Array | None) -> jax.Array:
    """Over how many prototypes a batch's predictions go, as a share of all: exp of the entropy of their mean. 1 / Y where all agree."""
    p_BY = jax.nn.softmax(jax.lax.stop_gradient(scores_BY) / temperature, axis=-1)
    mean_Y = jax.vmap(lambda p_B: scalar(p_B, weight_B), in_axes=1)(p_BY)
    return jnp.exp(-(mean_Y * jnp.log(mean_Y.clip(1e-30))).sum()) / len(mean_Y)
