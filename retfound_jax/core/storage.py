"""Object stores: `s3://`, `gs://` and whatever else fsspec knows, with retries, short reads found, and errors in one sentence.

What is made of them, and why:

- An object is written by one request, or by parts that are joined by a last one, so a reader sees the old object or the new one. There
  is no rename and no append; nothing here asks for either.
- A dataset stays where it is: the manifest is read from there at every start, shards are fetched once into a local folder
  (`data.remote`), since ArrayRecord files can be read by position only from a disk.
- A run works in a local folder and `core.mirror` copies what is complete. Orbax itself knows `gs://` and refuses `s3://`; a mirror is
  one way for all stores, and what makes a step count there, one object that is written last, does not depend on them.

Only errors that may pass are tried again: a busy or broken server (500 and above, 429), a cut or silent connection. The number of tries
and the pauses between them are bounded, and pauses are drawn at random, so that a thousand hosts do not come back at the same moment.
"""

from __future__ import annotations

import contextlib
import errno
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import xdg_cache_home

T = TypeVar('T')

_SCHEME = re.compile(r'^([a-z][a-z0-9+.-]+)://', re.IGNORECASE)
_EXTRAS = {'s3': ('s3fs', 's3'), 's3a': ('s3fs', 's3'), 'gs': ('gcsfs', 'gcs'), 'gcs': ('gcsfs', 'gcs')}
_PIECE = 16 << 20  # [bytes] read by one request: what a cut connection costs
_WHOLE = 64 << 20  # [bytes] up to which a file is sent by one request
_CONNECT, _SILENCE = 10, 60  # [s] until a server that does not answer, or stops in the midst, counts as gone
_PASSING = {
    errno.EBUSY, errno.EIO, errno.EAGAIN, errno.ETIMEDOUT, errno.EPIPE, errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED,
    errno.EHOSTUNREACH, errno.ENETUNREACH, getattr(errno, 'EREMOTEIO', errno.EIO),
}  # fmt: skip
# Classes of the client libraries that mean a connection, by module and name: none of them is imported here.
_PASSING_TYPES = {
    ('aiohttp.client_exceptions', 'ClientError'), ('botocore.exceptions', 'HTTPClientError'),
    ('botocore.exceptions', 'ConnectionError'), ('botocore.exceptions', 'IncompleteReadError'),
    ('botocore.parsers', 'ResponseParserError'), ('urllib3.exceptions', 'HTTPError'), ('http.client', 'HTTPException'),
    ('requests.exceptions', 'ConnectionError'), ('requests.exceptions', 'Timeout'), ('google.auth.exceptions', 'TransportError'),
}  # fmt: skip
_CLIENTS = ('aiohttp', 'aiobotocore', 'boto3', 'botocore', 'fsspec', 'gcsfs', 'google', 'requests', 's3fs', 'urllib3')
_FORBIDDEN = {'NoCredentialsError', 'PartialCredentialsError', 'CredentialRetrievalError', 'DefaultCredentialsError', 'RefreshError'}
_SECRETS = (
    (re.compile(r'(?<=://)[^/@\s]+@'), ''),
    (re.compile(r'(?<=[^\s?])\?[^\s\'"]*(?:sig|token|key|credential|password|secret)[^\s\'"]*', re.IGNORECASE), ''),
    (re.compile(r'\b(?:AKIA|ASIA|GOOG)[A-Z0-9]{12,}\b'), '(a key)'),
)


def is_remote(path: Path | str) -> bool:
    """Whether a path names a place in an object store, such as `s3://bucket/folder`, and none of the file system."""
    found = _SCHEME.match(str(path))
    return bool(found) and found[1].lower() not in ('file', 'local')


def redact(text: str) -> str:
    """The text without what an address or an error of a client library may hold of credentials."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def inside(name: str) -> str:
    """The name, if it is one of something below a folder.

    Raises:
      UserError: it leads out of the folder.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or '..' in path.parts or '\\' in name:
        raise UserError(f'a list of files names {name!r}, which is no place in its folder; the list is damaged')
    return name


