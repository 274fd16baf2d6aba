"""The evaluation's dictionary: every kind, every level, absent classes, withheld groups, gaps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle

from retfound_jax.core.errors import UserError
from retfound_jax.evals.predictions import Predictions
from retfound_jax.evals.rows import GAP
from retfound_jax.evals.tables import EvalConfig, evaluate
from retfound_jax.evals.text import format_table
from retfound_jax.evals.views import make_view

Make = Callable[..., Predictions]
FEW = EvalConfig(replicates=60, min_n=10, permutations=40)
KINDS = [
    ('single', {}),
    ('single', {'classes': ('no', 'yes')}),
    ('ordinal', {}),
    ('ordinal', {'classes': ('0', '1')}),
    ('multi', {}),
    ('regress', {}),
]


def table(make: Make, kind: str, *, config: EvalConfig = FEW, **kw: Any) -> dict[str, Any]:
    """Evaluate test predictions with thresholds from validation predictions of the same kind."""
    return evaluate(make(kind, **kw), validation=make(kind, seed=9, split='val', **kw), config=config)


def row(result: dict[str, Any], *, target: str, metric: str, level: str = 'image', by: str = '', group: str = '') -> dict[str, Any]:
    """The one row asked for."""
    wanted = {'level': level, 'by': by, 'group': group, 'target': target, 'metric': metric}
    (found,) = [r for r in result['rows'] if all(r[name] == value for name, value in wanted.items())]
    return found


@pytest.mark.parametrize(('kind', 'kw'), KINDS, ids=lambda value: str(value))
def test_every_kind_gives_sound_json(make: Make, kind: str, kw: dict[str, Any]) -> None:
    result = table(make, kind, config=replace(FEW, by=('sex', 'age')), **kw)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert {r['level'] for r in result['rows']} == {'image', 'patient'} and result['by'] == ['sex', 'age_band']
    keys = [(r['level'], r['by'], r['group'], r['target'], r['metric']) for r in result['rows']]
    assert len(keys) == len(set(keys))
    for r in result['rows']:
        if r['value'] is None:
            assert r['note'].startswith(('withheld', 'absent')), r
            assert not r['note'].startswith('withheld') or r['n_positive'] is None
        elif r['group'] != GAP:
            assert r['low'] <= r['high'] and r['n_patients'] >= 10
    for level in ('image', 'patient'):
        text = format_table(result, level=level)
        assert result['split'] in text and 'by sex' in text and max(map(len, text.splitlines())) < 220


def test_values_by_image_equal_sklearn(make: Make) -> None:
    test, result = make('ordinal'), table(make, 'ordinal')
    label, score = test.label_NY[:, 0].astype(int), test.score_NS
    areas = oracle.roc_auc_score(label, score, multi_class='ovr', average=None)
    for c in range(4):
        assert row(result, target=str(c), metric='AUROC')['value'] == pytest.approx(areas[c])
    assert row(result, target='macro', metric='AUROC')['value'] == pytest.approx(areas.mean())
    cumulative = oracle.roc_auc_score(label >= 2, score[:, 2:].sum(axis=1))
    assert row(result, target='>=2', metric='AUROC')['value'] == pytest.approx(cumulative)
    kappa = oracle.cohen_kappa_score(label, score.argmax(axis=1), weights='quadratic')
    assert row(result, target='macro', metric='kappa_quadratic')['value'] == pytest.approx(kappa)
    assert row(result, target='macro', metric='accuracy')['value'] == pytest.approx((label == score.argmax(axis=1)).mean())
    np.testing.assert_array_equal(result['confusion']['image']['matrix'], oracle.confusion_matrix(label, score.argmax(axis=1)))
    assert '>=3' not in result['threshold'] and '>=1' in result['threshold']


def test_thresholds_come_from_validation_and_are_applied_to_test(make: Make) -> None:
    test, result = make('single', classes=('no', 'yes')), table(make, 'single', classes=('no', 'yes'))
    chosen = result['threshold']['yes']
    assert (chosen['chosen_on'], chosen['rule']) == ('val', 'youden')
    called, label = test.score_NS[:, 1] >= chosen['value'], test.label_NY[:, 0] == 1
    assert row(result, target='yes', metric='sensitivity')['value'] == pytest.approx(called[label].mean())
    assert row(result, target='yes', metric='specificity')['value'] == pytest.approx((~called[~label]).mean())
    assert np.sum(result['confusion']['image']['matrix']) == len(test)
    assert result['notes'] == ["The positive class is 'yes'."] and set(result['threshold']) == {'yes'}


def test_a_patient_is_the_mean_score_and_any_eye(make: Make) -> None:
    test, result = make('multi'), table(make, 'multi')
    label = test.label_NY[:, 0].reshape(-1, 2)
    kept = ~np.isnan(label).all(axis=1)
    score = np.where(np.isnan(label), np.nan, test.score_NS[:, 0].reshape(-1, 2))
    expected = oracle.roc_auc_score(np.nanmax(label[kept], axis=1), np.nanmean(score[kept], axis=1))
    found = row(result, target='glaucoma', metric='AUROC', level='patient')
    assert found['value'] == pytest.approx(expected)
    assert (found['n_patients'], found['n_images']) == (kept.sum(), (~np.isnan(label)).sum())
    assert found['n_positive'] == (np.nanmax(label[kept], axis=1) == 1).sum()


def test_grades_take_the_worse_eye_and_ages_the_mean(make: Make) -> None:
    patient = np.repeat(np.arange(120), 2)
    graded = make('ordinal')
    view = make_view(graded, level='patient', patient=patient)
    np.testing.assert_array_equal(view.class_M, graded.label_NY[:, 0].reshape(-1, 2).max(axis=1))
    ages = make('regress')
    view = make_view(ages, level='patient', patient=patient)
    np.testing.assert_allclose(view.label_MT[:, 0], ages.label_NY[:, 0].reshape(-1, 2).mean(axis=1))
    np.testing.assert_allclose(view.score_MT[:, 0], ages.score_NS[:, 0].reshape(-1, 2).mean(axis=1))


def test_eyes_of_different_classes_have_no_joint_decision(make: Make) -> None:
    test = make('single')
    label = test.label_NY[:, 0].reshape(-1, 2)
    view = make_view(test, level='patient', patient=np.repeat(np.arange(120), 2))
    np.testing.assert_array_equal(view.class_M, np.where(label[:, 0] == label[:, 1], label[:, 0], -1))
    assert view.label_MT.sum() == 120 + (label[:, 0] != label[:, 1]).sum()
    result = table(make, 'single')
    assert 'patients with images of different classes' in result['notes'][0]
    assert np.sum(result['confusion']['patient']['matrix']) == (label[:, 0] == label[:, 1]).sum()


def test_an_absent_class_is_reported_and_the_rest_goes_on(make: Make) -> None:
    test = make('ordinal')
    test = replace(test, label_NY=np.where(test.label_NY == 3, 2.0, test.label_NY))
    result = evaluate(test, validation=make('ordinal', split='val', seed=9), config=FEW)
    assert row(result, target='3', metric='AUROC')['note'] == 'absent: no positive case'
    assert row(result, target='3', metric='specificity')['value'] is not None
    macro = row(result, target='macro', metric='AUROC')
    assert macro['value'] is not None and macro['note'] == 'mean without 3, where it is undefined'
    assert '3' not in result['roc'] and result['calibration']['3']['slope'] is None
    format_table(result)


def test_one_class_only_is_reported_for_every_number(make: Make) -> None:
    classes = ('no', 'yes')
    test = replace(make('single', classes=classes), label_NY=np.ones((240, 1)))
    result = evaluate(test, validation=make('single', classes=classes, split='val'), config=FEW)
    assert row(result, target='yes', metric='AUROC')['note'] == 'absent: no negative case'
    assert row(result, target='yes', metric='sensitivity')['value'] is not None


@pytest.mark.parametrize('with_one_class', [True, False])
def test_no_threshold_without_both_classes_in_validation(make: Make, with_one_class: bool) -> None:
    classes = ('no', 'yes')
    validation = replace(make('single', classes=classes, split='val'), label_NY=np.zeros((240, 1))) if with_one_class else None
    result = evaluate(make('single', classes=classes), validation=validation, config=FEW)
    found = row(result, target='yes', metric='sensitivity')
    assert found['value'] is None and found['note'].startswith('absent: no threshold')
    assert row(result, target='yes', metric='AUROC')['value'] is not None
    assert result['confusion']['image']['rule'] == 'most probable class'


def test_small_groups_are_told_together_or_withheld_and_missing_has_its_row(make: Make) -> None:
    patients, classes = np.arange(240) // 2, ('no', 'yes')
    columns = make('single').columns | {'sex': np.where(patients % 2, 'F', 'M'), 'ethnicity': np.full(240, '')}
    columns['site'] = np.select([patients < 70, patients < 112], 'AB', '')
    columns['camera'] = np.select([patients % 13 == 0, patients % 13 < 5], ['old', 'new'], 'newest')
    by = ('sex', 'site', 'camera', 'ethnicity', 'sex+camera')
    label_NY = (patients % 3 == 0)[:, None].astype(float)
    result = table(make, 'single', classes=classes, columns=columns, label_NY=label_NY, config=EvalConfig(by=by, replicates=40))
    shown = {name: {r['group']: r for r in result['rows'] if (r['by'], r['metric'], r['level']) == (name, 'AUROC', 'image')} for name in by}
    # 8 patients without a site, and 10 on the old camera, would each take another group along into the dark
    assert {group: one['n_patients'] for group, one in shown['site'].items() if group != GAP} == {'A or missing': 78, 'B': 42}
    camera = {group: one['n_patients'] for group, one in shown['camera'].items() if group != GAP}
    assert camera == {'new or old': 48, 'newest': 72, 'missing': 0}
    assert shown['camera']['missing']['note'].startswith('absent') and shown['ethnicity']['missing']['n_patients'] == 120
    crossed = {group: one for group, one in shown['sex+camera'].items() if one['value'] is None and one['n_patients'] != 0}
    assert {'F, old', 'M, old', 'F, new', 'M, new'} <= set(crossed)
    for group, one in crossed.items():
        assert one['note'].startswith('withheld') and one['n_positive'] is one['low'] is one['high'] is None
        assert one['n_patients'] is one['n_images'] is None or not group.endswith('old')
    assert GAP in shown['sex'] and GAP in shown['camera'] and GAP not in shown['ethnicity']
    assert not set(crossed) & set(result['calibration_by']['sex+camera'])
    text = format_table(result)
    assert ' 5 patients' not in text and ' 10 patients' not in text and 'None' not in text


def test_few_with_a_finding_are_withheld_with_what_needs_them(make: Make) -> None:
    test = make('single', classes=('no', 'yes'))
    patients = np.arange(240) // 2
    columns = test.columns | {'sex': np.where(patients < 50, 'F', 'M'), 'site': np.select([patients < 40, patients < 80], 'AB', 'C')}
    label_NY = np.where(patients < 50, patients < 4, patients % 2)[:, None].astype(float)
    result = evaluate(replace(test, columns=columns, label_NY=label_NY), validation=None, config=replace(FEW, by=('sex', 'site')))
    of = {group: row(result, target='yes', metric='AUROC', by='sex', group=group, level='patient') for group in ('F', 'M')}
    assert of['F']['n_patients'] == 50 and of['M']['n_patients'] == 70
    assert {one['n_positive'] for one in of.values()} == {one['value'] for one in of.values()} == {None}
    assert of['F']['note'] == of['M']['note'] == 'withheld: <10 with or without it, or hides such a number'
    site = {group: row(result, target='yes', metric='AUROC', by='site', group=group)['value'] for group in 'ABC'}
    assert site['A'] is None and sum(value is None for value in site.values()) == 2


def test_gap_is_paired_and_names_its_groups(make: Make) -> None:
    result = table(make, 'single', classes=('no', 'yes'), config=EvalConfig(by=('sex',), replicates=80))
    for metric in ('AUROC', 'Brier'):
        values = {g: row(result, target='yes', metric=metric, by='sex', group=g)['value'] for g in ('F or missing', 'M')}
        gap = row(result, target='yes', metric=metric, by='sex', group=GAP)
        assert gap['value'] == pytest.approx(max(values.values()) - min(values.values()))
        best = (min if metric == 'Brier' else max)(values, key=values.get)
        assert gap['note'].startswith(f'best {best}, worst') and gap['low'] <= gap['value'] <= gap['high']


def test_roc_and_calibration_entries(make: Make) -> None:
    test, result = make('single', classes=('no', 'yes')), table(make, 'single', classes=('no', 'yes'))
    entry = result['roc']['yes']
    assert entry['auroc'] == row(result, target='yes', metric='AUROC')['value'] and entry['level'] == 'image'
    assert (entry['auroc_low'], entry['auroc_high']) == tuple(row(result, target='yes', metric='AUROC')[name] for name in ('low', 'high'))
    assert len(entry['fpr']) == len(entry['tpr']) == len(entry['low']) == 101 and entry['tpr'][-1] == 1
    assert (np.diff(entry['tpr']) >= 0).all() and np.trapezoid(entry['tpr'], entry['fpr']) == pytest.approx(entry['auroc'], abs=0.02)
    assert entry['patient']['auroc'] == row(result, target='yes', metric='AUROC', level='patient')['value']
    calibration = result['calibration']['yes']
    assert calibration['ECE'] == pytest.approx(row(result, target='yes', metric='ECE')['value'])
    assert sum(b['n'] for b in calibration['bins']) == len(test) and len(calibration['bins']) == 15


def test_empty_and_unlabelled_splits_are_one_sentence(make: Make) -> None:
    for test in (make('regress', n=0), replace(make('regress'), label_NY=np.full((240, 1), np.nan))):
        with pytest.raises(UserError, match='no labelled image'):
            evaluate(test, validation=None, config=FEW)


def test_the_same_seed_gives_the_same_table(make: Make) -> None:
    assert table(make, 'multi') == table(make, 'multi')
    assert table(make, 'multi') != table(make, 'multi', config=replace(FEW, seed=1))


def test_evaluating_validation_itself_says_so(make: Make) -> None:
    validation = make('multi', split='val')
    assert 'optimistic' in evaluate(validation, validation=validation, config=FEW)['notes'][0]
