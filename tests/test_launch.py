"""The set-up behind launch/quickstart and launch/test, with a stand-in for Python: what it makes, keeps, repairs and says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Stands in for Python and, copied into an environment, for its pip; each act is a line of $ACTS.
PYTHON = r"""#!/usr/bin/env bash
case "$1 $2" in
    *sysconfig*) echo "$(dirname "$0")" ;;
    '-c import torch') [ -z "${BROKEN_TORCH:-}" ] ;;
    -c*) [ -z "${TOO_OLD:-}" ] ;;
    --version*) echo 'Python 3.12.9' ;;
    '-m venv')
        case "$4" in *-oracle) echo "made-oracle" ;; *) echo "made" ;; esac >>"$ACTS"
        rm -rf "$4" && mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
    '-m pip')
        if [ "$3" = --version ]; then exit 0; fi
        case "$*" in
            *--require-hashes*) echo "locked" >>"$ACTS"; echo 'Collecting a==1' ;;
            *--constraint*torch==*)
                echo "torch" >>"$ACTS"
                if [ -n "${NO_REPLY:-}" ]; then echo 'WARNING: Retrying (Retry(total=4)) after a broken connection'; fi
                if [ -n "${NO_TORCH:-}" ]; then echo "ERROR: No matching distribution found for ${@: -1}"; exit 1; fi ;;
            *--no-deps*requirements-oracle.txt*) echo "oracle" >>"$ACTS" ;;
            *) echo "package" >>"$ACTS" ;;
        esac
        if [ -n "${NO_NETWORK:-}" ]; then echo 'no route to host'; exit 1; fi
        printf '#!/usr/bin/env bash\necho "in $PWD: $*"\n' >"$(dirname "$0")/retfound" && chmod +x "$(dirname "$0")/retfound" ;;
    '-m pytest') shift 2; echo "$0 in $PWD: $*" ;;
