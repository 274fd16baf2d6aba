"""Compiled HLO is read right: collectives that were written by hand, on any axis, in nested loops, in every form XLA has for them."""

from __future__ import annotations

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from speed_programs import on_eight

from retfound_jax.speed import hlo
from retfound_jax.speed.arithmetic import instruction_flops
from retfound_jax.speed.collectives import collectives
from retfound_jax.speed.traffic import instruction_bytes

_PROGRAMS = """
import json
import jax, jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

mesh = jax.make_mesh((2, 2, 2), ('a', 'b', 'c'), axis_types=(AxisType.Auto,) * 3)
texts = {}

def keep(name, body, *, dtype=jnp.float32, shape=(8, 64)):
    mapped = jax.shard_map(body, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
    texts[name] = jax.jit(mapped).lower(jax.ShapeDtypeStruct(shape, dtype)).compile().as_text()

def repeated(body, *lengths):
    for length in lengths:
        body = lambda x, inner=body, length=length: jax.lax.scan(lambda c, _: (inner(c), None), x, None, length=length)[0]
    return body

for axes in ('a', 'b', 'c', 'ab', 'bc', 'ac', 'abc'):
    names = tuple(axes)
    keep(f'all-reduce {axes}', lambda x, names=names: jax.lax.psum(jnp.sin(x), names))
    keep(f'all-gather {axes}', lambda x, names=names: jax.lax.all_gather(jnp.sin(x), names).sum(0))
keep('reduce-scatter abc', lambda x: jax.lax.psum_scatter(jnp.sin(x), ('a', 'b', 'c'), tiled=True).sum() + x)
keep('all-to-all c', lambda x: jax.lax.all_to_all(x, 'c', split_axis=0, concat_axis=0, tiled=True))
keep('collective-permute a', lambda x: jax.lax.ppermute(x, 'a', [(0, 1), (1, 0)]))
keep('looped 5', repeated(lambda x: jax.lax.psum(jnp.sin(x), 'a'), 5))
keep('looped 5 3', repeated(lambda x: jax.lax.psum(jnp.sin(x), 'a'), 5, 3))
ids = [[[d.id for d in row] for row in plane] for plane in mesh.devices]
print(json.dumps({'texts': texts, 'ids': ids}))
"""
BUFFER = 8 * 64 * 4


@pytest.fixture(scope='module')
def programs() -> dict:
    return on_eight(_PROGRAMS)


@pytest.mark.parametrize('kind', ['all-reduce', 'all-gather'])
@pytest.mark.parametrize('axes', ['a', 'b', 'c', 'ab', 'bc', 'ac', 'abc'])
def test_a_collective_over_mesh_axes_has_their_devices_for_groups(programs, kind, axes):
    (found,) = collectives(hlo.parse(programs['texts'][f'{kind} {axes}']), devices=8)
    ids = np.array(programs['ids'])
    others = [i for i, name in enumerate('abc') if name not in axes]
    expected = ids.transpose([*others, *(i for i, name in enumerate('abc') if name in axes)]).reshape(-1, 2 ** len(axes))
    assert {frozenset(group) for group in found.groups.tolist()} == {frozenset(group) for group in expected.tolist()}
    assert found.kind == kind and found.members == 2 ** len(axes) and not found.overlapped
    assert found.bytes == {'f32': BUFFER * (found.members if kind == 'all-gather' else 1)}
    factor = 2 * (1 - 1 / found.members) if kind == 'all-reduce' else found.members - 1
    assert found.wire_bytes == pytest.approx(factor * BUFFER)


def test_the_other_kinds_count_what_a_device_sends(programs):
    found = {name: collectives(hlo.parse(text), devices=8) for name, text in programs['texts'].items()}
    (scatter,) = [one for one in found['reduce-scatter abc'] if one.kind == 'reduce-scatter']
    assert scatter.bytes == {'f32': BUFFER} and scatter.wire_bytes == pytest.approx(BUFFER * 7 / 8)
    (exchange,) = found['all-to-all c']
    assert (exchange.kind, exchange.wire_bytes) == ('all-to-all', BUFFER / 2)
    (permute,) = found['collective-permute a']
    assert (permute.kind, permute.wire_bytes) == ('collective-permute', BUFFER)


