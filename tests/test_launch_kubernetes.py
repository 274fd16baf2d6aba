"""launch/kubernetes: the manifest is read by a YAML parser and held to the published JobSet schema, and means what it should.

tests/launch/jobset_crd.json is the schema of JobSet v0.12.0, in which that of pods and jobs is included. What it cannot say, and is not
covered here: the rules that Kubernetes has in code (such as which fields of a job go together), and whether a cluster has the nodes.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from launch_calls import call, hostile, load, refused, stand_in

SCHEMA = json.loads((Path(__file__).parent / 'launch' / 'jobset_crd.json').read_text('utf-8'))
TYPES = {'object': dict, 'array': list, 'string': str, 'integer': int, 'boolean': bool, 'number': (int, float)}
GPU = ('--image=registry:5000/retfound:1.0', '--hosts=4', '--gpus_per_host=8', '--claim=data:/data')
TPU = ('--image=registry/retfound:1.0', '--tpu=v5e:4x8', '--claim=data:/data')
TRAIN = ('--', 'train', '--experiment=experiments.pretrain_mae:vit_l16', '--workdir=/data/run')


def faults(value: Any, schema: dict[str, Any], place: str = '') -> list[str]:
    """Where a value departs from a structural schema of Kubernetes; fields that the schema does not know are faults, too."""
    if schema.get('x-kubernetes-int-or-string'):
        plain = isinstance(value, int | str) and not isinstance(value, bool)
        return [] if plain and _matches(value, schema) else [f'{place}: {value!r}']
    kind = TYPES[schema['type']]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return [f'{place}: {value!r} is no {schema["type"]}']
    if isinstance(value, dict):
        return _object_faults(value, schema, place)
    if isinstance(value, list):
        many = [] if len(value) <= schema.get('maxItems', len(value)) else [f'{place}: too many']
        return many + [fault for i, item in enumerate(value) for fault in faults(item, schema['items'], f'{place}[{i}]')]
    least = isinstance(value, str) or value >= schema.get('minimum', value)
    fits = value in schema.get('enum', [value]) and _matches(value, schema) and least
    return [] if fits else [f'{place}: {value!r}']


def _matches(value: Any, schema: dict[str, Any]) -> bool:
    return not isinstance(value, str) or re.search(schema.get('pattern', ''), value) is not None


def _object_faults(value: dict[str, Any], schema: dict[str, Any], place: str) -> list[str]:
    found = [f'{place}.{name} is missing' for name in schema.get('required', []) if name not in value]
    known, rest = schema.get('properties', {}), schema.get('additionalProperties')
    for name, inner in value.items():
        if name in known:
            found += faults(inner, known[name], f'{place}.{name}')
        elif isinstance(rest, dict):
            found += faults(inner, rest, f'{place}.{name}')
        elif known or not isinstance(name, str):  # an object without any fields named holds what it will, as `metadata` does
            found.append(f'{place}.{name} is not known')
    return found


def manifest(*flags: str, train: tuple[str, ...] = TRAIN) -> dict[str, Any]:
    """What --dry_run prints, parsed."""
    done = call('kubernetes', '--dry_run', *flags, *train)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


def job(found: dict[str, Any]) -> dict[str, Any]:
    """The specification of the jobs, one a slice."""
    return found['spec']['replicatedJobs'][0]['template']['spec']


def pod(found: dict[str, Any]) -> dict[str, Any]:
    """The specification of the pods."""
    return job(found)['template']['spec']


def expanded(text: str, variables: dict[str, str]) -> str:
    """What Kubernetes makes of a word: $(NAME) becomes the variable where there is one, and $$ becomes $."""
    pattern = r'\$\$|\$\(([^)]*)\)'
    return re.sub(pattern, lambda found: '$' if found[0] == '$$' else variables.get(found[1], found[0]), text)


CASES = {
    'gpu': GPU,
    'gpu, all flags': (
        *GPU,
        *('--gpu_type=nvidia-h100-80gb', '--name=eyes', '--namespace=lab', '--env=XLA_FLAGS=--a=b --c', '--env=EMPTY='),
        *('--secret=HF_TOKEN=hub:token', '--select=zone=a', '--cpu=90', '--memory=800Gi', '--shared_memory=64Gi'),
        *('--service_account=trainer', '--queue=eyes', '--spot', '--restarts=3', '--grace=30'),
    ),
    'tpu': TPU,
    'tpu, slices': (*TPU, '--slices=4', '--spot', '--as_root'),
}


@pytest.mark.parametrize('flags', CASES.values(), ids=list(CASES))
def test_manifest_fits_the_published_schema(flags: tuple[str, ...]) -> None:
    assert faults(manifest(*flags), SCHEMA) == []


def test_schema_is_that_of_the_version_that_the_manifest_names() -> None:
    found = manifest(*GPU)
    assert (found['apiVersion'], found['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    rule = SCHEMA['properties']['spec']['properties']['failurePolicy']['properties']['rules']['items']['properties']
    assert set(rule['action']['enum']) >= {'FailJobSet', 'RestartJobSetAndIgnoreMaxRestarts'}


WRONG = {
    'unknown field': lambda found: found['spec'].update(replicatedJob=[]),
    'misspelt in a pod': lambda found: pod(found).update(nodeselector={}),
    'misspelt in a container': lambda found: pod(found)['containers'][0].update(volumemounts=[]),
    'no name of a container': lambda found: pod(found)['containers'][0].pop('name'),
    'number for text': lambda found: pod(found)['containers'][0]['args'].append(1),
    'text for number': lambda found: found['spec']['failurePolicy'].update(maxRestarts='3'),
    'text for truth': lambda found: found['spec']['network'].update(enableDNSHostnames='true'),
    'action of no rule': lambda found: found['spec']['failurePolicy']['rules'][0].update(action='Restart'),
    'rule without a name': lambda found: found['spec']['failurePolicy']['rules'][0].pop('name'),
    'codes as text': lambda found: job(found)['podFailurePolicy']['rules'][1]['onExitCodes'].update(values=['75']),
    'amount that is none': lambda found: pod(found)['containers'][0]['resources'].update(limits={'cpu': 'many'}),
    'no template': lambda found: found['spec']['replicatedJobs'][0].pop('template'),
}


@pytest.mark.parametrize('spoil', WRONG.values(), ids=list(WRONG))
def test_schema_finds_what_is_wrong(spoil: Any) -> None:
    found = load('_manifest.py').jobset(hosts())
    assert faults(found, SCHEMA) == []
    spoil(found)
    assert len(faults(found, SCHEMA)) == 1


def hosts(**changes: Any) -> Any:
    """Hosts as the manifest takes them."""
    settings = {
        'name': 'eyes',
        'image': 'a:1',
        'words': ['train'],
        'per_slice': 4,
        'slices': 1,
        'resources': {'nvidia.com/gpu': '8'},
        'selectors': {},
        'environment': {},
        'secrets': {},
        'claims': {'/data': 'data'},
        'shared_memory': '1Gi',
        'grace': 30,
        'restarts': 3,
    }
    return load('_manifest.py').Hosts(**{**settings, **changes})


@pytest.mark.parametrize(('flags', 'slices', 'pods'), [(GPU, 1, 4), (TPU, 1, 8), ((*TPU, '--slices=3'), 3, 8)])
def test_every_pod_finds_the_others(flags: tuple[str, ...], slices: int, pods: int) -> None:
    from retfound_jax.core.launchers import find

    found = manifest(*flags)
    assert (found['spec']['replicatedJobs'][0]['replicas'], job(found)['completions'], job(found)['parallelism']) == (slices, pods, pods)
    assert job(found)['completionMode'] == 'Indexed'
    settings = {item['name']: item.get('value') for item in pod(found)['containers'][0]['env']}
    # What Kubernetes and JobSet set; the label is one of JobSet's (jobset.sigs.k8s.io/docs/reference).
    label = next(item['valueFrom']['fieldRef']['fieldPath'] for item in pod(found)['containers'][0]['env'] if item['name'] == 'JOB_INDEX')
    assert label == "metadata.labels['jobset.sigs.k8s.io/job-index']"
    starts = [
        find(environ={**settings, 'JOB_INDEX': str(slice_), 'JOB_COMPLETION_INDEX': str(index)})
        for slice_ in range(slices)
        for index in range(pods)
    ]
    assert [start.index for start in starts] == list(range(slices * pods)) and {start.count for start in starts} == {slices * pods}
    name, network = found['metadata']['name'], found['spec']['network']
    assert {start.coordinator for start in starts} == {f'{name}-host-0-0.{network["subdomain"]}:8476'}
    assert network['enableDNSHostnames'] and network['publishNotReadyAddresses']


@pytest.mark.parametrize(
    ('said', 'action'),
    [
        ('Container retfound for pod lab/eyes-host-0-1-abcde failed with exit code 75 matching FailJob rule at index 1', 'uncounted'),
        ('Pod lab/eyes-host-0-1-abcde has condition DisruptionTarget matching FailJob rule at index 0', 'uncounted'),
        ('Container retfound for pod lab/eyes-host-0-1-abcde failed with exit code 1 matching FailJob rule at index 2', 'failed'),
        ('Container retfound for pod lab/eyes-host-0-1-abcde failed with exit code 2 matching FailJob rule at index 2', 'failed'),
        ('', 'counted'),  # BackoffLimitExceeded: killed, such as for want of memory
    ],
)
def test_ends_of_a_pod_have_the_effect_they_should(said: str, action: str) -> None:
    """The rules are gone through as JobSet does (jobset.sigs.k8s.io/docs/tasks/failure_policy); messages are those of Kubernetes' jobs."""
    found = manifest(*GPU)
    policy, pods = found['spec']['failurePolicy'], job(found)['podFailurePolicy']['rules']
    reason = 'PodFailurePolicy' if said else 'BackoffLimitExceeded'
    matching = [
        rule['action']
        for rule in policy['rules']
        if reason in rule['onJobFailureReasons'] and any(re.search(text, said) for text in rule.get('onJobFailureMessagePatterns', ['']))
    ]
    names = {'uncounted': 'RestartJobSetAndIgnoreMaxRestarts', 'failed': 'FailJobSet', 'counted': 'RestartJobSet'}
    assert [*matching, 'RestartJobSet'][0] == names[action]
    assert policy['maxRestarts'] == 20 and policy['restartStrategy'] == 'BlockingRecreate'
    assert job(found)['backoffLimit'] == 0 and pod(found)['restartPolicy'] == 'Never' and job(found)['podReplacementPolicy'] == 'Failed'
    assert [rule['onExitCodes']['values'] for rule in pods if 'onExitCodes' in rule] == [[75], [1, 2]]
    assert pods[0]['onPodConditions'][0]['type'] == 'DisruptionTarget' and {rule['action'] for rule in pods} == {'FailJob'}


