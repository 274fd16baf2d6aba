"""Data order that nothing changes: one hash of (keys, masks) for any number of hosts and workers, and over restarts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import pytest
from data_sets import records, write_dataset

from retfound_jax.core.random import example_rng
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import open_source

ROWS, BATCH, SEED, ALL = 23, 8, 11, 500
# Prints as JSON, for each number of devices, what a masked autoencoder draws for the rows of each step: which patches are hidden.
_MASKS = """
import json, sys
import jax
import numpy as np
from flax import nnx
from retfound_jax.core.mesh import MeshConfig, batch_sharding, make_mesh
from retfound_jax.models.mae import MAE, MAEConfig
from retfound_jax.models.vit import ViTConfig

steps, seed, batch, counts = json.loads(sys.argv[1])
encoder = ViTConfig(image_size=32, patch_size=4, width=16, depth=1, heads=2)
model = MAE(MAEConfig(encoder=encoder, decoder_width=16, decoder_depth=1, decoder_heads=2), rngs=nnx.Rngs(0))

def masks(image, seed, step):
    # The keys of `train.step`: that of the step, split into those of augmentation and of the task.
    key = jax.random.split(jax.random.fold_in(jax.random.key(seed), step))[1]
    return model(image, key=key).mask_BL

found = {}
for count in counts:
    place = batch_sharding(make_mesh(MeshConfig(), devices=jax.devices()[:count]))
    drawn = jax.jit(masks, in_shardings=(place, None, None), out_shardings=place)
    image = jax.device_put(np.zeros((batch, 32, 32, 3), np.float32), place)
    found[count] = []
    for step in range(steps):
        mask = drawn(image, np.uint32(seed), np.int32(step))
        assert len(mask.sharding.device_set) == count
        found[count].append(np.packbits(np.asarray(mask).astype(bool), axis=1).tobytes().hex())
print(json.dumps(found))
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """23 images in batches of 8; one of them cannot be read, and another stands in for it."""
    made = records(ROWS, size=40)
    made[9] = dataclasses.replace(made[9], image=made[9].image[:200])
    path = write_dataset(tmp_path_factory.mktemp('data') / 'eyes', {'train': made})
    return DataConfig(path=str(path), image_size=16, batch_size=BATCH)


def keys_of(config: DataConfig, *, steps: int, hosts: int = 1, workers: int = 0, restarts: Sequence[tuple[int, int]] = ()) -> Iterator[str]:
    """The keys of each step's global batch; `restarts` are (step, hosts from there on)."""
    config = dataclasses.replace(config, workers=workers)
    source = open_source(config)
    start, state = 0, None
    for end, following in [*restarts, (steps, hosts)]:
        loaders = [Loader(config, source, seed=SEED, process_index=host, process_count=hosts) for host in range(hosts)]
        for loader in loaders:
            if state is not None:
                loader.restore(state)
        for _ in range(start, end):
            parts = [next(loader) for loader in loaders]
            pixels = hashlib.sha256(b''.join(part['image'].tobytes() for part in parts)).hexdigest()
            yield ' '.join([*(source.table['key'][row] for part in parts for row in part['index']), pixels])
        state = json.loads(json.dumps(loaders[0].state()))
        for loader in loaders:
            loader.close()
        start, hosts = end, following


def masks_of(*, steps: int, devices: Sequence[int]) -> dict[int, list[str]]:
    """The masks of each step, drawn on so many devices each."""
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={max(devices)}'
    environ = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
    words = [sys.executable, '-c', _MASKS, json.dumps([steps, SEED, BATCH, list(devices)])]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return {int(count): masks for count, masks in json.loads(done.stdout.splitlines()[-1]).items()}


def digest(keys: Iterator[str], masks: list[str]) -> str:
    """One hash of all steps."""
    return hashlib.sha256('\n'.join(f'{key} {mask}' for key, mask in zip(keys, masks, strict=True)).encode()).hexdigest()


def digests(config: DataConfig, *, steps: int, hosts: Sequence[int], workers: Sequence[int]) -> set[str]:
    """Hashes of (keys, masks) over hosts with as many devices, over workers, and over restarts that change the number of hosts."""
    masks = masks_of(steps=steps, devices=hosts)
    cuts = [int(cut) for cut in example_rng(SEED, 0, 0).choice(np.arange(1, steps), 3, replace=False)]
    restarts = [(cut, hosts[place % len(hosts)]) for place, cut in enumerate(sorted(cuts))]
    found = {digest(keys_of(config, steps=steps, hosts=count), masks[count]) for count in hosts}
    found |= {digest(keys_of(config, steps=steps, workers=count), masks[hosts[0]]) for count in workers}
    return found | {digest(keys_of(config, steps=steps, restarts=restarts), masks[hosts[-1]])}


def test_one_hash_of_keys_and_masks_for_hosts_and_restarts(config: DataConfig) -> None:
    assert len(digests(config, steps=40, hosts=(1, 2, 4, 8), workers=())) == 1


@pytest.mark.slow
def test_one_hash_of_keys_and_masks_over_500_steps(config: DataConfig) -> None:
    assert len(digests(config, steps=ALL, hosts=(1, 2, 4, 8), workers=(0, 1, 2, 4))) == 1
    every = list(keys_of(config, steps=60))
    for cut in range(1, 60):
        assert list(keys_of(config, steps=60, hosts=2, restarts=[(cut, 4)])) == every


def test_random_numbers_of_a_sharded_batch_do_not_depend_on_the_devices() -> None:
    assert jax.config.jax_threefry_partitionable  # the default of this JAX, which masks for any number of devices rest on
