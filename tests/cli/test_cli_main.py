"""The front door: verbs found, flags parsed, every bad end one sentence with its exit code."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from retfound_jax.cli import main as front
from retfound_jax.core.errors import UsageError, UserError

ROOT = Path(__file__).resolve().parent.parent.parent

VERB = '''
"""A verb of a test."""
from absl import flags
import retfound_jax
SUMMARY = 'greets somebody'
def define(values):
    flags.DEFINE_string('name', None, 'whom to greet', flag_values=values, required=True)
    flags.DEFINE_integer('times', 1, 'how often', flag_values=values)
    flags.DEFINE_enum('tone', 'kind', ['kind', 'stern'], 'in what tone', flag_values=values)
    flags.DEFINE_bool('loud', False, 'in capitals', flag_values=values)
    flags.DEFINE_list('by', ['sex', 'age'], 'columns', flag_values=values)
    flags.DEFINE_multi_string('set', [], 'path=value', flag_values=values)
def run(values):
    if hasattr(retfound_jax, 'to_raise'):
        raise retfound_jax.to_raise
    print(' '.join([values.name] * values.times), values.by, values.set)
'''


@pytest.fixture
def greet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb `greet` in a folder of its own, searched instead of the real ones."""
    import retfound_jax.cli

    (tmp_path / 'greet.py').write_text(VERB, encoding='utf-8')
    (tmp_path / '_hidden.py').write_text('raise SystemError', encoding='utf-8')
    (tmp_path / 'heavy.py').write_text("SUMMARY = 'is never imported here'\nraise SystemError", encoding='utf-8')
    monkeypatch.setattr(front, '_FOLDER', tmp_path)
    monkeypatch.setattr(retfound_jax.cli, '__path__', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'retfound_jax.cli.greet', raising=False)


@pytest.fixture
def failing(greet: None, monkeypatch: pytest.MonkeyPatch):
    """Calls `greet` and lets it raise."""
    import retfound_jax

    def call(error: BaseException, *words: str) -> int:
        monkeypatch.setattr(retfound_jax, 'to_raise', error, raising=False)
        return front.main(['greet', '--name=Ada', *words])

    return call


