"""What the many workers of an ingest share with the one of a local run, tried without Beam."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ingest_pipeline import _config, _folder, _photograph

from retfound_jax.cli import main as front_door
from retfound_jax.core.errors import UserError
from retfound_jax.ingest import hashes, splits, work, writer
from retfound_jax.ingest.beam import job as jobs
from retfound_jax.ingest.beam import place, synthetic, twins
from retfound_jax.ingest.items import Abouts, Item, items
from retfound_jax.ingest.plan import make_plan
from retfound_jax.ingest.process import Processed, process
from retfound_jax.ingest.records import Record
from retfound_jax.ingest.tally import Tally


@given(st.lists(st.tuples(st.sampled_from([0, 0, 0, 2]), st.integers(0, 39), st.integers(1, 300)), min_size=1, max_size=300),
       st.integers(1, 5000))
def test_the_cuts_from_counts_are_those_of_the_sorted_whole(rows: list[tuple[int, int, int]], shard_bytes: int) -> None:
    counts = np.zeros((3, 41), np.int64)
    for split, place_, size in rows:
        counts[split, place_] += 1
        counts[split, -1] += size
    layout = place.Layout.of(counts, shard_bytes=shard_bytes)
    for number, split in enumerate(splits.SPLITS):
        ordered = sorted((place_, rank) for rank, (kind, place_, _) in enumerate(rows) if kind == number)
        if not ordered:
            assert split not in layout.bounds
            continue
        bounds = writer.cuts(len(ordered), sum(size for kind, _, size in rows if kind == number), shard_bytes=shard_bytes)
        for shard, (begin, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
            sent = [row for row in ordered if shard in layout.shards_of(split, row[0])]
            assert sent[layout.cut(split, shard)] == ordered[begin:end]


@given(st.lists(st.sampled_from([math.nan, 0.1, 61.3, 80.0, 1e-9, 17.99]), max_size=30), st.integers(0, 30))
def test_counts_of_parts_add_up_to_those_of_the_whole(ages: list[float], cut: int) -> None:
    rows = [
        Record(image=b'', key='', patient='', group='', age=age, sex='FM'[n % 2], labels={'grade': float(n % 3), 'x': age})
        for n, age in enumerate(ages)
    ]
    classes = {'grade': ('0', '1', '2'), 'x': None}
    whole = Tally.of(rows, classes=classes, notes=['young'] * len(rows))
    parts = [Tally.of(part, classes=classes, notes=['young'] * len(part)) for part in (rows[:cut], rows[cut:])]
    added = Tally.from_json(parts[1].to_json()) + Tally.from_json(parts[0].to_json())
    assert added.summary() == whole.summary() and added.balance(classes) == whole.balance(classes) and added.notes == whole.notes
    known = [age for age in ages if not math.isnan(age)]
    assert whole.summary()['age']['mean'] == (round(math.fsum(known) / len(known), 3) if known else None)


def test_an_item_comes_back_from_its_plain_values(tmp_path: Path) -> None:
    source = _folder(tmp_path / 'in', patients=1)
    plan = make_plan(_config(source, tmp_path / 'out'))
    todo = work.chunks(source, plan.files, folder=tmp_path)
    work.run(todo, options=plan.config.pictures, workers=0, done=lambda count: None)
    pictures, _ = work.load(todo)
    (item,) = items(pictures[:1], Abouts(plan).of(pictures[0].file), min_age=0.0, modality='CFP')
    assert repr(Item.from_plain(item.to_plain())) == repr(item) and item.whole().image == pictures[0].jpeg()
    assert (item.record.key, item.record.patient, item.record.labels) == ('0_left', 'p0', {'grade': 0.0})


def test_a_part_says_of_its_files_what_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, 'CHUNK_FILES', 5)
    source = _folder(tmp_path / 'in')
    (source / 'labels.csv').write_text((source / 'labels.csv').read_text().replace('0_left,p0,left,50,M,0', '0_left,,,,,'))
    plan = make_plan(_config(source, tmp_path / 'out'))
    job = jobs.make_job(plan, partial=tmp_path / 'partial', process=process)
    count = jobs.deal(plan, job)
    read = [pair for number in range(count) for pair in jobs.read_part(job, number)]
    assert [file for chunk, _ in read for file in chunk.files] == list(plan.files) and count == 3
    assert [chunk.path for chunk, _ in read] == [c.path for c in work.chunks(source, plan.files, folder=tmp_path / 'partial' / 'chunks')]
    wanted = Abouts(plan)
    assert repr({file: about for _, abouts in read for file, about in abouts.items()}) == repr({f: wanted.of(f) for f in plan.files})


def test_hashes_that_are_near_meet_in_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, '_BUCKET', 50)
    rng = np.random.default_rng(1)
    bits = np.repeat(rng.random((100, 256)) < 0.5, 2, axis=0)
    for row in bits[1::2]:
        row[rng.choice(256, rng.integers(1, 14), replace=False)] ^= True
    rows = np.packbits(bits, axis=1)
    buckets: dict[tuple[int, int], list[np.ndarray]] = {}
    for half in (rows[:90], rows[90:]):
        for band in range(11):
            for number, block in twins._dealt(half, band=band, threshold=10, count=twins.buckets(200)):
                buckets.setdefault((band, number), []).append(block)
    found: Counter[tuple[str, str, int]] = Counter()
    for (band, _), blocks in buckets.items():
        block = np.concatenate(blocks)
        for i, j, distance in hashes.near_in_band(block, band=band, threshold=10).tolist():
            found[(*sorted((block[i].tobytes().hex(), block[j].tobytes().hex())), distance)] += 1
    hexed = [row.tobytes().hex() for row in rows]
    wanted = {(*sorted((hexed[i], hexed[j])), d) for i, j, d in hashes.near_pairs(hexed)}
    assert found == Counter(wanted) and len(wanted) > 50 and len({number for _, number in buckets}) == 4


def _deadly(path: Path, **options: int) -> list[Processed]:
    if path.name == '0_right.png':
        os.kill(os.getpid(), signal.SIGKILL)
    return process(path, **options)


def test_a_chunk_whose_worker_died_is_gone_through_file_by_file(tmp_path: Path) -> None:
    _photograph(tmp_path / '0_left.png', 1)
    _photograph(tmp_path / '0_right.png', 2)
    (chunk,) = work.chunks(tmp_path, ['0_left.png', '0_right.png'], folder=tmp_path / 'chunks')
    options = work.WorkOptions(shorter_side=48)
    (tmp_path / 'chunks').mkdir()
    (tmp_path / 'chunks' / '0000000.begun').touch()
    work.ensure(chunk, options=options, process=_deadly)
    pictures, rejects = work.load([chunk])
    assert [picture.file for picture in pictures] == ['0_left.png'] and rejects == {'0_right.png': work._KILLED}
    assert [path.name for path in (tmp_path / 'chunks').iterdir()] == ['0000000.chunk']
    work.ensure(chunk, options=options, process=lambda path, **options: pytest.fail('it is there'))


def test_a_worker_with_another_library_is_refused(tmp_path: Path) -> None:
    plan = make_plan(_config(_folder(tmp_path / 'in', patients=1), tmp_path / 'out'))
    job = jobs.make_job(plan, partial=tmp_path, process=process)
    job.check_versions()
    with pytest.raises(UserError, match='a worker has numpy .* where the ingest was started with 0.1; install the same on both'):
        dataclasses.replace(job, versions={**job.versions, 'numpy': '0.1'}).check_versions()


def test_without_beam_one_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, 'apache_beam', None)
    words = ['ingest', '--source', str(_folder(tmp_path / 'in', patients=1)), '--out', str(tmp_path / 'out')]
    assert front_door.main([*words, '--runner', 'direct']) == 2
    assert 'install it with `pip install retfound-jax[beam]`' in capsys.readouterr().err
    assert front_door.main(['bench', 'ingest']) == 2 and 'retfound-jax[beam]' in capsys.readouterr().err
    assert front_door.main([*words, '--beam_option', 'region=x']) == 2
    assert '--beam_option region=x is for Beam: pass --runner' in capsys.readouterr().err
    assert not (tmp_path / 'out.partial').exists()


def test_synthetic_photographs_hold_copies_and_near_copies_of_other_patients() -> None:
    made = [synthetic.process(Path(file.path), shorter_side=32, jpeg_quality=90)[0] for file in synthetic.listing(200).files]
    assert made[1].pixel_sha256 == made[2].pixel_sha256 and made[1].patient != made[2].patient
    assert hashes.near_pairs([one.phash for one in made]) == [(1, 2, 0), (51, 52, 2), (101, 102, 0), (151, 152, 2)]
