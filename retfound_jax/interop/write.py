"""Weights out: safetensors with a config.json that timm loads and that is our own format too, or Hugging Face's.

A directory is written beside its place and renamed into it: it is there whole or not at all.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file

from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import write_json
from retfound_jax.interop import hf_names, layouts, timm_names
from retfound_jax.interop.adapt import without_cls_position
from retfound_jax.interop.describe import OURS
from retfound_jax.interop.files import CONFIG, PREPROCESSOR
from retfound_jax.interop.weights import Weights
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig

FILE = 'model.safetensors'
_TIMM_EPSILON = 1e-6  # of its ViT's norms


def write_weights(weights: Weights, *, out: Path | str, layout: Literal['timm', 'hf'] = 'timm') -> Path:
    """Writes OUT/model.safetensors, OUT/config.json and, for Hugging Face, OUT/preprocessor_config.json.

    The timm layout holds everything and is what `read_weights` reads back exactly; `timm_gap` says where timm itself cannot.

    Raises:
      UsageError: OUT exists and is not empty.
      UserError: Hugging Face's ViT cannot express these weights; the sentence says why.
    """
    out = check_out(out)
    if layout == 'hf':
        tensors, texts = _hf(weights)
    else:
        weights = without_cls_position(weights)
        tensors, texts = _timm_tensors(weights), {CONFIG: _timm_config(weights)}
    partial = out.with_name(f'{out.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(tensors, partial / FILE, metadata={'format': 'pt'})
    (partial / FILE).chmod(0o644)  # the library writes it for its owner alone
    for name, text in texts.items():
        write_json(partial / name, text)
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return out


def check_out(out: Path | str) -> Path:
    """The directory to make.

    Raises:
      UsageError: it exists and is not empty.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f'{out} exists already; give another place, or remove it first')
    return out


def timm_gap(weights: Weights) -> str:
    """Why timm cannot run these weights as they are, in a few words; '' where it can."""
    if isinstance(weights.config, MAEConfig):
        return 'timm has no masked autoencoder; its encoder alone is written with --encoder'
    if weights.config.norm_twice:
        return 'timm applies fc_norm once and these weights need it twice'
    wanted = 1e-5 if weights.config.positions == 'rope' else _TIMM_EPSILON
    if weights.config.norm_epsilon != wanted:
        return f'their layer norms add {weights.config.norm_epsilon} and those of timm {wanted}'
    if weights.config.mlp == 'swiglu' and weights.config.positions != 'rope' and weights.config.registers != 4:
        return 'timm builds a SwiGLU only with four registers or rotary positions'
    return ''


def _timm_tensors(weights: Weights) -> dict[str, np.ndarray]:
    tensors = timm_names.to_timm(weights.params, config=weights.config, outputs=weights.outputs)
    if weights.encoder.positions == 'rope':
        return layouts.split_eva(tensors, swiglu=weights.encoder.mlp == 'swiglu')
    return tensors


def _timm_config(weights: Weights) -> dict[str, Any]:
    said = {
        'network': config_lib.to_dict(weights.config),
        'meaning': config_lib.to_dict(weights.meaning),
        'preprocessing': config_lib.to_dict(weights.preprocessing),
        'origin': dict(weights.origin),
    }
    if timm_gap(weights):
        return {OURS: said}
    config, given = weights.config, weights.preprocessing
    names = list(weights.meaning.classes or weights.meaning.labels)
    pretrained = {
        'input_size': [3, config.image_size, config.image_size],
        'fixed_input_size': True,
        'interpolation': 'bicubic',
        'crop_pct': given.crop,
        'mean': list(given.mean),
        'std': list(given.std),
        'num_classes': weights.outputs,
        'first_conv': 'patch_embed.proj',
        'classifier': 'head',
        **({'label_names': names} if len(names) == weights.outputs and names else {}),
    }
    return {
        'architecture': _architecture(config),
        'num_classes': weights.outputs,
        'num_features': config.width,
        'global_pool': 'token' if config.pool == 'cls' else 'avg',
        'model_args': _arguments(config),
        'pretrained_cfg': pretrained,
        OURS: said,
    }


def _architecture(config: ViTConfig) -> str:
    """Any of timm's models with the right class behind it: its arguments are all given beside it."""
    if config.positions == 'rope':
        return f'vit_small_{"plus_" if config.mlp == "swiglu" else ""}patch16_dinov3{"_qkvb" if config.qkv_bias else ""}'
    return 'vit_giant_patch14_reg4_dinov2' if config.mlp == 'swiglu' else 'vit_base_patch16_224'


