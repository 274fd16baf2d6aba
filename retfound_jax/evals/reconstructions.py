"""What a masked autoencoder sees and makes of it: photograph, masked photograph and reconstruction, as pictures.

Letters: B batch, H W image height and width [px], C channels.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import cv2
import jax
import numpy as np

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import atomic_write
from retfound_jax.data.device import prepare
from retfound_jax.data.loader import eval_batches
from retfound_jax.data.sources import open_source
from retfound_jax.train.checkpoint import Run

SHEET = 'reconstructions.png'  # all triples, a column each: photograph, masked, reconstruction
_HIDDEN = 128  # grey level of a hidden patch


def save_triples(run: Run, *, split: str = 'test', count: int = 6, out: Path | None = None) -> list[Path]:
    """Writes `triple_00_photograph.png`, `_masked.png`, `_reconstruction.png` and so on of a split's first images, and one sheet of all.

    Args:
      out: a directory; RUN/figures by default.

    Raises:
      UsageError: the run is no masked autoencoder.
      UserError: the split has no image.
    """
    if run.task.kind != 'mae':
        raise UsageError(f'{run.workdir} is a {run.task.kind} run and reconstructs nothing; give a pretraining run')
    data = dataclasses.replace(run.config.data.whole(split), batch_size=count)
    batch = next(itertools.chain(eval_batches(data, open_source(data)), [None]))
    if batch is None:
        raise UserError(f'the split "{split}" has no image to reconstruct; ingest more or name another split')
    out = out or run.workdir / 'figures'
    pictures = _pictures(run, batch['image'])
    rows = np.flatnonzero(batch['mask'])
    written = [_write(out / f'triple_{row:02d}_{name}.png', image[row]) for name, image in pictures.items() for row in rows]
    _write(out / SHEET, np.vstack([np.hstack(image[rows]) for image in pictures.values()]))
    return sorted(written)


def _write(path: Path, image_HWC: np.ndarray) -> Path:
    atomic_write(path, cv2.imencode('.png', image_HWC[..., ::-1])[1].tobytes())
    return path


def _pictures(run: Run, image_BHWC: np.ndarray) -> dict[str, np.ndarray]:
    """The three pictures of each image, uint8 [B,H,W,C]."""
    config, model = run.config.data, run.model()
    shown = jax.jit(lambda image: run.task.reconstruct(model, prepare(image, key=None, config=config)))(image_BHWC)

    def colours(normalised_BHWC: jax.Array) -> np.ndarray:
        scaled = np.asarray(normalised_BHWC) * np.array(config.std) + np.array(config.mean)
        return np.clip(np.rint(scaled * 255), 0, 255).astype(np.uint8)

    masked = np.where(np.asarray(shown.mask) > 0.5, _HIDDEN, colours(shown.photograph)).astype(np.uint8)
    return {'photograph': colours(shown.photograph), 'masked': masked, 'reconstruction': colours(shown.reconstruction)}
