"""Frozen features: what an encoder says of every image of a split, before any head.

Letters: N images, B batch, D encoder width.
"""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from retfound_jax.core.progress import bar
from retfound_jax.data.config import DataConfig
from retfound_jax.data.device import prepare
from retfound_jax.data.loader import eval_batches
from retfound_jax.data.sources import Source, open_source
from retfound_jax.train.checkpoint import ModelSpec, Tree


def extract(spec: ModelSpec, params: Tree, *, data: DataConfig, split: str, sample: int = 0) -> tuple[np.ndarray, Source]:
    """Pooled vectors [N, D] float32 of a split, in the order of the source that is returned with them.

    Args:
      spec: of a model with an `encoder` that embeds, such as a Classifier.
      sample: about so many images, of patients chosen by a stable hash; 0: all.
    """
    data = dataclasses.replace(data.whole(split), views=None)
    source = open_source(data)
    if 0 < sample < len(source):
        data = dataclasses.replace(data, fraction=sample / len(source))
        source = open_source(data)

    @jax.jit
    def embed(params: Tree, image_BHWC: jax.Array) -> jax.Array:
        return spec.merge(params).encoder.embed(prepare(image_BHWC, key=None, config=data))

    rows = []
    with bar(len(source), desc=f'embed {split}') as progress:
        for batch in eval_batches(data, source):
            rows.append(np.asarray(embed(params, batch['image']))[batch['mask']])
            progress.update(int(batch['mask'].sum()))
    return np.concatenate(rows).astype(np.float32), source
