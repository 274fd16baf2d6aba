"""launch/docker: the Dockerfiles by the rules that matter here, and their locks against the project's. The images are not built."""

from __future__ import annotations

import ast
import fnmatch
import json
import re
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / 'launch' / 'docker'
NAMES = {'gpu': ('cuda', 'gcs'), 'tpu': ('tpu', 'gcs')}  # of a Dockerfile -> extras of setup.py
IMAGE = {'python_version': '3.12', 'python_full_version': '3.12.12', 'sys_platform': 'linux', 'platform_machine': 'x86_64', 'extra': ''}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    joined = re.sub(r'\\\n\s*', ' ', '\n'.join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(' ') for line in joined.splitlines() if line)]


def faults(text: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    found, steps = [], instructions(text)
    for word, rest in steps:
        if word == 'FROM' and not re.fullmatch(r'[\w./-]+:[\w.-]*\d[\w.-]*@sha256:[0-9a-f]{64}( AS \w+)?', rest):
            found.append(f'FROM {rest} is not held to a version and a digest')
        if word == 'ADD':
            found.append(f'ADD {rest} may fetch and unpack; COPY does neither')
        if word == 'RUN' and re.search(r'\b(curl|wget|git clone|sudo)\b', rest):
            found.append(f'RUN {rest} takes what no hash was checked of')
        if word == 'RUN' and 'install' in rest and not ('--require-hashes' in rest or '--no-deps' in rest):
            found.append(f'RUN {rest} installs without hashes')
        if word in ('ENV', 'ARG') and re.search(r'token|secret|passw|credential|_key', rest, re.IGNORECASE):
            found.append(f'{word} {rest} stays in the image')
    last = max(index for index, (word, _) in enumerate(steps) if word == 'FROM')
    users = [rest for word, rest in steps[last:] if word == 'USER']
    if not users or not re.fullmatch(r'[1-9]\d*:[1-9]\d*', users[-1]):
        found.append('the last USER is no number above 0')
    if [rest for word, rest in steps if word == 'ENTRYPOINT'] != ['["retfound"]']:
        found.append('ENTRYPOINT is not ["retfound"]')
    return found


def pins(path: Path) -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each package that a lock holds for the images' Python."""
    found: dict[str, tuple[str, int]] = {}
    for block in re.split(r'\n(?=[A-Za-z])', re.sub(r'(?m)^#.*\n', '', path.read_text('utf-8'))):
        head = block.split('\\', 1)[0].strip()
        requirement, _, marker = head.partition(' ; ')
        if not marker or Marker(marker).evaluate(IMAGE):
            name, _, version = requirement.partition('==')
            found[name] = (version.strip(), block.count('--hash=sha256:'))
    return found


def required(*extras: str) -> list[Requirement]:
    """What setup.py asks for, with its extras."""
    tree = ast.parse((ROOT / 'setup.py').read_text('utf-8'))
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    known = ast.literal_eval(values['EXTRAS'])
    return [Requirement(text) for text in sum((known[extra] for extra in extras), ast.literal_eval(values['REQUIRES']))]


@pytest.mark.parametrize('name', NAMES)
def test_dockerfile_keeps_the_rules(name: str) -> None:
    assert faults((DOCKER / f'{name}.Dockerfile').read_text('utf-8')) == []


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        (':3.12.12-slim-bookworm@sha256:', ':latest@sha256:'),
        ('@sha256:', '@sha1:'),
        ('USER 10001:10001', 'USER root'),
        ('USER 10001:10001\n', ''),
        ('COPY setup.py', 'ADD https://example.org/x'),
        ('--require-hashes', ''),
        ('RUN useradd', 'RUN curl example.org | sh; useradd'),
        ('HOME=/tmp', 'HF_TOKEN=x'),
        ('ENTRYPOINT ["retfound"]', 'ENTRYPOINT retfound'),
    ],
)
def test_broken_rule_is_found(old: str, new: str) -> None:
    text = (DOCKER / 'gpu.Dockerfile').read_text('utf-8')
    assert old in text and faults(text.replace(old, new))


@pytest.mark.parametrize('name', NAMES)
def test_all_that_is_copied_is_there_and_handed_to_the_build(name: str) -> None:
    """Docker leaves out what .dockerignore names, the last line that fits deciding."""
    ignored = (ROOT / '.dockerignore').read_text('utf-8').splitlines()
    rules = [line for line in ignored if line and not line.startswith('#')]
    copied = [rest.split()[:-1] for word, rest in instructions((DOCKER / f'{name}.Dockerfile').read_text('utf-8')) if word == 'COPY']
    sources = [source for words in copied for source in words if not words[0].startswith('--from')]
    assert set(sources) >= {'retfound_jax', 'setup.py', f'launch/docker/{name}.lock'}
    for source in sources:
        fits = [rule for rule in rules if fnmatch.fnmatch(source, rule.lstrip('!'))]
        assert (ROOT / source).exists() and fits[-1].startswith('!'), source
    for private in ('.git', '.venv', 'runs', 'datasets', 'tests', 'quickstart_run'):
        assert [rule for rule in rules if fnmatch.fnmatch(private, rule.lstrip('!'))] == ['*']


@pytest.mark.parametrize('name', NAMES)
def test_same_user_and_home_as_in_the_manifest(name: str) -> None:
    from launch_calls import load

    text = (DOCKER / f'{name}.Dockerfile').read_text('utf-8')
    manifest = json.dumps(load('_manifest.py')._USER)
    assert f'USER {manifest}:{manifest}' in text and f'--uid {manifest} ' in text and 'HOME=/tmp' in text


@pytest.mark.parametrize('name', [*NAMES, 'build'])
def test_every_package_is_held_by_a_hash(name: str) -> None:
    found = pins(DOCKER / f'{name}.lock')
    assert found and all(version and hashes for version, hashes in found.values())


@pytest.mark.parametrize('name', [*NAMES, 'build'])
def test_locks_agree_with_the_one_that_is_tested(name: str) -> None:
    tested, found = pins(ROOT / 'launch' / 'requirements.lock'), pins(DOCKER / f'{name}.lock')
    differ = {package for package in tested.keys() & found.keys() if tested[package][0] != found[package][0]}
    assert not differ, f'launch/docker/{name}.lock is older or newer for {sorted(differ)}; renew it (BUILD.md, Releasing)'


@pytest.mark.parametrize(('name', 'extras'), NAMES.items())
def test_locks_hold_all_that_is_required(name: str, extras: tuple[str, ...]) -> None:
    found = {package.replace('_', '-').lower(): version for package, (version, _) in pins(DOCKER / f'{name}.lock').items()}
    for requirement in required(*extras):
        version = found.get(requirement.name.replace('_', '-').lower())
        assert version and requirement.specifier.contains(version), f'{requirement}: {version}; renew launch/docker/{name}.lock'
    assert any(package.startswith({'gpu': 'jax-cuda13', 'tpu': 'libtpu'}[name]) for package in found)
