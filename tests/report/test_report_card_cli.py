"""`retfound report --card`: one command for the report, the card and the data sheet; what is wrong is one sentence before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import card_runs
import pytest
import report_runs

from retfound_jax.cli import _card
from retfound_jax.cli import main as front_door
from retfound_jax.core.errors import UsageError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.report import card_limits, card_page
from retfound_jax.report.card import collect_card


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was evaluated by sex and age, whose dataset is there."""
    card = card_runs.task_card(tmp_path, by=('sex', 'age_band'), replicates=4)
    config = read_json(card.subject.path / 'config.json')
    data = {'type': 'retfound_jax.data.config:DataConfig', 'path': str(tmp_path / 'dataset')}
    write_json(card.subject.path / 'config.json', config | {'data': data, 'init_from': str(tmp_path / 'pretrain')})
    before = read_json(tmp_path / 'pretrain' / 'config.json')
    write_json(tmp_path / 'pretrain' / 'config.json', before | {'data': data})
    (card.subject.path / 'predictions' / 'test.parquet').unlink()  # no pictures of mistakes: the dataset has no shards
    return card.subject.path


def call(*words: object) -> int:
    return front_door.main(['report', *map(str, words)])


def test_one_command_writes_all_and_says_where(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call('--card', '--by', 'sex,age', '--workdir', run) == 0
    said = dict(line.split(': ', 1) for line in capsys.readouterr().out.splitlines())
    assert list(said) == ['report', 'card', 'card for the Hub', 'data sheet']
    for path in said.values():
        assert Path(path).exists() and run in Path(path).parents
    page = (run / 'card.html').read_text()
    assert '“clinic” (the task)' in page and 'It was pretrained on the same dataset' in page


def test_several_runs_get_each_their_own(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = report_runs.evaluated_run(tmp_path, 'regress', by=('sex', 'age_band'), replicates=4)
    (other / 'predictions' / 'test.parquet').unlink()
    assert call('--card', '--by', 'sex', '--workdir', run, '--workdir', other, '--workdir', run) == 0
    out = capsys.readouterr().out
    assert out.count('card.html') == 2 and (other / 'card.html').exists()
    assert '“age_years”' in (other / 'card.html').read_text() and '“disease”' in (run / 'card.html').read_text()


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--by', 'sex'], '--by belongs to the model card: add --card'),
        (['--facts', 'FACTS'], '--facts belongs to the model card'),
        (['--card', '--facts', 'FACTS'], 'did you mean "owner"'),
        (['--card', '--facts', 'NOWHERE'], 'is no file'),
        (['--card', '--workdir', 'STUDY'], 'is a study'),
        (['--card', '--workdir', 'STUDY', '--out', 'x.html'], '--out is for one --workdir, and there are 2'),
        (['--card', '--by', 'sxe'], 'did you mean "sex"'),
        (['--card', '--study', 'NOWHERE'], 'is not the directory of a study'),
        (['--card', '--by', 'sex,ethnicity'], 'was not evaluated by all of these groups and its dataset'),
    ],
)
def test_what_is_wrong_is_one_sentence(words: list[str], says: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / 'facts.toml').write_text('ownr = "a"')
    (tmp_path / 'study' / 'cells').mkdir(parents=True)
    places = {'FACTS': tmp_path / 'facts.toml', 'NOWHERE': tmp_path / 'nowhere', 'STUDY': tmp_path / 'study'}
    if 'ethnicity' in ' '.join(words):
        (tmp_path / 'dataset').rename(tmp_path / 'moved')
    assert call('--workdir', run, *(places.get(word, word) for word in words)) == 2
    told = capsys.readouterr().err
    assert says in told and told.count('\n') == 1


def test_a_run_that_was_never_evaluated_and_cannot_be_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = report_runs.evaluated_run(tmp_path, 'single', replicates=4)
    (run / 'tables' / 'metrics_test.json').unlink()
    config = read_json(run / 'config.json')
    write_json(run / 'config.json', config | {'data': {'type': 'retfound_jax.data.config:DataConfig', 'path': str(tmp_path / 'gone')}})
    assert call('--card', '--workdir', run) == 2
    assert 'was not evaluated and its dataset' in capsys.readouterr().err and not (run / 'card.html').exists()


