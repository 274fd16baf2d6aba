"""Object stores: what is tried again, what is said, and that nothing secret is; on fsspec's store in memory."""

from __future__ import annotations

import random
import sys

import hypothesis
import pytest
from flaky_store import FlakyFileSystem, ShortRead, busy, store_of
from hypothesis import strategies as st

from retfound_jax.core import storage
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.storage import Store


@pytest.mark.parametrize(
    ('path', 'remote'),
    [('s3://b/a', True), ('gs://b', True), ('memory://a', True), ('S3://b', True), ('/a/b', False), ('a', False), ('C:/a', False),
     ('file:///a', False), ('', False), ('a/b://c', False)],
)  # fmt: skip
def test_what_is_an_address(path, remote):
    assert storage.is_remote(path) is remote


def test_objects_are_written_read_listed_copied_and_deleted(tmp_path):
    store = store_of(FlakyFileSystem())
    store.write('x/one', b'abcdef')
    (tmp_path / 'two').write_bytes(bytes(range(256)) * 10)
    store.upload('x/y/two', tmp_path / 'two')
    store.copy('x/one', 'z')
    assert store.list() == {'x/one': 6, 'x/y/two': 2560, 'z': 6}
    assert store.list('x/y') == {'x/y/two': 2560} and store.list('nothing') == {}
    assert store.read('z') == b'abcdef' and store.read_range('x/one', start=2, end=4) == b'cd'
    assert b''.join(store.pieces('x/y/two', size=2560)) == (tmp_path / 'two').read_bytes()
    assert store.size('z') == 6 and store.exists('x/one') and store.size('x/none') is None
    store.delete('z')
    store.delete('z')
    assert not store.exists('z')


def test_what_may_pass_is_tried_again_with_pauses_that_grow_and_differ(monkeypatch):
    slept = []

    def pauses(seed):
        left = iter([busy(), ConnectionResetError('reset'), TimeoutError(), ShortRead()])
        slept.clear()
        files = FlakyFileSystem()
        files.pipe_file('/runs/a/x', b'0123')
        files.fault = lambda operation, path: next(left, None)
        store = Store('memory://runs/a', filesystem=files, sleep=slept.append, rng=random.Random(seed), tries=6, pause=1.0)
        assert store.read_range('x', start=0, end=4) == b'0123'
        assert files.done['read'] == 5
        return list(slept)

    first = pauses(0)
    assert len(first) == 4 and all(0.5 * 2**n <= pause <= 1.5 * 2**n for n, pause in enumerate(first))
    assert first == pauses(0) != pauses(1)


def test_it_gives_up_after_so_many_tries_in_one_sentence():
    files = FlakyFileSystem(lambda operation, path: busy())
    with pytest.raises(UserError, match='^could not read memory://runs/a/x: gave up after 3 tries in 0 s .*start again$'):
        store_of(files, tries=3).read('x')
    assert files.done['read'] == 3


@pytest.mark.parametrize(
    ('wrong', 'said'),
    [(FileNotFoundError('x'), 'memory://runs/a/x does not exist'), (PermissionError('Access Denied'), 'no permission to read'),
     (OSError(22, 'The requested range is not satisfiable'), 'could not read')],
)  # fmt: skip
def test_what_will_not_pass_is_told_at_once(wrong, said):
    files = FlakyFileSystem(lambda operation, path: wrong)
    with pytest.raises(UserError, match=said):
        store_of(files).read('x')
    assert files.done['read'] == 1


def test_a_mistake_of_ours_is_no_trouble_of_the_store():
    files = FlakyFileSystem(lambda operation, path: ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        store_of(files).read('x')
    assert files.done['read'] == 1


def test_a_missing_package_and_an_unknown_kind_are_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, 's3fs', None)
    with pytest.raises(UsageError, match=r's3://b/a needs the package s3fs, which is not here; install it with .*\[s3\]"$'):
        Store('s3://b/a')
    with pytest.raises(UsageError, match='a kind of storage that is not known here'):
        Store('nosuch://b/a')
    with pytest.raises(UsageError, match='no address'):
        Store('/a/b')


@pytest.mark.parametrize('address', ['s3://me:word@b/a', 's3://b/a?X-Amz-Signature=f00', 'https://x/y?sig=1'])
def test_an_address_with_credentials_is_refused_and_not_repeated(address):
    with pytest.raises(UsageError, match='credentials') as caught:
        Store(address)
    assert 'word' not in str(caught.value) and 'f00' not in str(caught.value)


@hypothesis.given(st.text('abcXYZ0189', min_size=8, max_size=24), st.sampled_from(['https', 's3', 'gs']))
def test_no_secret_of_an_address_is_left_in_a_message(secret, scheme):
    secret = f'Q{secret}Q'
    for text in (
        f'PUT {scheme}://user:{secret}@host/b/x failed',
        f'{scheme}://host/b/x?X-Amz-Credential=A%2F1&X-Amz-Signature={secret} timed out',
        f'{scheme}://host/b?upload_id=1&access_token={secret}',
        f'the key AKIA{secret.upper()}ABCD1234 is not known',
    ):
        assert secret not in storage.redact(text) and secret.upper() not in storage.redact(text)


def test_a_secret_in_an_error_of_the_store_is_not_repeated():
    files = FlakyFileSystem(lambda operation, path: PermissionError('GET https://u:geheim@h/x?X-Amz-Signature=geheim denied'))
    with pytest.raises(UserError) as caught:
        store_of(files).read('x')
    assert 'geheim' not in str(caught.value) and 'denied' in str(caught.value)


@pytest.mark.parametrize('name', ['../x', '/etc/x', 'a/../../x', '', 'a\\b'])
def test_a_name_that_leads_out_of_its_folder_is_refused(name):
    with pytest.raises(UserError, match='no place in its folder'):
        storage.inside(name)
