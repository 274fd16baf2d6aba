"""Who is there, before JAX is asked to join them: process 0 listens, the others call in, and all learn who is missing.

JAX joins processes as well, but where one does not come it aborts the others from C++, and says of none who it was. So the roll is called
first, on the coordinator's port; once all are there the port is free again for JAX. A message is one line of JSON, and what arrives is
hostile until checked: at most `_LONGEST` bytes, the fields and types below, or the caller is sent away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import json
import re
import selectors
import socket
import time
from typing import Any

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.host_store import MissingHosts

_LONGEST = 65536  # [bytes] of a line; the longest lists who is missing
_BACKLOG = 4096  # callers that wait to be heard: a large run comes all at once
_EACH = 0.5  # [s] between two words of process 0 on who is still missing


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roll:
    """How this process takes part."""

    coordinator: str  # host:port of process 0
    index: int
    count: int
    me: str  # how a person finds this process, such as `node07, pid 4711`


def call(roll: Roll, *, timeout: float) -> dict[int, str]:
    """Waits for all processes; returns who they are, by number (at process 0; the others learn only that all came).

    Raises:
      MissingHosts: some did not come within `timeout` [s]; every process that did come says the same.
      UserError: the port is in use.
      UsageError: this process' number or count does not fit those of the others, or the address is none.
    """
    host, port = address(roll.coordinator)
    end = time.monotonic() + timeout
    return _listen(roll, host, port, timeout, end) if roll.index == 0 else _call_in(roll, host, port, timeout, end)


def address(coordinator: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[IPv6]:port`.

    Raises:
      UsageError: it is neither.
    """
    host, colon, port = coordinator.rpartition(':')
    bracketed = host.startswith('[') and host.endswith(']')
    host = host[1:-1] if bracketed else host
    if not colon or not host or (':' in host and not bracketed) or not re.fullmatch('[0-9]{1,5}', port) or not 0 < int(port) < 65536:
        raise UsageError(f'coordinator "{coordinator}" is not host:port, such as node01:8476')
    return host, int(port)


def bind_address(coordinator: str) -> str:
    """Where process 0 listens: its loopback where that is what the others call, else every address of the host."""
    host, port = address(coordinator)
    place = _loopback(host) or '::'
    return f'[{place}]:{port}' if ':' in place else f'{place}:{port}'


def _loopback(host: str) -> str:
    """The address of a host name or address that is this machine and no other, else ''."""
    if host == 'localhost':
        return '127.0.0.1'
    with contextlib.suppress(ValueError):
        return host if ipaddress.ip_address(host).is_loopback else ''
    return ''


def _listen(roll: Roll, host: str, port: int, timeout: float, end: float) -> dict[int, str]:
    try:
        server = _server(host, port)
    except OSError as error:
        raise UserError(f'process 0 cannot listen on port {port} ({error.strerror}): choose another port for the coordinator') from error
    with server, _Desk(roll, server) as desk:
        while desk.missing() and time.monotonic() < end:
            desk.serve(min(_EACH, max(end - time.monotonic(), 0)))
            desk.tell(final=False)
        desk.tell(final=True)
        if missing := desk.missing():
            raise _absent(missing, timeout)
        return {0: roll.me, **desk.came}


def _server(host: str, port: int) -> socket.socket:
    place = _loopback(host)
    if not place and socket.has_dualstack_ipv6():
        return socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    return socket.create_server((place, port), family=socket.AF_INET6 if ':' in place else socket.AF_INET, backlog=_BACKLOG)


