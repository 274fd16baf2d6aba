"""The roll is called before JAX joins processes: who is missing has a number, and what else calls on the port is sent away."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from retfound_jax.core import roll_call
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.host_store import MissingHosts
from retfound_jax.core.roll_call import Roll, call


@pytest.fixture
def port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def roll(index: int, count: int, port: int, *, host: str = '127.0.0.1') -> Roll:
    """How a process of the tests takes part."""
    return Roll(coordinator=f'{host}:{port}', index=index, count=count, me=f'host {index}')


@contextlib.contextmanager
def pool() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '[::1]'])
def test_all_who_come_learn_that_all_are_there(port: int, host: str) -> None:
    if host == '[::1]' and not can_listen_on_loopback_6():
        pytest.skip('this machine has no IPv6 loopback')
    with pool() as threads:
        calls = [threads.submit(call, roll(index, 8, port, host=host), timeout=30) for index in (3, 1, 7, 2, 6, 4, 5, 0)]
        came = [one.result() for one in calls]
    assert came[-1] == {index: f'host {index}' for index in range(8)} and came[:-1] == [{}] * 7
    with socket.create_server(('127.0.0.1', port)):
        pass  # the port is free again, for JAX


def can_listen_on_loopback_6() -> bool:
    """Whether ::1 is there."""
    try:
        with socket.create_server(('::1', 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_who_is_missing_is_named_by_all_who_came(port: int) -> None:
    begin = time.monotonic()
    with pool() as threads:
        calls = [threads.submit(call, roll(index, 6, port), timeout=1.0) for index in (0, 1, 3)]
        errors = [one.exception() for one in calls]
    for error in errors:
        assert isinstance(error, MissingHosts) and error.ranks == (2, 4, 5)
        assert 'processes 2, 4, 5 did not start within 1 s' in str(error)
    assert time.monotonic() - begin < 10


def test_a_coordinator_that_is_not_there_is_named(port: int) -> None:
    with pytest.raises(MissingHosts, match=rf'process 0 did not answer at 127.0.0.1:{port} within 0.5 s \(Connection refused\)') as caught:
        call(roll(1, 2, port), timeout=0.5)
    assert caught.value.ranks == (0,)


def test_a_coordinator_that_is_frozen_is_named(port: int) -> None:
    with socket.create_server(('127.0.0.1', port)), pytest.raises(MissingHosts, match='process 0 did not answer') as caught:
        call(roll(1, 2, port), timeout=0.5)
    assert caught.value.ranks == (0,)


def test_a_host_without_a_name_is_told(port: int) -> None:
    with pytest.raises(MissingHosts, match='process 0 did not answer at no-such-host.invalid'):
        call(roll(1, 2, port, host='no-such-host.invalid'), timeout=0.5)


def test_a_port_in_use_is_told(port: int) -> None:
    with socket.create_server(('127.0.0.1', port)), pytest.raises(UserError, match=f'cannot listen on port {port}'):
        call(roll(0, 2, port), timeout=5)


@pytest.mark.parametrize('text', ['', 'host', 'host:', ':80', 'host:0', 'host:70000', 'host:http', '::1'])
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(UsageError, match='host:port'):
        roll_call.address(text)


def test_addresses_are_taken_apart() -> None:
    assert roll_call.address('node01.site:8476') == ('node01.site', 8476)
    assert roll_call.address('[2001:db8::1]:80') == ('2001:db8::1', 80)
    assert roll_call.bind_address('localhost:80') == '127.0.0.1:80'  # a run of this machine alone is open to nobody else
    assert roll_call.bind_address('[::1]:80') == '[::1]:80'
    assert roll_call.bind_address('node01:80') == '[::]:80'


def test_processes_that_do_not_fit_together_are_told(port: int) -> None:
    with pool() as threads:
        first = threads.submit(call, roll(0, 3, port), timeout=20)
        assert 'told of 4 processes and process 0 of 3' in str(threads.submit(call, roll(1, 4, port), timeout=20).exception())
        one = threads.submit(call, roll(1, 3, port), timeout=20)
        two = threads.submit(call, roll(1, 3, port), timeout=20)  # either of the two may be the one that is refused
        refused, _ = concurrent.futures.wait([one, two], return_when=concurrent.futures.FIRST_COMPLETED)
        error = refused.pop().exception()
        assert isinstance(error, UsageError) and 'two processes call themselves number 1' in str(error)
        threads.submit(call, roll(2, 3, port), timeout=20).result()
        assert sorted(first.result()) == [0, 1, 2]


def test_a_process_that_died_while_it_waited_comes_again(port: int) -> None:
    with pool() as threads:
        first = threads.submit(call, roll(0, 3, port), timeout=20)
        with dial(port) as line:
            line.sendall(json.dumps({'index': 1, 'count': 3, 'me': 'before'}).encode() + b'\n')
            assert json.loads(line.makefile().readline())['missing'] == [2]
        others = [threads.submit(call, roll(index, 3, port), timeout=20) for index in (1, 2)]
        assert first.result() == {0: 'host 0', 1: 'host 1', 2: 'host 2'} and [one.result() for one in others] == [{}, {}]


def dial(port: int) -> socket.socket:
    """A line to process 0, once it listens."""
    end = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(('127.0.0.1', port), timeout=10)
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_whatever_else_calls_is_sent_away(port: int) -> None:
    lines = [
        b'GET / HTTP/1.1\r\n\r\n',
        b'\x00\xff' * 40 + b'\n',
        b'{"index": 1}\n',
        b'{"index": "1", "count": 2, "me": "x"}\n',
        b'[1, 2]\n',
        b'[' * 3000 + b'\n',
        b'{"index": 1, "count": 2, "me": 3}\n',
        os.urandom(100_000),
        b'x' * 5000,
        b'',
    ]
    with pool() as threads:
        first = threads.submit(call, roll(0, 2, port), timeout=30)
        for words in lines:
            with dial(port) as line, contextlib.suppress(ConnectionError):
                line.sendall(words)
                line.shutdown(socket.SHUT_WR)
                assert line.recv(100) == b''
        silent = [dial(port) for _ in range(3)]  # and some that say nothing at all
        begin = time.monotonic()
        assert threads.submit(call, roll(1, 2, port), timeout=30).result() == {}
        assert first.result() == {0: 'host 0', 1: 'host 1'} and time.monotonic() - begin < 5
        for line in silent:
            line.close()


@pytest.mark.parametrize(
    'answer', [b'{"final": true}\n', b'{"missing": ["x"], "final": true}\n', b'\x00' * 70_000, b'{"missing": 5}\n', b'[]\n']
)
def test_what_a_coordinator_says_is_checked(port: int, answer: bytes) -> None:
    def serve(server: socket.socket) -> None:
        while True:
            try:
                line, _ = server.accept()
            except OSError:
                return
            with line, contextlib.suppress(OSError):
                line.recv(1000)
                line.sendall(answer)

    with socket.create_server(('127.0.0.1', port)) as server:
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            with pytest.raises(MissingHosts, match='process 0 did not answer'):
                call(roll(1, 2, port), timeout=0.5)
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_fifty_roll_calls_leave_no_file_and_no_thread() -> None:
    before = threading.active_count(), len(os.listdir('/proc/self/fd'))
    for _ in range(50):
        with socket.create_server(('127.0.0.1', 0)) as server:
            port = server.getsockname()[1]
        with pool() as threads:
            assert [one.result() for one in [threads.submit(call, roll(index, 2, port), timeout=20) for index in (0, 1)]][1] == {}
    assert (threading.active_count(), len(os.listdir('/proc/self/fd'))) == before