@pytest.mark.parametrize(('name', 'times'), [('looped 5', 5), ('looped 5 3', 15)])
def test_a_collective_in_loops_counts_as_often_as_they_run(programs, name, times):
    module = hlo.parse(programs['texts'][name])
    (found,) = collectives(module, devices=8)
    assert found.count == times and found.wire_bytes == times * BUFFER and module.unknown_loops == 0


def test_a_trip_count_that_is_not_written_down_is_read_from_the_condition(programs):
    text = programs['texts']['looped 5 3']
    stripped = text.replace('"known_trip_count":{"n":"5"}', '').replace('"known_trip_count":{"n":"3"}', '')
    assert stripped != text
    assert collectives(hlo.parse(stripped), devices=8)[0].count == 15


_TYPES = {'f32': 4, 'bf16': 2, 's8': 1, 'f64': 8, 'pred': 1, 'c64': 8, 'f8e4m3fn': 1, 'u32': 4}
_SHAPE = st.lists(st.integers(1, 9), min_size=0, max_size=4)


@st.composite
def arrays(draw):
    dtype, shape = draw(st.sampled_from(sorted(_TYPES))), draw(_SHAPE)
    layout = ','.join(map(str, range(len(shape))))
    text = f'{dtype}[{",".join(map(str, shape))}]' + draw(st.sampled_from(['', f'{{{layout}}}', f'{{{layout}:T(8,128)(2,1)S(1)}}']))
    return text, dtype, int(np.prod(shape, dtype=int)) * _TYPES[dtype]


@hypothesis.given(st.lists(arrays(), min_size=1, max_size=6), st.lists(st.integers(1, 7), max_size=3), st.integers(2, 8), st.booleans())
def test_any_result_any_nest_of_loops_and_any_group_is_read(results, trips, members, is_async):
    """A program written by this test: an all-reduce of any arrays inside any nest of loops, over groups in each notation."""
    total = {dtype: sum(size for _, other, size in results if other == dtype) for dtype in {dtype for _, dtype, _ in results}}
    types = [text for text, _, _ in results]
    kind = (
        types[0] if len(types) == 1 else '(' + ', '.join(f'/*index={i}*/{text}' if i == 5 else text for i, text in enumerate(types)) + ')'
    )
    notations = [
        '{{' + '},{'.join(','.join(str(g * members + i) for i in range(members)) for g in range(2)) + '}}',
        f'[2,{members}]<=[{2 * members}]',
        f"mesh['x'=2,'y'={members}] {{'y'}}",
        f"mesh['y'={members},'x'=2], device_ids=([2,{members}]T(1,0)) {{'y'}}",
    ]
    found = []
    for groups in notations:
        call = (
            f'all-reduce{"-start" if is_async else ""}(%p), channel_id=1, replica_groups={groups}, to_apply=%sum, metadata={{op_name="x"}}'
        )
        lines = ['HloModule m', '', '%body0 (p: f32[]) -> f32[] {', f'  %p = {types[0]} parameter(0)', f'  %r = {kind} {call}', '}', '']
        for depth, trip in enumerate(trips, start=1):
            lines += [f'%cond{depth} (p: s32[]) -> pred[] {{', f'  %n = s32[] constant({trip})', '  %i = s32[] parameter(0)']
            lines += ['  ROOT %lt = pred[] compare(%i, %n), direction=LT', '}', '', f'%body{depth} (p: f32[]) -> f32[] {{']
            lines += ['  %p = f32[] parameter(0)', f'  %w = f32[] while(%p), condition=%cond{depth}, body=%body{depth - 1}', '}', '']
        lines += ['ENTRY %main (p: f32[]) -> f32[] {', f'  %c = f32[] call(%p), to_apply=%body{len(trips)}', '}']
        found += collectives(hlo.parse('\n'.join(lines)), devices=2 * members)
    assert len(found) == len(notations)
    for one in found:
        assert one.bytes == total and one.count == np.prod(trips, dtype=int)
        assert one.groups.tolist() == np.arange(2 * members).reshape(2, members).tolist()


