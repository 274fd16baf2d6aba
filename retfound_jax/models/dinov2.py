"""DINOv2's combination (Oquab et al., arXiv 2304.07193, section 4): DINO, iBOT's masked patches (Zhou et al., arXiv 2111.07832) and KoLeo.

Student and teacher have two heads each, untied: one for views, one for patches. The teacher's outputs are centred by three rounds of
Sinkhorn and Knopp over the global batch. Of the G global views of each image one, drawn, is masked for the student: with two views half of
all, as many as in the authors' code, which draws them among the whole batch.

Letters: B batch, G global views, K local views, V all of them, H W image [px], C channels, T tokens, L patches, M places for masked
patches, D encoder width, Y prototypes.
"""

from __future__ import annotations

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models.contrastive import Compared, scalar
from retfound_jax.models.dino import (
    SelfDistillation,
    SelfDistillationConfig,
    by_rows,
    check_views,
    cross_entropy,
    encoded,
    shown,
    split_key,
    teacher_temperature,
    view_loss,
)
from retfound_jax.models.projection import unit
from retfound_jax.models.swav import sinkhorn

_FIXED_SEED = 0  # of the masks of deterministic calls: any constant serves, as long as it never changes
_ASPECT = (0.3, 1 / 0.3)  # of a block's height to its width (BEiT, arXiv 2106.08254, algorithm 1)
_TRIES = 20  # blocks that are drawn for a mask
_SMALLEST = 4  # [patches] of a block where there is room
_EPSILON = 1e-8  # under KoLeo's root


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOv2Config(SelfDistillationConfig):
    """DINO, iBOT and KoLeo; defaults are the paper's."""

    momentum: float = 0.994
    teacher_warmup: float = 0.3
    masked: tuple[float, float] = (0.1, 0.5)  # share of the patches of a masked view, drawn uniformly
    patch_weight: float = 1.0  # of iBOT's loss
    koleo_weight: float = 0.1
    iterations: int = 3  # of Sinkhorn and Knopp


@flax.struct.dataclass
class Masks:
    """What the student does not see."""

    view_B: jax.Array  # int32, the view that is masked
    blank_BL: jax.Array  # bool, its masked patches
    index_BM: jax.Array  # int32, the masked patches first
    weight_BM: jax.Array  # 1 / how many are masked for those that are, 0 for the rest


def draw_masks(key: jax.Array, *, count: int, views: int, grid: int, masked: tuple[float, float]) -> Masks:
    """One view of each image and a mask of blocks for it; image i draws from `fold_in(key, i)`, i its place in the global batch."""

    def one(index: jax.Array) -> tuple[jax.Array, jax.Array]:
        view_key, share_key, block_key = jax.random.split(jax.random.fold_in(key, index), 3)
        share = jax.random.uniform(share_key, minval=masked[0], maxval=masked[1])
        most = jnp.maximum(jnp.floor(share * grid**2), 1)
        return jax.random.randint(view_key, (), 0, views), blocks_mask(block_key, grid=grid, most=most)

    view_B, blank_BL = jax.vmap(one)(jnp.arange(count))
    places = max(1, math.floor(masked[1] * grid**2))
    index_BM = jnp.argsort(~blank_BL, axis=1, stable=True)[:, :places]
    chosen_BM = jnp.take_along_axis(blank_BL, index_BM, axis=1)
    weight_BM = chosen_BM / jnp.maximum(blank_BL.sum(1, keepdims=True), 1)
    return Masks(view_B, blank_BL, index_BM, weight_BM)


