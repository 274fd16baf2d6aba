"""Pretrains a small encoder on the phantom and asks whether its features tell a left eye from a right one; run as a program.

Its own process has XLA's usual flags: the tests' own are for programs that run for milliseconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

STEPS = 1000


def auroc(method: str, workdir: Path) -> dict[str, float]:
    """AUROC of k nearest neighbours for the side of the eye, on patients that neither pretraining nor neighbours saw."""
    environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'} | {'JAX_PLATFORMS': 'cpu'}
    here = Path(__file__).resolve()
    call = [sys.executable, str(here), method, str(workdir)]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, cwd=here.parents[2])
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def _main(method: str, workdir: Path) -> dict[str, float]:
    import jax
    from absl import flags
    from flax import nnx
    from sklearn.metrics import roc_auc_score

    from retfound_jax.data.config import DataConfig
    from retfound_jax.data.phantom.config import PhantomConfig
    from retfound_jax.data.views_config import ViewsConfig
    from retfound_jax.evals.features import extract
    from retfound_jax.evals.probe import Part, knn
    from retfound_jax.models.contrastive import MoCoConfig, SimCLRConfig
    from retfound_jax.models.swav import SwAVConfig
    from retfound_jax.models.vit import ViTConfig
    from retfound_jax.optim import OptimConfig
    from retfound_jax.tasks.moco import MoCoTask
    from retfound_jax.tasks.simclr import SimCLRTask
    from retfound_jax.tasks.swav import SwAVTask
    from retfound_jax.train.checkpoint import load_run
    from retfound_jax.train.config import TrainConfig
    from retfound_jax.train.loop import train
    from retfound_jax.train.state import model_spec

    flags.FLAGS.mark_as_parsed()
    sizes = {'encoder': ViTConfig(image_size=32, patch_size=8, width=48, depth=2, heads=3, scan=False), 'hidden': 96, 'out': 32}
    task = {
        'simclr': SimCLRTask(model=SimCLRConfig(**sizes)),
        'moco': MoCoTask(model=MoCoConfig(**sizes)),
        'swav': SwAVTask(model=SwAVConfig(**sizes, prototypes=32, frozen_prototypes=0.05)),
    }[method]
    # No flip, which would take away what is asked for, and little else: the phantom's eyes are more alike than people's.
    mild = {'jitter': (0.2, 0.2, 0.1, 0.02), 'grey': 0.0, 'blur': (0.3,), 'blur_sigma': (0.1, 1.0), 'solarize': (0.0,)}
    views = ViewsConfig(canvas=40, global_scale=(0.5, 1.0), flip=0.0, **mild)
    data = DataConfig(phantom=PhantomConfig(patients=400, image_size=48, seed=3), image_size=32, batch_size=64)
    config = TrainConfig(
        name=method,
        task=task,
        data=DataConfig(**{**vars(data), 'views': views}),
        optim=OptimConfig(lr=1e-3, weight_decay=0.05, b2=0.999, warmup_steps=STEPS // 10),
        steps=STEPS,
        log_every=100,
        eval_every=-1,
    )
    train(config, workdir=workdir)
    weights = {'random': nnx.to_pure_dict(nnx.state(task.init(rngs=nnx.Rngs(11)))), 'trained': load_run(workdir, which='latest').params}
    found, spec = {}, model_spec(task)
    for name, params in weights.items():
        parts = []
        for split in ('train', 'val', 'test'):
            features, source = extract(spec, jax.tree.map(np.asarray, params), data=data, split=split)
            left = source.table['laterality'] == 'L'
            assert 0 < left.mean() < 1
            parts.append(Part(features=features, label=left.astype(float)[:, None], patient=source.table['patient']))
        scores = knn(parts[0], validation=parts[1], test=parts[2], kind='single').score_test[:, 1]
        found[name] = float(roc_auc_score(parts[2].label[:, 0], scores))
    return found


if __name__ == '__main__':
    print(json.dumps(_main(sys.argv[1], Path(sys.argv[2]))))
