"""What travels between eight devices in a compiled step."""

from __future__ import annotations

import mesh_programs


def test_activations_stay_where_their_images_are():
    meshes = [['mesh.data=8'], ['mesh.data=2', 'mesh.fsdp=4']]
    for changes, program in zip(meshes, mesh_programs.compile_all(meshes), strict=True):
        assert program['collectives'], changes
        for found in program['collectives']:
            # Every axis that counts images is a multiple of 7 and no axis of a parameter is.
            assert not [shape for _, shape in found['arrays'] if any(size % 7 == 0 for size in shape)], (changes, found)


def sums(program):
    """Shapes of the arrays that the partitioned program sums over devices, by dtype."""
    found = {'f32': [], 'bf16': []}
    for collective in program['asked']:
        assert collective['kind'] == 'all-reduce'
        for dtype, shape in collective['arrays']:
            found[dtype].append(sorted(size for size in shape if size > 1))
    return found


def test_gradients_are_summed_over_devices_in_the_dtype_of_the_config():
    changes = ['mesh.data=8', 'task.model.encoder.compute_dtype=bfloat16']
    wide, narrow = map(sums, mesh_programs.compile_all([changes, [*changes, 'optim.gradient_dtype=bfloat16']]))
    kernels = [[2, 8, 16], [2, 3, 8, 16], [16, 64], [16, 64]]
    assert sorted(narrow['bf16']) == sorted(2 * kernels)  # two stacks
    assert sorted(narrow['bf16'] + narrow['f32']) == sorted(wide['f32']) and not wide['bf16']
