"""The experiment of the kill test: a tiny run that saves often."""

from __future__ import annotations

import train_runs

from retfound_jax.train.config import Keep, TrainConfig


def run() -> TrainConfig:
    """40 steps, a checkpoint every fourth."""
    return train_runs.mae(steps=40, checkpoint_every=4, keep=Keep(last=2))
