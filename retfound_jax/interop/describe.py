"""What a file's own description says: fields of the network, preprocessing, and the meaning of the outputs.

Three kinds of config.json are understood: ours (key "retfound_jax", inside one that timm reads), timm's, and Hugging Face's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UserError
from retfound_jax.interop.files import Found
from retfound_jax.interop.weights import IMAGENET_MEAN, IMAGENET_STD, Meaning, Preprocessing
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig

OURS = 'retfound_jax'
_POOLS = {'token': 'cls', 'avg': 'mean_normed'}  # timm's names; avg with an fc_norm is told by its tensors
_PROBLEMS = {'multi_label_classification': 'multi', 'regression': 'regress'}  # Hugging Face's names


def own(config: Mapping[str, Any], *, file: str) -> tuple[ViTConfig | MAEConfig, Meaning, Preprocessing] | None:
    """What our own exports carry, exactly as it was; None where the file is not one.

    Raises:
      UserError: it is one, of a version that this one cannot read.
    """
    if OURS not in config:
        return None
    said = config[OURS]
    try:
        network = config_lib.from_dict(MAEConfig if 'decoder_width' in said['network'] else ViTConfig, said['network'])
        meaning, preprocessing = config_lib.from_dict(Meaning, said['meaning']), config_lib.from_dict(Preprocessing, said['preprocessing'])
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f'the config.json beside {file} has a "{OURS}" that this version cannot read ({error}); convert again') from error
    return network, meaning, preprocessing


def facts(config: Mapping[str, Any], *, fc_norm: bool) -> dict[str, Any]:
    """Fields of the network that timm's config.json settles."""
    arguments = config.get('model_args') if isinstance(config.get('model_args'), dict) else {}
    found: dict[str, Any] = {}
    pool = arguments.get('global_pool', config.get('global_pool'))
    if pool in _POOLS:
        found['pool'] = 'mean' if pool == 'avg' and fc_norm else _POOLS[pool]
    elif pool and 'model_type' not in config:
        raise UserError(f'the config.json names the pooling "{pool}", and only token and avg are known')
    if isinstance(arguments.get('num_heads'), int):
        found['heads'] = arguments['num_heads']
    return found


def preprocessing(found: Found, *, image_size: int) -> Preprocessing:
    """Normalisation and crop, of the file's own description or, where it is silent, ImageNet's and RETFound's."""
    timm = found.config.get('pretrained_cfg', found.config if 'crop_pct' in found.config else {})
    theirs = found.preprocessor
    crop = timm.get('crop_pct')
    if theirs:
        short = theirs.get('size', {}).get('shortest_edge') if isinstance(theirs.get('size'), dict) else None
        crop = image_size / short if short and theirs.get('do_center_crop') else 1.0
    return Preprocessing(
        image_size=image_size,
        mean=_three(timm.get('mean') or theirs.get('image_mean'), IMAGENET_MEAN),
        std=_three(timm.get('std') or theirs.get('image_std'), IMAGENET_STD),
        crop=float(crop) if crop else usual_crop(image_size),
    )


def usual_crop(image_size: int) -> float:
    """RETFound's: 0.875 up to 224 px, the whole image above."""
    return 0.875 if image_size <= 224 else 1.0


def image_size(config: Mapping[str, Any]) -> int | None:
    """The input size [px] that a description names, for networks whose tensors do not tell it."""
    size = (config.get('pretrained_cfg') or {}).get('input_size')
    return int(size[-1]) if isinstance(size, list) and len(size) == 3 else config.get('image_size')


def meaning(config: Mapping[str, Any], *, outputs: int, mae: bool) -> Meaning:
    """The kind of the head and its class names, where the description tells them."""
    if mae or not outputs:
        return Meaning(kind='mae' if mae else 'encoder')
    names = _class_names(config, outputs=outputs)
    kind = _PROBLEMS.get(str(config.get('problem_type')), 'regress' if outputs == 1 else 'single')
    return Meaning(kind=kind, **{'classes' if kind == 'single' else 'labels': names})


def _class_names(config: Mapping[str, Any], *, outputs: int) -> tuple[str, ...]:
    timm = config.get('label_names') or (config.get('pretrained_cfg') or {}).get('label_names') or ()
    theirs = config.get('id2label') or {}
    names = [theirs[key] for key in sorted(theirs, key=int)] if theirs else list(timm)
    if all(str(name) == f'LABEL_{i}' for i, name in enumerate(names)):  # what Hugging Face writes where nobody named them
        return ()
    if len(names) != outputs:
        raise UserError(f'the config.json names {len(names)} classes and the head has {outputs} outputs; correct the one that is wrong')
    return tuple(map(str, names))


def _three(values: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if not isinstance(values, (list, tuple)) or len(values) != 3:
        return default
    return float(values[0]), float(values[1]), float(values[2])
