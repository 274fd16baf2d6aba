"""Whatever a checkpoint calls its tensors, brought to timm's names: containers opened, prefixes taken off, parts joined.

Known are timm's own ViT and (rotary) Eva, facebookresearch/mae, RETFound's MAE, DINOv2 and fine-tuned files, Meta's DINOv2, and
Hugging Face's ViT and ViTMAE (`hf_names`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.interop import hf_names
from retfound_jax.interop.files import Found

# The dictionaries that training code wraps a model's tensors in; DINO's teacher is the model, its student is not.
_CONTAINERS = ('model', 'teacher', 'state_dict', 'model_state_dict', 'module')
_RENAMES = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r'^(?:register_tokens|storage_tokens)$', 'reg_token'),
        (r'\.mlp\.w12\.', '.mlp.fc1.'),  # DINOv2's packed SwiGLU
        (r'\.mlp\.w3\.', '.mlp.fc2.'),
        (r'\.gamma_([12])$', r'.ls\1.gamma'),  # timm's Eva
        (r'^blocks\.\d+\.(\d+\.)', r'blocks.\1'),  # blocks in chunks, as DINOv2 trains them
    )
)
# What files carry beside the network: the heads of self-distillation, its mask token, and tables that are computed.
_BESIDE = re.compile(r'^(?:(?:dino|ibot)_head\..*|(?:.*\.)?rope(?:_embed)?\.periods|rope\.freqs.*)$')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recognised:
    """A network's tensors by timm's names, and what else the file says of it."""

    layout: str  # whose code wrote it: timm, eva (timm's), mae (and RETFound), retfound_v2, dino, hf_vit or hf_vit_mae
    tensors: dict[str, np.ndarray]
    facts: Mapping[str, Any]  # fields of ViTConfig and MAEConfig that the file or its config.json settles


def recognise(found: Found) -> Recognised:
    """Opens, strips and renames.

    Raises:
      UserError: no Vision Transformer is in there.
    """
    container, tensors = _open(found.value)
    if hf_names.fits(tensors):
        named, facts = hf_names.to_timm(tensors, config=found.config)
        return Recognised(layout='hf_vit_mae' if 'mask_token' in named else 'hf_vit', tensors=named, facts=facts)
    tensors = _strip(tensors)
    if 'cls_token' not in tensors or not any(name.startswith('blocks.') for name in tensors):
        some = ', '.join(sorted(tensors)[:4]) or 'no tensor'
        raise UserError(f'{found.origin["file"]} holds no Vision Transformer that is known here (it has {some}, ...)')
    eva = any(name.endswith('.gamma_1') for name in tensors) and 'pos_embed' not in tensors
    named = _join({_rename(name): array for name, array in tensors.items() if not _BESIDE.match(name)})
    whole_mae = 'decoder_embed.weight' in named
    # A mask token without a decoder is DINOv2's, of no use without its training.
    dino = not whole_mae and named.pop('mask_token', None) is not None
    usual = 'mae' if whole_mae else 'dino' if dino else 'timm'
    layout = 'eva' if eva else {'model': 'mae', 'teacher': 'dino'}.get(container, usual)
    program = found.value.get('args')
    if 'fc_norm.weight' in named and isinstance(program, Mapping) and program.get('model') == 'RETFound_mae':
        layout = 'retfound_v2'
    facts = {'positions': 'rope', 'norm_epsilon': 1e-5, 'pool': 'mean_normed'} if eva else {}
    return Recognised(layout=layout, tensors=named, facts=facts)


def _open(value: Mapping[str, Any]) -> tuple[str, dict[str, np.ndarray]]:
    """The innermost container's name and its arrays."""
    container = ''
    while not any(isinstance(item, np.ndarray) for item in value.values()):
        inside = next((name for name in _CONTAINERS if isinstance(value.get(name), Mapping)), None)
        if inside is None:
            break
        container, value = inside, value[inside]
    return container, {str(name): array for name, array in value.items() if isinstance(array, np.ndarray)}


def _strip(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names without what stands before `cls_token` ('backbone.', 'module.', 'encoder.'); other names stay as they are."""
    prefix = next((name.removesuffix('cls_token') for name in tensors if name.endswith('cls_token')), '')
    return {name.removeprefix(prefix): array for name, array in tensors.items()}


def _rename(name: str) -> str:
    for pattern, to in _RENAMES:
        name = pattern.sub(to, name)
    return name


def _join(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Eva's parts joined: biases of q and v (k has none), and a SwiGLU's gate and value."""
    out = dict(tensors)
    for name in tensors:
        stem, _, last = name.rpartition('.')
        if last == 'q_bias' and f'{stem}.v_bias' in out:
            q, v = out.pop(name), out.pop(f'{stem}.v_bias')
            out.pop(f'{stem}.k_bias', None)
            out[f'{stem}.qkv.bias'] = np.concatenate([q, np.zeros_like(q), v])
        elif stem.endswith('.fc1_g') and f'{stem[:-1]}x.{last}' in out:
            out[f'{stem[:-2]}.{last}'] = np.concatenate([out.pop(name), out.pop(f'{stem[:-1]}x.{last}')])
    return out


def split_eva(tensors: Mapping[str, np.ndarray], *, swiglu: bool) -> dict[str, np.ndarray]:
    """The inverse of `_join` and of the renaming: timm's names of a rotary ViT.

    Raises:
      UserError: a key has a bias, for which Eva has no name.
    """
    out: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        stem, _, last = name.rpartition('.')
        if name.endswith('.attn.qkv.bias'):
            q, k, v = np.split(array, 3)
            if np.any(k):
                raise UserError(f'{name} has a bias of the keys, which timm has no place for in a rotary ViT: export as ours')
            out |= {f'{stem.removesuffix(".qkv")}.q_bias': q, f'{stem.removesuffix(".qkv")}.v_bias': v}
        elif swiglu and stem.endswith('.mlp.fc1'):
            gate, value = np.split(array, 2)
            out |= {f'{stem}_g.{last}': gate, f'{stem}_x.{last}': value}
        else:
            out[re.sub(r'\.ls([12])\.gamma$', r'.gamma_\1', name)] = array
    return out
