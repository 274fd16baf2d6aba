"""The configuration of a network, read from the shapes of its tensors and from what its file says.

Shapes settle everything but the number of heads (64 channels a head, save in ViT-H's 16) and what runs after the last block.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.models import positions
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import CHANNELS, ViTConfig

_HEAD_WIDTH = 64
_HEADS = {1280: 16}  # ViT-H of MAE and timm
_DECODER_HEADS = 16  # MAE's and RETFound's
_GAMMA = 1e-5  # DINOv2's start value of LayerScale; weights that are read replace it


def infer(tensors: Mapping[str, np.ndarray], *, facts: Mapping[str, Any]) -> ViTConfig | MAEConfig:
    """The network these tensors (timm's names) are of. `facts` settles fields that shapes do not, or corrects a guess.

    Raises:
      UserError: a tensor that everything hangs on is missing or of a shape that no ViT has.
    """
    encoder = _vit(tensors, facts={name: value for name, value in facts.items() if name in ViTConfig.__dataclass_fields__})
    if 'decoder_embed.weight' not in tensors:
        return encoder
    width = _shape(tensors, 'decoder_embed.weight', rank=2)[0]
    table = tensors.get('pos_embed')
    fixed = table is not None and positions.is_sincos(table[0])
    own = {name: value for name, value in facts.items() if name in ('norm_pix_loss', 'mask_ratio')}
    return MAEConfig(
        encoder=dataclasses.replace(encoder, positions='sincos' if fixed else 'learned', pool='cls'),
        decoder_width=width,
        decoder_depth=_depth(tensors, 'decoder_blocks'),
        decoder_heads=int(facts.get('decoder_heads') or _DECODER_HEADS),
        **own,
    )


def _vit(tensors: Mapping[str, np.ndarray], *, facts: Mapping[str, Any]) -> ViTConfig:
    width = _shape(tensors, 'cls_token', rank=3)[2]
    _, channels, patch, across = _shape(tensors, 'patch_embed.proj.weight', rank=4)
    if channels != CHANNELS or patch != across:
        raise UserError(f'patch_embed.proj.weight takes {channels} channels in patches of {patch}x{across} px, not 3 in squares')
    hidden = _shape(tensors, 'blocks.0.mlp.fc2.weight', rank=2)[1]
    rows = _shape(tensors, 'blocks.0.mlp.fc1.weight', rank=2)[0]
    read = {
        'patch_size': patch,
        'width': width,
        'depth': _depth(tensors, 'blocks'),
        'heads': _HEADS.get(width, max(width // _HEAD_WIDTH, 1)),
        'mlp_ratio': hidden / width,
        'mlp': 'swiglu' if rows == 2 * hidden else 'gelu',
        'registers': tensors['reg_token'].shape[1] if 'reg_token' in tensors else 0,
        'layer_scale': _GAMMA if 'blocks.0.ls1.gamma' in tensors else None,
        'qkv_bias': 'blocks.0.attn.qkv.bias' in tensors,
        'pool': 'mean' if 'fc_norm.weight' in tensors else 'cls',
    }
    if 'pos_embed' in tensors or facts.get('positions') != 'rope':
        read |= _places(_shape(tensors, 'pos_embed', rank=3)[1], patch=patch)
    return ViTConfig(**{**read, **facts})


def _places(rows: int, *, patch: int) -> dict[str, Any]:
    """What a table of so many positions says: the grid, and whether the cls token has a row."""
    for prefix in (1, 0):
        grid = round((rows - prefix) ** 0.5)
        if grid * grid == rows - prefix and grid:
            return {'positions': 'learned', 'cls_position': bool(prefix), 'image_size': grid * patch}
    raise UserError(f'pos_embed has {rows} positions, which are no square grid; only square images are read')


def _depth(tensors: Mapping[str, np.ndarray], stack: str) -> int:
    found = {int(match[1]) for name in tensors if (match := re.match(rf'^{stack}\.(\d+)\.', name))}
    missing = sorted(set(range(max(found, default=0) + 1)) - found)
    if missing:
        raise UserError(f'the weights lack {stack}.{missing[0]}, a block of {max(found, default=0) + 1}: they are cut, or of another model')
    return len(found)


def _shape(tensors: Mapping[str, np.ndarray], name: str, *, rank: int) -> tuple[int, ...]:
    if name not in tensors:
        raise UserError(f'the weights lack {name}, without which they are no Vision Transformer that is known here')
    if tensors[name].ndim != rank:
        raise UserError(f'{name} is {tensors[name].shape}, and {rank} axes are needed: it is another architecture')
    return tensors[name].shape
