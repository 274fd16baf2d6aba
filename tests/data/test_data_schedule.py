"""A resolution schedule and repeated samples change what a batch holds, and nothing of which images stand in it or in which order."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from retfound_jax.core.errors import UsageError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.loader import Loader, eval_batches
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.sources import open_source

SCHEDULE = ((0, 16), (2, 24), (3, 32))


def config(**changes):
    return DataConfig(**{'phantom': PhantomConfig(patients=4, image_size=48), 'image_size': 32, 'batch_size': 4} | changes)


def batches(config, count, *, first=0):
    source = open_source(config)
    loader = Loader(config, source, seed=3)
    loader.restore({**loader.state(), 'step': first})
    found = list(itertools.islice(loader, count))
    loader.close()
    return found


def assert_same(one, other):
    for name in ('image', 'index', 'labels'):
        np.testing.assert_array_equal(one[name], other[name])


def test_sizes_follow_the_schedule_and_the_order_stays():
    plain, scheduled = batches(config(), 5), batches(config(resolution=SCHEDULE), 5)
    assert [batch['image'].shape[1:3] for batch in scheduled] == [(16, 16), (16, 16), (24, 24), (32, 32), (32, 32)]
    for one, other in zip(plain, scheduled, strict=True):
        np.testing.assert_array_equal(one['index'], other['index'])
    assert_same(plain[4], scheduled[4])
    assert_same(batches(config(image_size=24), 3)[2], scheduled[2])


def test_a_schedule_resumes_anywhere():
    straight = batches(config(resolution=SCHEDULE), 4)
    for first in range(1, 4):
        assert_same(straight[first], batches(config(resolution=SCHEDULE), 1, first=first)[0])


def test_a_step_of_repeated_samples_decodes_a_part_of_them():
    repeated = config(repeat=2)
    assert (repeated.decoded, config().decoded) == (2, 4)
    for one, other in zip(batches(config(batch_size=2), 3), batches(repeated, 3), strict=True):
        assert_same(one, other)


def test_evaluation_knows_neither():
    cheaper = config(split='val', repeat=2, resolution=SCHEDULE)
    source = open_source(cheaper)
    pairs = zip(eval_batches(config(split='val'), source), eval_batches(cheaper, source), strict=True)
    assert all([assert_same(one, other) is None for one, other in pairs])


@pytest.mark.parametrize(
    'changes',
    [
        {'resolution': ((1, 16), (2, 32))},
        {'resolution': ((0, 16), (0, 32))},
        {'resolution': ((0, 4), (2, 32))},
        {'resolution': ((0, 16), (2, 24))},
        {'repeat': 0},
        {'repeat': 3},
    ],
)
def test_what_makes_no_schedule_is_refused(changes):
    with pytest.raises(UsageError, match=f'data.{next(iter(changes))} is'):
        config(**changes)
