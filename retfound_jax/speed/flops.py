"""Model FLOPs of a task, counted by hand: what the mathematics of a step needs, whatever the program does beside it.

Counted are matrix products, a multiply and an add as two. Not counted: norms, softmax, GELU, residual sums, the optimiser (together a few
percent of the operations, none on the matrix units), and whatever remat computes twice: so MFU is comparable with published figures. By
hand because XLA's `cost_analysis` counts the body of a scan over blocks once, however many blocks there are.

Letters: T tokens, D width, F MLP width, L patches, V visible patches, P values of a patch.
"""

from __future__ import annotations

import dataclasses

from retfound_jax.core.errors import UsageError
from retfound_jax.models.layers import BlockShape
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.token_reconstruction import TokenReconstructionConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.tasks.base import Task
from retfound_jax.tasks.mae import MAETask
from retfound_jax.tasks.supervised import SupervisedTask
from retfound_jax.tasks.token_reconstruction import TokenReconstructionTask

_NO_INPUT_GRADIENT = 2  # forward and the gradient of the weights; of a product whose input is data, or comes of a frozen network
_BOTH_GRADIENTS = 3
_FORWARD = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flops:
    """Of one image."""

    forward: dict[str, float]  # by part of the model
    training: float  # forward and backward; recomputation is not counted

    @property
    def forward_total(self) -> float:
        """The sum over the parts."""
        return sum(self.forward.values())


def count(task: Task) -> Flops:
    """Model FLOPs of one image, forward and training.

    Masked autoencoders are counted as they are computed here: the patch embedding and the encoder on visible patches, the decoder on all
    tokens, the prediction on masked patches, whose pixels alone carry loss. Linear probes train the head, their encoder runs forward only.

    Raises:
      UsageError: it is not known what this kind of task computes.
    """
    if isinstance(task, MAETask):
        parts = _mae(task.model)
    elif isinstance(task, TokenReconstructionTask):
        parts = _token_reconstruction(task.model)
    elif isinstance(task, SupervisedTask):
        parts = _supervised(task)
    else:
        raise UsageError(f'the FLOPs of a {type(task).__name__} are not known; teach retfound_jax/speed/flops.py to count them')
    return Flops(
        forward={name: flops for name, (flops, _) in parts.items()},
        training=sum(flops * times for flops, times in parts.values()),
    )


def _mae(config: MAEConfig) -> dict[str, tuple[float, int]]:
    encoder, width = config.encoder, config.decoder_width
    patches = encoder.grid**2
    tokens = 1 + config.visible
    decoder = _blocks('decoder', config.decoder_block, depth=config.decoder_depth, tokens=1 + patches)
    return {
        **_encoder('encoder', encoder, patches=config.visible),
        'decoder embed': (_product(tokens, encoder.width, width), _BOTH_GRADIENTS),
        **{name: (flops, _BOTH_GRADIENTS) for name, flops in decoder.items()},
        'prediction': (_product(patches - config.visible, width, encoder.patch_values), _BOTH_GRADIENTS),
    }


def _supervised(task: SupervisedTask) -> dict[str, tuple[float, int]]:
    frozen = task.adapt == 'head'
    head = _product(1, task.model.width, task.outputs)
    return {
        **_encoder('encoder', task.model, patches=task.model.grid**2, frozen=frozen),
        'head': (head, _NO_INPUT_GRADIENT if frozen else _BOTH_GRADIENTS),
    }


def _token_reconstruction(config: TokenReconstructionConfig) -> dict[str, tuple[float, int]]:
    encoder = config.encoder
    patches = encoder.grid**2
    parts = {
        **_encoder('encoder', encoder, patches=patches),
        **_encoder('teacher', encoder, patches=patches, frozen=True),
    }
    if config.projector:  # two layers as wide as the encoder
        parts['projector'] = (2 * _product(encoder.prefix + patches, encoder.width, encoder.width), _BOTH_GRADIENTS)
    return parts


def _encoder(name: str, config: ViTConfig, *, patches: int, frozen: bool = False) -> dict[str, tuple[float, int]]:
    """Parts of an encoder that sees `patches`, each with how often training computes it."""
    embed = _product(patches, config.patch_values, config.width)
    blocks = _blocks(name, config.block, depth=config.depth, tokens=config.prefix + patches)
    prefix = '' if name == 'encoder' else f'{name} '
    return {
        f'{prefix}patch embed': (embed, _FORWARD if frozen else _NO_INPUT_GRADIENT),
        **{part: (flops, _FORWARD if frozen else _BOTH_GRADIENTS) for part, flops in blocks.items()},
    }


def _blocks(name: str, shape: BlockShape, *, depth: int, tokens: int) -> dict[str, float]:
    """Forward FLOPs of a stack: its linear layers, and queries times keys with weights times values."""
    width, gates = shape.width, 2 if shape.mlp == 'swiglu' else 1
    linear = _product(tokens, width, 3 * width) + _product(tokens, width, width)
    mlp = _product(tokens, width, gates * shape.hidden) + _product(tokens, shape.hidden, width)
    attention = 2 * _product(tokens, width, tokens)
    return {f'{name} dense': depth * (linear + mlp), f'{name} attention': depth * attention}


def _product(rows: int, inner: int, columns: int) -> float:
    return 2.0 * rows * inner * columns
