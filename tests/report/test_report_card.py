"""A card says what its evidence says: four questions first, what is missing in red, limits computed, checklists answered or not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import card_runs
import numpy as np
import pytest
import report_runs

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.evals.tables import EvalConfig, evaluate
from retfound_jax.report import card_limits, card_origin, card_page, card_people, card_scope, card_validation, checklist
from retfound_jax.report.card import Card, collect_card
from retfound_jax.report.card_answers import answers
from retfound_jax.report.claim import CLAIM
from retfound_jax.report.facts import SENTENCES
from retfound_jax.report.tripod import TRIPOD

QUESTIONS = (
    'What is its scope?',
    'Who was it trained on?',
    'Was it validated on diverse people, by subgroup?',
    'How much fine-tuning data does my task need?',
)
OWNER = '\n'.join(f'{key} = "The owner says {key}"' for key in SENTENCES if not key.startswith('licence')) + '\nlicence = "mit"\n'


@pytest.fixture(scope='module')
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    return card_runs.task_card(tmp_path_factory.mktemp('card'))


def words(html: str) -> str:
    """What a reader of a page sees."""
    body = re.sub(r'<style>.*?</style>', '', html, flags=re.DOTALL)
    return ' '.join(re.sub(r'<[^>]+>', ' ', body).split())


def test_the_four_questions_come_first_and_the_checklists_last(card: Card) -> None:
    titles = re.findall(r'<h2[^>]*>(.*?)</h2>', card_page.build_page(card))
    assert [title.partition('. ')[2] for title in titles[1:5]] == list(QUESTIONS)
    assert titles[-2:] == ['TRIPOD+AI', 'CLAIM 2024']
    text = card_page.build_markdown(card)
    assert text.index('## 1') < text.index('## 4') < text.index('## Limitations') < text.index('<summary>TRIPOD+AI</summary>')


def test_the_page_and_the_markdown_say_the_same_numbers(card: Card) -> None:
    row = card.tables.find(metric='AUROC')
    shown = f'{row.value:.3f}'.replace('0.', '.', 1)
    for text in (words(card_page.build_page(card)), card_page.build_markdown(card)):
        assert shown in text and str(row.n_patients) in text and card.config_hash in text and card_runs.COMMIT in text


def test_what_is_missing_is_in_red_and_named(tmp_path: Path) -> None:
    run = report_runs.evaluated_run(tmp_path, 'single', by=(), replicates=4)
    page = card_page.build_page(collect_card(run))
    red = ' '.join(re.findall(r'class="[^"]*\babsent\b[^"]*">(.*?)</(?:p|td|th)>', page, flags=re.DOTALL))
    for missing in (
        'its intended use',
        'the dataset of the task',
        'external validation',
        'a curve over the number of labels',
        'judgement by sex, age',
    ):
        assert missing in red
    assert re.search(r'(p|td)\.absent[^{]*\{[^}]*color: var\(--red\)', page)


def test_what_the_owner_says_is_no_longer_missing(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path, facts=OWNER)
    page = words(card_page.build_page(card))
    assert (
        'The owner says intended_use' in page
        and 'Missing: its intended use' not in page
        and 'only the owner can say it and has not' not in page
    )  # licence_name
    assert not [item for item in TRIPOD.items if item.number == '17' and not checklist.answered(item, answers=answers(card))]


def test_an_encoder_has_a_card_that_says_nothing_was_judged(tmp_path: Path) -> None:
    page = words(card_page.build_page(collect_card(report_runs.pretrain_run(tmp_path), dataset=report_runs.dataset_dir(tmp_path))))
    assert 'features for other models' in page and 'Missing: any evaluation' in page and '960 images' in page


def test_limits_are_computed(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path, by=('sex',))
    run = card.subject.path
    failing = {'level': 'patient', 'by': 'sex', 'group': 'M', 'target': 'referable', 'metric': 'AUROC', 'value': 0.7, 'rest': 0.9}
    failing |= {'shortfall': 0.2, 'low': 0.1, 'high': 0.3, 'p': 0.001, 'p_holm': 0.004, 'n_patients': 50, 'n_positive': 12}
    gap = {'level': 'patient', 'by': 'sex', 'target': 'referable', 'metric': 'AUROC', 'groups': 2, 'best': 'F', 'worst': 'M', 'gap': 0.2}
    gap |= {'low': 0.1, 'high': 0.3, 'by_chance': 0.04, 'by_chance_high': 0.1, 'p': 0.001, 'p_holm': 0.002, 'detectable': 0.12, 'note': ''}
    chance = failing | {'group': 'F', 'p_holm': 0.6}
    rows = [row for row in read_json(run / 'tables' / 'metrics_test.json')['rows'] if row['metric'] != 'slope']
    slope = next(row for row in rows if row['metric'] == 'AUROC' and not row['by'] and row['level'] == 'patient') | {
        'metric': 'slope',
        'value': 0.4,
    }
    blind = {
        'level': 'patient',
        'by': 'sex',
        'group': 'M',
        'target': 'referable',
        'metric': 'AUROC',
        'detectable': 0.2,
        'sentence': 'No gap is seen.',
    }
    power = [blind | {'group': 'F', 'detectable': 0.1}, blind, blind | {'metric': 'AUPRC', 'detectable': 0.9}]
    card_runs.change_table(run, rows=[*rows, slope], failing=[failing, chance], fairness=[gap], power=power)
    write_json(run / 'environment.json', {'hardware': '1 cpu device(s)', 'code': {'commit': card_runs.COMMIT, 'dirty': True}})
    found = {limit.what: limit.evidence for limit in card_limits.limits(collect_card(run))}
    assert list(found)[0] == 'Fails sex M' and 'Fails sex F' not in found and 'Unequal by sex' in found
    assert 'slope .4' in found['Probabilities cannot be taken at their word'].replace('0.4', '.4')
    assert found['Gaps that could not have been seen'] == 'Sex M: No gap is seen.'
    assert {
        'Not evaluated on another dataset',
        'Who is in the data is not known',
        'When it should stay silent is not known',
    } <= found.keys()
    assert 'differed from the recorded commit' in found['The code that made it is not pinned']
    page = words(card_page.build_page(collect_card(run)))
    assert 'It does worse for sex M' in page and 'By chance alone' in page and '.040' in page and '.120' in page


def test_a_table_without_the_tests_of_fairness_says_that_nothing_was_tested(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path, by=('sex', 'age_band'))
    path = card.subject.path / 'tables' / 'metrics_test.json'
    write_json(path, {name: value for name, value in read_json(path).items() if name not in ('fairness', 'failing', 'power')})
    assert 'was not tested' in ' '.join(card_validation.worst(collect_card(card.subject.path).main))


def test_the_dataset_decides_what_is_covered(card: Card) -> None:
    assert card_scope.covered(card, 'country') == () and card_scope.covered(card, 'camera') == ('Topcon TRC-NW400', 'Canon CR-2')
    assert card_people.unrecorded(card.data) == ('country',)
    assert set(card_scope.covered(card, 'sex')) <= {'F', 'M'}


def test_small_groups_are_withheld_and_cannot_be_worked_out(tmp_path: Path) -> None:
    people = {'sex': {'F': 480, 'M': 473, 'missing': 7}, 'ethnicity': {'Asian': 700, 'Black': 233, 'Rare': 9, 'missing': 18}}
    card = card_runs.task_card(tmp_path, dataset={'summary': people, 'summary_patients': people}, by=('sex',))
    sex, ethnicity = (card_people.column(card.data, name) for name in ('sex', 'ethnicity'))
    assert sex.missing is None and len(sex.shown) < 2  # 960 less both would be 7
    assert 'Rare' in ethnicity.withheld and ethnicity.missing is None and sum(ethnicity.shown.values()) <= 960 - 20
    for text in (words(card_page.build_page(card)), card_page.build_markdown(card).partition('\n# ')[2]):
        section = text[text.index('Who is in “clinic”') : text.index('Withheld: fewer than 20')]
        numbers = {int(found.replace('\u202f', '')) for found in re.findall(r'\d[\d\u202f]*', section)}
        assert not numbers & {7, 9, 18, 473} and 'Rare' in section


def test_groups_of_the_table_that_are_withheld_have_no_number_anywhere(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path, by=('ethnicity',))
    run = card.subject.path
    rows = read_json(run / 'tables' / 'metrics_test.json')['rows']
    hidden = {
        'value': None,
        'low': None,
        'high': None,
        'n_images': None,
        'n_patients': None,
        'n_positive': None,
        'note': 'withheld: fewer than 20 patients',
    }
    card_runs.change_table(run, rows=[row | (hidden if row['group'] in ('Asian', 'Black') else {}) for row in rows])
    again = collect_card(run)
    markdown = card_page.build_markdown(again)
    head, _, body = markdown.partition('\n# ')
    assert 'ethnicity=White' in head and 'Asian' not in head and 'Black' not in head
    assert not re.search(r'^\| Ethnicity: (Asian|Black)', body, flags=re.MULTILINE)
    assert 'not known whether it works for ethnicity (Asian; Black)' in body
    assert 'Asian; Black' in next(limit.evidence for limit in card_limits.limits(again) if 'small groups' in limit.what)


def test_a_small_group_of_a_real_evaluation_is_in_no_output(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path, by=('ethnicity',))
    run = card.subject.path
    test, val = (report_runs.make_predictions('single', split=split, patients=200, seed=seed) for split, seed in (('test', 5), ('val', 6)))
    few = np.where(np.arange(400) < 14, 'Rare', np.where(np.arange(400) < 200, 'Asian', 'White'))  # two images a patient
    test = dataclasses.replace(test, columns={**test.columns, 'ethnicity': few})
    write_json(run / 'tables' / 'metrics_test.json', evaluate(test, validation=val, config=EvalConfig(by=('ethnicity',), replicates=20)))
    markdown = card_page.build_markdown(collect_card(run))
    head, _, body = markdown.partition('\n# ')
    assert '"ethnicity=Rare"' not in head and 'Ethnicity: Rare |' not in body
    rows = [line.split(' | ') for line in body.splitlines() if line.startswith(('| Ethnicity: ', '| Everybody'))]
    counts = {cells[0].removeprefix('| '): cells[1] for cells in rows}
    shown = sum(int(n) for name, n in counts.items() if n.isdecimal() and name != 'Everybody')
    assert not 0 < int(counts['Everybody']) - shown < 20


def test_energy_is_time_times_a_power_that_is_known(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path)
    assert card_origin.energy(card) is None  # the pretraining run recorded no hardware
    write_json(card.pretrain.path / 'environment.json', {'hardware': '8 NVIDIA H100 80GB HBM3 device(s); 96 CPU cores'})
    paths = {'pretrain': card.pretrain.path}
    spent = card_origin.energy(collect_card(card.subject.path, **paths))
    hours = (card.run.seconds + card.pretrain.seconds) / 3600
    assert spent.kwh == pytest.approx(hours * 8 * 0.7) and 'at most' in spent.basis and spent.grams is None
    (tmp_path / 'owner.toml').write_text('power_watts = 4000\ncarbon_g_per_kwh = 100')
    stated = card_origin.energy(collect_card(card.subject.path, **paths, facts=tmp_path / 'owner.toml'))
    assert stated.kwh == pytest.approx(hours * 4) and stated.grams == pytest.approx(hours * 400) and 'stated by the owner' in stated.basis


def test_weights_and_configuration_are_told_by_their_bytes(card: Card) -> None:
    lines = f'{"a" * 64}  state/a\n{"b" * 64}  state/b\n'
    assert (card.weights.step, card.weights.sha256, card.weights.files, card.weights.bytes) == (
        240,
        hashlib.sha256(lines.encode()).hexdigest(),
        2,
        12,
    )
    text = json.dumps(dict(sorted(read_json(card.subject.path / 'config.json').items())), sort_keys=True, separators=(',', ':'))
    assert card.config_hash == hashlib.sha256(text.encode()).hexdigest()
    assert card.trained_on == 'c' * 64


def test_no_place_of_a_machine_is_told(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path)
    config = read_json(card.subject.path / 'config.json')
    write_json(card.subject.path / 'config.json', config | {'data': {'path': '/srv/ward-7/retina'}, 'init_from': '/srv/ward-7/weights'})
    write_json(card.subject.path / 'environment.json', {'command': 'retfound train --workdir /srv/ward-7/run', 'versions': {}})
    again = collect_card(card.subject.path)
    for text in (card_page.build_page(again), card_page.build_markdown(again)):
        assert 'ward-7' not in text and str(tmp_path) not in text and 'started from the weights “weights”' in text


def test_the_guidelines_have_their_items_and_every_answer_exists(card: Card) -> None:
    numbers = [item.number for item in TRIPOD.items]
    assert len(numbers) == len(set(numbers)) == 52 and {re.sub(r'\D', '', number) for number in numbers} == {str(i) for i in range(1, 28)}
    assert [item.number for item in CLAIM.items] == [str(i) for i in range(1, 45)]
    found = answers(card)
    for item in (*TRIPOD.items, *CLAIM.items):
        assert item.answers and set(item.answers) <= found.keys(), item
    used = {key for item in (*TRIPOD.items, *CLAIM.items) for key in item.answers}
    assert {key for key in SENTENCES if key not in used} <= {'owner', 'contact', 'licence_name', 'licence_link', 'out_of_scope'}
    page = card_page.build_page(card)
    assert page.count(checklist.NOT_ANSWERED) > 10 and '/52 items' not in page


def test_a_study_and_a_damaged_table_are_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / 'study' / 'cells').mkdir(parents=True)
    with pytest.raises(UsageError, match='is a study'):
        collect_card(tmp_path / 'study')
    card = card_runs.task_card(tmp_path)
    with pytest.raises(UsageError, match='is not the directory of a study'):
        collect_card(card.subject.path, studies=[tmp_path])
    card_runs.change_table(card.subject.path, failing=[{'by': 'sex'}])
    with pytest.raises(UserError, match='damaged or of another version'):
        collect_card(card.subject.path)


def test_what_was_done_about_gaps_is_told(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path, by=('sex',))
    run = card.subject.path
    row = {
        'approach': 'threshold_per_group',
        'by': 'sex',
        'target': 'referable',
        'metric': 'equalised_odds',
        'note': 'too few: M',
        'worst': 'M',
    }
    row |= {'gap_before': 0.2, 'gap_after': 0.05, 'gap_change': -0.15, 'gap_change_low': -0.2, 'gap_change_high': -0.1}
    row |= {'overall_before': None, 'overall_after': None, 'overall_change': None, 'overall_change_low': None, 'overall_change_high': None}
    cost = row | {'metric': 'balanced_accuracy', 'overall_change': -0.012, 'overall_change_low': -0.03, 'overall_change_high': 0.01}
    write_json(run / 'tables' / 'mitigation_test.json', {'rows': [row | {'approach': 'none'}, row, cost]})
    config = read_json(run / 'config.json')
    balance = {'by': 'sex+age_band', 'temperature': 0.0, 'weights': []}
    task = config['task'] | {'robust': {'type': 'retfound_jax.tasks.robust:GroupDRO'}}
    write_json(run / 'config.json', config | {'data': config['data'] | {'balance': balance, 'groups': 'sex'}, 'task': task})
    again = collect_card(run)
    page = words(card_page.build_page(again))
    assert 'threshold' in page and '−.150 (−.200 to −.100)' in page and '−.012 (−.030 to .010)' in page
    assert 'drawn by sex and age, at temperature 0; losses were weighed by how badly their group does (group-DRO), groups by sex' in page
    assert 'not built in: a threshold for each group' in answers(again)['fairness'].text


def test_what_a_study_says_of_groups_is_told(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path, by=('sex',))
    point = {'adaptation': 'probe', 'method': 'mae', 'words': 'MAE', 'composition': None, 'target': 'disease', 'per_seed': []}
    points = [
        point | {'fraction': f, 'group': group, 'value': f, 'patients_low': f - 0.05, 'patients_high': f + 0.05}
        for f in (0.25, 0.75)
        for group in ('F', 'M', 'gap')
    ]
    told = {'format': 'retfound by group 1', 'title': 'Who is in it', 'by': 'sex', 'metric': 'AUROC', 'drawn': False, 'points': points}
    slope = {'on': 'labels', 'target': 'disease', 'group': 'F', 'sentence': 'F moved.'}
    write_json(
        tmp_path / 'study' / 'tables' / 'learning_by_group.json',
        told | {'slopes': [slope, slope | {'group': 'gap', 'sentence': 'The gap moved.'}]},
    )
    bias = {'on': 'composition', 'target': 'disease', 'group': 'gap', 'sentence': 'The lead of F grew.'}
    write_json(
        tmp_path / 'study' / 'tables' / 'bias.json',
        told | {'drawn': True, 'slopes': [bias, bias | {'target': 'another', 'sentence': 'No.'}]},
    )
    (tmp_path / 'study' / 'cells').mkdir()
    page = words(card_page.build_page(collect_card(card.subject.path, studies=[tmp_path / 'study'])))
    assert page.index('The gap moved.') < page.index('F moved.') and 'AUROC of each group by share of the labels, by sex' in page
    assert 'A study (drawn photographs, not patients; Who is in it): The lead of F grew.' in page and 'No.' not in page
    write_json(tmp_path / 'study' / 'tables' / 'bias.json', told | {'format': 'another', 'slopes': []})
    with pytest.raises(UserError, match='its format is'):
        collect_card(card.subject.path, studies=[tmp_path / 'study'])


def test_an_encoder_given_with_its_dataset_lacks_none(tmp_path: Path) -> None:
    folder = report_runs.dataset_dir(tmp_path, modality={'CFP': 960})
    page = words(card_page.build_page(collect_card(report_runs.pretrain_run(tmp_path), dataset=folder)))
    assert 'Missing: the dataset' not in page and 'learned, never judged' in page