def test_verb_runs_with_its_flags(greet: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(['greet', '--name', 'Ada', '--times=2', '--by=site', '--set', 'a=1', '--set=b=2']) == 0
    assert capsys.readouterr().out == "Ada Ada ['site'] ['a=1', 'b=2']\n"
    assert flags.FLAGS.is_parsed()  # Grain's workers need it


def test_help_lists_verbs_without_importing_them(greet: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(['help']) == 0
    out = capsys.readouterr().out
    assert 'greets somebody' in out and 'is never imported here' in out and '_hidden' not in out


@pytest.mark.parametrize('words', [['help', 'greet'], ['greet', '--help'], ['greet', '--name=x', '-h']])
def test_help_of_a_verb_lists_flags_with_meaning_and_default(
    greet: None, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert front.main(words) == 0
    out = capsys.readouterr().out
    for text in ('--name=STRING', 'whom to greet (required)', '--times=INT', '(default: 1)', '--tone=kind|stern', '--[no]loud'):
        assert text in out
    assert '--by=A,B,...' in out and 'columns (default: sex,age)' in out and '--set=STRING (as often as needed)' in out


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['gret'], 'retfound: there is no verb "gret", did you mean "greet"?'),
        (['zzz'], 'retfound: there is no verb "zzz"; `retfound help` lists them'),
        (['help', 'gret'], 'retfound: there is no verb "gret", did you mean "greet"?'),
        (['--name=Ada', 'greet'], 'retfound: a verb comes before the flags, as in `retfound VERB --name=Ada`; `retfound help` lists them'),
        (['greet', '--nmae=Ada'], 'retfound greet: there is no flag --nmae, did you mean "name"?'),
        (['greet', '--qqq=Ada'], 'retfound greet: there is no flag --qqq; `retfound help greet` lists its flags'),
        (['greet'], 'retfound greet: missing --name (whom to greet)'),
        (['greet', '--name=a', 'stray'], 'retfound greet: "stray" belongs to no flag; `retfound help greet` lists its flags'),
        (['greet', '--name=a', '--times=two'], 'retfound greet: --times=two is not a whole number'),
        (['greet', '--name=a', '--loud=perhaps'], 'retfound greet: --loud=perhaps is not true or false'),
        (['greet', '--name=a', '--tone=knd'], 'retfound greet: --tone=knd is none of kind, stern, did you mean "kind"?'),
        (['greet', '--name'], 'retfound greet: Missing value for flag --name; `retfound help greet` lists its flags'),
    ],
)
def test_wrong_call_is_one_sentence_and_exit_2(
    greet: None, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert front.main(words) == 2
    shown = capsys.readouterr()
    assert shown.err == sentence + '\n' and shown.out == ''


def test_no_verb_shows_the_verbs_and_exit_2(greet: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main([]) == 2
    assert 'greets somebody' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('error', 'code', 'sentence'),
    [
        (UserError('no image in x; name another folder'), 1, 'no image in x; name another folder'),
        (UsageError('--a and --b exclude each other'), 2, '--a and --b exclude each other'),
        (KeyboardInterrupt(), 130, 'interrupted; to go on, run the same command again'),
        (ValueError('bad thing\nmore'), 1, 'internal error (ValueError: bad thing); run again with --debug for the traceback'),
        (KeyError(), 1, 'internal error (KeyError: no message); run again with --debug for the traceback'),
        (
            OSError(errno.ENOSPC, 'No space left on device', 'runs/a'),
            1,
            'no space left on the disk while writing runs/a: free some, then run the same command again',
        ),
        (
            PermissionError(errno.EACCES, 'Permission denied', 'runs/a'),
            1,
            'no permission to use runs/a (Permission denied): choose another path or change its owner',
        ),
        (
            FileNotFoundError(errno.ENOENT, 'No such file or directory', 'a.csv'),
            1,
            'the system refused a.csv (No such file or directory); run again with --debug for the traceback',
        ),
        (
            RuntimeError('RESOURCE_EXHAUSTED: 80 GB'),
            1,
            'out of memory (RESOURCE_EXHAUSTED: 80 GB): lower the batch size or the image size',
        ),
    ],
)
def test_bad_end_is_one_sentence_with_its_exit_code(
    failing, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, sentence: str
) -> None:
    assert failing(error) == code
    assert capsys.readouterr().err == f'retfound greet: {sentence}\n'


def test_debug_shows_the_traceback_and_keeps_the_code(failing, capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(UserError('no image'), '--debug') == 1
    shown = capsys.readouterr().err
    assert 'Traceback' in shown and shown.endswith('retfound greet: no image\n')


def test_interrupted_training_is_told_to_resume() -> None:
    from retfound_jax.cli import _errors

    assert _errors.sentence(KeyboardInterrupt(), ['train', '--workdir=w']).endswith('run the same command again with --resume')
    assert _errors.sentence(KeyboardInterrupt(), ['train', '--resume']).endswith('run the same command again')


def test_the_real_verbs_have_a_summary_and_a_help_page(capsys: pytest.CaptureFixture[str]) -> None:
    for name, summary in front.verbs().items():
        assert summary and '\n' not in summary and not summary.endswith('.'), name
        assert front.main(['help', name]) == 0
        assert summary in capsys.readouterr().out


def test_version_names_the_stack(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.main(['--version']) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ('retfound ', 'Python ', 'jax ', 'flax '))


def test_closed_pipe_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, '-m', 'retfound_jax', 'help'], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, '')


def test_help_is_quick_for_it_loads_no_jax() -> None:
    code = 'import sys; from retfound_jax.cli.main import main; main(["help"]); sys.exit("jax" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, check=False, timeout=120).returncode == 0
