"""An experiment by its name, with `--set` applied: what most verbs begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from retfound_jax.core import config as config_lib
from retfound_jax.core.errors import UsageError

if TYPE_CHECKING:
    from retfound_jax.train.config import TrainConfig


def load(name: str, assignments: Sequence[str] = ()) -> TrainConfig:
    """The configuration that `module:function` returns, each `path=value` applied.

    Raises:
      UsageError: there is no such experiment or field, or the function returns something else.
    """
    from retfound_jax.train.config import TrainConfig

    config = config_lib.load_function(name)()
    if not isinstance(config, TrainConfig):
        raise UsageError(f'{name} returned a {type(config).__name__}, not a TrainConfig')
    return config_lib.override(config, assignments)
