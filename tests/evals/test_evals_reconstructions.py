"""Pictures of what a masked autoencoder sees: the right pixels in the right places."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from retfound_jax.core.errors import UsageError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import eval_batches
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source
from retfound_jax.evals.reconstructions import SHEET, save_triples
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import TrainConfig
from retfound_jax.train.loop import train

ENCODER = ViTConfig(image_size=32, patch_size=8, width=16, depth=1, heads=2)
DATA = DataConfig(phantom=PhantomConfig(patients=6, image_size=48), image_size=32, batch_size=4)


def read(path):
    return cv2.imread(str(path))[..., ::-1].astype(int)


def test_triples_show_the_photograph_its_visible_patches_and_a_reconstruction(tmp_path):
    task = MAETask(model=MAEConfig(encoder=ENCODER, decoder_width=16, decoder_depth=1, decoder_heads=2))
    config = TrainConfig(name='tiny', task=task, data=DATA, optim=OptimConfig(lr=1e-3), steps=1, eval_every=-1)
    train(config, workdir=tmp_path)
    written = save_triples(load_run(tmp_path), split='train', count=2)
    assert [path.name for path in written] == [
        f'triple_{row:02d}_{name}.png' for row in range(2) for name in ('masked', 'photograph', 'reconstruction')
    ]
    test = dataclasses.replace(DATA, split='train', batch_size=2)
    image = next(eval_batches(test, open_source(test)))['image']
    for row in range(2):
        names = ('photograph', 'masked', 'reconstruction')
        photograph, masked, reconstruction = (read(tmp_path / 'figures' / f'triple_{row:02d}_{name}.png') for name in names)
        assert np.abs(photograph - image[row]).max() <= 1
        hidden = (masked == 128).all(axis=2).reshape(4, 8, 4, 8).all(axis=(1, 3))
        assert hidden.sum() == 12  # three quarters of 16 patches
        seen = np.repeat(np.repeat(~hidden, 8, 0), 8, 1)
        assert (masked[seen] == photograph[seen]).all() and np.abs(reconstruction - photograph)[seen].max() <= 1
    assert read(tmp_path / 'figures' / SHEET).shape == (96, 64, 3)


def test_a_run_that_is_no_autoencoder_is_refused(tmp_path):
    task = ClassifyTask(model=ENCODER, labels=('glaucoma',))
    train(TrainConfig(name='tiny', task=task, data=DATA, optim=OptimConfig(lr=1e-3), steps=1, eval_every=-1), workdir=tmp_path)
    with pytest.raises(UsageError, match='reconstructs nothing'):
        save_triples(load_run(tmp_path))
