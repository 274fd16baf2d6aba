"""Hugging Face's ViT and ViTMAE, by timm's names and back.

Three generations of names are read: 'encoder.layer.0.attention.attention.query' (what is published, and what we write),
'layers.0.attention.q_proj', and the decoders' 'decoder_layers.0' or 'decoder_encoder.layer.0'.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from retfound_jax.core.errors import UserError

_CLS = 'embeddings.cls_token'
_LAYER = re.compile(r'^(decoder_)?(?:encoder\.layer|layers)\.(\d+)\.(.+)\.(weight|bias)$')
_PARTS = {  # timm's name, then Hugging Face's, the published one first
    'norm1': ('layernorm_before',),
    'attn.proj': ('attention.output.dense', 'attention.o_proj'),
    'norm2': ('layernorm_after',),
    'mlp.fc1': ('intermediate.dense', 'mlp.fc1'),
    'mlp.fc2': ('output.dense', 'mlp.fc2'),
}
_QKV = tuple((f'attention.attention.{long}', f'attention.{short}_proj') for long, short in (('query', 'q'), ('key', 'k'), ('value', 'v')))
_SINGLE = {
    'cls_token': _CLS,
    'pos_embed': 'embeddings.position_embeddings',
    'patch_embed.proj': 'embeddings.patch_embeddings.projection',
    'norm': 'layernorm',
    'head': 'classifier',
    'mask_token': 'mask_token',
    'decoder_pos_embed': 'decoder_pos_embed',
    'decoder_embed': 'decoder_embed',
    'decoder_norm': 'decoder_norm',
    'decoder_pred': 'decoder_pred',
}
_DROPPED = ('pooler.dense.weight', 'pooler.dense.bias', 'embeddings.mask_token')


def fits(tensors: Mapping[str, Any]) -> bool:
    """Whether these are names of a Hugging Face ViT or ViTMAE."""
    return any(name.endswith(_CLS) for name in tensors)


def to_timm(tensors: Mapping[str, np.ndarray], *, config: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors by timm's names, and what config.json settles.

    Raises:
      UserError: it is another architecture with like names, or q, k or v is missing.
    """
    kind = config.get('model_type', 'vit')
    if kind not in ('vit', 'vit_mae'):
        raise UserError(f'the config.json describes a "{kind}", and of Hugging Face only vit and vit_mae are read: export it from timm')
    out: dict[str, np.ndarray] = {}
    thirds: dict[str, dict[int, np.ndarray]] = {}
    for name, array in tensors.items():
        name = name.removeprefix('vit.').removeprefix('decoder.')
        layer = _LAYER.match(name)
        if layer:
            stem = f'{layer[1] or ""}blocks.{layer[2]}'
            third = next((i for i, names in enumerate(_QKV) if layer[3] in names), None)
            if third is None:
                out[f'{stem}.{_part(layer[3])}.{layer[4]}'] = array
            else:
                thirds.setdefault(f'{stem}.attn.qkv.{layer[4]}', {})[third] = array
        elif name not in _DROPPED:
            out[_single(name)] = array
    for name, found in thirds.items():
        if len(found) != 3:
            raise UserError(f'the weights lack {", ".join(_QKV[i][0].rsplit(".", 1)[1] for i in range(3) if i not in found)} of {name}')
        out[name] = np.concatenate([found[i] for i in range(3)])
    return out, _facts(config)


def _single(name: str) -> str:
    """A name outside the layers; one that is not known stays as it is and is told of later."""
    for ours, theirs in _SINGLE.items():
        if name == theirs or name.rpartition('.')[0] == theirs:
            return ours + name.removeprefix(theirs)
    return name


def _part(name: str) -> str:
    return next((ours for ours, theirs in _PARTS.items() if name in theirs), name)


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    names = {
        'heads': 'num_attention_heads',
        'norm_epsilon': 'layer_norm_eps',
        'decoder_heads': 'decoder_num_attention_heads',
        'norm_pix_loss': 'norm_pix_loss',
        'mask_ratio': 'mask_ratio',
    }
    facts = {ours: config[theirs] for ours, theirs in names.items() if theirs in config}
    if config.get('hidden_act', 'gelu') != 'gelu':
        raise UserError(f'the config.json names the activation "{config["hidden_act"]}", and only gelu is known')
    # Where there is no config.json, what Hugging Face's classes have by default.
    return {'norm_epsilon': 1e-12, 'pool': 'cls', **facts}


def from_timm(tensors: Mapping[str, np.ndarray], *, bare: bool) -> dict[str, np.ndarray]:
    """Published Hugging Face names; `bare` leaves out the 'vit.' that a model with a head or decoder puts before its encoder."""
    out: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        decoder = name.startswith(('decoder_', 'mask_token'))
        prefix = 'decoder.' if decoder else '' if bare or name.startswith('head.') else 'vit.'
        layer = re.match(r'^(?:decoder_)?blocks\.(\d+)\.(.+)\.(weight|bias)$', name)
        if not layer:
            stem = next(ours for ours in _SINGLE if name == ours or name.rpartition('.')[0] == ours)
            out[prefix + _SINGLE[stem] + name.removeprefix(stem)] = array
            continue
        stem = f'{prefix}{"decoder_layers" if decoder else "encoder.layer"}.{layer[1]}'
        if layer[2] == 'attn.qkv':
            out |= {f'{stem}.{names[0]}.{layer[3]}': part for names, part in zip(_QKV, np.split(array, 3), strict=True)}
        else:
            out[f'{stem}.{_PARTS[layer[2]][0]}.{layer[3]}'] = array
    return out
