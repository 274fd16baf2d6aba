"""How long a step waits for a save: a masked autoencoder of ViT-S/16, AdamW, on this machine."""

from __future__ import annotations

import time

import numpy as np
import pytest
import train_runs

from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import Keep, assume
from retfound_jax.train.program import make_program
from retfound_jax.train.saves import Checkpoints

SAVES, STEPS = 10, 4
LIMIT = 0.3  # [s] of the median; one save may meet another program


@pytest.mark.slow
def test_a_save_holds_the_steps_up_for_less_than_three_tenths_of_a_second(tmp_path, capsys):
    encoder = ViTConfig(image_size=224, patch_size=16, width=384, depth=12, heads=6)
    task = MAETask(model=MAEConfig(encoder=encoder, decoder_width=512, decoder_depth=8, decoder_heads=16))
    config = train_runs.mae(task=task, data=train_runs.data(image_size=224, batch_size=4), steps=SAVES * STEPS)
    program = make_program(assume(config))
    state, batch = program.init_state(), program.put(program.random_batch())
    stalls, steps = [], []
    with Checkpoints(tmp_path, keep=Keep(last=2)) as checkpoints:
        for number in range(SAVES * STEPS):
            begun = time.monotonic()
            state, metrics = program.step(state, batch)
            float(metrics['loss'])
            steps.append(time.monotonic() - begun)
            if number % STEPS == STEPS - 1:
                begun = time.monotonic()
                checkpoints.save(state, data={'step': number}, metrics=None)
                stalls.append(time.monotonic() - begun)
    size = sum(path.stat().st_size for path in tmp_path.rglob('d/*')) / 2
    with capsys.disabled():
        told = ' '.join(f'{stall:.3f}' for stall in sorted(stalls))
        print(f'\n{size / 1e6:.0f} MB a checkpoint; a step takes {np.median(steps[1:]):.2f} s; saves held it up for [s]: {told}')
    assert np.median(stalls) < LIMIT
