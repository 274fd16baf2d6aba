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