class _Desk:
    """Process 0's side: the open lines, and who is on them."""

    def __init__(self, roll: Roll, server: socket.socket) -> None:
        self._roll, self._server = roll, server
        self._selector = selectors.DefaultSelector()
        self._selector.register(server, selectors.EVENT_READ)
        self._lines: dict[socket.socket, _Line] = {}
        server.setblocking(False)

    def __enter__(self) -> _Desk:
        return self

    def __exit__(self, *_: object) -> None:
        # The callers hang up first, which leaves the port free at once for JAX.
        for connection, line in self._lines.items():
            connection.settimeout(1.0)
            with contextlib.suppress(OSError):
                while line.index is not None and connection.recv(4096):
                    pass
            connection.close()
        self._selector.close()

    @property
    def came(self) -> dict[int, str]:
        """Who is on a line, by number."""
        return {line.index: line.me for line in self._lines.values() if line.index is not None}

    def missing(self) -> list[int]:
        """The numbers nobody has called in with."""
        came = self.came
        return [rank for rank in range(1, self._roll.count) if rank not in came]

    def serve(self, seconds: float) -> None:
        """Answers whoever calls within that time; returns early when the last one came."""
        end = time.monotonic() + seconds
        while self.missing() and (left := end - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                if key.fileobj is self._server:
                    self._accept()
                else:
                    self._read(key.fileobj)

    def tell(self, *, final: bool) -> None:
        """Says to all on a line who is missing."""
        words = {'missing': self.missing(), 'final': final}
        for connection, line in list(self._lines.items()):
            if line.index is not None:
                self._say(connection, words)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._server.accept()
            connection.setblocking(False)
            self._lines[connection] = _Line()
            self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket) -> None:
        line = self._lines[connection]
        try:
            data = connection.recv(4096)
        except OSError:
            data = b''
        line.data += data
        if not data or len(line.data) > 4096:
            self._drop(connection)
        elif line.index is None and b'\n' in line.data:
            self._hello(connection, line)

    def _hello(self, connection: socket.socket, line: _Line) -> None:
        words = _parse(line.data)
        index, count, me = words.get('index'), words.get('count'), words.get('me')
        if not (isinstance(index, int) and isinstance(count, int) and isinstance(me, str)):
            self._drop(connection)
            return
        refused = self._refuse(index, count)
        if refused:
            self._say(connection, {'refused': refused})
            self._drop(connection)
        else:
            line.index, line.me = index, me[:200]

    def _refuse(self, index: int, count: int) -> str:
        if count != self._roll.count:
            return f'process {index} was told of {count} processes and process 0 of {self._roll.count}: give all the same number'
        if not 0 < index < count:
            return f'process {index} calls itself so among {count} processes: numbers are 0 to {count - 1}'
        if index in self.came:
            return f'two processes call themselves number {index}, one of them on {self.came[index]}: number each once'
        return ''

    def _say(self, connection: socket.socket, words: dict[str, Any]) -> None:
        try:
            connection.sendall(json.dumps(words).encode() + b'\n')
        except OSError:  # it is gone, and may call again
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if connection in self._lines:
            self._selector.unregister(connection)
            connection.close()
            del self._lines[connection]


@dataclasses.dataclass
class _Line:
    """One caller."""

    data: bytes = b''
    index: int | None = None
    me: str = ''


def _call_in(roll: Roll, host: str, port: int, timeout: float, end: float) -> dict[int, str]:
    """Calls until process 0 says that all are there; a line that breaks is tried again, as process 0 may be starting anew."""
    words: dict[str, Any] = {}
    why = 'no answer'
    while (left := end - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(left, 5.0)) as connection:
                words = _stay(connection, roll, end)
        except OSError as error:
            words, why = {}, error.strerror or str(error)
        if 'refused' in words:
            raise UsageError(str(words['refused']))
        if words.get('final'):
            break
        time.sleep(min(0.2, max(end - time.monotonic(), 0)))
    missing = words.get('missing')
    if missing == []:
        return {}
    if isinstance(missing, list) and all(isinstance(rank, int) for rank in missing):
        raise _absent(missing, timeout)
    text = f'process 0 did not answer at {roll.coordinator} within {timeout:g} s ({why}): look at its log, and whether the port is open'
    raise MissingHosts(text, ranks=(0,))


def _stay(connection: socket.socket, roll: Roll, end: float) -> dict[str, Any]:
    """Says who this is and listens; returns process 0's last word, which is not final where the line broke or the time ran out."""
    connection.sendall(json.dumps({'index': roll.index, 'count': roll.count, 'me': roll.me}).encode() + b'\n')
    data, words = b'', {}
    while (left := end + 2 * _EACH - time.monotonic()) > 0 and len(data) < _LONGEST:
        connection.settimeout(left)
        try:
            more = connection.recv(4096)
        except TimeoutError:
            break
        if not more:
            return {} if 'refused' not in words else words
        *lines, data = (data + more).split(b'\n')
        for line in lines:
            words = _parse(line) or words
        if words.get('final') or 'refused' in words:
            break
    return words


def _absent(ranks: list[int], timeout: float) -> MissingHosts:
    told = ', '.join(str(rank) for rank in ranks)
    text = f'process{"es" if len(ranks) > 1 else ""} {told} did not start within {timeout:g} s: look at the log there'
    return MissingHosts(text, ranks=tuple(ranks))


def _parse(data: bytes) -> dict[str, Any]:
    """The object in the first line, or nothing where it is not one."""
    try:
        words = json.loads(data.split(b'\n')[0])
    except (ValueError, RecursionError):
        return {}
    return words if isinstance(words, dict) else {}