def blocks_mask(key: jax.Array, *, grid: int, most: jax.Array) -> jax.Array:
    """A mask [L] of at most `most` patches, made of rectangles (BEiT, algorithm 1), with a fixed number of tries.

    Each try draws an area between 4 and what is left, and an aspect; a rectangle that is larger than the grid or would mask more than is
    left is passed over. So a mask may stay smaller than `most`.
    """
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    drawn = (
        jax.random.uniform(area_key, (_TRIES,)),
        jnp.exp(jax.random.uniform(aspect_key, (_TRIES,), minval=math.log(_ASPECT[0]), maxval=math.log(_ASPECT[1]))),
        jax.random.uniform(place_key, (_TRIES, 2)),
    )
    rows, columns = jnp.arange(grid)[:, None], jnp.arange(grid)[None]

    def add(mask: jax.Array, one: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        share, aspect, place = one
        left = most - mask.sum()
        low = jnp.minimum(_SMALLEST, left)
        area = low + share * (left - low)
        tall, wide = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
        top, start = jnp.floor(place[0] * (grid - tall + 1)), jnp.floor(place[1] * (grid - wide + 1))
        grown = mask | ((rows >= top) & (rows < top + tall) & (columns >= start) & (columns < start + wide))
        fits = (tall <= grid) & (wide <= grid) & (grown.sum() <= most)
        return jnp.where(fits, grown, mask), None

    mask, _ = jax.lax.scan(add, jnp.zeros((grid, grid), bool), drawn)
    return mask.reshape(-1)


def koleo(x_BD: jax.Array, *, weight_B: jax.Array | None = None) -> jax.Array:
    """KoLeo's loss of each row [B], -log of the distance to its nearest neighbour (Sablayrolles et al., arXiv 1806.03198).

    Vectors are brought to length 1, in float32. The nearest is found by the inner product and without a gradient; both ends of a distance
    have one. Rows of weight 0 are nobody's neighbour; with no other row the loss is 0.
    """
    x_BD = unit(x_BD)
    near_BB = jax.lax.stop_gradient(jnp.einsum('ID,JD->IJ', x_BD, x_BD, precision=jax.lax.Precision.HIGHEST))
    out_BB = jnp.eye(len(x_BD), dtype=bool)
    if weight_B is not None:
        out_BB |= (weight_B <= 0)[None]
    nearest_B = jnp.where(out_BB, -jnp.inf, near_BB).argmax(1)
    loss_B = -0.5 * jnp.log(jnp.square(x_BD - x_BD[nearest_B]).sum(1) + _EPSILON)
    return jnp.where(out_BB.all(1), 0.0, loss_B)


class DINOv2(SelfDistillation):
    """Self-distillation of views and of masked patches; `mask_token` [D] stands for the embedding of a masked patch.

    Raises:
      UsageError: as SelfDistillation, and where the shares to mask are none.
    """

    def __init__(self, config: DINOv2Config, *, rngs: nnx.Rngs) -> None:
        low, high = config.masked
        if not 0 <= low <= high <= 1:
            raise UsageError(f'masked is {config.masked} and must be two shares of the patches, the smaller first, from 0 to 1')
        super().__init__(config, rngs=rngs)
        self.patch_projector, self.student_patch_projector = self._heads(rngs)
        self.mask_token = nnx.Param(jnp.zeros((config.encoder.width,), jnp.float32), letters='D')  # as in the authors' code

    def __call__(
        self,
        image_BGHWC: jax.Array,
        local_BKHWC: jax.Array | None = None,
        *,
        key: jax.Array | None = None,
        weight_B: jax.Array | None = None,
        progress: jax.Array | float = 1.0,
    ) -> Compared:
        """The student sees all views, one global one masked; the teacher the global ones, whole.

        Args:
          key: draws masks and dropped paths; None: fixed masks, and no path dropped.
          weight_B: 0 for rows that only fill up the batch.
          progress: share of the steps that is done.
        """
        check_views(image_BGHWC)
        config, (mask_key, *keys), frozen = self.config, split_key(key, 3), self._frozen(progress)
        masks = self._masks(image_BGHWC, jax.random.key(_FIXED_SEED) if mask_key is None else mask_key)
        chosen_BG = masks.view_B[:, None] == jnp.arange(image_BGHWC.shape[1])
        hidden = {'blank_BGL': chosen_BG[:, :, None] & masks.blank_BL[:, None], 'blank_D': self.mask_token[...]}
        student_BGTD = encoded(self.student, image_BGHWC, key=keys[0], **hidden)
        target_BGTD = jax.lax.stop_gradient(encoded(self.encoder, image_BGHWC))
        temperature = teacher_temperature(progress, config=config)

        cls_BGD = student_BGTD[:, :, 0]
        student_BVY = self._student_scores(cls_BGD, local_BKHWC, key=keys[1], frozen=frozen)
        target_BGY = self._assigned(by_rows(self.projector, target_BGTD[:, :, 0]), jnp.ones(chosen_BG.shape), temperature, weight_B)
        dino_B = view_loss(student_BVY, target_BGY, temperature=config.student_temperature)

        patch_BMY = by_rows(lambda x_BD: self.student_patch_projector(x_BD, frozen=frozen), self._hidden(student_BGTD, masks))
        wanted_BMY = by_rows(self.patch_projector, self._hidden(target_BGTD, masks))
        wanted_BMY = self._assigned(wanted_BMY, masks.weight_BM, temperature, weight_B)
        ibot_B = patch_loss(patch_BMY, wanted_BMY, weight_BM=masks.weight_BM, temperature=config.student_temperature)
        ibot_B = ibot_B / chosen_BG.shape[1]  # the mean over the views, of which those without a mask have no loss

        parts = {'dino': dino_B, 'ibot': ibot_B, 'koleo': koleo(cls_BGD[:, 0], weight_B=weight_B)}
        given = {'loss_B': dino_B, 'temperature': config.student_temperature, 'weight_B': weight_B}
        scalars = shown(student_BVY, target_BGY, target_BGTD[:, :, 0], **given)
        scalars |= {f'loss_{name}': scalar(part_B, weight_B) for name, part_B in parts.items()}
        return Compared(dino_B + config.patch_weight * ibot_B + config.koleo_weight * parts['koleo'], scalars)

    def _masks(self, image_BGHWC: jax.Array, key: jax.Array) -> Masks:
        count, views, side = image_BGHWC.shape[:3]
        return draw_masks(key, count=count, views=views, grid=side // self.config.encoder.patch_size, masked=self.config.masked)

    def _hidden(self, tokens_BGTD: jax.Array, masks: Masks) -> jax.Array:
        """The tokens [B, M, D] of the masked patches of each image's masked view."""
        own_BTD = jnp.take_along_axis(tokens_BGTD, masks.view_B[:, None, None, None], axis=1)[:, 0]
        return jnp.take_along_axis(own_BTD, self.config.encoder.prefix + masks.index_BM[:, :, None], axis=1)

    def _assigned(self, scores_BNY: jax.Array, weight_BN: jax.Array, temperature: jax.Array, weight_B: jax.Array | None) -> jax.Array:
        """Sinkhorn and Knopp over all N of all images that count."""
        counted_BN = weight_BN > 0 if weight_B is None else (weight_BN > 0) & (weight_B > 0)[:, None]
        given = {'epsilon': temperature, 'iterations': self.config.iterations, 'weight_B': counted_BN.reshape(-1)}
        return by_rows(lambda scores: sinkhorn(scores, **given), scores_BNY)


def patch_loss(student_BMY: jax.Array, target_BMY: jax.Array, *, weight_BM: jax.Array, temperature: float) -> jax.Array:
    """iBOT's loss of each image's masked view [B]: cross-entropy of each masked patch against the teacher's, in the mean over them."""
    loss_BM = cross_entropy(student_BMY, target_BMY, letters='BM,BM,BM', temperature=temperature)
    return (loss_BM * weight_BM).sum(1)
