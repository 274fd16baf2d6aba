"""Token reconstruction (Engelmann and Bernabeu, RETFound-Green, Nature Communications 2025, s41467-025-62123-z).

A student sees a corrupted photograph and predicts every token that a frozen teacher makes of the clean one. What the paper
leaves open is as in the authors' public notebook (github.com/justinengelmann/RETFound_Green, commit bddfb9a), written anew here.

Letters: B batch, H W image [px], C channels, L patches, D width, R registers, T tokens (1 + R + L).
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models import layers
from retfound_jax.models.vit import ViT, ViTConfig

_FIXED_SEED = 0  # of the corruption of deterministic calls: any constant serves, as long as it never changes
_PROJECTOR_SCALE = 1e-5  # the projector starts as almost nothing
_PROJECTOR_EPSILON = 1e-5  # of its layer norm: PyTorch's default, which the authors left


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenReconstructionConfig:
    """A student, its teacher of the same shape, and what the student has to do without."""

    encoder: ViTConfig  # pool 'mean_normed' or 'cls': tokens are compared after the final norm
    noise: float = 0.2  # deviation of the Gaussian noise on the pixels, over that of the photograph's own channel
    most_blank: float = 1 / 3  # each photograph draws its share of blanked patches uniformly from 0 to this
    clean: int = 1  # [images] of a training batch, the last ones, that the student sees uncorrupted
    projector: bool = True  # a residual MLP on the student's tokens, for pretraining alone


@flax.struct.dataclass
class Corrupted:
    """What the student is given."""

    image_BHWC: jax.Array
    blank_BL: jax.Array  # true where a patch's embedding is zero before its position is added


def corrupt(image_BHWC: jax.Array, *, key: jax.Array | None, config: TokenReconstructionConfig) -> Corrupted:
    """Noise on the pixels and a choice of patches to blank.

    With a key each image draws from `fold_in(key, i)`, i its place in the batch, and the last `config.clean` stay clean. Without
    one (validation) every image gets the same noise and the same blanked patches, half the most in the mean, so its loss does
    not depend on its batch.
    """
    count, patches = len(image_BHWC), config.encoder.grid**2

    def draw(key: jax.Array, share: float | None = None) -> tuple[jax.Array, jax.Array]:
        noise_key, share_key, blank_key = jax.random.split(key, 3)
        share = jax.random.uniform(share_key, maxval=config.most_blank) if share is None else share
        return jax.random.normal(noise_key, image_BHWC.shape[1:], image_BHWC.dtype), jax.random.uniform(blank_key, (patches,)) < share

    if key is None:
        noise_HWC, blank_L = draw(jax.random.key(_FIXED_SEED), config.most_blank / 2)
        noise_BHWC, blank_BL = noise_HWC[None], jnp.broadcast_to(blank_L, (count, patches))
    else:
        index_B = jnp.arange(count)
        noise_BHWC, blank_BL = jax.vmap(lambda i: draw(jax.random.fold_in(key, i)))(index_B)
        corrupted_B = index_B < count - config.clean
        noise_BHWC, blank_BL = noise_BHWC * corrupted_B[:, None, None, None], blank_BL & corrupted_B[:, None]
    deviation_B11C = image_BHWC.std((1, 2), keepdims=True, ddof=1)
    return Corrupted(image_BHWC + config.noise * deviation_B11C * noise_BHWC, blank_BL)


class Projector(nnx.Module):
    """x + gamma * MLP(norm(x)), gamma starting at 1e-5."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs) -> None:
        width = config.width
        self.norm = layers.LayerNorm(width, letters='D', epsilon=_PROJECTOR_EPSILON)
        self.mlp = layers.MLP(layers.BlockShape(width=width, heads=config.heads, hidden=width), rngs=rngs)
        self.ls = layers.LayerScale(width, start=_PROJECTOR_SCALE, letters='D')

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        return x_BTD + self.ls(self.mlp(self.norm(x_BTD)))


class TokenReconstruction(nnx.Module):
    """`encoder` learns; `teacher` is the same encoder as it starts and never changes.

    Raises:
      UsageError: at construction, where the numbers of the config do not fit each other.
    """

    def __init__(self, config: TokenReconstructionConfig, *, rngs: nnx.Rngs) -> None:
        _check(config)
        self.config = config
        start = rngs.params()
        self.encoder = ViT(config.encoder, rngs=nnx.Rngs(params=start))
        self.teacher = ViT(dataclasses.replace(config.encoder, drop_path=0.0), rngs=nnx.Rngs(params=start))
        self.projector = Projector(config.encoder, rngs=rngs) if config.projector else None

    def __call__(self, image_BHWC: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """The loss of each image, [B]: mean squared error over all tokens (cls, registers, patches) after the final norm.

        `key` draws corruption and dropped paths; None is the fixed corruption of `corrupt`.
        """
        given = corrupt(image_BHWC, key=None if key is None else jax.random.fold_in(key, 0), config=self.config)
        drop_key = None if key is None else jax.random.fold_in(key, 1)
        predicted_BTD = self.predict(given, key=drop_key)
        return jnp.square(predicted_BTD - self.target(image_BHWC)).mean((1, 2))

    def predict(self, given: Corrupted, *, key: jax.Array | None = None) -> jax.Array:
        """What the student makes of a corrupted photograph: tokens [B, T, D], float32."""
        tokens_BTD = self.encoder(given.image_BHWC, key=key, blank_BL=given.blank_BL)
        tokens_BTD = self.encoder.norm(_wide(tokens_BTD))
        return tokens_BTD if self.projector is None else self.projector(tokens_BTD)

    def target(self, image_BHWC: jax.Array) -> jax.Array:
        """The teacher's tokens [B, T, D] of a clean photograph, float32; no gradient goes back."""
        return jax.lax.stop_gradient(self.teacher.norm(_wide(self.teacher(image_BHWC))))


def _wide(x: jax.Array) -> jax.Array:
    """The last norm and all after it run in float32, also where the blocks run in bfloat16."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check(config: TokenReconstructionConfig) -> None:
    if config.encoder.pool == 'mean':
        raise UsageError('token reconstruction compares normed tokens, and pool "mean" norms none; set pool to mean_normed or cls')
    if not (config.noise >= 0 and 0 <= config.most_blank <= 1 and config.clean >= 0):
        told = f'noise {config.noise}, most_blank {config.most_blank} and clean {config.clean}'
        raise UsageError(f'{told} must be 0 or more, and most_blank at most 1')
