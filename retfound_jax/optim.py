"""AdamW as MAE and RETFound use it: warm-up cosine per step, layer-wise decay, no weight decay but on kernels, frozen parameters.

Gradient accumulation and the moving average of the parameters belong to the training step, not to this chain: the step
averages gradients over microbatches before it calls `update`, so the optimiser's state stays one copy that shards like the
parameters. `steps` here are therefore optimiser steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from retfound_jax.core.errors import UsageError

EMBEDDINGS = ('patch_embed', 'cls_token', 'reg_token', 'pos_embed')  # layer 0 of layer-wise decay


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW, its schedule, and what the training step does around it (`accumulate`, `gradient_dtype`, `ema`)."""

    base_lr: float = 1.5e-4  # peak rate per 256 images of a step's whole batch
    lr: float | None = None  # peak rate as it is; overrides base_lr
    weight_decay: float = 0.05  # decoupled; on kernels only
    weight_decay_end: float | None = None  # where half a cosine from weight_decay ends with the run (DINO); None: it stays
    b1: float = 0.9
    b2: float = 0.95
    warmup_steps: int = 0  # [steps] linear from 0
    min_lr: float = 0.0  # where the cosine ends
    layer_decay: float = 1.0  # the rate of layer i is decay ** (depth + 1 - i) of the peak
    clip_norm: float | None = None  # of the gradient over all trained parameters
    accumulate: int = 1  # microbatches of a step; the training step's business
    # What blocks' kernel gradients are summed over devices in; bfloat16 halves what travels, needs a compute_dtype of bfloat16 and is
    # float32 again before anything is done with it. The training step's business.
    gradient_dtype: Literal['float32', 'bfloat16'] = 'float32'
    ema: float = 0.0  # decay of the moving average of the parameters, 0 none; the training step's business


def learning_rate(config: OptimConfig, *, steps: int, batch_size: int) -> optax.Schedule:
    """The rate of step 0, 1, ...: linear from 0 over `warmup_steps`, then half a cosine that reaches min_lr at `steps`.

    Args:
      steps: [steps] of the whole run.
      batch_size: [images] of one step, over all devices and microbatches.

    Raises:
      UsageError: the warm-up is longer than the run.
    """
    peak = config.base_lr * batch_size / 256 if config.lr is None else config.lr
    if not 0 <= config.warmup_steps <= steps or steps < 1:
        raise UsageError(f'warmup_steps {config.warmup_steps} do not fit a run of {steps} steps; choose fewer')

    def rate(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - config.warmup_steps) / max(steps - config.warmup_steps, 1), 0.0, 1.0)
        cosine = config.min_lr + (peak - config.min_lr) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        return jnp.where(step < config.warmup_steps, peak * step / max(config.warmup_steps, 1), cosine)

    return rate


def decay_rate(config: OptimConfig, *, steps: int) -> float | optax.Schedule:
    """The weight decay, or that of step 0, 1, ...: half a cosine from weight_decay to weight_decay_end, which it reaches at `steps`."""
    start, end = config.weight_decay, config.weight_decay_end
    if end is None:
        return start

    def rate(step: jax.Array | int) -> jax.Array:
        progress = jnp.clip(jnp.asarray(step, jnp.float32) / steps, 0.0, 1.0)
        return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))

    return rate


def layer_scales(params: Any, *, depth: int, decay: float) -> Any:
    """Each parameter's share of the rate, in a tree like `params`: numpy scalars, and [depth, 1, ...] for a scanned stack.

    The scheme of BEiT (arXiv 2106.08254) and MAE fine-tuning: embeddings are layer 0, block i is layer i + 1, everything
    above the blocks is layer depth + 1, and layer i gets decay ** (depth + 1 - i).
    """

    def scale(path: tuple[Any, ...], param: Any) -> np.ndarray:
        names = _names(path)
        if 'blocks' in names:
            following = names[names.index('blocks') + 1]
            layers = np.asarray(int(following) + 1) if following.isdigit() else 1 + np.arange(depth)
            if layers.ndim and param.shape[0] != depth:
                raise UsageError(f'{".".join(names)} stacks {param.shape[0]} blocks, but depth is {depth}; give the depth of the model')
            layers = layers.reshape(layers.shape + (1,) * (param.ndim - 1 if layers.ndim else 0))
        else:
            layers = np.asarray(0 if any(name in EMBEDDINGS for name in names) else depth + 1)
        return (decay ** (depth + 1.0 - layers)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(scale, params)


def make_optimizer(
    config: OptimConfig,
    *,
    params: Any,
    steps: int,
    batch_size: int,
    depth: int,
    trainable: Callable[[str], bool] = lambda path: True,
) -> optax.GradientTransformation:
    """Clip, AdamW, layer-wise decay, schedule. Frozen parameters have no state and never change, not by a bit.

    Args:
      params: the parameters or their abstract shapes; only names and shapes are read.
      depth: [blocks] of the encoder, for layer-wise decay.
      trainable: says of a dotted name ('encoder.blocks.norm1.scale') whether it is trained.

    Raises:
      UsageError: nothing is trained, or the schedule or the depth does not fit.
    """
    named = jax.tree_util.tree_map_with_path(lambda path, _: '.'.join(_names(path)), params)
    trained = jax.tree.map(trainable, named)
    if not any(jax.tree.leaves(trained)):
        raise UsageError('no parameter is trained; let trainable accept at least one')
    chain = [
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2),
        optax.add_decayed_weights(decay_rate(config, steps=steps), mask=lambda tree: jax.tree_util.tree_map_with_path(_decays, tree)),
        _scale_layers(depth, config.layer_decay) if config.layer_decay != 1.0 else optax.identity(),
        optax.scale_by_learning_rate(learning_rate(config, steps=steps, batch_size=batch_size)),
    ]
    if all(jax.tree.leaves(trained)):
        return optax.chain(*chain)
    labels = jax.tree.map(lambda train: 'trained' if train else 'frozen', trained)
    return optax.multi_transform({'trained': optax.chain(*chain), 'frozen': optax.set_to_zero()}, labels)


def _scale_layers(depth: int, decay: float) -> optax.GradientTransformation:
    """Multiplies updates by `layer_scales`: constants of the program, no state."""

    def update(updates: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda update, scale: update * scale, updates, layer_scales(updates, depth=depth, decay=decay))

    return optax.stateless(update)


def _decays(path: tuple[Any, ...], param: Any) -> bool:
    """Weight decay acts on kernels: not on biases, norms, tokens or positions (a stack's axis makes their rank no guide)."""
    return _names(path)[-1] == 'kernel'


def _names(path: tuple[Any, ...]) -> list[str]:
    """The parts of a pytree path that name something; an nnx.State adds '.value' below each parameter."""
    parts = [getattr(key, 'key', getattr(key, 'idx', None)) for key in path]
    return [str(part) for part in parts if part is not None]
