"""What small steps cost as compiled for eight host devices: FLOPs, bytes and collectives, no times.

    python tests/speed/compiled_costs.py CASE...      the costs of each, as JSON

A case is a name of CASES, `NAME@BATCH` for another batch, or one of WORSE: a step made worse on purpose.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from retfound_jax.core.mesh import MeshConfig
from retfound_jax.data.config import DataConfig
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import TrainConfig

ENCODER = ViTConfig(image_size=64, patch_size=16, width=64, depth=3, heads=2, compute_dtype='bfloat16', remat='dots')
MESHES = {'data8': MeshConfig(data=8), 'data2_fsdp4': MeshConfig(data=2, fsdp=4)}


def mae(mesh: MeshConfig) -> TrainConfig:
    """Pretraining as the recipes have it, small: bfloat16, scanned, products kept for backward."""
    task = MAETask(model=MAEConfig(encoder=ENCODER, decoder_width=32, decoder_depth=2, decoder_heads=2))
    return _config('mae', task, mesh=mesh)


def classifier(mesh: MeshConfig) -> TrainConfig:
    """Fine-tuning: float32, dropped paths, layer-wise decay, a moving average."""
    encoder = dataclasses.replace(ENCODER, compute_dtype='float32', drop_path=0.2)
    task = ClassifyTask(model=encoder, labels=('grade',), classes=tuple('01234'))
    return _config('classifier', task, mesh=mesh, optim=OptimConfig(lr=1e-3, layer_decay=0.75, ema=0.999))


def _config(name: str, task: Any, *, mesh: MeshConfig, optim: OptimConfig | None = None) -> TrainConfig:
    data = DataConfig(path='DATASET', image_size=64, batch_size=32)
    return TrainConfig(name=name, task=task, data=data, optim=optim or OptimConfig(lr=1e-3), steps=10, mesh=mesh)


CASES = {f'{make.__name__}_{mesh}': (make, mesh) for make in (mae, classifier) for mesh in MESHES}
WORSE = ('recomputed', 'unconstrained', 'gathered')  # and what the comparison is to say of each stands in the test


def worse(how: str) -> TrainConfig:
    """A step that does more than it has to."""
    if how == 'recomputed':  # every product of the forward pass once more
        config = mae(MESHES['data8'])
        encoder = dataclasses.replace(config.task.model.encoder, remat='full')
        model = dataclasses.replace(config.task.model, encoder=encoder)
        return dataclasses.replace(config, task=dataclasses.replace(config.task, model=model))
    if how == 'unconstrained':  # activations go where XLA likes
        from retfound_jax.models import layers

        layers.constrain = lambda x: x
        return mae(MESHES['data2_fsdp4'])
    return dataclasses.replace(mae(MESHES['data8']), task=_Gathered(model=mae(MESHES['data8']).task.model))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Gathered(MAETask):
    """Sends the whole batch in float32 to every device before it starts."""

    def loss(self, model: Any, batch: Any, *, key: Any) -> Any:
        import jax
        from jax.sharding import PartitionSpec

        image = jax.lax.with_sharding_constraint(batch['image'] * 1.5, PartitionSpec())
        return super().loss(model, {**batch, 'image': image}, key=key)


def config_of(name: str) -> TrainConfig:
    """The configuration of a case."""
    case, _, batch = name.partition('@')
    if case in WORSE:
        return worse(case)
    make, mesh = CASES[case]
    config = make(MESHES[mesh])
    return dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=int(batch))) if batch else config


def costs(config: TrainConfig) -> dict[str, Any]:
    """Compiles a step and counts."""
    from retfound_jax.speed import hlo, show
    from retfound_jax.speed.arithmetic import instruction_flops
    from retfound_jax.speed.collectives import collectives
    from retfound_jax.speed.traffic import instruction_bytes
    from retfound_jax.train.config import assume
    from retfound_jax.train.program import make_program

    program = make_program(assume(config))
    compiled = program.step.lower(program.abstract_state(), program.abstract_batch()).compile()
    module = hlo.parse(compiled.as_text())
    names = {name: {line.name: line for line in lines} for name, lines in module.computations.items()}

    def total(count: Callable[..., float]) -> float:
        return sum(run.count * count(module, run.instruction, names[run.computation]) for run in module.runs() if run.is_scheduled)

    memory, found = compiled.memory_analysis(), show.rows(collectives(module, devices=program.mesh.size))
    return {
        'product_flops': total(instruction_flops),
        'moved_bytes': total(instruction_bytes),
        'xla_flops': compiled.cost_analysis()['flops'],
        'xla_bytes': compiled.cost_analysis()['bytes accessed'],
        'argument_bytes': memory.argument_size_in_bytes,
        'temporary_bytes': memory.temp_size_in_bytes,
        'collectives': {f'{row["kind"]} {row["dtype"]}': {'count': row['count'], 'bytes': row['bytes']} for row in found},
    }


def main(names: list[str]) -> None:
    """Prints the costs of each case on one line."""
    import jax

    jax.config.update('jax_enable_compilation_cache', False)  # what is loaded has no text
    found = {}
    for name in names:
        found[name] = costs(config_of(name))
    print(json.dumps({'jax': jax.__version__, 'costs': found}))


if __name__ == '__main__':
    main(sys.argv[1:])
