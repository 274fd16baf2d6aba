"""What the tests of this room share: a real S3-compatible server on the loopback, and a faulty proxy in front of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy
from s3_server import BUCKET, SECRET, s3_server

from retfound_jax.core.storage import Store

for room in ('data', 'train'):  # helpers of other rooms' tests
    sys.path.append(str(Path(__file__).resolve().parent.parent / room))


@pytest.fixture(scope='session')
def server() -> Iterator[tuple[str, int]]:
    """Host and port of the server."""
    with s3_server() as place:
        yield place


@pytest.fixture
def proxy(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
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
