"""A peer in a process of its own, with an interpreter of its own, asked by JSON lines over pipes."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import learning_rate
from retfound_jax.tasks.base import Task
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.config import TrainConfig

TORCH = Path(__file__).with_name('torch_vit.py')
WAYS = {'cpu': ('onednn+eager', 'default', 'onednn+default'), 'gpu': ('default',)}  # that the peer at its best tries, unless told
MODES = {'published': 'PyTorch as published', 'best': 'PyTorch at its best'}
_REPLY_SECONDS = 900.0  # a peer that compiles may be silent for minutes


class Peer:
    """One process. Used in a `with`: it ends with the block, whatever happens."""

    def __init__(self, name: str, *, python: str, script: Path = TORCH, reply_seconds: float = _REPLY_SECONDS) -> None:
        self.name, self._seconds = name, reply_seconds
        self._errors = tempfile.TemporaryFile('w+', encoding='utf-8', errors='replace')
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': self._errors}
        try:
            self._process = subprocess.Popen([python, str(script)], text=True, encoding='utf-8', **pipes)
        except OSError as error:
            why = f'{name} could not be started with {python} ({error.strerror})'
            raise UserError(f'{why}; give --peer_python a Python that has it') from error
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_collect, args=(self._process.stdout, self._lines), daemon=True).start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request, one answer.

        Raises:
          UserError: it ran out of memory, ended, or was silent for too long.
        """
        try:
            self._process.stdin.write(json.dumps(request) + '\n')
            self._process.stdin.flush()
            line = self._lines.get(timeout=self._seconds)
        except queue.Empty:
            silent = f'{self.name} gave no answer to "{request["do"]}" within {self._seconds:.0f} s'
            raise UserError(f'{silent}; try a smaller batch, or fewer --peer_ways') from None
        except BrokenPipeError:
            line = ''
        if not line:
            self._process.wait()
            raise UserError(f'{self.name} ended before it answered "{request["do"]}": {self._last_words()}')
        answer = json.loads(line)
        if 'error' in answer:
            raise UserError(f'{self.name}: {answer["error"]}; lower the batch size')
        return answer

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            _close(stream)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1] if lines else f'it said nothing (exit code {self._process.returncode})'


def _collect(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Lines of a pipe into a queue, which can be waited for with a limit; '' at the end."""
    try:
        for line in stream:
            lines.put(line)
    except ValueError:  # closed while it was being read
        pass
    lines.put('')


def _close(stream: IO[str]) -> None:
    try:
        stream.close()
    except BrokenPipeError:  # what was left to be written has no reader any more
        pass


def setup_request(
    config: TrainConfig, *, mode: str, device: str, threads: int, ways: Sequence[str], budget: float
) -> dict[str, Any]:
    """What a peer is told to be: the same shapes, batch, optimiser and arithmetic as a resolved configuration.

    Args:
      device: 'cpu' or 'gpu'.
      threads: of the CPU; 0 as the peer chooses.
      ways: of mode best, to try beside eager: see `torch_vit`.
      budget: [s] after which no further one is tried.

    Raises:
      UsageError: the peer has no such model.
    """
    task, data, optim = config.task, config.data, config.optim
    kind, shape = _shape(task)
    rate = float(learning_rate(optim, steps=config.steps, batch_size=data.batch_size)(optim.warmup_steps))
    return {
        'do': 'setup',
        'task': kind,
        'shape': shape,
        'mode': mode,
        'device': device,
        'dtype': _encoder(task).compute_dtype,
        'threads': threads,
        'seed': config.seed,
        'batch': data.batch_size,
        'mean': list(data.mean),
        'std': list(data.std),
        'optim': {'lr': rate, 'weight_decay': optim.weight_decay, 'b1': optim.b1, 'b2': optim.b2, 'layer_decay': optim.layer_decay},
        'ways': list(ways),
        'budget': budget,
    }


def _shape(task: Task) -> tuple[str, dict[str, Any]]:
    encoder = _encoder(task)
    shape = {
        **_block(encoder.block),
        'image': encoder.image_size,
        'patch': encoder.patch_size,
        'depth': encoder.depth,
        'drop_path': encoder.drop_path,
        'learned_positions': encoder.positions == 'learned',
        'pool': encoder.pool,
    }
    if not isinstance(task, MAETask):
        return 'classify', {**shape, 'outputs': task.outputs, 'smoothing': task.label_smoothing}
    model = task.model
    decoder = {**_block(model.decoder_block), 'depth': model.decoder_depth}
    return 'mae', {**shape, 'visible': model.visible, 'norm_pix_loss': model.norm_pix_loss, 'decoder': decoder}


def _block(block: Any) -> dict[str, Any]:
    return {name: getattr(block, name) for name in ('width', 'heads', 'hidden', 'qkv_bias', 'norm_epsilon')}


def _encoder(task: Task) -> ViTConfig:
    if isinstance(task, MAETask):
        encoder = task.model.encoder
    elif isinstance(task, ClassifyTask) and task.mode == 'single' and task.adapt == 'full':
        encoder = task.model
    else:
        raise UsageError(f'the PyTorch peer trains masked autoencoders and whole classifiers of one label, no {task.kind}; drop --peer')
    plain = encoder.mlp == 'gelu' and encoder.positions in ('sincos', 'learned') and encoder.cls_position and not encoder.registers
    if not plain or encoder.layer_scale is not None or encoder.pool == 'mean_normed' or encoder.norm_twice:
        unlike = 'SwiGLU, LayerScale, registers, rotary positions, cls token without position, pool mean_normed or a second norm'
        raise UsageError(f'the PyTorch peer is the plain ViT, without {unlike}; drop --peer')
    return encoder
