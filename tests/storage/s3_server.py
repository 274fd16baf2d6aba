"""A real S3-compatible server (moto's) in a process's thread on the loopback, and what clients need to find it."""

from __future__ import annotations

import contextlib
import logging
import random
import warnings
from collections.abc import Iterator
from typing import Any

from retfound_jax.core.storage import Store

BUCKET = 'retina'
SECRET = 'a-word-that-nobody-may-read'


def store_at(place: str, **options: Any) -> Store:
    """A store in the bucket, whose pauses are short."""
    return Store(f's3://{BUCKET}/{place}', **{'rng': random.Random(0), 'pause': 0.01} | options)


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of a server with one empty bucket."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # moto asks for packages of services that are not used
        from moto.server import ThreadedMotoServer

    logging.getLogger('werkzeug').setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
    server.start()
    try:
        yield server.get_host_and_port()
    finally:
        server.stop()