def cache_home() -> Path:
    """Where this library keeps what it can fetch or make again: XDG_CACHE_HOME/retfound_jax, made for this user alone."""
    folder = xdg_cache_home() / 'retfound_jax'
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


class Store:
    """The objects below one address; names are relative to it, with `/`."""

    def __init__(
        self,
        root: str,
        *,
        tries: int = 6,
        pause: float = 0.5,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
        filesystem: Any = None,
    ) -> None:
        """Opens a store; nothing is asked of it yet.

        Args:
          tries: of each request.
          pause: [s] after the first failure, on average; doubled after each further one, up to 30.
          filesystem: of fsspec, to be used instead of the one that `root` names.

        Raises:
          UsageError: no package here knows the kind of store, or the address holds credentials.
        """
        scheme = _SCHEME.match(root)
        if scheme is None:
            raise UsageError(f'{root} is no address of an object store; it should begin like s3://bucket')
        if redact(root) != root or '?' in root:
            raise UsageError(f'{redact(root)} is given with credentials or a query; give the address alone, credentials by the environment')
        self.root = root.rstrip('/')
        self._tries, self._pause, self._sleep, self._rng = tries, pause, sleep, rng or random.Random()
        self._fs = filesystem or _filesystem(scheme[1].lower(), root)
        self._base = self._fs._strip_protocol(self.root)  # noqa: SLF001 (fsspec's own name for what all its file systems have)

    def address(self, name: str) -> str:
        """The whole address of an object."""
        return f'{self.root}/{name}' if name else self.root

    def list(self, folder: str = '') -> dict[str, int]:
        """Names of all objects below a folder, and their sizes [bytes]; empty where there are none."""

        def find() -> dict[str, int]:
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(self._path(folder), detail=True)
            except FileNotFoundError as error:
                if _no_bucket(error):
                    raise
                return {}
            start = len(self._base) + 1
            return {name[start:]: int(item['size']) for name, item in sorted(found.items()) if name.startswith(f'{self._base}/')}

        return self._ask('list', folder, find)

    def exists(self, name: str) -> bool:
        """Whether there is such an object."""
        return self.size(name) is not None

    def size(self, name: str) -> int | None:
        """Its length [bytes]; None where there is no such object."""

        def ask() -> int | None:
            self._fs.invalidate_cache()
            try:
                return int(self._fs.info(self._path(name))['size'])
            except FileNotFoundError as error:
                if _no_bucket(error):
                    raise
                return None

        return self._ask('look for', name, ask)

    def read(self, name: str) -> bytes:
        """A whole object, for small ones.

        Raises:
          UserError: there is none, or it cannot be had.
        """
        return self._ask('read', name, lambda: self._fs.cat_file(self._path(name)))

    def read_range(self, name: str, *, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) of an object that has them; fewer are an error that is tried again."""

        def ask() -> bytes:
            found = self._fs.cat_file(self._path(name), start=start, end=end)
            if len(found) != end - start:
                raise ConnectionError(f'{len(found)} of {end - start} bytes came')
            return found

        return self._ask('read', name, ask)

    def pieces(self, name: str, *, size: int) -> Iterator[bytes]:
        """An object of `size` bytes, piece by piece."""
        for start in range(0, size, _PIECE):
            yield self.read_range(name, start=start, end=min(start + _PIECE, size))

    def write(self, name: str, data: bytes) -> None:
        """Writes an object whole: until this returns, a reader sees the one before."""
        self._ask('write', name, lambda: self._fs.pipe_file(self._path(name), data))

    def upload(self, name: str, file: Path | str) -> None:
        """Writes a local file as an object, whole as by `write`; large ones by parts, several at once."""
        if Path(file).stat().st_size <= _WHOLE:
            self.write(name, Path(file).read_bytes())
        else:
            self._ask('write', name, lambda: self._fs.put_file(str(file), self._path(name)))

    def copy(self, name: str, target: str) -> None:
        """Copies an object within the store."""
        self._ask('copy', name, lambda: self._fs.cp_file(self._path(name), self._path(target)))

    def delete(self, name: str) -> None:
        """Deletes an object; one that is not there is deleted already."""

        def ask() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

        self._ask('delete', name, ask)

    def _path(self, name: str) -> str:
        return f'{self._base}/{name}' if name else self._base

    def _ask(self, verb: str, name: str, request: Callable[[], T]) -> T:
        began = time.monotonic()
        for attempt in range(1, self._tries + 1):
            try:
                return request()
            except Exception as error:  # client libraries raise types of their own; what is not theirs is let through
                if not _of_storage(error):
                    raise
                if not may_pass(error):
                    raise self._refused(verb, name, error) from error
                if attempt == self._tries:
                    spent = time.monotonic() - began
                    raise UserError(
                        f'could not {verb} {self.address(name)}: gave up after {attempt} tries in {spent:.0f} s ({_reason(error)}); '
                        'see to the network and the store, and start again'
                    ) from error
            self._sleep(min(30.0, self._pause * 2 ** (attempt - 1)) * self._rng.uniform(0.5, 1.5))
        raise AssertionError('tries is at least 1')

    def _refused(self, verb: str, name: str, error: BaseException) -> UserError:
        where = self.address(name)
        if isinstance(error, FileNotFoundError):
            if _no_bucket(error):
                return UserError(f'there is no bucket {self._base.split("/")[0]} at this store ({self.root}): make it, or give another')
            return UserError(f'{where} does not exist')
        if isinstance(error, PermissionError) or any(type(one).__name__ in _FORBIDDEN for one in _chain(error)):
            advice = 'give this machine credentials that may, by the environment or its role'
            return UserError(f'no permission to {verb} {where} ({_reason(error)}): {advice}')
        return UserError(f'could not {verb} {where} ({_reason(error)})')


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    for one in _chain(error):
        status = _status(one)
        if status is not None:
            return status in (408, 425, 429) or status >= 500
        if isinstance(one, (FileNotFoundError, PermissionError, FileExistsError)):
            return False
        if isinstance(one, (TimeoutError, ConnectionError)) or {(c.__module__, c.__name__) for c in type(one).__mro__} & _PASSING_TYPES:
            return True
    return isinstance(error, OSError) and error.errno in _PASSING


def _filesystem(scheme: str, root: str) -> Any:
    import fsspec

    options: dict[str, Any] = {'skip_instance_cache': True, 'use_listings_cache': False}
    if scheme in ('s3', 's3a'):
        # Retries are counted in one place: here.
        quiet = {'connect_timeout': _CONNECT, 'read_timeout': _SILENCE, 'retries': {'total_max_attempts': 1}}
        options |= {'config_kwargs': quiet, 'max_concurrency': 4}
    try:
        made = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        package, extra = _EXTRAS.get(scheme, (str(error.name or error), ''))
        advice = f'install it with pip install "retfound-jax[{extra}]"' if extra else 'install it'
        raise UsageError(f'{root} needs the package {package}, which is not here; {advice}') from error
    except ValueError as error:
        raise UsageError(f'{root} names a kind of storage that is not known here ("{scheme}"); s3:// and gs:// are') from error
    made.retries = 1
    return made


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen:
        seen.append(one)
        yield one
        one = one.__cause__


def _status(error: BaseException) -> int | None:
    """The status of the server's answer, as botocore, aiohttp, gcsfs and requests keep it."""
    answer = getattr(error, 'response', None)
    if isinstance(answer, dict):
        answer = answer.get('ResponseMetadata', {}).get('HTTPStatusCode')
    found = [answer, getattr(answer, 'status_code', None), getattr(error, 'status', None), getattr(error, 'code', None)]
    return next((value for value in found if isinstance(value, int) and 100 <= value < 600), None)


def _of_storage(error: BaseException) -> bool:
    return isinstance(error, OSError) or type(error).__module__.split('.')[0] in _CLIENTS


def _no_bucket(error: BaseException) -> bool:
    for one in _chain(error):
        answer = getattr(one, 'response', None)
        if isinstance(answer, dict) and answer.get('Error', {}).get('Code') == 'NoSuchBucket':
            return True
    return 'bucket does not exist' in str(error)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return redact(lines[0])[:200] if lines else type(error).__name__
