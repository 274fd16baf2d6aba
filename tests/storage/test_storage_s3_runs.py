"""Datasets and runs in a real S3-compatible server, through a proxy that is slow, answers 500 and 503, and cuts connections."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

import api_runs
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from data_sets import records, write_dataset
from faulty_proxy import FAULTS, seeded
from s3_server import BUCKET, store_at
from tiny_states import abstract, assert_same, tiny

from retfound_jax.cli.main import main
from retfound_jax.core import mirror as mirror_lib
from retfound_jax.core import storage
from retfound_jax.core.files import read_json
from retfound_jax.core.mirror import Mirror
from retfound_jax.core.runlog import RunLog, read_metrics, truncate_metrics
from retfound_jax.core.storage import Store
from retfound_jax.data import remote
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import open_source
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.train.config import Keep
from retfound_jax.train.saves import Checkpoints
from retfound_jax.train.state import TrainState

pytestmark = pytest.mark.oracle


def test_a_dataset_is_fetched_through_all_of_it(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv(remote.FOLDER, str(tmp_path / 'cache'))
    monkeypatch.setattr(storage, '_PIECE', 1 << 12)
    monkeypatch.setattr(remote, '_store', lambda address: Store(address, rng=random.Random(0), pause=0.01, tries=12))
    made = write_dataset(tmp_path / 'retina', {'train': records(12)})
    home = store_at('sets/retina')
    for path in made.iterdir():
        home.upload(path.name, path)
    proxy.plan, proxy.delay = seeded(3, share=0.3), 0.02
    dataset = remote.open_remote(f's3://{BUCKET}/sets/retina')
    shards = [dataset.shard(item) for item in read_json(made / 'manifest.json')['shards']]
    remote.fetch_all(shards)
    assert [shard.path.read_bytes() for shard in shards] == [(made / shard.file).read_bytes() for shard in shards]
    assert (dataset.folder / 'index.parquet').read_bytes() == (made / 'index.parquet').read_bytes()
    assert all(proxy.count[fault] for fault in FAULTS), proxy.count


def _dataset_at(place: str, folder: Path, count: int = 24) -> Path:
    """A dataset with a copy in the store."""
    splits = {'train': records(count), 'val': records(count)[: count // 2], 'test': records(count)[count // 2 :]}
    made = write_dataset(folder, splits)
    for path in made.iterdir():
        store_at(place).upload(path.name, path)
    return made


@pytest.mark.slow
def test_decoding_processes_fetch_what_they_need_and_batches_are_those_of_the_local_dataset(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv(remote.FOLDER, str(tmp_path / 'cache'))
    made = _dataset_at('sets/workers', tmp_path / 'retina')
    found = []
    for path, workers in ((str(made), 0), (f's3://{BUCKET}/sets/workers', 0), (f's3://{BUCKET}/sets/workers', 2)):
        data = DataConfig(path=path, labels=('grade',), image_size=32, batch_size=8, workers=workers)
        loader = Loader(data, open_source(data), seed=0)
        try:
            found.append([next(loader) for _ in range(4)])
        finally:
            loader.close()
        if workers == 0 and path.startswith('s3'):
            here = {name.name for folder in (tmp_path / 'cache').iterdir() for name in folder.iterdir() if 'array_record' in name.name}
            assert here == {name.name for name in made.glob('retina-train*')}  # no other split came
            for folder in (tmp_path / 'cache').iterdir():
                shutil.rmtree(folder)
    for other in found[1:]:
        for batch, wanted in zip(other, found[0], strict=True):
            assert batch.keys() == wanted.keys()
            assert all(np.array_equal(batch[name], wanted[name], equal_nan=True) for name in ('image', 'labels'))


@pytest.mark.slow
def test_a_run_is_evaluated_where_it_lies(proxy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(remote.FOLDER, str(tmp_path / 'cache'))
    monkeypatch.setenv(mirror_lib.SCRATCH, str(tmp_path / 'scratch'))
    _dataset_at('sets/evaluated', tmp_path / 'retina')
    task = ClassifyTask(model=api_runs.ENCODER, labels=('grade',), classes=('0', '1', '2'))
    local = api_runs.save_run(tmp_path / 'run', task, phantom=None, path=f's3://{BUCKET}/sets/evaluated') or tmp_path / 'run'
    home = store_at('runs/evaluated')
    with Mirror(local, home) as mirror:
        mirror.push_step(max(int(path.name) for path in (local / 'checkpoints').iterdir() if path.name.isdigit()))
    words = ['--split', 'test', '--replicates', '20', '--min_n', '1']
    assert main(['evaluate', '--workdir', f's3://{BUCKET}/runs/evaluated', *words]) == 0
    said = capsys.readouterr().out
    assert f'predictions: s3://{BUCKET}/runs/evaluated/predictions/test.parquet' in said
    assert {'predictions/test.parquet', 'tables/metrics_test.json'} <= home.list().keys()
    assert main(['evaluate', '--workdir', str(local), *words]) == 0
    (tmp_path / 'there.parquet').write_bytes(home.read('predictions/test.parquet'))
    assert pq.read_table(tmp_path / 'there.parquet').equals(pq.read_table(local / 'predictions' / 'test.parquet'))
    assert home.read('tables/metrics_test.json') == (local / 'tables' / 'metrics_test.json').read_bytes()
    assert main(['evaluate', '--workdir', f's3://{BUCKET}/runs/none', *words]) == 2
    assert 'holds no run' in capsys.readouterr().err


def _train(local: Path, home: Store, *, last: int, every: int = 2) -> None:
    """Steps, log and checkpoints as the loop makes them; what a step makes depends on the state before it."""
    step_fn = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf * 1.5 + 1 if leaf.ndim else leaf, state))
    with Mirror(local, home) as mirror:
        first = mirror.fetch()
        mirror.claim()
        truncate_metrics(local, after_step=first or 0)
        with Checkpoints(local, keep=Keep(last=1, best=1)) as checkpoints, RunLog(local) as log:
            state = tiny(0)
            if first is not None:
                state, data = checkpoints.restore(first, like=abstract(state))
                assert data == {'step': first}
            for step in range((first or 0) + 1, last + 1):
                mirror.check()
                state = _with_step(step_fn(state), step)
                log.write(step, loss=float(state.params['w'][0, 0]))
                if step % every == 0:
                    log.sync()
                    checkpoints.save(state, data={'step': step}, metrics={'loss': float(step == 6)})
                    checkpoints.wait()
                    mirror.push_step(step)


def _with_step(state: TrainState, step: int) -> TrainState:
    return dataclasses.replace(state, step=jnp.asarray(step, jnp.int32))


def test_a_run_that_is_kept_through_all_of_it_goes_on_bit_by_bit_on_a_fresh_machine(proxy, tmp_path):
    home = store_at('runs/a', tries=12)
    _train(tmp_path / 'undisturbed', store_at('runs/undisturbed'), last=8)
    proxy.count.clear()
    proxy.plan, proxy.delay = seeded(1, share=0.25), 0.02
    for machine, last in enumerate((4, 8)):
        _train(tmp_path / f'machine{machine}', home, last=last)
    assert all(proxy.count[fault] >= 3 for fault in FAULTS), proxy.count
    proxy.plan = lambda method, path: ''

    with Mirror(tmp_path / 'fresh', home) as mirror:
        assert mirror.fetch() == 8
    found = []
    for name in ('fresh', 'undisturbed'):
        with Checkpoints(tmp_path / name) as checkpoints:
            assert checkpoints.latest == 8 and checkpoints.set_aside == ()
            found.append(checkpoints.restore(8, like=abstract(tiny(0)))[0])
        assert [row['step'] for row in read_metrics(tmp_path / name)] == list(range(1, 9))
    assert_same(*found)
    values = [[row['value'] for row in read_metrics(tmp_path / name)] for name in ('fresh', 'undisturbed')]
    assert values[0] == values[1]
    steps = {name.split('/')[1] for name in home.list('checkpoints') if name.count('/') > 1}
    assert steps == {'2', '8'} == {name.split('/')[1].removesuffix('.json') for name in home.list('complete')} - {'owner'}
