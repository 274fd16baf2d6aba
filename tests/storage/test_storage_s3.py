"""Against a real S3-compatible server on the loopback, through a proxy that is slow, answers 500 and 503, and cuts connections.

They need what the extras `s3` and `dev` bring: s3fs, and moto for the server.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('s3fs', reason='s3fs is not installed (extra s3)')
pytest.importorskip('moto', reason='moto is not installed (extra dev)')

from faulty_proxy import FAULTS, FaultyProxy, seeded  # noqa: E402
from s3_server import BUCKET, s3_server  # noqa: E402

ROOM = Path(__file__).resolve().parent.parent
for room in ('data', 'train'):
    sys.path.insert(0, str(ROOM / room))
from data_sets import records, write_dataset  # noqa: E402
from tiny_states import abstract, assert_same, tiny  # noqa: E402

from retfound_jax.core import storage  # noqa: E402
from retfound_jax.core.errors import UserError  # noqa: E402
from retfound_jax.core.files import read_json  # noqa: E402
from retfound_jax.core.mirror import Mirror  # noqa: E402
from retfound_jax.core.runlog import RunLog, read_metrics, truncate_metrics  # noqa: E402
from retfound_jax.core.storage import Store  # noqa: E402
from retfound_jax.data import remote  # noqa: E402

SECRET = 'a-word-that-nobody-may-read'
REQUESTS = (lambda store: store.read('x'), lambda store: store.write('x', b''), lambda store: store.list(), lambda store: store.size('x'))


@pytest.fixture(scope='module')
def server():
    with s3_server() as place:
        yield place


@pytest.fixture
def proxy(server, monkeypatch):
    """A proxy without faults at first, as the endpoint of S3; the bucket is made where it is not there."""
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'AKIAIOSFODNN7EXAMPLE')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', SECRET)
    monkeypatch.setenv('AWS_DEFAULT_REGION', 'us-east-1')
    for name in ('AWS_PROFILE', 'AWS_SESSION_TOKEN', 'HTTP_PROXY', 'http_proxy'):
        monkeypatch.delenv(name, raising=False)
    with FaultyProxy(server) as made:
        monkeypatch.setenv('AWS_ENDPOINT_URL', made.address)
        files = Store(f's3://{BUCKET}')._fs
        if not files.exists(BUCKET):
            files.mkdir(BUCKET)
        made.count.clear()
        yield made


def store_at(place: str, **options) -> Store:
    """A store whose pauses are short."""
    return Store(f's3://{BUCKET}/{place}', **{'rng': random.Random(0), 'pause': 0.01} | options)


def test_objects_go_there_and_come_back(proxy, tmp_path, monkeypatch):
    store = store_at('objects')
    assert store.list() == {}
    store.write('x/one', b'abc')
    monkeypatch.setattr(storage, '_WHOLE', 5 << 20)
    monkeypatch.setattr(storage, '_PIECE', 3 << 20)
    big = np.random.default_rng(0).bytes(12 << 20)
    (tmp_path / 'big').write_bytes(big)
    store.upload('x/y/big', tmp_path / 'big')
    store.copy('x/one', 'two')
    assert store.list() == {'two': 3, 'x/one': 3, 'x/y/big': len(big)}
    assert b''.join(store.pieces('x/y/big', size=len(big))) == big and store.size('two') == 3
    store.delete('two')
    store.delete('two')
    assert store.size('two') is None and store.list('x/y') == {'x/y/big': len(big)}


@pytest.mark.parametrize('fault', FAULTS)
def test_each_kind_of_trouble_passes(proxy, monkeypatch, fault):
    """The first two requests of each kind for each object fail; what is read is what was written, and nothing is there by half."""
    monkeypatch.setattr(storage, '_PIECE', 1 << 16)
    data = np.random.default_rng(0).bytes(200_000)
    store, seen = store_at(f'troubles-{fault}', tries=8), Counter()

    def plan(method: str, path: str) -> str:
        seen[method, path] += 1
        return fault if seen[method, path] <= 2 else ''

    proxy.plan, proxy.delay = plan, 0.05
    store.write('x', data)
    assert store.size('x') == len(data) and store.list() == {'x': len(data)}
    assert b''.join(store.pieces('x', size=len(data))) == data and store.read('x') == data
    store.copy('x', 'y')
    assert store.read('y') == data
    store.delete('y')
    proxy.plan = lambda method, path: ''
    assert {method for method, _ in seen} == {'PUT', 'HEAD', 'GET', 'DELETE'}
    assert store.list() == {'x': len(data)} and proxy.count[fault] == sum(min(2, number) for number in seen.values())


def test_a_server_that_stays_silent_counts_as_gone(proxy, monkeypatch):
    monkeypatch.setattr(storage, '_SILENCE', 0.2)
    proxy.delay, proxy.plan = 1.0, lambda method, path: 'slow'
    with pytest.raises(UserError, match=f'^could not read s3://{BUCKET}/a/x: gave up after 2 tries .*start again$'):
        store_at('a', tries=2).read('x')


def test_a_server_that_is_not_there_is_told(proxy, monkeypatch):
    monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:9')
    with pytest.raises(UserError, match='gave up after 2 tries'):
        store_at('a', tries=2).list()


def test_what_will_not_pass_is_told_at_once_and_without_a_secret(proxy, monkeypatch):
    for request in REQUESTS:
        before = sum(proxy.count.values())
        with pytest.raises(UserError, match='there is no bucket no-such-bucket'):
            request(Store('s3://no-such-bucket/a'))
        assert sum(proxy.count.values()) - before <= 4
    with pytest.raises(UserError, match=f'^s3://{BUCKET}/a/none does not exist$'):
        store_at('a').read('none')
    proxy.plan = lambda method, path: '403'
    for request in REQUESTS:
        with pytest.raises(UserError, match='^no permission to .* give this machine credentials') as caught:
            request(store_at('a'))
        assert SECRET not in str(caught.value) and 'AKIA' not in str(caught.value)
    proxy.plan = lambda method, path: ''
    for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'):
        monkeypatch.delenv(name)
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', '/nowhere')
    monkeypatch.setenv('AWS_CONFIG_FILE', '/nowhere')
    with pytest.raises(UserError, match='^no permission to read .* give this machine credentials'):
        store_at('a').read('x')


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


def _train(local: Path, home: Store, *, last: int, every: int = 2) -> None:
    """Steps, log and checkpoints as the loop makes them; what a step makes depends on the state before it."""
    import jax

    from retfound_jax.train.config import Keep
    from retfound_jax.train.saves import Checkpoints

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


def _with_step(state, step):
    import dataclasses

    import jax.numpy as jnp

    return dataclasses.replace(state, step=jnp.asarray(step, jnp.int32))


def test_a_run_that_is_kept_through_all_of_it_goes_on_bit_by_bit_on_a_fresh_machine(proxy, tmp_path):
    home = store_at('runs/a', tries=12)
    _train(tmp_path / 'undisturbed', store_at('runs/undisturbed'), last=12)
    proxy.count.clear()
    proxy.plan, proxy.delay = seeded(1, share=0.25), 0.02
    for machine, last in enumerate((4, 8, 12)):
        _train(tmp_path / f'machine{machine}', home, last=last)
    assert all(proxy.count[fault] >= 3 for fault in FAULTS), proxy.count
    proxy.plan = lambda method, path: ''

    from retfound_jax.train.saves import Checkpoints

    with Mirror(tmp_path / 'fresh', home) as mirror:
        assert mirror.fetch() == 12
    found = []
    for name in ('fresh', 'undisturbed'):
        with Checkpoints(tmp_path / name) as checkpoints:
            assert checkpoints.latest == 12 and checkpoints.set_aside == ()
            found.append(checkpoints.restore(12, like=abstract(tiny(0)))[0])
        assert [row['step'] for row in read_metrics(tmp_path / name)] == list(range(1, 13))
    assert_same(*found)
    values = [[row['value'] for row in read_metrics(tmp_path / name)] for name in ('fresh', 'undisturbed')]
    assert values[0] == values[1]
    steps = {name.split('/')[1] for name in home.list('checkpoints') if name.count('/') > 1}
    assert steps == {'2', '12'} == {name.split('/')[1].removesuffix('.json') for name in home.list('complete')} - {'owner'}