class Evaluations:
    """Takes the place of loading and judging a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, step: int = 240) -> None:
        self.calls: list[dict[str, Any]] = []
        self.loaded: list[str] = []

        def load(workdir: Path, *, which: str = 'best') -> Any:
            self.loaded.append(which)
            return type('Run', (), {'step': step})()

        def judge(trained: Any, *, workdir: Path, split: str, config: Any) -> None:
            self.calls.append({'split': split, 'config': config})

        monkeypatch.setattr('retfound_jax.train.checkpoint.load_run', load)
        monkeypatch.setattr('retfound_jax.evals.evaluation.evaluate_run', judge)


def places(run: Path) -> _card.Places:
    dataset = run.parent / 'dataset'
    return _card.Places(workdir=run, pretrain=None, dataset=dataset, pretrain_dataset=None)


def test_groups_judged_before_are_not_judged_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Evaluations(monkeypatch)
    assert _card.evaluate_missing(places(run), by=('sex', 'age')) == '' and not found.calls


def test_a_group_is_added_to_those_before_with_their_settings(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Evaluations(monkeypatch)
    assert _card.evaluate_missing(places(run), by=('ethnicity', 'sex')) == 'test'
    config = found.calls[0]['config']
    assert config.by == ('sex', 'age_band', 'ethnicity') and config.replicates == 4 and config.rule.name == 'youden'
    assert found.loaded == ['best']


def test_left_out_it_is_judged_by_all_that_the_dataset_records(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Evaluations(monkeypatch, step=100)
    _card.evaluate_missing(places(run), by=())
    assert found.calls[0]['config'].by == ('sex', 'age_band', 'ethnicity', 'site', 'camera')
    assert found.loaded == ['best', 'latest']  # the checkpoint that was judged before was not the best one


def test_a_group_that_does_not_exist_is_told_before_the_work(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Evaluations(monkeypatch)
    with pytest.raises(UsageError, match='did you mean "ethnicity"'):
        _card.evaluate_missing(places(run), by=('ethnicty',))
    assert not found.loaded


def test_the_owners_questions_are_printed_and_a_run_has_to_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert call('--questions') == 0
    assert '# intended_use = ""' in capsys.readouterr().out
    assert call('--card') == 2
    assert 'missing --workdir' in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_was_never_judged_is_judged_by_the_groups_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import api_runs

    from retfound_jax.data.phantom.config import PhantomConfig
    from retfound_jax.tasks.classify import ClassifyTask

    task = ClassifyTask(model=api_runs.ENCODER, labels=('referable_dr',), classes=('0', '1'))
    run = api_runs.save_run(tmp_path / 'run', task, phantom=PhantomConfig(patients=400))
    assert call('--card', '--by', 'sex', '--notice', 'Drawn by a program.', '--workdir', run) == 0
    assert read_json(run / 'tables' / 'metrics_test.json')['by'] == ['sex']
    page = (run / 'card.html').read_text()
    assert 'Sex: F' in page and 'Drawn by a program.' in page and 'the images were drawn by a program' in page
    capsys.readouterr()
    assert call('--card', '--by', 'age', '--workdir', run, '--out', tmp_path / 'here' / 'report.html') == 0
    assert all((tmp_path / 'here' / name).exists() for name in ('report.html', 'card.html', 'card.md'))
    assert read_json(run / 'tables' / 'metrics_test.json')['by'] == ['sex', 'age_band']


def test_what_public_weights_have_seen_is_told(run: Path, tmp_path: Path) -> None:
    config = read_json(run / 'config.json')
    write_json(run / 'config.json', config | {'init_from': 'weights/RETFound_mae_natureCFP.pth'})
    (tmp_path / 'dataset').rename(tmp_path / 'eyepacs')
    found = _card._start(_card.Places(workdir=run, pretrain=None, dataset=tmp_path / 'eyepacs', pretrain_dataset=None))
    assert found.name == 'RETFound_mae_natureCFP' and 'eyepacs (88,702 CFP)' in found.seen and 'was pretrained on eyepacs' in found.doubt
    card = collect_card(run, start=found)
    assert 'was pretrained on eyepacs' in next(limit.evidence for limit in card_limits.limits(card) if 'may have seen' in limit.what)
    assert 'public weights RETFound_mae_natureCFP, pretrained on meh_midas' in card_page.build_markdown(card).replace('\\_', '_')
