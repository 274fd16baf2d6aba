"""Everything from a label file is hostile text: it is shown as it is, and never acts."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
import report_runs
from hypothesis import given
from hypothesis import strategies as st

from retfound_jax.report import html, page
from retfound_jax.report.blocks import Cell, Code, Fact, Facts, Heading, Picture, Pictures, Section, Table, Terms, Text
from retfound_jax.report.words import clean

SCRIPT = '<script>alert(1)</script>'
ATTRIBUTE = '" onerror="alert(1)'
STYLE = '</style><img src=x onerror=alert(1)>'
TEMPLATE = '{{ 7 * 7 }}{% raw %}$x^2$'
CONTROL = 'a\x00\x1b\u202eb'


@pytest.fixture(scope='module', params=['single', 'many', 'multi', 'regress'])
def hostile_page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp(request.param)
    names = {'key': SCRIPT, 'ethnicity': [SCRIPT, ATTRIBUTE, STYLE]}
    names['labels'] = (SCRIPT, ATTRIBUTE, TEMPLATE) if request.param == 'multi' else (STYLE,)
    names['classes'] = {'single': (ATTRIBUTE, SCRIPT), 'many': (SCRIPT, ATTRIBUTE, TEMPLATE, CONTROL)}.get(request.param, ())
    run = report_runs.evaluated_run(root, request.param, by=('ethnicity',), replicates=4, **names)
    summary = {'sex': {SCRIPT: 3, 'missing': 0}, 'age': {'min': None, 'bands': {ATTRIBUTE: 2}}, SCRIPT: {STYLE: 1}}
    dataset = report_runs.dataset_dir(
        root, name=SCRIPT, summary=summary, rejects={'count': 1, 'reasons': {STYLE: 1}}, fingerprint=ATTRIBUTE
    )
    pretrain = report_runs.pretrain_run(root)
    return page.build(
        run,
        pretrain=pretrain,
        dataset=dataset,
        thumbnail=lambda key: report_runs.jpeg('1'),
        command=SCRIPT,
        notice=STYLE + TEMPLATE,
        show_keys=True,
    )


def test_no_element_or_attribute_comes_from_data(hostile_page: str) -> None:
    seen: list[tuple[str, str]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.extend((tag, name) for name, _ in attrs or [('', None)])

    Reader().feed(hostile_page)
    assert not [tag for tag, _ in seen if tag in ('script', 'iframe', 'object', 'embed', 'svg', 'link', 'base', 'form')]
    assert not [name for _, name in seen if name.startswith('on')]
    assert hostile_page.count('<style>') == hostile_page.count('</style>') == 1
    assert '<script' not in hostile_page and '&lt;script&gt;' in hostile_page


def test_templates_and_formulas_in_data_stay_text(hostile_page: str) -> None:
    assert TEMPLATE in hostile_page
    assert not re.search('[\x00-\x08\x1b\u202e]', hostile_page)


def test_charts_are_sound_xml_without_anything_that_acts(hostile_page: str) -> None:
    charts = re.findall(r'data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)"', hostile_page)
    assert charts
    for chart in charts:
        tree = ElementTree.fromstring(base64.b64decode(chart))
        names = {element.tag.rpartition('}')[2] for element in tree.iter()}
        assert not names & {'script', 'foreignObject', 'a', 'image', 'iframe', 'animate', 'set'}
        for element in tree.iter():
            for name, value in element.attrib.items():
                assert not name.startswith('on')
                assert not name.endswith('href') or value.startswith(('#', 'data:image/png'))


@given(st.text(max_size=60))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    table = Table(caption=text, head=(text, text), rows=((Cell(text, small=text), Cell(text)),), note=text)
    blocks = (Text(text), table, Heading(text), Facts((Fact(text, text, text),)), Code(text, text), Terms(((text, text),)))
    pictures = Pictures(items=(Picture(src='data:image/png;base64,', alt=text, caption=text),))
    made = html.render(text, subtitle=text, sections=(Section(id='one', title=text, blocks=(*blocks, pictures)),))
    shown: list[str] = []
    alts: list[str] = []

    class Reader(HTMLParser):
        def handle_data(self, data: str) -> None:
            shown.append(data)

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            alts.extend(value or '' for name, value in attrs if name == 'alt')
            assert (
                tag
                in 'html head meta title style body header p h1 nav ul li a main section h2 h3 div table caption thead tr th '.split()
                + ('tbody td span small dl dt dd pre figure img figcaption footer'.split())
            )

    reader = Reader()
    reader.feed(made)
    reader.close()
    wanted = clean(text)
    assert alts == [wanted]
    assert ''.join(shown).count(wanted) >= 15
