"""What travels between eight devices in a compiled step."""

from __future__ import annotations

import jax
import mesh_programs
import pytest
import train_runs

from retfound_jax.train.state import abstract_params, model_spec, path_string


def test_activations_stay_where_their_images_are():
    (program,) = mesh_programs.compile_all([['mesh.data=2', 'mesh.fsdp=4']])
    assert {found['kind'] for found in program['asked']} == {'all-gather', 'all-reduce'}
    for found in program['collectives']:
        # Every axis that counts images is a multiple of 7 and no axis of a parameter is.
        assert not [shape for _, shape in found['arrays'] if any(size % 7 == 0 for size in shape)], found


def sums(program):
    """Shapes of the arrays that the partitioned program sums over devices, by dtype."""
    found = {'f32': [], 'bf16': []}
    for collective in program['asked']:
        assert collective['kind'] == 'all-reduce'
        for dtype, shape in collective['arrays']:
            found[dtype].append(sorted(size for size in shape if size > 1))
    return found


@pytest.mark.slow
def test_gradients_are_summed_over_devices_in_the_dtype_of_the_config():
    changes = ['mesh.data=8', 'task.model.encoder.compute_dtype=bfloat16']
    wide, narrow = map(sums, mesh_programs.compile_all([changes, [*changes, 'optim.gradient_dtype=bfloat16']]))
    kernels = [[2, 8, 16], [2, 3, 8, 16], [16, 64], [16, 64]]
    assert sorted(narrow['bf16']) == sorted(2 * kernels)  # two stacks
    assert sorted(narrow['bf16'] + narrow['f32']) == sorted(wide['f32']) and not wide['bf16']


@pytest.mark.slow
def test_moments_split_over_data_take_an_eighth_of_the_memory():
    whole, split = mesh_programs.compile_all([['mesh.data=8'], ['mesh.data=8', 'mesh.zero=True']])
    spec = model_spec(train_runs.mae().task)
    matrices = {path for path, letters in spec.letters.items() if len(letters) > 1}
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(spec))
    size = sum(4 * leaf.size for path, leaf in leaves if path_string(path) in matrices)
    assert whole['arguments'] - split['arguments'] == 2 * size * 7 // 8
    # What is updated in parts is gathered once, matrix by matrix, and no sum over devices is made twice.
    gathered = sum(found['kind'] == 'all-gather' for found in split['asked'])
    assert gathered == len([path for path, _ in leaves if path_string(path) in matrices])
    assert sum(found['kind'] == 'all-gather' for found in whole['asked']) == 0