_OVERLAP = """HloModule m

%adds (a: f32[], b: f32[]) -> f32[] {{
  ROOT %s = f32[] add(%a, %b)
}}

ENTRY %main (p: f32[64]) -> f32[64] {{
  %p = f32[64] parameter(0)
  %q = f32[64] parameter(1)
  %start = f32[64] all-reduce-start(%p), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%adds
  {between}
  %done = f32[64] all-reduce-done(%start)
  ROOT %after = f32[64] multiply(%done, %q)
}}
"""


@pytest.mark.parametrize(
    ('between', 'overlapped'),
    [
        ('%work = f32[64] sine(%q)', True),
        ('%loop = f32[64] while(%q), condition=%c, body=%b, backend_config={"known_trip_count":{"n":"2"}}', True),
        ('%moved = (f32[64], f32[64], u32[]) copy-start(%q)', False),
        ('%name = f32[64] bitcast(%q)', False),
        ('', False),
    ],
)
def test_a_transfer_overlaps_where_something_is_computed_before_it_is_waited_for(between, overlapped):
    (found,) = collectives(hlo.parse(_OVERLAP.format(between=between)), devices=8)
    assert found.overlapped == overlapped


_TPU = """HloModule m

%all-reduce-scatter.1 (p: f32[512,64]) -> f32[32,64] {
  %p = f32[512,64]{1,0:T(8,128)S(1)} parameter(0)
  %sum = f32[512,64]{1,0} all-reduce(%p), channel_id=7, replica_groups=[16,16]<=[256], to_apply=%add
  ROOT %mine = f32[32,64]{1,0} dynamic-slice(%sum, %i, %z), dynamic_slice_sizes={32,64}
}

%started (p: bf16[64,32]) -> bf16[64,512] {
  %p = bf16[64,32] parameter(0)
  ROOT %g = bf16[64,512] all-gather(%p), channel_id=9, replica_groups=[16,16]<=[256], dimensions={1}
}

%beside (p: bf16[64,32], x: bf16[8,64]) -> bf16[64,512] {
  %p = bf16[64,32] parameter(0)
  %x = bf16[8,64] parameter(1)
  %y = f32[8,32] convolution(%x, %p), dim_labels=bf_io->bf
  ROOT %g = bf16[64,512] all-gather(%p), channel_id=9, replica_groups=[16,16]<=[256], dimensions={1}
}

ENTRY %main (p: f32[512,64]) -> f32[32,64] {
  %p = f32[512,64] parameter(0)
  %k = bf16[64,32] parameter(1)
  %x = bf16[8,64] parameter(2)
  %async-collective-start = bf16[64,512] fusion(%k), kind=kCustom, calls=%started
  %fusion.2 = bf16[64,512] fusion(%k, %x), kind=kCustom, calls=%beside
  ROOT %fusion.1 = f32[32,64] fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1, metadata={op_name="jit(step)/dot_general"}
}
"""


def test_what_tpu_writes_as_fusions_is_one_gather_beside_a_product_and_one_reduce_scatter():
    gather, scatter = collectives(hlo.parse(_TPU), devices=256)
    assert (gather.kind, gather.count, gather.overlapped, gather.bytes) == ('all-gather', 1, True, {'bf16': 64 * 512 * 2})
    assert (scatter.kind, scatter.overlapped, scatter.bytes) == ('reduce-scatter', False, {'f32': 512 * 64 * 4})
    assert scatter.op_name == 'jit(step)/dot_general' and scatter.wire_bytes == 512 * 64 * 4 * 15 / 16


def totals(text: str) -> tuple[float, float]:
    """FLOPs and bytes of a program."""
    module = hlo.parse(text)
    names = {name: {line.name: line for line in lines} for name, lines in module.computations.items()}
    runs = [run for run in module.runs() if run.is_scheduled]
    flops = sum(run.count * instruction_flops(module, run.instruction, names[run.computation]) for run in runs)
    return flops, sum(run.count * instruction_bytes(module, run.instruction, names[run.computation]) for run in runs)


