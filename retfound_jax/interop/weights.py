"""What interop reads and writes: a network's configuration, its arrays, and what goes in and comes out of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from retfound_jax.core.errors import UsageError
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig

Kind = Literal['encoder', 'mae', 'single', 'multi', 'ordinal', 'regress']
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How a photograph becomes the network's input: shorter side to image_size / crop, central square, normalised."""

    image_size: int = 224  # [px]
    mean: tuple[float, float, float] = IMAGENET_MEAN  # of each channel on a scale of 0 to 1
    std: tuple[float, float, float] = IMAGENET_STD
    crop: float = 0.875  # side of the central square, as a share of the shorter side


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the outputs say. A head without its meaning is how one task's model gets used for another."""

    kind: Kind
    labels: tuple[str, ...] = ()  # columns the head was trained on; empty where the file does not say
    classes: tuple[str, ...] = ()  # of single and ordinal, by index; empty where the file does not say
    target_mean: float = 0.0  # of a regression [unit of the column]
    target_std: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UsageError(f'there is no kind of weights "{self.kind}"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """A network with its arrays, float32 and by the names of an unrolled model ('encoder.blocks.0.norm1.scale').

    Arrays may be views into the file they come from, and must not be written to.
    """

    config: ViTConfig | MAEConfig
    params: Mapping[str, np.ndarray]
    meaning: Meaning
    preprocessing: Preprocessing
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # file, its SHA-256, layout: for reports and headers

    @property
    def encoder(self) -> ViTConfig:
        """The encoder's configuration, whatever is around it."""
        return self.config.encoder if isinstance(self.config, MAEConfig) else self.config

    @property
    def outputs(self) -> int:
        """Width of the head; 0 where there is none."""
        return len(self.params['head.bias']) if 'head.bias' in self.params else 0

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(int(array.size) for array in self.params.values())


def name_classes(weights: Weights, classes: tuple[str, ...]) -> Weights:
    """The same weights with their outputs named.

    Raises:
      UsageError: there is no head, or another number of outputs.
    """
    wanted = weights.outputs + (weights.meaning.kind == 'ordinal')
    if not weights.outputs:
        raise UsageError(f'class names {", ".join(classes)} were given for weights without a head; leave them out')
    if len(classes) != wanted or len(set(classes)) != len(classes):
        raise UsageError(f'{len(set(classes))} class names were given ({", ".join(classes)}) and the head has {wanted}; name each once')
    field = 'labels' if weights.meaning.kind in ('multi', 'regress') else 'classes'
    return dataclasses.replace(weights, meaning=dataclasses.replace(weights.meaning, **{field: classes}))
