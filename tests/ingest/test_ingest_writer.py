"""A dataset is a directory that TFDS and Grain read without us, and whose shards can be checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from retfound_jax.core.errors import UserError
from retfound_jax.core.files import read_json, write_json
from retfound_jax.ingest import manifest, records, writer
from retfound_jax.ingest.records import Record
from retfound_jax.ingest.tally import Tally, one_a_patient


def _record(place: int) -> Record:
    pixels = np.full((8, 8, 3), place * 9, np.uint8)
    jpeg = simplejpeg.encode_jpeg(pixels, colorspace='RGB')
    return Record(image=jpeg, key=f'k{place}', patient=f'p{place}', group='g', labels={'grade': float(place)})


def _write(folder: Path, *, shard_bytes: int = 1 << 20) -> list[writer.Shard]:
    folder.mkdir(exist_ok=True)
    shards = []
    for split, count in (('train', 7), ('test', 2)):
        sizes = [len(_record(place).image) for place in range(count)]
        shards += writer.write_shards(folder, split=split, sizes=sizes, record=_record, shard_bytes=shard_bytes)
    writer.write_tfds(folder, shards=shards, labels=['grade'])
    return shards


def test_tfds_reads_the_directory_without_our_code(tmp_path: Path) -> None:
    import tensorflow_datasets as tfds

    _write(tmp_path / 'set', shard_bytes=2000)
    builder = tfds.builder_from_directory(tmp_path / 'set')
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {'train': 7, 'test': 2}
    rows = list(builder.as_data_source('train'))
    assert [row['key'] for row in rows] == [f'k{place}'.encode() for place in range(7)] and rows[3]['labels']['grade'] == 3.0
    assert rows[2]['image'].shape == (8, 8, 3) and abs(int(rows[2]['image'][0, 0, 0]) - 18) < 4


def test_grain_reads_the_shards_as_records_one_a_group(tmp_path: Path) -> None:
    import grain

    shards = _write(tmp_path / 'set', shard_bytes=2000)
    train = [shard for shard in shards if shard.split == 'train']
    assert len(train) > 1 and sum(shard.count for shard in train) == 7
    source = grain.sources.ArrayRecordDataSource([str(tmp_path / 'set' / shard.file) for shard in train])
    assert [records.decode(source[place]).key for place in range(len(source))] == [f'k{place}' for place in range(7)]


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    assert _write(tmp_path / 'a') == _write(tmp_path / 'b')
    for name in ('features.json', 'dataset_info.json'):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()


def test_verify_names_the_shard_that_is_damaged_or_missing(tmp_path: Path) -> None:
    shards = _write(tmp_path)
    write_json(tmp_path / 'manifest.json', {'schema_version': records.SCHEMA_VERSION, 'shards': manifest.describe_shards(shards)})
    manifest.verify(tmp_path)
    path = tmp_path / shards[1].file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match='retina-test.array_record-00000-of-00001 is damaged'):
        manifest.verify(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match='retina-test.array_record-00000-of-00001 is missing'):
        manifest.verify(tmp_path)


def test_a_folder_that_is_no_dataset_or_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='not a dataset'):
        manifest.read(tmp_path)
    write_json(tmp_path / 'manifest.json', {'schema_version': 99})
    with pytest.raises(UserError, match='schema version 99'):
        manifest.read(tmp_path)


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    if not Path('/dev/full').exists():
        pytest.skip('this system has no /dev/full to stand for a full disk')
    (tmp_path / 'retina-train.array_record-00000-of-00001').symlink_to('/dev/full')
    with pytest.raises(UserError, match='the disk is full: retina-train.*free some space and run again'):
        writer.write_shards(tmp_path, split='train', sizes=[9], record=_record, shard_bytes=100)


def test_the_index_keeps_text_numbers_and_what_is_missing(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    writer.write_index(tmp_path / 'i.parquet', [writer.index_table({'key': ['a', ''], 'position': [0, 1], 'age': [61.0, float('nan')]})])
    table = pq.read_table(tmp_path / 'i.parquet')
    assert [str(field.type) for field in table.schema] == ['string', 'int64', 'float']
    assert table['key'].to_pylist() == ['a', ''] and np.isnan(table['age'].to_numpy()[1]) and table['age'].null_count == 0


def test_the_bytes_of_the_index_do_not_depend_on_how_it_is_parted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(writer, '_ROW_GROUP', 4000)
    whole = writer.index_table({'key': [f'k{n * n % 9973}' for n in range(10_000)], 'x': [n / 7 for n in range(10_000)]})
    pq.write_table(whole, tmp_path / 'peer', compression='zstd', row_group_size=4000)
    for name, size in (('one', 10_000), ('many', 37), ('few', 4500)):
        writer.write_index(tmp_path / name, (whole.slice(begin, size) for begin in range(0, 10_000, size)))
        assert (tmp_path / name).read_bytes() == (tmp_path / 'peer').read_bytes()


def test_the_summary_counts_everyone_and_who_is_missing() -> None:
    people = (('1', 'F', 17.5), ('1', 'F', 17.5), ('2', '', 80.0), ('3', 'M', float('nan')))
    rows = [Record(image=b'', key='', patient=patient, group='', sex=sex, age=age) for patient, sex, age in people]
    found = Tally.of(rows).summary()
    assert found['sex'] == {'F': 2, 'M': 1, 'missing': 1} and found['site'] == {'missing': 4}
    assert (found['age']['min'], found['age']['max'], found['age']['missing']) == (17.5, 80.0, 1)
    assert found['age']['bands']['0-17'] == 2 and found['age']['bands']['80+'] == 1
    assert sum(found['age']['bands'].values()) == 3
    assert Tally.of(one_a_patient(rows)).summary(of_patients=True)['sex'] == {'F': 1, 'M': 1, 'missing': 1}


def test_reasons_are_counted_and_rare_ones_summed() -> None:
    found = manifest.reasons({**{f'a{n}': 'is empty' for n in range(3)}, **{f'b{n}': f'is odd {n:02d}' for n in range(60)}})
    assert list(found.items())[0] == ('is empty', 3) and found['other reasons, see rejects.csv'] == 11


def test_json_of_a_dataset_is_readable_json(tmp_path: Path) -> None:
    _write(tmp_path)
    assert read_json(tmp_path / 'dataset_info.json')['fileFormat'] == 'array_record'
