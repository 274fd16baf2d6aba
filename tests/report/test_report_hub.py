"""card.md as the Hub reads it: its own library finds every number of the table, and no name can be read as anything but a name."""

from __future__ import annotations

import math
from pathlib import Path

import card_runs
import pytest
import report_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from retfound_jax.core.files import read_json, write_json
from retfound_jax.evals.tables import EvalConfig, evaluate
from retfound_jax.report import card_page, hub
from retfound_jax.report.card import collect_card

hub_library = pytest.importorskip('huggingface_hub', reason='huggingface_hub is not installed (it is in the dev extra)')
pyyaml = pytest.importorskip('yaml', reason='PyYAML is not installed (huggingface_hub brings it)')

TEXT = st.text(st.characters(exclude_categories=('Cs',)), max_size=40)
NUMBERS = st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize('kind', ['single', 'multi', 'regress'])
def test_the_library_of_the_hub_finds_every_number_of_the_table(kind: str, tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path, kind, by=('sex',))
    text = card_page.build_markdown(card)
    found = hub_library.ModelCard(text).data
    assert found.license == 'unknown' and found.library_name == 'retfound-jax' and found.datasets == ['clinic'] and found.metrics
    by_place = {}
    for one in found.eval_results:
        args = one.metric_args
        by, _, group = (one.dataset_config or '').partition('=')
        place = (args['level'], by, group, args['target'], one.metric_type)
        assert place not in by_place
        by_place[place] = one
        assert (one.dataset_split, one.dataset_revision, one.verified) == ('test', report_runs.FINGERPRINT, False)
    rows = read_json(card.subject.path / 'tables' / 'metrics_test.json')['rows']
    wanted = [row for row in rows if row['value'] is not None and not row['group'].startswith('gap')]
    wanted = [row for row in wanted if not row['by'] or row['level'] == 'patient']
    assert len(wanted) == len(by_place) > 10
    for row in wanted:
        one = by_place[
            row['level'], row['by'], row['group'], row['target'], hub.METRICS.get(row['metric'], hub.slug(row['metric']).lower())
        ]
        assert one.metric_value == row['value']
        for name in ('low', 'high', 'n_patients', 'n_images', 'n_positive'):
            assert one.metric_args.get(name) == row[name]
        assert one.metric_args['interval'] == 0.95


def test_another_dataset_is_a_result_of_its_own(tmp_path: Path) -> None:
    card = card_runs.task_card(tmp_path)
    elsewhere = report_runs.make_predictions('single', seed=9)
    write_json(
        card.subject.path / 'tables' / 'metrics_idrid-test.json', evaluate(elsewhere, validation=None, config=EvalConfig(replicates=4))
    )
    card = collect_card(card.subject.path)
    results = hub_library.ModelCard(card_page.build_markdown(card)).data.eval_results
    assert {one.dataset_name for one in results} == {'unnamed', 'idrid'}
    assert [one.name for one in card.external] == ['idrid-test'] and card.main is not None and card.main.name == 'test'


def test_a_run_without_evaluation_has_no_index_and_an_encoder_says_what_it_is(tmp_path: Path) -> None:
    data = hub_library.ModelCard(card_page.build_markdown(collect_card(report_runs.pretrain_run(tmp_path)))).data
    assert data.pipeline_tag == 'image-feature-extraction' and data.eval_results is None


def test_the_owners_licence_and_carbon_are_in_the_head(tmp_path: Path) -> None:
    licence = 'licence = "other"\nlicence_name = "a-licence"\nlicence_link = "https://example.org/l"\n'
    facts = f'{licence}power_watts = 1000\ncarbon_g_per_kwh = 250\n'
    card = card_runs.task_card(tmp_path, facts=facts)
    data = hub_library.ModelCard(card_page.build_markdown(card)).data
    assert (data.license, data.license_name, data.license_link) == ('other', 'a-licence', 'https://example.org/l')
    seconds = sum(one.seconds for one in (card.run, card.pretrain))
    assert math.isclose(data.to_dict()['co2_eq_emissions']['emissions'], seconds / 3600 * 250, rel_tol=1e-12)


@settings(max_examples=20)
@given(st.recursive(TEXT | NUMBERS | st.booleans() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8))
def test_whatever_is_written_is_read_again(value: object) -> None:
    from retfound_jax.report.words import clean

    def cleaned(one: object) -> object:
        if isinstance(one, str):
            return clean(one)
        if isinstance(one, list):
            return [cleaned(item) for item in one]
        return {clean(key): cleaned(item) for key, item in one.items()} if isinstance(one, dict) else one

    assert pyyaml.safe_load(hub.yaml({'value': value, 'after': 1})) == {'value': cleaned(value), 'after': 1}


@pytest.mark.parametrize(
    'text', ['yes', 'null', '1e3', '2026-01-01', '---', '- a', '!!python/object:os.system', '*a', '&a b', 'a: b', '\u2028\u0085\ufeff']
)
def test_a_text_stays_a_text(text: str) -> None:
    from retfound_jax.report.words import clean

    assert pyyaml.safe_load(hub.yaml({'value': text, text: [text]})) == {'value': clean(text), clean(text): [clean(text)]}
