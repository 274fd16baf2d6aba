"""The run that the drills disturb, as a process of its own, and what is compared of two such runs.

Each child adds to `RUN.batches.jsonl` beside the run directory: a hash of row and pixels for each image of each batch it drew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

STEPS, SAVE_EVERY = 40, 3
_IMPORTS = ['jax', 'numpy', 'grain', 'optax', 'orbax.checkpoint', 'tensorboardX', 'retfound_jax.train.loop', 'experiments', 'drill_runs']


def dataset(folder: Path) -> str:
    """A small dataset as ingest writes one."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'data'))
    import data_sets

    records = data_sets.records(29, size=40)
    return str(data_sets.write_dataset(folder, {'train': records[:21], 'val': records[21:]}))


def config(data: str, **changes: Any) -> Any:
    """A tiny masked autoencoder: its steps take milliseconds, so that most moments of a run are moments of a save."""
    from retfound_jax.data.config import DataConfig
    from retfound_jax.models.mae import MAEConfig
    from retfound_jax.models.vit import ViTConfig
    from retfound_jax.optim import OptimConfig
    from retfound_jax.tasks.mae import MAETask
    from retfound_jax.train.config import TrainConfig

    encoder = ViTConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, drop_path=0.1)
    base = TrainConfig(
        name='drill',
        task=MAETask(model=MAEConfig(encoder=encoder, decoder_width=16, decoder_depth=1, decoder_heads=2)),
        data=DataConfig(path=data, image_size=32, batch_size=8),
        optim=OptimConfig(lr=1e-3, warmup_steps=5, ema=0.9),
        steps=STEPS,
        log_every=1,
        checkpoint_every=SAVE_EVERY,
        eval_every=10,
    )
    return dataclasses.replace(base, **changes)


def server() -> Any:
    """Starts children that have everything imported already: a process is forked from one without threads and without devices."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(_IMPORTS)
    return context


def child(workdir: str, data: str, cache: str, changes: dict[str, Any], member: tuple[int, int, int] | None = None) -> None:
    """Trains until done; leaves with the exit code of the command line. member: port, number and count, where there are several."""
    os.environ['JAX_PLATFORMS'] = 'cpu'
    from absl import flags, logging

    from retfound_jax.cli import _errors, _hosts
    from retfound_jax.core.errors import UserError
    from retfound_jax.data.loader import Loader
    from retfound_jax.train.loop import train

    flags.FLAGS.mark_as_parsed()
    logging.set_verbosity(logging.ERROR)
    use_cache(cache)
    port, rank, count = member or (0, None, None)
    _record(Loader, Path(workdir).with_suffix('.batches.jsonl'), rank=rank or 0, count=count or 1)
    values = flags.FlagValues()
    _hosts.define(values)
    told = ['', *([f'--coordinator=127.0.0.1:{port}', f'--process_id={rank}', f'--num_processes={count}'] if member else [])]
    values(told)
    try:
        with _hosts.joined(values) as host:
            train(config(data, **changes), workdir=workdir, resume=True, notice=host.notice)
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(_errors.exit_code(error))


def use_cache(folder: str) -> None:
    """Has JAX, imported already, keep every compiled program there."""
    import jax

    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_compilation_cache_max_size', -1)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def _record(loader: Any, path: Path, *, rank: int, count: int) -> None:
    real = loader.__next__

    def recording(self: Any) -> Any:
        step = self.step
        batch = real(self)
        pairs = zip(batch['index'].tolist(), batch['image'], strict=True)
        digests = [hashlib.sha256(f'{index}'.encode() + image.tobytes()).hexdigest()[:16] for index, image in pairs]
        with open(path, 'a', encoding='utf-8') as file:
            file.write(json.dumps([step, count, rank, digests]) + '\n')
        return batch

    loader.__next__ = recording


def batches(workdir: Path) -> dict[int, list[str]]:
    """What stood at each place of the batch of each step; raises AssertionError where a step drew two different ones."""
    parts: dict[tuple[int, int], dict[int, list[str]]] = {}
    for line in workdir.with_suffix('.batches.jsonl').read_text(encoding='utf-8').splitlines():
        step, count, rank, digests = json.loads(line)
        assert parts.setdefault((step, count), {}).setdefault(rank, digests) == digests, f'step {step} drew another batch after a restart'
    found: dict[int, list[str]] = {}
    for (step, count), ranks in parts.items():
        if len(ranks) == count:  # else a process was ended before it drew its part
            whole = [digest for rank in range(count) for digest in ranks[rank]]
            assert found.setdefault(step, whole) == whole, f'step {step} drew another batch with {count} processes'
    return found


def logged(workdir: Path) -> list[tuple[int, str, float]]:
    """The run log without its times."""
    from retfound_jax.core.runlog import read_metrics

    return [(row['step'], row['name'], row['value']) for row in read_metrics(workdir)]


def state(workdir: Path, *, step: int = STEPS) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, as Orbax reads it without us."""
    import jax
    import orbax.checkpoint as ocp

    path, handler = (workdir / 'checkpoints' / str(step) / 'state').absolute(), ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as reader:
        as_arrays = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
        tree = reader.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_arrays))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_alike(one: Path, other: Path, *, steps: int = STEPS) -> None:
    """Parameters, moments, averages, counters, log and data stream of two finished runs are the same to the last bit."""
    here, there = state(one, step=steps), state(other, step=steps)
    assert here.keys() == there.keys()
    for name in here:
        assert here[name].dtype == there[name].dtype and here[name].tobytes() == there[name].tobytes(), f'{name} differs'
    assert_whole_log(one, steps=steps)
    assert logged(one) == logged(other)
    assert batches(one) == batches(other)


def assert_whole_log(workdir: Path, *, steps: int) -> None:
    """No step is missing in the log, and none stands there twice."""
    rows = logged(workdir)
    names = [(step, name) for step, name, _ in rows]
    assert len(set(names)) == len(names), 'a step is logged twice'
    assert [step for step, name, _ in rows if name == 'loss'] == list(range(1, steps + 1)), 'a step is missing from the log'
