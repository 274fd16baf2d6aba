"""What tasks without labels share: an encoder inside the model, and a loss an image."""

from __future__ import annotations

from typing import Any

import jax

from retfound_jax.tasks.base import Batch, Task


class SelfSupervisedTask(Task):
    """Pretraining; `model` is the configuration of a network with an `encoder`."""

    model: Any

    @property
    def depth(self) -> int:
        return self.model.encoder.depth

    @property
    def image_size(self) -> int:
        return self.model.encoder.image_size

    @property
    def compute_dtype(self) -> str:
        return self.model.encoder.compute_dtype


class ViewsTask(SelfSupervisedTask):
    """Pretraining by comparing views of an image."""

    @property
    def views(self) -> bool:
        return True


def mean_loss(loss_B: jax.Array, batch: Batch) -> jax.Array:
    """The mean over a batch's images, without those that only fill it up."""
    if 'mask' not in batch:
        return loss_B.mean()
    weight_B = batch['mask'].astype(loss_B.dtype)
    return (loss_B * weight_B).sum() / weight_B.sum().clip(1)