def _arguments(config: ViTConfig) -> dict[str, Any]:
    """Of timm's ViT, or of its Eva where positions are rotary; the two name some things otherwise."""
    both = {
        'img_size': config.image_size,
        'patch_size': config.patch_size,
        'embed_dim': config.width,
        'depth': config.depth,
        'num_heads': config.heads,
        'init_values': config.layer_scale,
        'global_pool': 'token' if config.pool == 'cls' else 'avg',
    }
    if config.positions == 'rope':
        return both | {'mlp_ratio': _ratio(config, parts=1), 'num_reg_tokens': config.registers, 'use_fc_norm': config.pool == 'mean'}
    return both | {
        'mlp_ratio': _ratio(config, parts=2 if config.mlp == 'swiglu' else 1),
        'qkv_bias': config.qkv_bias,
        'reg_tokens': config.registers,
        'no_embed_class': not config.cls_position,
        'fc_norm': config.pool == 'mean',
    }


def _ratio(config: ViTConfig, *, parts: int) -> float:
    """A ratio that timm, which rounds down, turns into the very width of the MLP."""
    hidden = parts * config.block.hidden
    ratio = hidden / config.width
    return ratio if int(config.width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _hf(weights: Weights) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    config = weights.encoder
    mae = isinstance(weights.config, MAEConfig)
    gap = _hf_gap(config, mae=mae)
    if gap:
        raise UserError(f"Hugging Face's ViT cannot express these weights: {gap}; export them for timm instead")
    # Its positions are a parameter always, so a fixed table is written as one.
    full = timm_names.to_timm(weights.params, config=weights.config, outputs=weights.outputs)
    tensors = hf_names.from_timm(full, bare=not mae and not weights.outputs)
    texts = {CONFIG: _hf_config(weights), PREPROCESSOR: _hf_preprocessor(weights)}
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}, texts


def _hf_gap(config: ViTConfig, *, mae: bool) -> str:
    faults: Mapping[str, bool] = {
        'they pool the mean of the patch tokens, and it pools the cls token': not mae and config.pool != 'cls',
        'they have LayerScale': config.layer_scale is not None,
        'they have a SwiGLU': config.mlp != 'gelu',
        'they have registers': config.registers > 0,
        'their positions are rotary': config.positions == 'rope',
        'their cls token has no position': not config.cls_position,
    }
    return next((fault for fault, there in faults.items() if there), '')


def _hf_config(weights: Weights) -> dict[str, Any]:
    config = weights.encoder
    out = {
        'architectures': ['ViTForImageClassification' if weights.outputs else 'ViTModel'],
        'model_type': 'vit',
        'hidden_size': config.width,
        'num_hidden_layers': config.depth,
        'num_attention_heads': config.heads,
        'intermediate_size': config.block.hidden,
        'hidden_act': 'gelu',
        'layer_norm_eps': config.norm_epsilon,
        'image_size': config.image_size,
        'patch_size': config.patch_size,
        'num_channels': 3,
        'qkv_bias': config.qkv_bias,
        'attention_probs_dropout_prob': 0.0,
        'hidden_dropout_prob': 0.0,
    }
    if isinstance(weights.config, MAEConfig):
        return out | _hf_decoder(weights.config)
    if not weights.outputs:
        return out
    names = [*weights.meaning.classes, *weights.meaning.labels]
    names = names if len(names) == weights.outputs else [f'LABEL_{index}' for index in range(weights.outputs)]
    problem = {'multi': 'multi_label_classification', 'regress': 'regression'}.get(weights.meaning.kind, 'single_label_classification')
    ids = {'id2label': dict(enumerate(names)), 'label2id': {name: index for index, name in enumerate(names)}}
    return out | ids | {'problem_type': problem}


def _hf_decoder(config: MAEConfig) -> dict[str, Any]:
    return {
        'architectures': ['ViTMAEForPreTraining'],
        'model_type': 'vit_mae',
        'decoder_hidden_size': config.decoder_width,
        'decoder_num_hidden_layers': config.decoder_depth,
        'decoder_num_attention_heads': config.decoder_heads,
        'decoder_intermediate_size': config.decoder_block.hidden,
        'mask_ratio': config.mask_ratio,
        'norm_pix_loss': config.norm_pix_loss,
    }


def _hf_preprocessor(weights: Weights) -> dict[str, Any]:
    given = dataclasses.asdict(weights.preprocessing)
    size = given['image_size']
    return {
        'image_processor_type': 'BitImageProcessor',
        'do_resize': True,
        'size': {'shortest_edge': int(size / given['crop'])},
        'resample': 3,
        'do_center_crop': True,
        'crop_size': {'height': size, 'width': size},
        'do_rescale': True,
        'rescale_factor': 1 / 255,
        'do_normalize': True,
        'do_convert_rgb': True,
        'image_mean': list(given['mean']),
        'image_std': list(given['std']),
    }
