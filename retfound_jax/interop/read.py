"""Weights of any known origin, read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retfound_jax.interop import adapt, describe, layouts, shapes, timm_names
from retfound_jax.interop.files import find
from retfound_jax.interop.weights import Weights, name_classes
from retfound_jax.models.mae import MAEConfig


def read_weights(
    source: str | Path,
    *,
    image_size: int | None = None,
    pool: str | None = None,
    norm_twice: bool | None = None,
    heads: int | None = None,
    classes: Sequence[str] = (),
    allow_missing: Sequence[str] = (),
    allow_extra: Sequence[str] = (),
) -> Weights:
    """Reads MAE, RETFound, DINOv2, DINOv3, timm and Hugging Face weights; nothing that is pickled in them is ever run.

    Args:
      source: a .pth, .bin or .safetensors file, a directory with one, or 'hf:owner/name'.
      image_size: [px]; positions are resampled to it as the source's own code does.
      pool: 'mean', 'cls' or 'mean_normed', where the file does not say which or another is wanted.
      norm_twice: whether fc_norm is applied twice, as RETFound's code of 2025 does; None: where the file says it is of that code.
      heads: attention heads, where they are not 64 channels each.
      classes: names of the head's outputs.
      allow_missing, allow_extra: tensors (timm's names, or patterns) that may be absent or left over.

    Raises:
      UserError: one sentence that names the file, the tensor or the step to take.
    """
    found = find(source)
    seen = layouts.recognise(found)
    own = describe.own(found.config, file=found.origin['file'])
    outputs = int(seen.tensors['head.weight'].shape[0]) if 'head.weight' in seen.tensors else 0
    if own is None:
        facts = _facts(seen, found.config, heads=heads)
        network = shapes.infer(seen.tensors, facts=facts)
        size = (network.encoder if isinstance(network, MAEConfig) else network).image_size
        meaning = describe.meaning(found.config, outputs=outputs, mae=isinstance(network, MAEConfig))
        preprocessing = describe.preprocessing(found, image_size=size)
    else:
        network, meaning, preprocessing = own
    outputs = 0 if isinstance(network, MAEConfig) else outputs
    allowed = {'allow_missing': allow_missing, 'allow_extra': allow_extra}
    params = timm_names.from_timm(seen.tensors, config=network, outputs=outputs, **allowed)
    origin = {**found.config.get(describe.OURS, {}).get('origin', {'layout': seen.layout}), **found.origin}
    weights = Weights(config=network, params=params, meaning=meaning, preprocessing=preprocessing, origin=origin)
    weights = name_classes(weights, tuple(classes)) if classes else weights
    return adapt.adapted(weights, pool=pool, norm_twice=norm_twice, image_size=image_size)


def _facts(seen: layouts.Recognised, config: dict[str, Any], *, heads: int | None) -> dict[str, Any]:
    facts = {**seen.facts, **describe.facts(config, fc_norm='fc_norm.weight' in seen.tensors)}
    if facts.get('positions') == 'rope':
        facts['image_size'] = describe.image_size(config) or 224
    if seen.layout == 'retfound_v2':
        facts['norm_twice'] = True
    return facts if heads is None else {**facts, 'heads': heads}