def test_pod_has_time_and_room_and_no_rights() -> None:
    found = pod(manifest(*GPU, '--grace=300'))
    container = found['containers'][0]
    assert found['terminationGracePeriodSeconds'] == 300 and found['automountServiceAccountToken'] is False
    assert found['securityContext']['runAsNonRoot'] is True and found['securityContext']['runAsUser'] == 10001
    assert container['securityContext'] == {
        'allowPrivilegeEscalation': False,
        'readOnlyRootFilesystem': True,
        'capabilities': {'drop': ['ALL']},
    }
    mounts = {mount['mountPath']: mount['name'] for mount in container['volumeMounts']}
    volumes = {volume['name']: volume for volume in found['volumes']}
    assert volumes[mounts['/dev/shm']]['emptyDir'] == {'medium': 'Memory', 'sizeLimit': '16Gi'} and 'emptyDir' in volumes[mounts['/tmp']]
    assert volumes[mounts['/data']]['persistentVolumeClaim'] == {'claimName': 'data'}
    assert container['resources'] == {'requests': {'nvidia.com/gpu': '8'}, 'limits': {'nvidia.com/gpu': '8'}}


@pytest.mark.parametrize(
    ('tpu', 'name', 'hosts', 'chips'),
    [
        ('v5e:1x1', 'tpu-v5-lite-podslice', 1, '1'),
        ('v5e:2x4', 'tpu-v5-lite-podslice', 1, '8'),
        ('v5e:16x16', 'tpu-v5-lite-podslice', 64, '4'),
        ('v6e:4x4', 'tpu-v6e-slice', 4, '4'),
        ('v5p:4x4x8', 'tpu-v5p-slice', 32, '4'),
        ('v4:2x2x1', 'tpu-v4-podslice', 1, '4'),
        ('tpu7x:4x4x4', 'tpu7x', 16, '4'),
    ],
)
def test_tpu_nodes_are_those_of_the_topology(tpu: str, name: str, hosts: int, chips: str) -> None:
    found = manifest('--image=a:1', f'--tpu={tpu}', '--claim=data:/data')
    assert pod(found)['nodeSelector'] == {
        'cloud.google.com/gke-tpu-accelerator': name,
        'cloud.google.com/gke-tpu-topology': tpu.split(':')[1],
    }
    assert job(found)['completions'] == hosts
    assert pod(found)['containers'][0]['resources']['limits'] == {'google.com/tpu': chips}
    assert found['metadata']['annotations'] == {'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'}


