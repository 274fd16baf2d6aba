"""What a caller may tell ingest that a table does not: the classes of a label, the file of a key, a validation split out of train."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_jax.core.errors import UserError
from retfound_jax.ingest import columns, splits
from retfound_jax.ingest.labels import read_table
from retfound_jax.ingest.plan import IngestConfig, make_plan
from retfound_jax.ingest.splits import SplitConfig


def _table(tmp_path: Path, text: str) -> Path:
    (tmp_path / 'labels.csv').write_text(text)
    return tmp_path / 'labels.csv'


def test_classes_that_are_given_keep_their_order_and_those_that_do_not_occur(tmp_path: Path) -> None:
    table = read_table(_table(tmp_path, 'image,grade,score\na,severe,1\nb,none,2\nc,,3\n'))
    given = {'grade': ('none', 'mild', 'severe'), 'score': ()}
    grade, score = columns.assign(table, given={}, classes=given).labels
    assert (grade.kind, grade.classes) == ('class', ('none', 'mild', 'severe')) and (score.kind, score.classes) == ('number', None)
    assert columns.label_values(table, grade)[:2] == [2.0, 0.0] and columns.label_values(table, score) == [1.0, 2.0, 3.0]
    with pytest.raises(UserError, match='the column "grade" of labels.csv must hold none, mild: a problem: line 2 has "severe"'):
        columns.assign(table, given={}, classes={'grade': ('none', 'mild')})
    with pytest.raises(UserError, match='the column "grade" of labels.csv must hold a number: 2 problems: line 2 has "severe"'):
        columns.assign(table, given={}, classes={'grade': ()})


def test_files_that_are_given_are_the_only_ones_looked_at(tmp_path: Path) -> None:
    for name in ('x/1.png', 'y/1.png', 'y/2.png', 'mask.png'):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'in' / name).write_bytes(b'.')
    labels = _table(tmp_path, 'image,grade\nfirst,0\nsecond,1\n')
    config = IngestConfig(source=str(tmp_path / 'in'), out=str(tmp_path / 'out'), labels=str(labels))
    plan = make_plan(config, files={'first': 'y/1.png', 'second': 'x/1.png'})
    assert plan.files == ('x/1.png', 'y/1.png') and plan.rows == {'y/1.png': 0, 'x/1.png': 1} and plan.listing.ignored == 2
    with pytest.raises(UserError, match='"z/1.png" .line 3. has no file'):
        make_plan(config, files={'first': 'y/1.png', 'second': 'z/1.png'})


def test_a_part_of_a_given_train_becomes_validation_and_nothing_else_moves() -> None:
    config = SplitConfig(val=0.25, test=0.5, val_of_train=True)
    placed = [splits.placed('train', f'p{number}', config=config) for number in range(2000)]
    assert set(placed) == {'train', 'val'} and 0.22 < placed.count('val') / 2000 < 0.28  # the share of test is none of its business
    assert all(splits.placed(split, f'p{number}', config=config) == split for split in ('val', 'test') for number in range(50))
    assert splits.placed('train', 'p1', config=SplitConfig(val=0.79)) == 'train'


def test_a_leak_names_the_images_without_which_there_is_none() -> None:
    rows = [('p', 'train', 'a'), ('p', 'test', 'b'), ('q', 'train', 'c'), ('p', 'val', 'd'), ('r', 'val', 'e'), ('r', 'train', 'f'),
            ('p', 'test', 'g')]
    with pytest.raises(splits.Leak) as caught:
        splits.given_splits(rows)
    assert caught.value.keys == ('a', 'd', 'f')
    left = [row for row in rows if row[2] not in caught.value.keys]
    assert splits.given_splits(left) == {'p': 'test', 'q': 'train', 'r': 'val'}
