"""`retfound datasets`: the list, a card, and a build, by the words a person types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_jax.cli.main import main
from retfound_jax.ingest import manifest
from retfound_jax.registry.catalogue import datasets

Drawn = Callable[[str], Path]


def test_the_list_has_every_dataset_and_says_what_is_here(drawn: Drawn, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(['datasets', '--root', str(drawn('papila').parent)]) == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines() if line[:1].strip()}
    assert set(datasets()) <= set(lines)
    assert 'partly there' in lines['papila'] and 'CC BY 4.0' in lines['papila']
    assert 'papila has 12 of 488 images' in shown
    assert main(['datasets', '--root', str(tmp_path)]) == 0
    assert capsys.readouterr().out.count('  absent\n') == len(datasets())


@pytest.mark.parametrize('name', list(datasets()))
def test_a_card_tells_licence_citation_labels_and_how_to_get_it(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(['datasets', '--name', name, '--root', str(tmp_path)]) == 0
    shown, dataset = ' '.join(capsys.readouterr().out.split()), datasets()[name]
    for text in (dataset.title, dataset.licence, dataset.citation, dataset.instructions, dataset.homepage, dataset.notes):
        assert ' '.join(text.split()) in shown
    assert all(label.name in shown and ' '.join(label.meaning.split()) in shown for label in dataset.labels)
    assert f'absent: {tmp_path / name}' in shown


def test_it_builds_and_says_what_was_built(drawn: Drawn, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ['datasets', '--name', 'idrid', '--source', str(drawn('idrid')), '--out', str(tmp_path / 'out'), '--workers', '0',
             '--size', '48', '--val', '0.4', '--check']
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert 'checksums: no file that has one is there' in shown and '(official)' in shown
    assert f'15 images of {datasets()["idrid"].title}, which has 516' in shown
    content = manifest.read(tmp_path / 'out')
    assert content['provenance']['options']['shorter_side'] == 48 and set(content['splits']) == {'train', 'val', 'test'}
    assert main(words) == 2 and 'pass --overwrite' in capsys.readouterr().err


@pytest.mark.parametrize(('words', 'said'), [
    (['--source', 'x'], 'to build a dataset, pass both --name NAME and --out DATASET'),
    (['--name', 'aptos'], 'there is no dataset "aptos", did you mean "aptos2019"?'),
    (['--name', 'retina', '--out', 'x', '--split', 'retfuond'], 'did you mean "retfound"'),
])
def test_a_wrong_call_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['datasets', *words]) == 2
    assert said in capsys.readouterr().err
