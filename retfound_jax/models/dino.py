"""DINO (Caron et al., arXiv 2104.14294): a student predicts, from one view of a photograph, what its own average makes of another.

Letters: B batch, G global views, K local views, V all of them, H W image [px], C channels, D encoder width, F hidden width, O bottleneck,
Y prototypes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models import ops
from retfound_jax.models.contrastive import Compared, scalar
from retfound_jax.models.layers import Linear
from retfound_jax.models.projection import spread, unit
from retfound_jax.models.vit import ViT, ViTConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfDistillationConfig:
    """What DINO and DINOv2 share; defaults are DINO's for ViTs. Shares of a run are shares of its steps."""

    encoder: ViTConfig = ViTConfig(pool='cls')  # of student and teacher; the teacher never drops paths
    hidden: int = 2048  # of the head's MLP
    bottleneck: int = 256
    prototypes: int = 65536
    student_temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)  # at the start, and from the end of its warm-up on
    teacher_warmup: float = 0.1  # share of the run in which the teacher's temperature rises, linearly
    momentum: float = 0.996  # of the teacher at the start; by a cosine to 1 at the end
    frozen_last: float = 0.01  # share of the run, the first, in which the student's last layer stays as it starts


@dataclasses.dataclass(frozen=True, kw_only=True)
class DINOConfig(SelfDistillationConfig):
    """DINO: the teacher's outputs are centred by a running mean."""

    centre_momentum: float = 0.9


class Prototypes(nnx.Module):
    """The last layer: cosines with prototypes (weight normalisation, arXiv 1602.07868, its gain fixed at 1), in the dtype of x.

    They start uniform within 1 / sqrt(O), as PyTorch's linear layer does. Only their directions count, so their length is what a step of
    AdamW is measured by: started shorter, they would turn faster. For the same reason weight decay, which acts on what gets no gradient
    too, turns nothing that is frozen.
    """

    def __init__(self, config: SelfDistillationConfig, *, rngs: nnx.Rngs) -> None:
        shape, limit = (config.bottleneck, config.prototypes), config.bottleneck**-0.5
        self.kernel = nnx.Param(jax.random.uniform(rngs.params(), shape, jnp.float32, -limit, limit), letters='OY')

    def __call__(self, x_BO: jax.Array, *, frozen: jax.Array | bool) -> jax.Array:
        """[B, Y], summed and returned in float32."""
        held_OY = self.kernel[...]
        kernel_OY = jnp.where(frozen, jax.lax.stop_gradient(held_OY), held_OY)
        given = {'precision': jax.lax.Precision.HIGHEST, 'preferred_element_type': ops.wide(x_BO.dtype)}
        return jnp.einsum('BO,OY->BY', unit(x_BO).astype(x_BO.dtype), unit(kernel_OY.T).T.astype(x_BO.dtype), **given)


class Head(nnx.Module):
    """Three linear layers with GELU between, length 1, and a last layer with weights of length 1 (section 3.1, appendix C)."""

    def __init__(self, config: SelfDistillationConfig, *, rngs: nnx.Rngs) -> None:
        width, hidden, out = config.encoder.width, config.hidden, config.bottleneck
        self.fc1 = Linear((width,), (hidden,), letters='DF', rngs=rngs)
        self.fc2 = Linear((hidden,), (hidden,), letters='FF', rngs=rngs)
        self.fc3 = Linear((hidden,), (out,), letters='FO', rngs=rngs)
        self.last = Prototypes(config, rngs=rngs)

    def __call__(self, x_BD: jax.Array, *, frozen: jax.Array | bool = False) -> jax.Array:
        """Cosines [B, Y] in float32, products in the dtype of x. `frozen`: no gradient goes to the last layer."""
        return self.last(self.fc3(ops.gelu(self.fc2(ops.gelu(self.fc1(x_BD))))), frozen=frozen)


