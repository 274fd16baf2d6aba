"""Objects in a real S3-compatible server, through a proxy that is slow, answers 500 and 503, and cuts connections."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from faulty_proxy import FAULTS
from s3_server import BUCKET, SECRET, store_at

from retfound_jax.core import storage
from retfound_jax.core.errors import UserError
from retfound_jax.core.storage import Store

pytestmark = pytest.mark.oracle

REQUESTS = (lambda store: store.read('x'), lambda store: store.write('x', b''), lambda store: store.list(), lambda store: store.size('x'))


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