esac
"""


class Project:
    """A copy of launch/ in a folder whose name has a space, on a machine whose only Python is the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / 'my project'
        self.bin = folder / 'bin'
        self.log = folder / 'acts'
        shutil.copytree(ROOT / 'launch', self.root / 'launch')
        shutil.copy(ROOT / 'setup.py', self.root / 'setup.py')
        self.bin.mkdir()
        for tool in ('bash', 'env', 'dirname', 'basename', 'cat', 'cksum', 'head', 'tail', 'grep', 'rm', 'mkdir', 'cp', 'chmod', 'flock'):
            if shutil.which(tool):
                (self.bin / tool).symlink_to(shutil.which(tool))
        self.python('python3')

    def python(self, name: str, text: str = PYTHON) -> None:
        """Puts a Python of that name on the machine."""
        (self.bin / name).write_text(text, encoding='utf-8')
        (self.bin / name).chmod(0o755)

    def call(self, command: str, *words: str, cwd: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        """Runs launch/COMMAND as a user would, from `cwd`."""
        environment = {'PATH': str(self.bin), 'ACTS': str(self.log), 'HOME': os.environ.get('HOME', ''), **settings}
        words = (str(self.root / 'launch' / command), *words)
        return subprocess.run(words, cwd=cwd or self.root, env=environment, capture_output=True, text=True, check=False, timeout=60)

    def acts(self) -> list[str]:
        """What the stand-in was asked to do since the last call of this."""
        lines = self.log.read_text(encoding='utf-8').split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_first_call_installs_and_passes_flags_on_from_the_users_folder(project: Project, tmp_path: Path) -> None:
    done = project.call('quickstart', '--source', 'my photographs', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'in {tmp_path}: quickstart --source my photographs\n'
    assert project.acts() == ['made', 'locked', 'package']
    assert '[1/2] making' in done.stderr and '[2/2] installing' in done.stderr


def test_second_call_installs_nothing_and_says_nothing(project: Project) -> None:
    project.call('quickstart')
    project.acts()
    done = project.call('quickstart')
    assert (done.returncode, done.stderr, project.acts()) == (0, '', [])


def test_failed_install_says_why_and_is_begun_afresh(project: Project) -> None:
    done = project.call('quickstart', NO_NETWORK='1')
    assert done.returncode == 1 and done.stdout == ''
    assert 'no route to host' in done.stderr and 'the install failed' in done.stderr.splitlines()[-1]
    project.acts()
    assert project.call('quickstart').returncode == 0
    assert project.acts() == ['made', 'locked', 'package']


def test_broken_environment_is_made_anew(project: Project) -> None:
    project.call('quickstart')
    project.acts()
    (project.root / '.venv' / 'bin' / 'python').unlink()
    assert project.call('quickstart').returncode == 0
    assert project.acts() == ['made', 'locked', 'package']


def test_moved_project_is_made_anew(project: Project) -> None:
    project.call('quickstart')
    project.acts()
    project.root = project.root.rename(project.root.with_name('elsewhere'))
    assert project.call('quickstart').returncode == 0
    assert project.acts() == ['made', 'locked', 'package']


@pytest.mark.parametrize('name', ['launch/requirements.lock', 'setup.py'])
def test_changed_requirements_are_installed_into_the_environment_that_is_there(project: Project, name: str) -> None:
    project.call('quickstart')
    project.acts()
    with (project.root / name).open('a', encoding='utf-8') as file:
        file.write('# changed\n')
    assert project.call('quickstart').returncode == 0
    assert project.acts() == ['locked', 'package']


def test_no_python_is_one_sentence(project: Project) -> None:
    (project.bin / 'python3').unlink()
    done = project.call('quickstart')
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith('quickstart: no Python 3.11 to 3.14') and not (project.root / '.venv').exists()


def test_too_old_python_is_no_python(project: Project) -> None:
    done = project.call('quickstart', TOO_OLD='1')
    assert done.returncode == 1 and 'no Python 3.11 to 3.14' in done.stderr


def test_python_that_does_not_start_is_passed_over(project: Project) -> None:
    project.python('python3', '#!/usr/bin/env bash\necho "command not found" >&2\nexit 127\n')
    project.python('python3.12')
    assert project.call('quickstart').returncode == 0


def test_environment_is_not_made_from_itself(project: Project) -> None:
    project.call('quickstart')
    shutil.copy(project.root / '.venv' / 'bin' / 'python', project.root / '.venv' / 'bin' / 'python3')
    (project.root / '.venv' / '.installing').touch()
    (project.bin / 'python3').rename(project.bin / 'python3.12')
    active = f'{project.root}/.venv/bin:{project.bin}'
    done = project.call('quickstart', PATH=active)
    assert done.returncode == 0 and f'({project.bin}/python3.12)' in done.stderr


def test_named_python_is_taken_or_refused(project: Project) -> None:
    (project.bin / 'python3').rename(project.bin / 'mine')
    assert project.call('quickstart', PYTHON=str(project.bin / 'mine')).returncode == 0
    shutil.rmtree(project.root / '.venv')
    done = project.call('quickstart', PYTHON='/nowhere/python')
    assert done.returncode == 1 and 'PYTHON=/nowhere/python is no Python' in done.stderr


@pytest.mark.parametrize(
    ('words', 'environment', 'chosen'),
    [
        ((), '.venv', 'not oracle and not slow'),
        (('--all',), '.venv', 'not oracle'),
        (('--oracle',), '.venv-oracle', 'oracle and not slow'),
        (('--oracle', '--all'), '.venv-oracle', 'oracle'),
    ],
)
def test_a_tier_runs_what_it_says_in_its_environment(project: Project, words: tuple[str, ...], environment: str, chosen: str) -> None:
    done = project.call('test', *words, '-k', 'name')
    assert done.stdout.startswith(f'{project.root}/{environment}/bin/python in ') and done.stdout.endswith(f' -m {chosen} -k name\n')


def test_tests_run_at_the_root_and_find_a_path_given_from_the_users_folder(project: Project, tmp_path: Path) -> None:
    (tmp_path / 'test_x.py').touch()
    done = project.call('test', 'test_x.py::test_y', '-k', 'name', cwd=tmp_path)
    assert f'/python in {project.root}: ' in done.stdout and f' {tmp_path}/test_x.py::test_y -k name\n' in done.stdout


def test_oracle_environment_is_made_once_over_the_other(project: Project) -> None:
    """Its own packages come first, and what it lacks is found in .venv and at the root."""
    assert project.call('test', '--oracle').returncode == 0
    assert project.acts() == ['made', 'locked', 'package', 'made-oracle', 'torch', 'oracle']
    behind = (project.root / '.venv-oracle' / 'bin' / 'venv.pth').read_text(encoding='utf-8')  # the stand-in keeps its packages in bin
    assert behind.splitlines() == [str(project.root / '.venv' / 'bin'), str(project.root)]
    done = project.call('test', '--oracle')
    assert (done.returncode, done.stderr, project.acts()) == (0, '', [])


def test_default_tier_makes_no_oracle_environment(project: Project) -> None:
    assert project.call('test').returncode == 0
    assert project.acts() == ['made', 'locked', 'package'] and not (project.root / '.venv-oracle').exists()


@pytest.mark.parametrize('name', ['requirements.lock', 'requirements-oracle.txt'])
def test_changed_pins_make_the_oracle_environment_anew(project: Project, name: str) -> None:
    project.call('test', '--oracle')
    project.acts()
    with (project.root / 'launch' / name).open('a', encoding='utf-8') as file:
        file.write('# changed\n')
    assert project.call('test', '--oracle').returncode == 0
    assert project.acts()[-3:] == ['made-oracle', 'torch', 'oracle']


def test_no_build_of_torch_is_one_sentence_and_no_skip(project: Project) -> None:
    done = project.call('test', '--oracle', NO_TORCH='1')
    assert done.returncode == 1 and done.stdout == '' and '[2/2]' in done.stderr.splitlines()[-2]
    assert 'pip finds no build of torch==' in done.stderr.splitlines()[-1] and 'PYTHON=' in done.stderr.splitlines()[-1]


def test_no_network_is_not_taken_for_a_missing_build(project: Project) -> None:
    done = project.call('test', '--oracle', NO_TORCH='1', NO_REPLY='1')
    assert done.returncode == 1 and 'Retrying' in done.stderr and 'the install failed' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize('broken', ['NO_NETWORK', 'BROKEN_TORCH'])
def test_interrupted_oracle_install_is_begun_afresh(project: Project, broken: str) -> None:
    project.call('test')
    project.acts()
    done = project.call('test', '--oracle', **{broken: '1'})
    assert done.returncode == 1 and 'the install failed' in done.stderr.splitlines()[-1]
    project.acts()
    assert project.call('test', '--oracle').returncode == 0
    assert project.acts() == ['made-oracle', 'torch', 'oracle']


@pytest.mark.parametrize('path', ['launch/quickstart', 'launch/test', '.ci/run'])
def test_scripts_can_be_executed_and_stop_at_the_first_error(path: str) -> None:
    script = ROOT / path
    assert os.access(script, os.X_OK) and 'set -euo pipefail' in script.read_text(encoding='utf-8')
