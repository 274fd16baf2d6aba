"""Notices that this machine is about to be taken away: a signal, or what the cloud's metadata server says.

SLURM and Kubernetes send SIGTERM, and SLURM what `--signal` names, such as SIGUSR1. Google Cloud and Amazon say it earlier on their
metadata servers (cloud.google.com/compute/docs/metadata/getting-live-migration-notice and .../instances/preemptible;
docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
import threading
import types
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence

from retfound_jax.core.errors import UsageError

EVERY = 5.0  # [s] between two looks, as Amazon advises
_ANSWER = 2.0  # [s] for an answer from this machine's own metadata server
_LONGEST = 4096  # [bytes] of an answer that is read
SERVERS = {'gce': 'http://metadata.google.internal', 'aws': 'http://169.254.169.254'}


class Notice:
    """`given` is '' until a notice comes, then what was heard, such as `SIGTERM` or `aws: terminate`.

    Signals are taken inside `with` only, and the handlers from before are put back after it. The same signal a second time has its default
    effect: the process ends at once. To be entered by the main thread.
    """

    def __init__(
        self,
        *,
        signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGUSR1),
        poll: str = '',
        server: str = '',
        every: float = EVERY,
    ) -> None:
        """Says what is listened to.

        Args:
          poll: whose metadata server is asked: '' nobody's, 'gce' or 'aws'.
          server: its address, where it is not the usual one.
          every: [s] between two questions.

        Raises:
          UsageError: there is no such cloud.
        """
        if poll and poll not in SERVERS:
            raise UsageError(f'preemption notice "{poll}": known are {", ".join(SERVERS)}, and "" for signals only')
        self._signals, self._poll, self._every = tuple(signals), poll, every
        self._server = (server or SERVERS.get(poll, '')).rstrip('/')
        self._given, self._deaf = '', False
        self._heard: set[int] = set()
        self._before: dict[signal.Signals, object] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def given(self) -> str:
        """What was heard first, or ''."""
        return self._given

    def __enter__(self) -> Notice:
        for number in self._signals:
            self._before[number] = signal.signal(number, self._hear)
        if self._poll:
            self._thread = threading.Thread(target=self._ask, name='preemption notice', daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if self._thread is not None:
            self._thread.join(4 * _ANSWER)

    def _hear(self, number: int, frame: types.FrameType | None) -> None:
        if number in self._heard:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._heard.add(number)
        self._given = self._given or signal.Signals(number).name

    def _ask(self) -> None:
        look: Callable[[str], str] = {'gce': _gce, 'aws': _aws}[self._poll]
        while not self._given:
            try:
                word = look(self._server)
            except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
                word = ''
                self._tell_deaf(error)
            if word:
                self._given = self._given or f'{self._poll}: {word}'
            if self._closed.wait(self._every):
                return

    def _tell_deaf(self, error: Exception) -> None:
        """Once: the run goes on, and hears signals still."""
        if not self._deaf:
            self._deaf = True
            text = f'the metadata server {self._server} did not answer as {self._poll} does ({error}): its notices may not be heard'
            print(text, file=sys.stderr, flush=True)


def _gce(server: str) -> str:
    """`preempted`, or the maintenance that ends this machine; a live migration is none."""
    headers = {'Metadata-Flavor': 'Google'}
    if _get(f'{server}/computeMetadata/v1/instance/preempted', headers).strip() == 'TRUE':
        return 'preempted'
    event = _get(f'{server}/computeMetadata/v1/instance/maintenance-event', headers).strip()
    return 'maintenance' if event == 'TERMINATE_ON_HOST_MAINTENANCE' else ''


def _aws(server: str) -> str:
    """What is to happen to a spot instance: terminate, stop or hibernate."""
    token = _get(f'{server}/latest/api/token', {'X-aws-ec2-metadata-token-ttl-seconds': '60'}, method='PUT')
    if not re.fullmatch(r'[\w=+/.-]{1,1024}', token):
        raise ValueError('no token')
    try:
        said = _get(f'{server}/latest/meta-data/spot/instance-action', {'X-aws-ec2-metadata-token': token})
    except urllib.error.HTTPError as error:
        if error.code == 404:  # nothing is to happen
            return ''
        raise
    action = json.loads(said).get('action') if said.lstrip().startswith('{') else None
    if action not in ('terminate', 'stop', 'hibernate'):
        raise ValueError('no action')
    return action


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A metadata server answers by itself."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


# No proxy either: the server is this machine's own, and a token for it is nobody else's.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


def _get(url: str, headers: Mapping[str, str], *, method: str = 'GET') -> str:
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    with _OPENER.open(request, timeout=_ANSWER) as answer:
        if 'Metadata-Flavor' in headers and answer.headers.get('Metadata-Flavor') != 'Google':
            raise ValueError('not the metadata server of Google Cloud')
        return answer.read(_LONGEST).decode('ascii')
