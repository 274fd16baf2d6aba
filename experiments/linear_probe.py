"""Linear probe: the encoder stays as pretraining left it and only the head learns.

    retfound train --experiment experiments.linear_probe:retfound_v2 --set data.path=DATASET --set task.labels=dr_grade \\
      --set init_from=WEIGHTS --workdir RUN

A closed-form probe and k-NN on the same frozen features are `retfound_jax.evals.probe`.
"""

from __future__ import annotations

import dataclasses

from experiments import finetune
from retfound_jax.optim import OptimConfig
from retfound_jax.train.config import TrainConfig


def retfound() -> TrainConfig:
    """Our own probe of ViT-L/16 at 224 px, without augmentation. Not yet measured."""
    return _probe(finetune.retfound_v1(), name='linear_probe_retfound', lr=0.1 / 256 * 16)


def retfound_v2() -> TrainConfig:
    """RETFound's own probe, `--adaptation lp` of 2025: the whole fine-tuning recipe with all but the head frozen.

    Source: as experiments.finetune:retfound_v2. fc_norm is frozen too, at its start, and applied twice.
    Published: Zhou et al., arXiv 2509.03421, in figures that we could not read; no number is quoted here.
    Unsure: nothing known. There the frozen encoder still drops paths while the head learns; here it does not.
    Here: not yet measured.
    """
    config = finetune.retfound_v2()
    return dataclasses.replace(config, name='linear_probe_retfound_v2', task=dataclasses.replace(config.task, adapt='head'))


def small_cpu() -> TrainConfig:
    """A probe of the small ViT on two cores. Not yet measured."""
    return _probe(finetune.small_cpu(), name='linear_probe_small_cpu', lr=5e-3)


def _probe(config: TrainConfig, *, name: str, lr: float) -> TrainConfig:
    task = dataclasses.replace(config.task, adapt='head', model=dataclasses.replace(config.task.model, drop_path=0.0))
    data = dataclasses.replace(config.data, augment='none', randaugment=0.0, random_erasing=0.0)
    return dataclasses.replace(config, name=name, task=task, data=data, optim=OptimConfig(lr=lr, weight_decay=0.0, b2=0.999))
