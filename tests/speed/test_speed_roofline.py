"""The roofline against the vendor's own sums, and against times worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from retfound_jax.core.errors import UsageError
from retfound_jax.speed import hlo
from retfound_jax.speed.chips import CHIPS, chip_of, parse_topology, slices_of
from retfound_jax.speed.collectives import Collective
from retfound_jax.speed.roofline import collective_seconds, link_rate, step_time, weak_scaling


def places(shape, slices=1):
    return [(number, place) for number in range(slices) for place in itertools.product(*map(range, shape))]


def collective(kind, size, groups, count=1):
    return Collective(kind=kind, bytes={'f32': size}, count=count, overlapped=False, groups=np.array(groups), op_name='', stage='main')


@pytest.mark.parametrize(('name', 'pod'), [('v5e', 51.2e12), ('v6e', 102.4e12)])
def test_all_links_of_a_pod_give_the_all_reduce_bandwidth_of_the_vendors_table(name, pod):
    """Cloud TPU's tables give "all-reduce bandwidth per Pod" of 256 chips apart from the figure per chip that is used here."""
    assert 256 * link_rate(CHIPS[name], places((16, 16)), shape=(16, 16)) == pytest.approx(pod)


def test_a_group_along_one_axis_has_half_the_links_and_an_open_line_a_quarter():
    row = [(0, (3, column)) for column in range(16)]
    part = [(0, (3, column)) for column in range(4)]
    whole = CHIPS['v5e'].link
    assert link_rate(CHIPS['v5e'], row, shape=(16, 16)) == whole / 2
    assert link_rate(CHIPS['v5e'], part, shape=(16, 16)) == whole / 4
    assert link_rate(CHIPS['v5e'], places((4, 4)), shape=(4, 4)) == whole / 2  # no ends are joined below 16
    assert link_rate(CHIPS['v5p'], places((4, 4, 8)), shape=(4, 4, 8)) == CHIPS['v5p'].link


def test_gradients_of_vit_l_take_a_v5e_pod_thirteen_milliseconds():
    """1.317 GB in float32, 2 * 255 / 256 of it through 200 GB/s; 14.6 ms where links are taken to give 45 instead of 50 GB/s each."""
    one = collective('all-reduce', 1_317_000_000, [range(256)])
    found = collective_seconds(one, topology=parse_topology('v5e:16x16'), places=places((16, 16)))
    assert found == pytest.approx(2 * 255 / 256 * 1.317e9 / 200e9) and 0.0130 < found < 0.0132


def test_a_group_over_slices_pays_for_links_and_for_its_share_of_the_network():
    topology = parse_topology('v5e:16x16', slices=4)
    one = collective('all-reduce', 1_000_000_000, [range(1024)])
    links = 2 * 255 / 256 * 1e9 / 200e9
    network = 2 * 3 / 4 * 1e9 / 256 / 3.125e9
    assert collective_seconds(one, topology=topology, places=places((16, 16), slices=4)) == pytest.approx(links + network)
    alone = collective('all-reduce between slices', 1_000_000, [range(4)])
    assert collective_seconds(alone, topology=topology, places=places((16, 16), slices=4)) == pytest.approx(1.5e6 / 3.125e9)


_STEP = """HloModule m

%body (p: (s32[], f32[512,512])) -> (s32[], f32[512,512]) {
  %p = (s32[], f32[512,512]) parameter(0)
  %x = f32[512,512] get-tuple-element(%p), index=1
  %y = f32[512,512] dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %z = f32[512,512] all-reduce(%y), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add
  ROOT %t = (s32[], f32[512,512]) tuple(%n, %z)
}

%cond (p: (s32[], f32[512,512])) -> pred[] {
  %c = s32[] constant(10)
  %i = s32[] parameter(0)
  ROOT %lt = pred[] compare(%i, %c), direction=LT
}

ENTRY %main (p: f32[512,512]) -> f32[512,512] {
  %p = f32[512,512] parameter(0)
  %t = (s32[], f32[512,512]) tuple(%p)
  %w = (s32[], f32[512,512]) while(%t), condition=%cond, body=%body
  %g = f32[512,512] get-tuple-element(%w), index=1
  ROOT %o = f32[512,512] add(%g, %p)
}
"""


def test_a_step_of_two_stages_is_summed_by_hand():
    topology = parse_topology('cpu:4')
    found = step_time(hlo.parse(_STEP), topology=topology, places=[(0, (i,)) for i in range(4)])
    size, chip = 512 * 512 * 4, topology.chip
    compute = 10 * 2 * 512**3 / chip.flops
    # the product reads one matrix twice and writes one; the all-reduce reads and writes one; at the end two are read and one written
    memory = 10 * (3 + 2) * size / chip.hbm_bandwidth
    rest = 3 * size / chip.hbm_bandwidth
    links = 10 * 2 * 3 / 4 * size / chip.link
    assert found.device == pytest.approx(max(compute, memory) + rest)
    assert found.serial == pytest.approx(found.device + links) and found.compiled == pytest.approx(found.serial)
    assert found.overlapped == pytest.approx(max(compute, memory, links) + rest)
    assert weak_scaling(found, lambda time: time.serial) == pytest.approx(found.device / (found.device + links))


def test_times_are_ordered_and_a_step_without_collectives_scales_fully():
    alone = _STEP.replace('[1,4]<=[4]', '[4,1]<=[4]')
    found = step_time(hlo.parse(alone), topology=parse_topology('cpu:4'), places=[(0, (i,)) for i in range(4)])
    assert found.device == found.overlapped == found.compiled == found.serial


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('v5e:16x17', 'did you mean "v5e:16x16"'),
        ('v6e:3x3', 'did you mean "v6e:2x4"'),
        ('v5p:4x4', 'did you mean "v5p:2x2x4"'),
        ('v5x:16x16', 'did you mean "v5p"|did you mean "v5e"'),
        ('v5e16x16', 'not of the form'),
        ('cpu:2x4', 'did you mean "cpu:8"'),
        ('h100:8', 'known are v4'),
        ('cpu:0', 'did you mean "cpu:1"'),
    ],
)
def test_an_unknown_topology_is_answered_with_the_nearest(text, says):
    with pytest.raises(UsageError, match=says):
        parse_topology(text)


def test_topologies_count_chips_and_hosts():
    four = parse_topology('v5e:16x16', slices=4)
    assert (four.chips, four.hosts, four.name) == (1024, 128, 'v5e:16x16')
    assert parse_topology(' V5P:4x4x8 ').hosts == 32
    with pytest.raises(UsageError, match='--num_slices 2'):
        parse_topology('cpu:8', slices=2)
    assert all(parse_topology(f'{c.name}:{"x".join(map(str, s))}').shape == s for c in CHIPS.values() for s in slices_of(c))


def test_figures_are_of_one_order_and_devices_are_found_by_their_kind():
    for chip in CHIPS.values():
        assert chip.network < chip.link < chip.hbm_bandwidth < chip.flops
    assert chip_of('NVIDIA H200').name == 'h200' and chip_of('TPU v5 lite').name == 'v5e' and chip_of('abacus') is None