@pytest.mark.parametrize(
    ('size', 'kernel', 'stride', 'pad', 'dilate_in', 'dilate_kernel'),
    [(9, 3, 1, (0, 0), 1, 1), (9, 3, 2, (1, 1), 1, 1), (8, 3, 1, (2, 2), 2, 1), (10, 3, 1, (2, 1), 1, 2), (16, 16, 15, (0, 0), 16, 1)],
)
def test_flops_of_convolutions_are_those_of_xla(size, kernel, stride, pad, dilate_in, dilate_kernel):
    """XLA's own count of a program that is one convolution; the last shape is how TPU writes a batch of products."""

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (stride,), [pad], lhs_dilation=(dilate_in,), rhs_dilation=(dilate_kernel,), dimension_numbers=('NWC', 'WIO', 'NWC')
        )

    shapes = jax.ShapeDtypeStruct((2, size, 4), jnp.float32), jax.ShapeDtypeStruct((kernel, 4, 6), jnp.float32)
    lowered = jax.jit(convolve).lower(*shapes)
    assert totals(lowered.compile().as_text())[0] == lowered.cost_analysis()['flops']


def test_flops_and_bytes_of_a_product_are_exact_and_a_loop_multiplies_them():
    def product(x, w):
        return x @ w

    def looped(x, ws):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, ws)[0]

    x, w, ws = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((32, 128), (128, 128), (7, 128, 128)))
    flops, moved = totals(jax.jit(product).lower(x, w).compile().as_text())
    assert flops == 2 * 32 * 128 * 128 and moved == 4 * (2 * 32 * 128 + 128 * 128)
    in_loop, moved_in_loop = totals(jax.jit(looped).lower(x, ws).compile().as_text())
    # Each turn reads its slice of the stack, not the stack; the slice may be copied out first.
    assert in_loop == 7 * flops and 7 * moved <= moved_in_loop < 7 * (moved + 3 * 4 * 128 * 128) + 10_000


_TRANSFERS = """HloModule m

ENTRY %main (p: f32[64,1024]) -> f32[1024] {{
  %p = f32[64,1024]{{1,0}} parameter(0)
  {line}
}}
"""


@pytest.mark.parametrize(
    ('line', 'moved'),
    [
        # a slice into fast memory costs its own reading, not what it is a slice of
        ('%s = ((f32[64,1024]{1,0}), f32[8,1024]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:8], [0:1024]}', 8 * 1024 * 4),
        ('%s = (f32[64,1024]{1,0:S(1)}, f32[64,1024]{1,0}, u32[]{:S(2)}) copy-start(%p)', 64 * 1024 * 4),
        ('%s = (f32[64,1024]{1,0}, f32[64,1024]{1,0}, u32[]{:S(2)}) copy-start(%p)', 2 * 64 * 1024 * 4),
        ('%s = (f32[64,1024]{1,0}, f32[64,8192]{1,0}) all-gather-start(%p), dimensions={1}', (1 + 8) * 64 * 1024 * 4),
        ('%s = f32[24,64,1024]{2,1,0} custom-call(), custom_call_target="AllocateBuffer"', 0),
        ('%s = f32[1024]{0} reduce(%p), dimensions={0}, to_apply=%add', (64 + 1) * 1024 * 4),
        ('%s = f32[1,1024]{1,0} dynamic-slice(%p, %i, %j), dynamic_slice_sizes={1,1024}', 2 * 1024 * 4),
        ('%s = f32[64,1024]{1,0:T(8,128)S(1)} negate(%p)', 64 * 1024 * 4),
    ],
)
def test_what_lies_in_fast_memory_or_is_only_named_moves_nothing(line, moved):
    assert totals(_TRANSFERS.format(line=line))[1] == moved


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match='no ENTRY'):
        hlo.parse('HloModule empty')
