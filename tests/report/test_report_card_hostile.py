"""Nothing that stands in a label file, a configuration or an owner's file can break out of the page, the Markdown or the YAML of a card."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import card_runs
import pytest

from retfound_jax.core.files import read_json, write_json
from retfound_jax.report import card_md, card_page
from retfound_jax.report.card import Card, collect_card
from retfound_jax.report.words import clean

BREAKING = (
    '<script>alert(1)</script>',
    '" onerror="alert(1)',
    '</style></td><img src=x onerror=alert(1)>',
    'a | b\n---\nlicense: mit\n---\n# Heading',
    '](javascript:alert(1)) ![x](https://example.org/x.png) `code` **bold**',
    '{{ 7 * 7 }} \x00\x1b\u202e <!-- </details> https://example.org www.example.org',
)


@pytest.fixture(scope='module')
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    root = tmp_path_factory.mktemp('hostile')
    people = {'sex': {name: 100 for name in BREAKING}, 'camera': {name: 50 for name in BREAKING}}
    dataset = {'name': BREAKING[3], 'summary': people, 'summary_patients': people, 'fingerprint': BREAKING[2], 'modality': {BREAKING[0]: 3}}
    dataset |= {'demographics': {'schema': 1, 'ethnicity_scheme': BREAKING[4]}}
    facts = ''.join(f'{key} = {toml(text)}\n' for key, text in zip(('owner', 'intended_use', 'ethics', 'contact'), BREAKING, strict=False))
    made = card_runs.task_card(
        root, 'multi', by=('ethnicity',), labels=BREAKING[:3], ethnicity=list(BREAKING[3:]), dataset=dataset, facts=facts, replicates=4
    )
    run = made.subject.path
    write_json(run / 'config.json', read_json(run / 'config.json') | {'name': BREAKING[3], 'seed': BREAKING[0], 'init_from': BREAKING[4]})
    write_json(run / 'environment.json', {'hardware': BREAKING[2], 'versions': {BREAKING[0]: BREAKING[1]}, 'code': {'commit': BREAKING[5]}})
    return collect_card(run, dataset=root / 'dataset', facts=root / 'facts.toml')


def toml(text: str) -> str:
    return '"' + ''.join(char if char.isalnum() else f'\\U{ord(char):08x}' for char in text) + '"'


def test_the_page_has_no_element_or_attribute_from_data(card: Card) -> None:
    page, seen = card_page.build_page(card), []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.extend((tag, name) for name, _ in attrs or [('', None)])

    Reader().feed(page)
    assert not [tag for tag, _ in seen if tag in ('script', 'iframe', 'object', 'embed', 'svg', 'link', 'base', 'form', 'img')]
    assert not [name for _, name in seen if name.startswith('on')]
    assert page.count('<style>') == page.count('</style>') == 1 and '{{ 7 * 7 }}' in page and not re.search('[\x00\x1b\u202e]', page)


def test_the_head_of_the_markdown_is_ours(card: Card) -> None:
    library = pytest.importorskip('huggingface_hub', reason='huggingface_hub is not installed (it is in the dev extra)')
    text = card_page.build_markdown(card)
    found = library.ModelCard(text)
    assert found.data.license == 'unknown' and found.data.model_name == clean(BREAKING[3])
    assert found.data.datasets == ['a-b-license-mit-Heading']
    assert {one.task_name for one in found.data.eval_results} == {clean(', '.join(BREAKING[:3]))}
    assert text.count('\n---\n') == 1  # that of the head


def test_the_body_of_the_markdown_has_no_element_link_or_picture(card: Card) -> None:
    body = card_page.build_markdown(card).partition('\n---\n')[2]
    assert set(re.findall(r'<[^>]*>', body)) == {'<details>', '</details>', '<summary>', '</summary>'}
    assert not re.search(r'https?://|www\.', body)
    assert [line.count('#') for line in body.splitlines() if line.startswith('#')].count(1) == 1
    for table in re.findall(r'(?:^\|.*\n)+', body, flags=re.MULTILINE):
        columns = {len(re.findall(r'(?<!\\)\|', line)) for line in table.splitlines()}
        assert len(columns) == 1, table


def test_a_reader_of_markdown_finds_only_our_structure(card: Card) -> None:
    markdown_it = pytest.importorskip('markdown_it', reason='markdown-it-py is not installed')
    body = card_page.build_markdown(card).partition('\n---\n')[2]
    rendered = markdown_it.MarkdownIt('commonmark', {'html': True}).enable('table').render(body)
    tags = set(re.findall(r'<([a-z0-9]+)', rendered))
    assert tags <= {
        'h1',
        'h2',
        'h3',
        'p',
        'strong',
        'em',
        'blockquote',
        'table',
        'thead',
        'tbody',
        'tr',
        'th',
        'td',
        'details',
        'summary',
        'ul',
        'li',
    }
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in rendered


@pytest.mark.parametrize(
    'text', ['- a', '+ a', '1. a', '# a', '> a', '=== ', '    code', '| a | b |', '[a]: http://b', '***', '~~~', '1) b']
)
def test_a_text_begins_no_block(text: str) -> None:
    markdown_it = pytest.importorskip('markdown_it', reason='markdown-it-py is not installed')
    rendered = markdown_it.MarkdownIt('commonmark').enable('table').render(card_md.escaped(text))
    assert re.fullmatch(r'<p>[^\n]*</p>\n', rendered) and re.sub(r'<[^>]*>|\n', '', rendered).replace('&gt;', '>') == ' '.join(text.split())
