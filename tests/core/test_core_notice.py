"""A notice is heard once, from a signal or from a metadata server, and what a server says is believed only where it makes sense."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from retfound_jax.core.errors import UsageError
from retfound_jax.core.notice import Notice


def wait_until(true: Callable[[], object], *, seconds: float = 10.0) -> bool:
    """Whether it became true in that time."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    return bool(true())


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_heard_and_the_handlers_from_before_come_back(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGUSR1)}
    with Notice() as notice:
        assert notice.given == ''
        os.kill(os.getpid(), number)
        assert wait_until(lambda: notice.given)
        other = signal.SIGTERM if number == signal.SIGUSR1 else signal.SIGUSR1
        os.kill(os.getpid(), other)  # SLURM's warning and then its end: the first is what was heard
        assert notice.given == number.name
    assert {one: signal.getsignal(one) for one in before} == before


def test_the_same_signal_twice_ends_the_process_by_it() -> None:
    code = (
        'import os, signal, time\nfrom retfound_jax.core.notice import Notice\n'
        'with Notice() as notice:\n    os.kill(os.getpid(), signal.SIGTERM)\n    print(notice.given, flush=True)\n'
        '    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ('SIGTERM', -signal.SIGTERM)


def test_an_unknown_cloud_is_told() -> None:
    with pytest.raises(UsageError, match='known are gce, aws'):
        Notice(poll='azure')


class Cloud(http.server.ThreadingHTTPServer):
    """A metadata server on loopback: `answers` by path are (status, headers, body); `seen` is what was asked, with its headers."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        super().__init__(('127.0.0.1', 0), _Handler)

    @property
    def url(self) -> str:
        """Where it is."""
        return f'http://127.0.0.1:{self.server_address[1]}'


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        status, headers, body = self.server.answers.get(self.path, (404, {}, b''))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET  # noqa: N815 - the name is the standard library's

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


GOOGLE = {'Metadata-Flavor': 'Google'}
PREEMPTED, EVENT = '/computeMetadata/v1/instance/preempted', '/computeMetadata/v1/instance/maintenance-event'
TOKEN, ACTION = '/latest/api/token', '/latest/meta-data/spot/instance-action'


@pytest.mark.parametrize(
    ('preempted', 'event', 'given'),
    [
        (b'TRUE', b'NONE', 'gce: preempted'),
        (b'TRUE\n', b'', 'gce: preempted'),
        (b'FALSE', b'TERMINATE_ON_HOST_MAINTENANCE', 'gce: maintenance'),
    ],
)
def test_google_says_it(cloud: Cloud, preempted: bytes, event: bytes, given: str) -> None:
    cloud.answers = {PREEMPTED: (200, GOOGLE, b'FALSE'), EVENT: (200, GOOGLE, b'NONE')}
    with Notice(poll='gce', server=cloud.url, every=0.01) as notice:
        assert wait_until(lambda: len(cloud.seen) > 5) and notice.given == ''
        cloud.answers = {PREEMPTED: (200, GOOGLE, preempted), EVENT: (200, GOOGLE, event)}
        assert wait_until(lambda: notice.given) and notice.given == given
    assert all(headers.get('metadata-flavor') == 'Google' for _, _, headers in cloud.seen)


def test_amazon_says_it_to_whoever_has_a_token(cloud: Cloud) -> None:
    cloud.answers = {TOKEN: (200, {}, b'AQAE-token==')}
    with Notice(poll='aws', server=cloud.url, every=0.01) as notice:
        assert wait_until(lambda: len(cloud.seen) > 6) and notice.given == ''
        cloud.answers[ACTION] = (200, {}, b'{"action": "terminate", "time": "2026-11-25T08:22:00Z"}')
        assert wait_until(lambda: notice.given) and notice.given == 'aws: terminate'
    asked = [(method, path, headers.get('x-aws-ec2-metadata-token', '')) for method, path, headers in cloud.seen]
    assert set(asked) == {('PUT', TOKEN, ''), ('GET', ACTION, 'AQAE-token==')}
    assert all('x-aws-ec2-metadata-token-ttl-seconds' in headers for method, _, headers in cloud.seen if method == 'PUT')


@pytest.mark.parametrize(
    ('poll', 'answers'),
    [
        ('gce', {PREEMPTED: (200, {}, b'TRUE'), EVENT: (200, {}, b'NONE')}),  # some other server
        ('gce', {PREEMPTED: (200, GOOGLE, b'<html>TRUE</html>'), EVENT: (200, GOOGLE, b'MIGRATE_ON_HOST_MAINTENANCE')}),
        ('gce', {PREEMPTED: (302, {'Location': EVENT, **GOOGLE}, b''), EVENT: (200, GOOGLE, b'TRUE')}),
        ('gce', {PREEMPTED: (500, GOOGLE, b'TRUE')}),
        ('gce', {PREEMPTED: (200, GOOGLE, b'\xff\xfe'), EVENT: (200, GOOGLE, b'NONE')}),
        ('aws', {TOKEN: (200, {}, b'bad\r\nX-Evil: 1'), ACTION: (200, {}, b'{"action": "terminate"}')}),
        ('aws', {TOKEN: (403, {}, b''), ACTION: (200, {}, b'{"action": "terminate"}')}),
        ('aws', {TOKEN: (200, {}, b'T'), ACTION: (200, {}, b'{"action": ["terminate"]}')}),
        ('aws', {TOKEN: (200, {}, b'T'), ACTION: (200, {}, b'terminate')}),
        ('aws', {TOKEN: (200, {}, b'T'), ACTION: (200, {}, b'{"action": "terminate"' + b' ' * 5000 + b'}')}),
    ],
)
def test_an_answer_that_makes_no_sense_is_no_notice(cloud: Cloud, poll: str, answers: dict, capfd: pytest.CaptureFixture[str]) -> None:
    cloud.answers = answers
    with Notice(poll=poll, server=cloud.url, every=0.01) as notice:
        assert wait_until(lambda: len(cloud.seen) > 6)
        assert notice.given == ''
        os.kill(os.getpid(), signal.SIGUSR1)
        assert wait_until(lambda: notice.given) and notice.given == 'SIGUSR1'
    assert capfd.readouterr().err.count('did not answer') <= 1  # told once, not at every question


def test_a_server_that_is_not_there_is_told_once_and_leaves_no_thread(capfd: pytest.CaptureFixture[str]) -> None:
    before, told = threading.active_count(), ['']

    def heard() -> bool:
        told.append(capfd.readouterr().err)
        return 'did not answer' in ''.join(told)

    with Notice(poll='aws', server='http://127.0.0.1:1', every=0.01) as notice:
        assert wait_until(heard)
        assert notice.given == ''
    assert threading.active_count() == before
    heard()
    assert ''.join(told).count('did not answer') == 1


def test_a_server_that_says_nothing_holds_up_nobody() -> None:
    import socket

    with socket.create_server(('127.0.0.1', 0)) as server:
        begin = time.monotonic()
        with Notice(poll='gce', server=f'http://127.0.0.1:{server.getsockname()[1]}', every=0.01) as notice:
            assert notice.given == ''
        assert time.monotonic() - begin < 8
