"""A proxy on the loopback in front of a store's server, which fails by a seeded plan and counts what it did."""

from __future__ import annotations

import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Plan = Callable[[str, str], str]  # (method, path with query) -> the name of a fault, or ''

# An answer of 500 or 503; an answer that comes late; a connection that ends in the midst of an answer, before the request is passed on,
# or after it was carried out and before the answer.
FAULTS = ('500', '503', 'slow', 'cut', 'unheard', 'unanswered')
_BODY = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>so the plan says</Message></Error>'
_CODES = {'403': b'AccessDenied', '500': b'InternalError', '503': b'SlowDown'}
_HOP = {'connection', 'keep-alive', 'transfer-encoding', 'content-length', 'date', 'server'}


class FaultyProxy:
    """Passes requests on to `target`; `plan` says which fail, and `count` how many of each kind did."""

    def __init__(self, target: tuple[str, int], plan: Plan = lambda method, path: '', *, delay: float = 0.3) -> None:
        self.plan, self.count, self.target, self.delay = plan, Counter(), target, delay
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={'poll_interval': 0.05})

    @property
    def address(self) -> str:
        """Where it listens."""
        return f'http://127.0.0.1:{self._server.server_port}'

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def seeded(seed: int, *, share: float, faults: tuple[str, ...] = FAULTS) -> Plan:
    """A plan by which a share of all requests fails, each kind as often as another."""
    rng = random.Random(seed)
    return lambda method, path: rng.choice(faults) if rng.random() < share else ''


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            body = self._body()
            with proxy.lock:
                fault = proxy.plan(self.command, self.path)
                proxy.count[fault or 'passed'] += 1
            if fault == 'unheard':
                return self._cut()
            if fault in _CODES:
                answer = _BODY % _CODES[fault]
                return self._answer(int(fault), {'Content-Type': 'application/xml'}, answer, length=len(answer))
            if fault == 'slow':
                threading.Event().wait(proxy.delay)
            status, headers, answer = _forward(proxy.target, self.command, self.path, dict(self.headers), body)
            if fault == 'unanswered':
                return self._cut()
            length = int(headers['Content-Length']) if self.command == 'HEAD' and 'Content-Length' in headers else len(answer)
            if fault == 'cut':
                if not answer:
                    return self._cut()
                self._answer(status, headers, answer[: len(answer) // 2], length=length)
                return self._cut()
            return self._answer(status, headers, answer, length=length)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def _body(self) -> bytes:
            if self.headers.get('Expect', '').lower() == '100-continue' and self.command == 'HEAD':
                return b''
            if 'chunked' in self.headers.get('Transfer-Encoding', ''):
                found = b''
                while size := int(self.rfile.readline().split(b';')[0], 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found
            return self.rfile.read(int(self.headers.get('Content-Length') or 0))

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes, *, length: int) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in _HOP:
                    self.send_header(name, value)
            self.send_header('Content-Length', str(length))
            self.end_headers()
            self.wfile.write(b'' if self.command == 'HEAD' else body)

        def _cut(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    return Handler


def _forward(target: tuple[str, int], method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
    connection: Any = http.client.HTTPConnection(*target, timeout=60)
    try:
        kept = {name: value for name, value in headers.items() if name.lower() not in {'connection', 'transfer-encoding', 'expect'}}
        connection.request(method, path, body=body, headers=kept | {'Content-Length': str(len(body))})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()