class SelfDistillation(nnx.Module):
    """The `student` and its head learn; `encoder`, the teacher's, and its head start alike and follow.

    So what goes on to other tasks is the teacher's encoder, which the papers evaluate.

    Raises:
      UsageError: at construction, where the numbers of the config do not fit each other; at the call, where there is one global view.
    """

    def __init__(self, config: SelfDistillationConfig, *, rngs: nnx.Rngs) -> None:
        _check(config)
        self.config = config
        still = dataclasses.replace(config.encoder, drop_path=0.0)
        self.encoder, self.student = _twins(lambda rngs: ViT(still, rngs=rngs), lambda rngs: ViT(config.encoder, rngs=rngs), rngs=rngs)
        self.projector, self.student_projector = self._heads(rngs)

    def _heads(self, rngs: nnx.Rngs) -> tuple[Head, Head]:
        return _twins(*[lambda rngs: Head(self.config, rngs=rngs)] * 2, rngs=rngs)

    def _frozen(self, progress: jax.Array | float) -> jax.Array:
        return jnp.asarray(progress) < self.config.frozen_last

    def _student_scores(self, cls_BGD: jax.Array, local_BKHWC: jax.Array | None, *, key: jax.Array | None, frozen: jax.Array) -> jax.Array:
        """Cosines [B, V, Y] of all views, given the student's cls tokens of the global ones."""
        cls_BVD = cls_BGD
        if local_BKHWC is not None:
            if self.config.encoder.positions == 'learned':
                raise UsageError('local views are smaller, and learned positions are for one size; set positions to sincos or rope')
            cls_BVD = jnp.concatenate([cls_BGD, encoded(self.student, local_BKHWC, key=key)[:, :, 0]], axis=1)
        return by_rows(lambda x_BD: self.student_projector(x_BD, frozen=frozen), cls_BVD)


def _twins(
    one: Callable[[nnx.Rngs], nnx.Module], other: Callable[[nnx.Rngs], nnx.Module], *, rngs: nnx.Rngs
) -> tuple[nnx.Module, nnx.Module]:
    """Two modules that start with the same numbers."""
    start = rngs.params()
    return one(nnx.Rngs(params=start)), other(nnx.Rngs(params=start))


class DINO(SelfDistillation):
    """Self-distillation with a running `centre` [Y] of the teacher's outputs."""

    def __init__(self, config: DINOConfig, *, rngs: nnx.Rngs) -> None:
        super().__init__(config, rngs=rngs)
        self.centre = nnx.Param(jnp.zeros((config.prototypes,), jnp.float32), letters='Y')

    def __call__(
        self,
        image_BGHWC: jax.Array,
        local_BKHWC: jax.Array | None = None,
        *,
        key: jax.Array | None = None,
        weight_B: jax.Array | None = None,
        progress: jax.Array | float = 1.0,
    ) -> Compared:
        """The student sees all views, the teacher the global ones.

        Among the scalars is `_centre`, the mean [Y] of the teacher's outputs over the batch.

        Args:
          key: draws dropped paths.
          weight_B: 0 for rows that only fill up the batch.
          progress: share of the steps that is done.
        """
        check_views(image_BGHWC)
        config, keys = self.config, split_key(key, 2)
        cls_BGD = encoded(self.student, image_BGHWC, key=keys[0])[:, :, 0]
        student_BVY = self._student_scores(cls_BGD, local_BKHWC, key=keys[1], frozen=self._frozen(progress))
        target_BGD = jax.lax.stop_gradient(encoded(self.encoder, image_BGHWC)[:, :, 0])
        teacher_BGY = jax.lax.stop_gradient(by_rows(self.projector, target_BGD))
        temperature = teacher_temperature(progress, config=config)
        target_BGY = jax.lax.stop_gradient(jax.nn.softmax((teacher_BGY - self.centre[...]) / temperature, axis=-1))
        loss_B = view_loss(student_BVY, target_BGY, temperature=config.student_temperature)
        told = {'_centre': mean_of(teacher_BGY.mean(1), weight_B)}
        given = {'loss_B': loss_B, 'temperature': config.student_temperature, 'weight_B': weight_B}
        return Compared(loss_B, {**shown(student_BVY, target_BGY, target_BGD, **given), **told})


def encoded(
    encoder: ViT,
    image_BGHWC: jax.Array,
    *,
    key: jax.Array | None = None,
    blank_BGL: jax.Array | None = None,
    blank_D: jax.Array | None = None,
) -> jax.Array:
    """Normed tokens [B, G, 1 + R + L, D] of several views of each image; `blank_BGL` and `blank_D` as in ViT."""
    count, views = image_BGHWC.shape[:2]
    blank = None if blank_BGL is None else blank_BGL.reshape(count * views, -1)
    tokens = encoder(image_BGHWC.reshape(count * views, *image_BGHWC.shape[2:]), key=key, blank_BL=blank, blank_D=blank_D)
    return encoder.norm(tokens).reshape(count, views, *tokens.shape[1:])


