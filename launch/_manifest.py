"""A JobSet (jobset.x-k8s.io/v1alpha2) of one training as data, and data as YAML."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from _common import RESTART

PORT = 8476  # of process 0
JOB = 'host'  # pods are NAME-host-SLICE-NUMBER, and have that for a host name
_USER = 10001  # of the images made from launch/docker
_TEMPORARY = ('/tmp', '/dev/shm')  # all that can be written besides volumes; data workers hand over images by the second
_PLAIN = re.compile(r'(?!(?i:true|false|yes|no|on|off|null|y|n)$)[A-Za-z][\w./-]*')  # keys that YAML takes for text without quotes
_SAID = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]')  # characters that YAML wants written as a number


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hosts:
    """What the pods of a run have in common."""

    name: str
    image: str
    words: list[str]  # for retfound
    per_slice: int  # pods of one slice, or of the run where there are no slices
    slices: int
    resources: dict[str, str]
    selectors: dict[str, str]
    environment: dict[str, str]
    secrets: dict[str, tuple[str, str]]  # name of a variable -> name of a secret, key in it
    claims: dict[str, str]  # path -> name of a persistent volume claim
    shared_memory: str
    grace: int  # [s]
    restarts: int
    namespace: str = ''
    service_account: str = ''
    queue: str = ''
    as_root: bool = False
    spot: bool = False
    exclusive: bool = False  # each slice has a node pool to itself


def jobset(hosts: Hosts) -> dict[str, Any]:
    """The manifest.

    All pods are deleted and made anew where one of them ends badly, so a frozen one does not hold up the rest: without counting where
    it saved and asked for it (code 75) or its node was taken; at most `restarts` times where a signal ended it, such as for want of
    memory; never after code 1 or 2. Needs JobSet 0.10 or later, for messages in the rules.
    """
    labels = {'kueue.x-k8s.io/queue-name': hosts.queue} if hosts.queue else {}
    annotations = {'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'} if hosts.exclusive else {}
    reason = ['PodFailurePolicy']
    return {
        'apiVersion': 'jobset.x-k8s.io/v1alpha2',
        'kind': 'JobSet',
        'metadata': _filled(name=hosts.name, namespace=hosts.namespace, labels=labels, annotations=annotations),
        'spec': {
            # Names are given out before the pods are ready, as each is ready only once it has found the first.
            'network': {'enableDNSHostnames': True, 'subdomain': hosts.name, 'publishNotReadyAddresses': True},
            'failurePolicy': {
                'maxRestarts': hosts.restarts,
                'restartStrategy': 'BlockingRecreate',
                'rules': [
                    {
                        'name': 'failed',
                        'action': 'FailJobSet',
                        'onJobFailureReasons': reason,
                        'onJobFailureMessagePatterns': ['.*failed with exit code [12] matching.*'],
                    },
                    {'name': 'interrupted', 'action': 'RestartJobSetAndIgnoreMaxRestarts', 'onJobFailureReasons': reason},
                ],
            },
            'replicatedJobs': [{'name': JOB, 'replicas': hosts.slices, 'template': {'spec': _job(hosts)}}],
        },
    }


def _job(hosts: Hosts) -> dict[str, Any]:
    def ended(*codes: int) -> dict[str, Any]:
        return {'action': 'FailJob', 'onExitCodes': {'containerName': 'retfound', 'operator': 'In', 'values': list(codes)}}

    return {
        'completionMode': 'Indexed',
        'completions': hosts.per_slice,
        'parallelism': hosts.per_slice,
        'backoffLimit': 0,
        'podReplacementPolicy': 'Failed',
        'podFailurePolicy': {
            'rules': [
                {'action': 'FailJob', 'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}]},
                ended(RESTART),
                ended(1, 2),
            ]
        },
        'template': {'spec': _pod(hosts)},
    }


def _pod(hosts: Hosts) -> dict[str, Any]:
    root = {'runAsUser': 0, 'runAsNonRoot': False} if hosts.as_root else {'runAsUser': _USER, 'runAsGroup': _USER, 'runAsNonRoot': True}
    memory = {'name': 'shm', 'emptyDir': {'medium': 'Memory', 'sizeLimit': hosts.shared_memory}}
    volumes = [{'name': f'claim-{i}', 'persistentVolumeClaim': {'claimName': claim}} for i, claim in enumerate(hosts.claims.values())]
    taints = ['nvidia.com/gpu', 'google.com/tpu', *(['cloud.google.com/gke-spot'] if hosts.spot else [])]
    return _filled(
        restartPolicy='Never',
        terminationGracePeriodSeconds=hosts.grace,
        automountServiceAccountToken=False,
        enableServiceLinks=False,
        serviceAccountName=hosts.service_account,
        nodeSelector={**hosts.selectors, **({'cloud.google.com/gke-spot': 'true'} if hosts.spot else {})},
        tolerations=[{'key': key, 'operator': 'Exists', 'effect': 'NoSchedule'} for key in taints],
        securityContext={**root, 'fsGroup': _USER, 'seccompProfile': {'type': 'RuntimeDefault'}},
        volumes=[{'name': 'tmp', 'emptyDir': {}}, memory, *volumes],
        containers=[_container(hosts)],
    )


def _container(hosts: Hosts) -> dict[str, Any]:
    mounts = dict(zip(_TEMPORARY, ('tmp', 'shm'), strict=True)) | {path: f'claim-{i}' for i, path in enumerate(hosts.claims)}
    capabilities = {'drop': ['ALL'], **({'add': ['SYS_RESOURCE']} if hosts.as_root else {})}  # libtpu locks memory
    return _filled(
        name='retfound',
        image=hosts.image,
        command=['retfound'],
        args=[unexpanded(word) for word in hosts.words],
        env=list(_environment(hosts)),
        ports=[{'name': 'coordinator', 'containerPort': PORT}],
        resources={'requests': hosts.resources, 'limits': hosts.resources},
        securityContext={'allowPrivilegeEscalation': False, 'readOnlyRootFilesystem': True, 'capabilities': capabilities},
        volumeMounts=[{'name': name, 'mountPath': path} for path, name in mounts.items()],
    )


def _environment(hosts: Hosts) -> Iterator[dict[str, Any]]:
    """Who each process is: its number within the job is JOB_COMPLETION_INDEX, which Kubernetes sets; JOB_INDEX counts the slices."""
    settings = {
        'HOME': '/tmp',
        'XDG_CACHE_HOME': '/tmp',
        'PYTHONUNBUFFERED': '1',
        'RETFOUND_COORDINATOR': f'{hosts.name}-{JOB}-0-0.{hosts.name}:{PORT}',
        'RETFOUND_NUM_PROCESSES': str(hosts.per_slice * hosts.slices),
        'RETFOUND_PROCESSES_PER_JOB': str(hosts.per_slice),
        **hosts.environment,
    }
    yield from ({'name': name, 'value': unexpanded(value)} for name, value in settings.items())
    index = {'fieldRef': {'fieldPath': "metadata.labels['jobset.sigs.k8s.io/job-index']"}}
    yield {'name': 'JOB_INDEX', 'valueFrom': index}
    for name, (secret, key) in hosts.secrets.items():
        yield {'name': name, 'valueFrom': {'secretKeyRef': {'name': secret, 'key': key}}}


def unexpanded(text: str) -> str:
    """Text that Kubernetes leaves as it is: it would put a variable in the place of $(NAME), and takes $$ for $."""
    return text.replace('$', '$$')


def _filled(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in ('', {}, [])}


def yaml(value: Any) -> str:
    """Block YAML of maps, lists and scalars; every text is in double quotes."""
    return '\n'.join(_lines(value)) + '\n'


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            name = key if _PLAIN.fullmatch(key) else _scalar(key)
            yield from _entry(f'{name}:', inner)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for inner in value:
            first, *rest = _lines(inner)
            yield f'- {first}'
            yield from (f'  {line}' for line in rest)
    else:
        yield _scalar(value)


def _entry(head: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence) or not value:
        yield f'{head} {_scalar(value)}'
    else:
        yield head
        yield from (f'  {line}' for line in _lines(value))


def _scalar(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    quoted = value.replace('\\', '\\\\').replace('"', '\\"')
    return '"' + _SAID.sub(lambda found: f'\\u{ord(found[0]):04x}', quoted) + '"'