def test_secrets_are_named_and_not_held() -> None:
    found = pod(manifest(*GPU, '--secret=HF_TOKEN=hub:token'))['containers'][0]['env']
    assert {'name': 'HF_TOKEN', 'valueFrom': {'secretKeyRef': {'name': 'hub', 'key': 'token'}}} in found
    for name in ('HF_TOKEN', 'aws_secret_access_key', 'WANDB_API_KEY', 'PASSWORD'):
        done = call('kubernetes', '--dry_run', *GPU, f'--env={name}=hunter2', *TRAIN)
        assert f'give --secret {name}=SECRET:KEY' in refused(done, name='kubernetes') and 'hunter2' not in done.stderr


@pytest.mark.parametrize(
    ('flags', 'sentence'),
    [
        (('--image=a:1',), 'give either --hosts and --gpus_per_host, or --tpu'),
        (('--image=a:1', '--tpu=v5e:4x4', '--hosts=2'), 'give either'),
        (('--hosts=2',), 'the following arguments are required: --image'),
        (('--image=a', '--hosts=2'), 'may be another one at the next start'),
        (('--image=registry:5000/a', '--hosts=2'), 'may be another one at the next start'),
        (('--image=a:latest', '--hosts=2'), 'may be another one at the next start'),
        (('--image=a b:1', '--hosts=2'), 'is not the name of an image'),
        (('--image=a:1', '--tpu=v9:4x4'), 'kinds are v4, v5e'),
        (('--image=a:1', '--tpu=v5e:4'), 'is not KIND:TOPOLOGY'),
        (('--image=a:1', '--tpu=v6e:3x3'), 'do not make up'),
        (('--image=a:1', '--hosts=2', '--slices=2'), '--slices is for --tpu'),
        (('--image=a:1', '--hosts=2', '--name=Eyes'), 'is not a name of Kubernetes'),
        (('--image=a:1', '--hosts=2', f'--name={"a" * 60}'), 'too long for the name of a host'),
        (('--image=a:1', '--hosts=2', '--memory=much'), 'is not an amount'),
        (('--image=a:1', '--hosts=2', '--env=A'), 'is not NAME=VALUE'),
        (('--image=a:1', '--hosts=2', '--env=A B=c'), 'is no name of a variable'),
        (('--image=a:1', '--hosts=2', '--claim=data'), 'is not NAME:/PATH'),
    ],
)
def test_wrong_call_is_one_sentence(flags: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(call('kubernetes', '--dry_run', '--claim=data:/data', *flags, *TRAIN), name='kubernetes')


@pytest.mark.parametrize('workdir', ['runs/a', '/other/a', '/data/../tmp/a', '/database/a'])
def test_run_that_would_be_lost_with_its_pod_is_refused(workdir: str) -> None:
    done = call('kubernetes', '--dry_run', *GPU, '--', 'train', '--experiment=a:b', f'--workdir={workdir}')
    assert f'--workdir {workdir} is lost with its machine' in refused(done, name='kubernetes')


def test_object_store_is_for_one_process() -> None:
    train = ('--', 'train', '--experiment=a:b', '--workdir=gs://bucket/run')
    done = call('kubernetes', '--dry_run', *GPU, *train)
    assert 'several processes cannot put one checkpoint together; name a path in a volume' in refused(done, name='kubernetes')
    assert call('kubernetes', '--dry_run', '--image=a:1', '--tpu=v5e:2x4', *train).returncode == 0
    done = call('slurm', '--dry_run', '--nodes=2', *train)
    assert 'give a directory that all nodes see' in refused(done, name='slurm')
    assert call('slurm', '--dry_run', '--nodes=1', *train).returncode == 0


def test_pods_always_resume() -> None:
    train = ('--', 'train', '--experiment=a:b', '--workdir=/data/run')
    assert pod(manifest(*GPU, train=train))['containers'][0]['args'] == ['train', '--experiment=a:b', '--workdir=/data/run', '--resume']
    assert pod(manifest(*GPU, train=(*train, '--resume')))['containers'][0]['args'][-2:] == ['--workdir=/data/run', '--resume']
    assert '--overwrite would delete' in refused(call('kubernetes', '--dry_run', *GPU, *train, '--overwrite'), name='kubernetes')


def test_manifest_goes_to_kubectl(tmp_path: Path) -> None:
    stand_in(tmp_path, 'kubectl', '#!/usr/bin/env bash\necho "$@" >"$ACTS/words"\ncat >"$ACTS/in"\nexit 3\n')
    done = call('kubernetes', *GPU, *TRAIN, path=tmp_path, ACTS=str(tmp_path))
    assert done.returncode == 3 and (tmp_path / 'words').read_text() == 'create -f -\n'
    assert yaml.safe_load((tmp_path / 'in').read_text('utf-8')) == manifest(*GPU)
    (tmp_path / 'empty').mkdir()
    assert 'there is no kubectl' in refused(call('kubernetes', *GPU, *TRAIN, PATH=str(tmp_path / 'empty')), name='kubernetes')


@settings(max_examples=100)
@given(st.lists(hostile, min_size=1, max_size=3), hostile)
def test_every_word_arrives_as_it_was(words: list[str], value: str) -> None:
    """Through YAML and through what Kubernetes puts in the place of $(NAME)."""
    module = load('_manifest.py')
    text = module.yaml(module.jobset(hosts(words=words, environment={'GIVEN': value})))
    container = pod(yaml.safe_load(text))['containers'][0]
    variables = {'HOME': '/tmp', 'NAME': 'x', 'GIVEN': value}
    assert [expanded(word, variables) for word in container['args']] == words
    assert {item['name']: expanded(item['value'], variables) for item in container['env'] if 'value' in item}['GIVEN'] == value
    assert faults(yaml.safe_load(text), SCHEMA) == []


text = st.text(st.characters(codec='utf-8'), max_size=20)
scalars = st.one_of(text, st.sampled_from(['yes', 'null', '~', '1e3', '- a', '', 'On', 'TRUE']), st.integers(), st.booleans())
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=12)


@settings(max_examples=100)
@given(st.dictionaries(text | st.sampled_from(['y', 'No', 'null', 'on']), trees, min_size=1, max_size=3))
def test_yaml_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    assert yaml.safe_load(load('_manifest.py').yaml(copy.deepcopy(value))) == value
