"""Whether an accelerator computes the same loss and gradient as this machine's CPU in float32: asked before its speed is worth anything."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from retfound_jax.tasks.base import Task
from retfound_jax.train.config import TrainConfig, assume
from retfound_jax.train.state import ModelSpec, init_params, model_spec, path_string

Tree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How products are computed."""

    dtype: str
    precision: str | None = None  # of JAX's products of float32; None: as the device has it
    attention: str = 'plain'


WAYS = {
    'float32': Way(dtype='float32', precision='highest'),
    'float32 as JAX has it': Way(dtype='float32'),
    'bfloat16': Way(dtype='bfloat16'),
}
GPU_WAYS = {'bfloat16, attention by cuDNN': Way(dtype='bfloat16', attention='cudnn')}


def parity(config: TrainConfig, *, batch: int = 4) -> list[dict[str, Any]]:
    """Loss and gradient of one batch of noise on the first device, each way, against the CPU in float32; masks and dropped paths fixed.

    Args:
      batch: [images].

    Returns:
      One record a way: relative difference of the loss, and the norm of the gradient's difference over that of the gradient: over all
      parameters, and of the part of the model where it is largest.
    """
    task = assume(config).task
    cpu, device = jax.devices('cpu')[0], jax.devices()[0]
    with jax.default_device(cpu):
        params = init_params(arithmetic(task, WAYS['float32']), seed=config.seed, shardings=jax.sharding.SingleDeviceSharding(cpu))
    rng = np.random.default_rng(config.seed)
    images = {'image': rng.normal(size=(batch, task.image_size, task.image_size, 3)).astype(np.float32)}
    if task.labels:
        images['labels'] = rng.integers(0, 2, (batch, len(task.labels))).astype(np.float32)
    known = _loss_and_gradient(task, params, images, way=WAYS['float32'], device=cpu)
    ways = WAYS | (GPU_WAYS if device.platform == 'gpu' else {})
    return [_compare(name, device, known, _loss_and_gradient(task, params, images, way=way, device=device)) for name, way in ways.items()]


def arithmetic(task: Task, way: Way) -> Task:
    """The task with another arithmetic in its encoder, and with it in a decoder."""
    changes = {'compute_dtype': way.dtype, 'attention': way.attention}
    if hasattr(task.model, 'encoder'):
        decoder = {'decoder_attention': way.attention} if hasattr(task.model, 'decoder_attention') else {}
        model = dataclasses.replace(task.model, encoder=dataclasses.replace(task.model.encoder, **changes), **decoder)
    else:
        model = dataclasses.replace(task.model, **changes)
    return dataclasses.replace(task, model=model)


def _loss_and_gradient(task: Task, params: Tree, batch: dict[str, np.ndarray], *, way: Way, device: jax.Device) -> tuple[float, Tree]:
    task = arithmetic(task, way)
    spec: ModelSpec = model_spec(task)

    def loss(params: Tree, batch: dict[str, jax.Array]) -> jax.Array:
        return task.loss(spec.merge(params), batch, key=None)[0]

    with jax.default_matmul_precision(way.precision):
        value, gradient = jax.jit(jax.value_and_grad(loss))(*jax.device_put((params, batch), device))
    return float(value), jax.device_get(gradient)


def _compare(name: str, device: jax.Device, known: tuple[float, Tree], found: tuple[float, Tree]) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(known[1])
    differences = [_norm(np.subtract(a, b, dtype=np.float64)) for (_, a), b in zip(leaves, jax.tree.leaves(found[1]), strict=True)]
    norms = [_norm(leaf) for _, leaf in leaves]
    shares = {path_string(path): gap / norm for (path, _), gap, norm in zip(leaves, differences, norms, strict=True) if norm}
    worst = max(shares, key=shares.__getitem__)
    return {
        'bench': 'parity',
        'way': name,
        'device': device.device_kind,
        'loss': found[0],
        'loss_difference': abs(found[0] - known[0]) / abs(known[0]),
        'gradient_difference': float(np.linalg.norm(differences) / np.linalg.norm(norms)),
        'worst_difference': float(shares[worst]),
        'worst_parameter': worst,
    }


def _norm(x: np.ndarray) -> float:
    return float(np.linalg.norm(x.astype(np.float64).ravel()))


def table(records: list[dict[str, Any]]) -> list[list[str]]:
    """Cells of the records, for people."""
    names = {'loss_difference': 'loss', 'gradient_difference': 'gradient', 'worst_difference': 'worst parameter'}
    rows = [['', *names.values()]]
    return rows + [[record['way'], *(f'{record[name]:.1e}' for name in names)] for record in records]

