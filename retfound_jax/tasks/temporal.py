"""Temporal prediction: pretraining that predicts a later visit of an eye from an earlier one (`models.temporal`).

Letters: B rows of a batch, two for each pair of visits.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from retfound_jax.core.errors import UsageError
from retfound_jax.models.temporal import Temporal, TemporalConfig
from retfound_jax.models.transfer import flat_names, load_encoder
from retfound_jax.tasks.base import Batch
from retfound_jax.tasks.self_supervised import SelfSupervisedTask, mean_loss

_FIXED_SEED = 0  # of the masks of deterministic calls: any constant serves, as long as it never changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemporalTask(SelfSupervisedTask):
    """Predict the hidden patches of a later visit from an earlier one and the time between.

    The one label is the time of a visit [years]; `data.pairs` names it too, so that rows 2i and 2i+1 of a batch are a pair. Validation is
    the loss over the pairs of its split, with masks and later visits that are always the same.
    """

    model: TemporalConfig
    labels: tuple[str, ...] = ('visit_years',)

    def __post_init__(self) -> None:
        if len(self.labels) != 1:
            raise UsageError(f'temporal prediction takes one label, the time of a visit, and task.labels is {list(self.labels)}; name it')

    @property
    def kind(self) -> str:
        return 'temporal'

    @property
    def pairs(self) -> str:
        return self.labels[0]

    def init(self, *, rngs: nnx.Rngs) -> Temporal:
        return Temporal(self.model, rngs=rngs)

    def loss(self, model: Temporal, batch: Batch, *, key: jax.Array | None) -> tuple[jax.Array, dict[str, jax.Array]]:
        pairs = {'mask': batch['mask'][::2]} if 'mask' in batch else {}
        return mean_loss(self._losses(model, batch, key=key), pairs), {}

    def predict(self, model: Temporal, batch: Batch) -> dict[str, jax.Array]:
        """The loss of each pair under its fixed mask, as `score` [B,1]: the same for both of its rows."""
        return {'score': jnp.repeat(self._losses(model, batch, key=None), 2)[:, None]}

    def _losses(self, model: Temporal, batch: Batch, *, key: jax.Array | None) -> jax.Array:
        image_BHWC, years_B = batch['image'], batch['labels'][:, 0]
        if len(image_BHWC) % 2:
            raise UsageError(f'{len(image_BHWC)} rows are no pairs of visits; set data.batch_size to a multiple of 2')
        image, years = (x.reshape(len(x) // 2, 2, *x.shape[1:]) for x in (image_BHWC, jnp.nan_to_num(years_B)))  # NaN: rows that fill up
        key = jax.random.key(_FIXED_SEED) if key is None else key
        return model(image[:, 0], image[:, 1], years[:, 1] - years[:, 0], key=key).loss_B

    def load_pretrained(self, params: Any, source: Any) -> Any:
        """Encoder and decoder of a run of this kind; of anything else the encoder alone, the decoder starting afresh."""
        if any(name.startswith('decoder_interval.') for name in flat_names(source)):
            return load_encoder(params, source)
        return {**params, **load_encoder({'encoder': params['encoder']}, source)}
