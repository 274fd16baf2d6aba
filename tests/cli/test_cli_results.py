"""What comes out of the files of `predict` and `embed` is what went in, for any text; photographs are read a few ahead and no more."""

from __future__ import annotations

import csv
import io
import math
import threading
import time
from pathlib import Path

import api_runs
import cli_folders
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import retfound_jax
from retfound_jax.api.images import in_order
from retfound_jax.cli._photographs import Reject, Row, open_source
from retfound_jax.cli._results import make_writer
from retfound_jax.core.errors import UserError

TEXT = st.text(st.characters(codec='utf-8', exclude_characters='\x00'), max_size=12)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
BATCHES = st.lists(st.lists(st.tuples(TEXT, st.tuples(FLOATS, FLOATS, FLOATS)), min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.fixture(scope='module')
def model(tmp_path_factory: pytest.TempPathFactory) -> retfound_jax.Model:
    """A tiny classifier."""
    return retfound_jax.load(api_runs.save_run(tmp_path_factory.mktemp('runs') / 'run', api_runs.TASKS['single']))


@given(BATCHES)
def test_any_text_and_any_number_come_back(tmp_path_factory: pytest.TempPathFactory, batches: list) -> None:
    folder = tmp_path_factory.mktemp('out')
    rows = [row for batch in batches for row in batch]
    for suffix in ('.csv', '.parquet'):
        path = folder / f'a{suffix}'
        writer = make_writer(path, metadata={'kind': 'single'})
        for batch in batches:
            values = np.array([row[1] for row in batch], np.float32)
            writer.append({'key': [row[0] for row in batch], 'score': values[:, 0], 'v': values[:, 1:]})
        assert not path.exists()
        writer.write(path)
    with open(folder / 'a.csv', newline='', encoding='utf-8') as file:
        header, *found = list(csv.reader(file))
    assert header == ['key', 'score', 'v_0', 'v_1']
    assert [row[0] for row in found] == [row[0] for row in rows]
    np.testing.assert_array_equal(np.array([row[1:] for row in found], np.float32), np.array([row[1] for row in rows], np.float32))
    table = pq.read_table(folder / 'a.parquet')
    assert table.column('key').to_pylist() == [row[0] for row in rows]
    np.testing.assert_array_equal(np.array(table.column('v').to_pylist(), np.float32), np.array([row[1][1:] for row in rows], np.float32))


@settings(max_examples=25)
@given(st.lists(TEXT.filter(lambda cell: cell == cell.strip()), min_size=1, max_size=6))
def test_every_row_of_a_table_is_a_row_or_a_reject(
    tmp_path_factory: pytest.TempPathFactory, model: retfound_jax.Model, cells: list
) -> None:
    folder = tmp_path_factory.mktemp('list')
    cv2.imwrite(str(folder / 'here.png'), cli_folders.fundus(0))
    cells = ['here.png', *cells]
    text = io.StringIO()
    csv.writer(text).writerows([('path', 'n'), *((cell, place) for place, cell in enumerate(cells))])
    (folder / 'list.csv').write_text(text.getvalue(), encoding='utf-8', newline='')
    try:
        source = open_source(folder / 'list.csv', image_column='path', keep=['n'])
    except UserError:  # the table is refused whole, as ingest refuses it: control characters can make it none
        return
    items = [item for task in source.tasks(model) for item in task().items]
    assert len(items) == source.total == len(cells)
    for cell, item in zip(cells, items, strict=True):
        assert isinstance(item, Row) == (cell == 'here.png')
        assert item.key == cell or (isinstance(item, Reject) and not cell and item.key.startswith('line '))


def test_names_of_any_kind_in_a_folder(tmp_path: Path, model: retfound_jax.Model) -> None:
    names = ['-rf.png', 'a, "b".png', "it's.png", 'new\nline.png', 'Überblick/眼底.png', 'no_suffix', 'dot.s.png']
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(cv2.imencode('.png', cli_folders.fundus(0))[1].tobytes())
    odd = tmp_path.joinpath(b'caf\xe9'.decode('utf-8', 'surrogateescape'))
    odd.mkdir()
    (odd / 'a.png').write_bytes((tmp_path / 'no_suffix').read_bytes())
    source = open_source(tmp_path)
    items = [item for task in source.tasks(model) for item in task().items]
    assert sorted(item.key for item in items if isinstance(item, Row)) == sorted(names)
    (refused,) = source.refused
    assert (refused.key, refused.reason) == ('caf\\udce9/a.png', 'has a name that is not valid text')


def test_each_picture_of_a_file_has_a_row_under_the_key_of_ingest(tmp_path: Path, model: retfound_jax.Model) -> None:
    from retfound_jax.data.dataset_source import open_dataset
    from retfound_jax.ingest import pipeline
    from retfound_jax.ingest.plan import IngestConfig, make_plan

    (tmp_path / 'in').mkdir()
    pages = [Image.fromarray(cli_folders.fundus(seed)) for seed in range(3)]
    pages[0].save(tmp_path / 'in' / 'volume.tif', save_all=True, append_images=pages[1:])
    pipeline.run(make_plan(IngestConfig(source=str(tmp_path / 'in'), out=str(tmp_path / 'out'))))
    kept = {}
    for split in ('train', 'val', 'test'):
        found = open_dataset(tmp_path / 'out', split=split)
        keys = found.columns['key'].tolist()
        kept |= dict(zip(keys, found.store.read(range(len(keys))), strict=True)) if keys else {}
    items = [item for task in open_source(tmp_path / 'in').tasks(model) for item in task().items]
    assert [item.key for item in items] == [f'volume.tif#{place}' for place in range(3)] and set(kept) == {item.key for item in items}
    for item in items:
        np.testing.assert_array_equal(item.square, model.square(kept[item.key]))


def test_a_fault_of_one_photograph_does_not_stop_the_others(
    tmp_path: Path, model: retfound_jax.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv2.imwrite(str(tmp_path / 'a.png'), cli_folders.fundus(0))
    monkeypatch.setattr(model, 'square', lambda data: 1 / 0)
    (task,) = open_source(tmp_path).tasks(model)
    (item,) = task().items
    assert isinstance(item, Reject) and 'not foreseen (ZeroDivisionError' in item.reason


def test_tasks_run_a_few_ahead_and_come_in_order() -> None:
    begun, lock = [], threading.Lock()

    def task(place: int) -> int:
        with lock:
            begun.append(place)
        time.sleep(0.002 * (place % 3))
        return place

    found = []
    for place in in_order((lambda place=place: task(place) for place in range(60)), ahead=10):
        found.append(place)
        assert len(begun) <= len(found) + 11
    assert found == list(range(60))


def test_a_task_that_fails_ends_the_walk_with_its_error() -> None:
    walk = in_order([lambda: 1, lambda: math.inf // 0, lambda: 3])
    assert next(walk) == 1
    with pytest.raises(ZeroDivisionError):
        next(walk)
