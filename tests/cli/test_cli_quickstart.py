"""Quickstart refuses before any work, and leaves nothing behind when it does."""

from __future__ import annotations

import json

import pytest

from retfound_jax.cli.main import run_verb
from retfound_jax.core.errors import UsageError


@pytest.fixture
def source(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels.csv').write_text('image,patient_id,sex,grade\na.png,1,F,0\n')
    return tmp_path


@pytest.mark.parametrize(
    ('words', 'says'),
    [
        (['--labels', 'LABELS'], '--labels goes with --source'),
        (['--source', 'IMAGES', '--labels', 'LABELS'], 'needs --label'),
        (['--source', 'IMAGES', '--label', 'grade'], 'needs --labels'),
        (['--source', 'NOWHERE', '--labels', 'LABELS', '--label', 'grade'], 'is not a folder'),
        (['--source', 'IMAGES', '--labels', 'LABELS', '--label', 'grad'], 'did you mean "grade"'),
        (['--source', 'IMAGES', '--labels', 'LABELS', '--label', 'grade', '--by', 'sxe'], 'did you mean "sex"'),
    ],
)
def test_a_wrong_call_is_refused_before_any_work(source, words, says):
    places = {'IMAGES': source / 'images', 'LABELS': source / 'labels.csv', 'NOWHERE': source / 'nowhere'}
    with pytest.raises(UsageError, match=says):
        run_verb('quickstart', [*(str(places.get(word, word)) for word in words), '--workdir', str(source / 'run')])
    assert not (source / 'run').exists()


def test_a_workdir_of_another_quickstart_or_of_anything_else_is_refused(source):
    call = ['--source', str(source / 'images'), '--labels', str(source / 'labels.csv'), '--label', 'grade', '--workdir']
    begun = source / 'begun'
    begun.mkdir()
    (begun / 'quickstart.json').write_text(json.dumps({'source': 'elsewhere'}))
    with pytest.raises(UsageError, match='was begun with --source elsewhere'):
        run_verb('quickstart', [*call, str(begun)])
    with pytest.raises(UsageError, match='holds no quickstart'):
        run_verb('quickstart', [*call, str(source / 'images' / '..')])
