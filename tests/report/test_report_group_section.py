"""The page of a study that asks of groups: slopes in words, figures and tables; what is damaged is told, and names cannot run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retfound_jax.core.errors import UserError
from retfound_jax.report import group_curves, group_section, html


def point(group: str, composition: float, value: float, **more: Any) -> dict[str, Any]:
    shown = {'low': value - 0.05, 'high': value + 0.05, 'per_seed': [value - 0.01, value + 0.01]}
    shown |= {'patients_low': value - 0.03, 'patients_high': value + 0.03}
    base = {'adaptation': 'probe', 'method': f'{composition}', 'words': f'{composition}', 'composition': composition, 'fraction': 1.0}
    return base | {'target': 'amd', 'group': group, 'value': value} | shown | more


def slope(group: str, value: float, verdict: str, **more: Any) -> dict[str, Any]:
    shown = {'low': value - 0.1, 'high': value + 0.1, 'p': 0.01, 'p_holm': 0.02, 'per_seed': [value], 'seeds': [0], 'detectable': 0.1}
    base = {'on': 'composition', 'adaptation': 'probe', 'method': '', 'fraction': 1.0, 'target': 'amd', 'group': group, 'value': value}
    return base | shown | {'verdict': verdict, 'sentence': f'{group} {verdict}.'} | more


def bias(*, drawn: bool = False) -> dict[str, Any]:
    points = [point(group, share, base + rise * share) for group, base, rise in (('F', 0.6, 0.3), ('M', 0.8, 0.0)) for share in (0, 0.5, 1)]
    head = {'format': group_curves.FORMAT, 'study': 's', 'title': 't', 'by': 'sex', 'group': 'F', 'metric': 'AUROC', 'level': 'image'}
    slopes = [slope('F', 0.3, 'rises'), slope('M', 0.0, 'not shown')]
    return head | {'drawn': drawn, 'groups': {'amd': []}, 'points': points, 'slopes': slopes}


def means() -> dict[str, Any]:
    number = {'value': 0.3, 'low': 0.2, 'high': 0.4, 'p': 0.01, 'per_seed': [0.3]}
    row = {'means': 'none', 'words': 'nothing', 'stage': 'training', 'metric': 'AUROC', 'worst': 'South', 'overall': number, 'gap': number}
    row |= {'overall_change': None, 'gap_change': None, 'by_group': {'North': number, 'South': number}}
    named = {'means': 'none', 'words': 'nothing', 'seed': 0, 'group': 'South', 'metric': 'AUROC'}
    named |= {'value': 0.6, 'rest': 0.9, 'p_holm': 0.004}
    head = {'format': group_section.MEANS_FORMAT, 'study': 's', 'title': 't', 'by': 'site', 'target': 'amd', 'level': 'patient'}
    return head | {'drawn': True, 'groups': ['North', 'South'], 'seeds': [0], 'failing': [named], 'means': [row]}


def written(folder: Path, **files: Any) -> Path:
    (folder / 'tables').mkdir(exist_ok=True)
    for name, told in files.items():
        (folder / 'tables' / f'{name}.json').write_text(json.dumps(told))
    return folder


def page(folder: Path) -> str:
    return html.render('t', subtitle='', sections=group_section.sections(folder))


def test_slopes_means_and_figures_are_on_the_page(tmp_path: Path) -> None:
    text = page(written(tmp_path, bias=bias(), fairness=means()))
    assert 'F rises.' in text and '+0.300' in text and '(+0.200 to +0.400)' in text and '1 of 2 slopes are not shown' in text
    assert 'Nothing: of 1 run the evaluation names first South in 1 (p &lt; .05 after Holm in 1)' in text
    assert text.count('data:image/svg+xml') == 1
    assert page(written(tmp_path, bias=bias(), fairness=means())) == text


def test_drawn_images_are_said_to_be_drawn_and_a_study_without_groups_has_no_such_part(tmp_path: Path) -> None:
    assert group_section.sections(tmp_path) == ()
    assert 'drawn by the phantom' in page(written(tmp_path, bias=bias(drawn=True)))


def test_learning_curves_have_a_panel_for_each_pretraining(tmp_path: Path) -> None:
    points = [point('F', 0.5, 0.6 + 0.1 * share, fraction=share, words='50 % F') for share in (0.1, 0.5, 1.0)]
    told = bias() | {'points': points, 'slopes': [slope('F', 0.05, 'rises', on='labels', method='0.5')]}
    (drawn,) = group_curves.draw(told)
    assert drawn.name == 'learning_by_group_amd' and 'for each doubling' in page(written(tmp_path, learning_by_group=told))


def test_names_are_text(tmp_path: Path) -> None:
    told = bias()
    for one in (*told['points'], *told['slopes']):
        one['group'] = one['group'].replace('F', '<script>$x$')
    assert '<script>$' not in page(written(tmp_path, bias=told))


@pytest.mark.parametrize('break_it', [
    lambda told: told.pop('points'), lambda told: told['slopes'][0].pop('verdict'), lambda told: told.update(format='?')
])
def test_what_is_damaged_is_told_in_one_sentence(tmp_path: Path, break_it: Any) -> None:
    told = bias()
    break_it(told)
    with pytest.raises(UserError, match='bias.json'):
        group_section.sections(written(tmp_path, bias=told))
