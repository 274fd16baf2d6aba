"""Training on data of which some records cannot be read: they are listed, a few are passed over, and many stop the run."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import train_runs

sys.path.append(str(Path(__file__).resolve().parent.parent / 'data'))
import corruptions  # noqa: E402 - helpers of another room's tests
import data_sets  # noqa: E402

from retfound_jax.core.errors import Preempted, UserError  # noqa: E402
from retfound_jax.core.runlog import read_metrics  # noqa: E402
from retfound_jax.data.config import DataConfig  # noqa: E402
from retfound_jax.data.failures import read_failures  # noqa: E402
from retfound_jax.data.sources import open_source  # noqa: E402
from retfound_jax.train.config import TrainConfig  # noqa: E402
from retfound_jax.train.loop import train  # noqa: E402

ROWS = 40


def damaged(folder: Path, positions: tuple[int, ...], **settings: object) -> TrainConfig:
    path = data_sets.write_dataset(folder, {'train': data_sets.records(ROWS)}, shard=ROWS)
    corruptions.corrupt(path, positions, corruptions.truncated_jpeg)
    return train_runs.mae(data=DataConfig(path=str(path), image_size=32, batch_size=8), steps=12, checkpoint_every=4, **settings)


def listed(workdir: Path) -> set[str]:
    return {failure.key for failure in read_failures((workdir / 'bad_records').glob('*.jsonl'))}


class After:
    """A notice that comes at the step of that number."""

    def __init__(self, step: int) -> None:
        self._left = step

    def __call__(self) -> str:
        self._left -= 1
        return 'a test' if self._left <= 0 else ''


def test_a_bad_record_is_passed_over_and_listed_before_and_after_a_restart(tmp_path: Path) -> None:
    config = damaged(tmp_path / 'data', (5, 31))
    keys = set(open_source(config.data).table['key'][[5, 31]])
    whole = train(config, workdir=tmp_path / 'whole')
    assert whole.unreadable == 2 and listed(tmp_path / 'whole') == keys
    with pytest.raises(Preempted, match='a test'):
        train(config, workdir=tmp_path / 'cut', notice=After(6))
    assert train(config, workdir=tmp_path / 'cut', resume=True).unreadable == 2
    rows = [[(row['step'], row['name'], row['value']) for row in read_metrics(tmp_path / name)] for name in ('whole', 'cut')]
    assert rows[0] == rows[1] and listed(tmp_path / 'cut') == keys


def test_a_run_stops_where_too_many_cannot_be_read_and_goes_on_where_more_are_allowed(tmp_path: Path) -> None:
    config = damaged(tmp_path / 'data', tuple(range(0, ROWS, 2)), log_every=1)
    config = dataclasses.replace(config, steps=40)
    with pytest.raises(UserError, match=r'step (\d+) of tiny_mae: \d+ of the last .* data\.most_bad = 0\.05 .* checkpoint \1 is saved'):
        train(config, workdir=tmp_path / 'run')
    told = max(row['step'] for row in read_metrics(tmp_path / 'run'))
    assert told < 30 and (tmp_path / 'run' / 'checkpoints' / str(told)).is_dir()
    allowing = dataclasses.replace(config, data=dataclasses.replace(config.data, most_bad=0.9))
    done = train(allowing, workdir=tmp_path / 'run', resume=True)
    assert done.step == 40 and done.unreadable == ROWS // 2