def by_rows(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """A function of rows applied along the last axis."""
    out = function(x.reshape(-1, x.shape[-1]))
    return out.reshape(*x.shape[:-1], out.shape[-1])


def teacher_temperature(progress: jax.Array | float, *, config: SelfDistillationConfig) -> jax.Array:
    """Linear from the first to the second temperature over the warm-up, then the second."""
    low, high = config.teacher_temperature
    done = jnp.clip(jnp.asarray(progress) / max(config.teacher_warmup, 1e-6), 0, 1)
    return low + (high - low) * done


def cross_entropy(student: jax.Array, target: jax.Array, *, letters: str, temperature: float) -> jax.Array:
    """-sum over Y of target * log softmax(student / temperature), for targets that sum to 1.

    letters: of the axes without Y: student, target and result, such as 'BV,BG,BGV'.
    """
    one, other, out = letters.split(',')
    dot = jnp.einsum(f'{one}Y,{other}Y->{out}', student, target, precision=jax.lax.Precision.HIGHEST) / temperature
    total = jax.nn.logsumexp(student / temperature, axis=-1)
    return jnp.einsum(f'{one},{out}->{out}', total, jnp.ones_like(dot)) - dot


def view_loss(student_BVY: jax.Array, target_BGY: jax.Array, *, temperature: float) -> jax.Array:
    """The mean over pairs of a teacher's view and another view of the student, [B] (equation 3); the first G of V are the same views."""
    loss_BGV = cross_entropy(student_BVY, target_BGY, letters='BV,BG,BGV', temperature=temperature)
    views, every = loss_BGV.shape[1:]
    other_GV = 1.0 - jnp.eye(views, every)
    return (loss_BGV * other_GV).sum((1, 2)) / (views * (every - 1))


def shown(
    student_BVY: jax.Array,
    target_BGY: jax.Array,
    target_BGD: jax.Array,
    *,
    loss_B: jax.Array,
    temperature: float,
    weight_B: jax.Array | None,
) -> dict[str, jax.Array]:
    """What shows a collapse, of two kinds (section 5.3), and that nothing is learned.

    `teacher_entropy` [nats]: log Y where the teacher says nothing. `kl` [nats]: what the loss of views is beyond it; 0 where the student
    has nothing left to learn. `prototypes_used`: exp of the entropy of the student's mean answer, as a share of all; 1 / Y where it says
    the same of every image (the teacher's, once it is balanced, cannot show that). `embedding_spread`: of the teacher, see
    `projection.spread`.
    """
    entropy_B = _entropy(target_BGY).mean(1)
    mean_Y = mean_of(jax.nn.softmax(jax.lax.stop_gradient(student_BVY[:, 0]) / temperature, axis=-1), weight_B)
    return {
        'teacher_entropy': scalar(entropy_B, weight_B),
        'kl': scalar(jax.lax.stop_gradient(loss_B) - entropy_B, weight_B),
        'prototypes_used': jnp.exp(_entropy(mean_Y)) / len(mean_Y),
        'embedding_spread': spread(target_BGD[:, 0], weight_B),
    }


def mean_of(x_BY: jax.Array, weight_B: jax.Array | None) -> jax.Array:
    """The mean [Y] over the rows that count."""
    return x_BY.mean(0) if weight_B is None else (x_BY * weight_B[:, None]).sum(0) / weight_B.sum().clip(1)


def _entropy(p: jax.Array) -> jax.Array:
    return -(p * jnp.log(p.clip(1e-30))).sum(-1)


def split_key(key: jax.Array | None, count: int) -> list[jax.Array | None]:
    """`count` keys, or as many times None."""
    return [None if key is None else jax.random.fold_in(key, i) for i in range(count)]


def check_views(image_BGHWC: jax.Array) -> None:
    """Raises UsageError unless there are two views of each image or more."""
    if image_BGHWC.ndim != 5 or image_BGHWC.shape[1] < 2:
        raise UsageError('self-distillation compares at least two global views of each image; set data.views.global_views 2 or more')


def _check(config: SelfDistillationConfig) -> None:
    if config.encoder.pool != 'cls':
        raise UsageError(f'self-distillation learns by the cls token, and the encoder\'s pool is "{config.encoder.pool}"; set it to cls')
    temperatures = (config.student_temperature, *config.teacher_temperature)
    if min(temperatures) <= 0:
        raise UsageError(f'the temperatures are {temperatures} and must be above 0')
    shares = {name: getattr(config, name) for name in ('momentum', 'teacher_warmup', 'frozen_last')}
    if not all(0 <= share <= 1 for share in shares.values()):
        told = ', '.join(f'{name} {share}' for name, share in shares.items())
        raise UsageError(f'{told}: each must be a share of 0 to 1')
