"""ViT and MAE trained in PyTorch, written from the papers: what `retfound bench step` measures beside ours.

    PYTHON torch_vit.py

PYTHON is any interpreter with torch; nothing else is imported, neither JAX nor this library. Requests come as JSON lines on standard input,
each is answered by one on standard output: `setup` (shapes, mode, batch: see `retfound_jax.speed.peers.process`), `turn` (steps, timed),
`flops` (PyTorch's own count), `stop`.

Two modes, of one model:
  published  as MAE's and RETFound's training was published: eager; attention with its softmax written out; every patch embedded and every
             patch predicted; on a GPU float16 autocast with a gradient scaler; AdamW as torch.optim has it by default; the norm of the
             gradient, and the loss read on the host after every step.
  best       what PyTorch offers today: scaled_dot_product_attention, fused AdamW, on a GPU bfloat16; visible patches alone embedded and
             hidden ones alone predicted, as ours does; and of the ways it is told to try, the fastest: `eager`, a mode of torch.compile
             (`default`, `max-autotune-no-cudagraphs`), or these with `onednn+` before, which calls oneDNN's products in float32 on the CPU,
             where PyTorch would call MKL's, and those are half as fast on processors of another maker.

ViT: Dosovitskiy et al. 2020 (arXiv 2010.11929). MAE: He et al. 2021 (2111.06377). Letters: B batch, L tokens, V visible and K hidden
patches, D width, N heads, E head width, P values of a patch (row, column, channel).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 3
Shape = dict[str, Any]


def sincos_table(width: int, grid: int) -> Tensor:
    """Positions [1, 1 + grid^2, width], the first zero: half the channels tell the column, half the row."""
    steps = torch.arange(width // 4, dtype=torch.float64) / (width // 4)
    angle = torch.arange(grid, dtype=torch.float64)[:, None] / 10000**steps
    line = torch.cat([angle.sin(), angle.cos()], dim=1)
    table = torch.cat([line.repeat(grid, 1), line.repeat_interleave(grid, 0)], dim=1)
    return torch.cat([torch.zeros(1, width), table.float()])[None]


@torch.library.custom_op('peer::onednn', mutates_args=())  # an operator of its own, so that torch.compile takes it as it is
def onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x w' + b by oneDNN, with its gradients by the same."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')


@onednn.register_fake
def _shape_of(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
    x, weight = ctx.saved_tensors
    rows, inputs = dy.reshape(-1, dy.shape[-1]), x.reshape(-1, x.shape[-1])
    dx = onednn(rows, weight.t(), None).view(x.shape) if ctx.needs_input_grad[0] else None
    return dx, onednn(rows.t(), inputs.t(), None), rows.sum(0) if ctx.needs_input_grad[2] else None


onednn.register_autograd(_gradients, setup_context=_keep)


class Linear(nn.Linear):
    """A linear layer whose product can be exchanged, for all layers at once."""

    product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = staticmethod(F.linear)

    def forward(self, x: Tensor) -> Tensor:
        return Linear.product(x, self.weight, self.bias)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.fused = shape['heads'], shape['best']
        self.qkv = Linear(shape['width'], 3 * shape['width'], bias=shape['qkv_bias'])
        self.proj = Linear(shape['width'], shape['width'])

    def forward(self, x_BLD: Tensor) -> Tensor:
        b, length, d = x_BLD.shape
        q, k, v = self.qkv(x_BLD).view(b, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x_BNLE = F.scaled_dot_product_attention(q, k, v)
        else:
            x_BNLE = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(dim=-1) @ v
        return self.proj(x_BNLE.transpose(1, 2).reshape(b, length, d))


class Block(nn.Module):
    def __init__(self, shape: Shape, *, drop: float = 0.0) -> None:
        super().__init__()
        width = shape['width']
        self.drop = drop
        self.norm1 = nn.LayerNorm(width, eps=shape['norm_epsilon'])
        self.attn = Attention(shape)
        self.norm2 = nn.LayerNorm(width, eps=shape['norm_epsilon'])
        self.mlp = nn.Sequential(Linear(width, shape['hidden']), nn.GELU(), Linear(shape['hidden'], width))

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.branch(self.attn(self.norm1(x_BLD)))
        return x_BLD + self.branch(self.mlp(self.norm2(x_BLD)))

    def branch(self, x_BLD: Tensor) -> Tensor:
        """Stochastic depth (Huang et al. 2016), a draw for each image."""
        if not self.drop:
            return x_BLD
        keep = 1.0 - self.drop
        return x_BLD * (torch.rand(len(x_BLD), 1, 1, device=x_BLD.device) < keep).to(x_BLD.dtype) / keep


class Encoder(nn.Module):
    """cls token, positions, blocks; all patches, or those that `keep_BV` names."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch, self.best = shape['patch'], shape['best']
        width, grid, depth = shape['width'], shape['image'] // shape['patch'], shape['depth']
        self.patch_embed = Linear(self.patch**2 * CHANNELS, width) if self.best else nn.Conv2d(CHANNELS, width, self.patch, self.patch)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.register_buffer('table', sincos_table(width, grid))
        if shape['learned_positions']:
            self.table = nn.Parameter(self._buffers.pop('table'))
        rates = [shape['drop_path'] * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(shape, drop=rate) for rate in rates)

    def embed(self, image_BCHW: Tensor, keep_BV: Tensor | None) -> Tensor:
        if self.best:  # patches first, so that hidden ones are never embedded
            patches_BLP = patchify(image_BCHW, self.patch)
            place_BLD = self.table[:, 1:]
            if keep_BV is not None:
                patches_BLP, place_BLD = take(patches_BLP, keep_BV), self.table[0, 1:][keep_BV]
            return self.patch_embed(patches_BLP) + place_BLD
        x_BLD = self.patch_embed(image_BCHW).flatten(2).transpose(1, 2) + self.table[:, 1:]
        return x_BLD if keep_BV is None else take(x_BLD, keep_BV)

    def forward(self, image_BCHW: Tensor, keep_BV: Tensor | None = None) -> Tensor:
        x_BVD = self.embed(image_BCHW, keep_BV)
        cls = (self.cls_token + self.table[:, :1]).expand(len(x_BVD), -1, -1)
        x_BLD = torch.cat([cls, x_BVD], dim=1)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return x_BLD


class Classifier(nn.Module):
    """Pooled tokens to outputs, and the cross-entropy of class 0 or 1 of each image."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder, self.pool, self.smoothing = Encoder(shape), shape['pool'], shape['smoothing']
        self.norm = nn.LayerNorm(shape['width'], eps=shape['norm_epsilon'])
        self.head = Linear(shape['width'], shape['outputs'])

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> Tensor:
        x_BLD = self.encoder(image_BCHW)
        x_BD = self.norm(x_BLD[:, 0] if self.pool == 'cls' else x_BLD[:, 1:].mean(dim=1))
        return F.cross_entropy(self.head(x_BD).float(), label_B, label_smoothing=self.smoothing)


class MAE(nn.Module):
    """The loss over hidden patches."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        decoder = {**shape, **shape['decoder']}
        self.best, self.patch, self.visible, self.norm_pix_loss = shape['best'], shape['patch'], shape['visible'], shape['norm_pix_loss']
        grid, width = shape['image'] // shape['patch'], decoder['width']
        self.length = grid**2
        self.encoder = Encoder(shape)
        self.norm = nn.LayerNorm(shape['width'], eps=shape['norm_epsilon'])
        self.decoder_embed = Linear(shape['width'], width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.register_buffer('decoder_table', sincos_table(width, grid))
        self.decoder_blocks = nn.ModuleList(Block(decoder) for _ in range(decoder['depth']))
        self.decoder_norm = nn.LayerNorm(width, eps=shape['norm_epsilon'])
        self.decoder_pred = Linear(width, self.patch**2 * CHANNELS)

    def forward(self, image_BCHW: Tensor, label_B: Tensor) -> Tensor:
        order_BL = torch.rand(len(image_BCHW), self.length, device=image_BCHW.device).argsort(dim=1)
        keep_BV, hidden_BK = order_BL[:, : self.visible], order_BL[:, self.visible :]
        x_BVM = self.decoder_embed(self.norm(self.encoder(image_BCHW, keep_BV)))
        patches_BLP = patchify(image_BCHW, self.patch)
        if self.best:
            return self.shuffled_loss(x_BVM, keep_BV, hidden_BK, take(patches_BLP, hidden_BK))
        return self.unshuffled_loss(x_BVM, order_BL, patches_BLP)

    def shuffled_loss(self, x_BVM: Tensor, keep_BV: Tensor, hidden_BK: Tensor, target_BKP: Tensor) -> Tensor:
        """Tokens stay in the order cls, visible, hidden, their positions shuffled alike; hidden ones alone are predicted."""
        tokens_BKM = self.mask_token.expand(len(x_BVM), hidden_BK.shape[1], -1).to(x_BVM.dtype)
        table_LM = self.decoder_table[0]
        place_BLM = torch.cat([table_LM[:1].expand(len(x_BVM), 1, -1), table_LM[1:][torch.cat([keep_BV, hidden_BK], 1)]], dim=1)
        pred_BKP = self.decode(torch.cat([x_BVM, tokens_BKM], dim=1) + place_BLM, first=1 + self.visible)
        return (pred_BKP.float() - self.targets(target_BKP)).square().mean()

    def unshuffled_loss(self, x_BVM: Tensor, order_BL: Tensor, patches_BLP: Tensor) -> Tensor:
        """Each token goes back to its place, all patches are predicted, and the visible ones weigh nothing."""
        restore_BL = order_BL.argsort(dim=1)
        tokens = self.mask_token.expand(len(x_BVM), self.length - self.visible, -1).to(x_BVM.dtype)
        x_BLM = take(torch.cat([x_BVM[:, 1:], tokens], dim=1), restore_BL)
        pred_BLP = self.decode(torch.cat([x_BVM[:, :1], x_BLM], dim=1) + self.decoder_table, first=1)
        error_BL = (pred_BLP.float() - self.targets(patches_BLP)).square().mean(dim=-1)
        hidden_BL = (restore_BL >= self.visible).float()
        return (error_BL * hidden_BL).sum() / hidden_BL.sum()

    def decode(self, x_BLM: Tensor, *, first: int) -> Tensor:
        for block in self.decoder_blocks:
            x_BLM = block(x_BLM)
        return self.decoder_pred(self.decoder_norm(x_BLM)[:, first:])

    def targets(self, patches_BLP: Tensor) -> Tensor:
        if not self.norm_pix_loss:
            return patches_BLP
        variance, mean = torch.var_mean(patches_BLP, dim=-1, keepdim=True, correction=1)
        return (patches_BLP - mean) / torch.sqrt(variance + 1e-6)


def patchify(image_BCHW: Tensor, patch: int) -> Tensor:
    """[B, L, P] in reading order, each patch flattened in the order row, column, channel."""
    b, c, h, w = image_BCHW.shape
    x = image_BCHW.view(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // patch) * (w // patch), patch * patch * c)


def take(x_BLD: Tensor, index_BV: Tensor) -> Tensor:
    return torch.gather(x_BLD, 1, index_BV[:, :, None].expand(-1, -1, x_BLD.shape[-1]))


def parameter_groups(model: nn.Module, optim: Shape, depth: int) -> list[Shape]:
    """No weight decay on vectors and tokens; with layer decay a group for each layer, as published fine-tuning has it."""
    groups: dict[tuple[int, bool], Shape] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and not name.endswith(('token', 'table'))
        layer = layer_of(name, depth) if optim['layer_decay'] != 1.0 else depth + 1
        rate = optim['lr'] * optim['layer_decay'] ** (depth + 1 - layer)
        fresh = {'params': [], 'lr': rate, 'weight_decay': optim['weight_decay'] if decays else 0.0}
        groups.setdefault((layer, decays), fresh)['params'].append(parameter)
    return list(groups.values())


def layer_of(name: str, depth: int) -> int:
    """0 for what comes before the encoder's blocks, i + 1 for block i, depth + 1 for what comes after."""
    if name.startswith('encoder.blocks.'):
        return int(name.split('.')[2]) + 1
    return 0 if name.startswith('encoder.') else depth + 1


class Trainer:
    """A model, its optimiser and one batch that stays on the device."""

    def __init__(self, request: Shape) -> None:
        self.request = request
        self.device = torch.device('cuda' if request['device'] == 'gpu' else 'cpu')
        torch.manual_seed(request['seed'])
        torch.set_float32_matmul_precision('high' if request['dtype'] == 'bfloat16' else 'highest')
        if request['threads']:
            torch.set_num_threads(request['threads'])
        self.best = request['mode'] == 'best'
        torch.backends.cudnn.benchmark = True
        shape = {**request['shape'], 'best': self.best}
        self.model = {'mae': MAE, 'classify': Classifier}[request['task']](shape).to(self.device)
        for module in self.model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        optim = request['optim']
        groups = parameter_groups(self.model, optim, shape['depth'])
        chosen = {'fused': True} if self.best else {}
        self.optimizer = torch.optim.AdamW(groups, lr=optim['lr'], betas=(optim['b1'], optim['b2']), **chosen)
        half = request['dtype'] == 'bfloat16'
        self.dtype = None if not half else torch.float16 if not self.best and self.device.type == 'cuda' else torch.bfloat16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        scale = 255.0 * torch.tensor([request['mean'], request['std']], device=self.device).view(2, 1, CHANNELS, 1, 1)
        self.shift, self.scale = scale[0], scale[1]
        size = (request['batch'], shape['image'], shape['image'], CHANNELS)
        self.image = torch.randint(0, 256, size, dtype=torch.uint8, device=self.device)
        self.label = torch.randint(0, 2, (request['batch'],), device=self.device)
        self.run: Callable[[Tensor, Tensor], Tensor] = self.loss

    def loss(self, image_BHWC: Tensor, label_B: Tensor) -> Tensor:
        image_BCHW = (image_BHWC.permute(0, 3, 1, 2).float() - self.shift) / self.scale
        with torch.autocast(self.device.type, dtype=self.dtype) if self.dtype else contextlib.nullcontext():
            return self.model(image_BCHW, label_B)

    def step(self) -> Tensor:
        """Forward, backward, AdamW."""
        loss = self.run(self.image, self.label)
        if self.best:
            loss.backward()
            self.optimizer.step()
        else:
            loss.item()
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.get_total_norm([parameter.grad for parameter in self.model.parameters()])
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def turn(self, steps: int) -> Shape:
        """Seconds of `steps` steps one after another."""
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            loss = self.step()
        self.wait()
        return {'seconds': time.perf_counter() - start, 'loss': float(loss)}

    def wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def memory(self) -> int:
        """Peak bytes: of the GPU's tensors, or on the CPU of this whole process."""
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def setup(request: Shape) -> tuple[Trainer, Shape]:
    """A trainer whose first steps are behind it, and what it is: in mode best by the fastest way."""
    start = time.perf_counter()
    trainer = Trainer(request)
    trainer.turn(1)
    ways = ['eager', *request['ways']] if trainer.best else ['eager']
    tried: dict[str, float | str] = {}
    for way in ways if len(ways) > 1 else ():
        in_time = way == 'eager' or time.perf_counter() - start < request['budget']
        tried[way] = _try(trainer, way) if in_time else 'not tried: the time for it was over'
    known = {way: seconds for way, seconds in tried.items() if isinstance(seconds, float)}
    chosen = min(known, key=known.__getitem__, default='eager')
    if tried and chosen != list(tried)[-1]:
        _take_way(trainer, chosen)
    loss = trainer.turn(2)['loss']
    about = {
        'versions': {'torch': torch.__version__, 'python': sys.version.split()[0]},
        'gpu': trainer.device.type == 'cuda',
        'device': torch.cuda.get_device_name() if trainer.device.type == 'cuda' else f'CPU, {torch.get_num_threads()} threads',
        'parameters': sum(parameter.numel() for parameter in trainer.model.parameters()),
        'dtype': str(trainer.dtype or torch.float32).removeprefix('torch.'),
        'way': chosen,
        'tried': tried,  # seconds of a step, or why there are none
        'setup_seconds': time.perf_counter() - start,
        'loss': loss,
    }
    return trainer, about


def _take_way(trainer: Trainer, way: str) -> None:
    products, _, mode = way.rpartition('+')
    Linear.product = staticmethod(onednn if products == 'onednn' else F.linear)
    torch._dynamo.reset()
    modes = {} if mode == 'default' else {'mode': mode}
    trainer.run = trainer.loss if mode == 'eager' else torch.compile(trainer.loss, **modes)


def _try(trainer: Trainer, way: str) -> float | str:
    """Seconds of a step, the best of three, or why this way does not work here."""
    _take_way(trainer, way)
    try:
        trainer.turn(2)  # the first compiles
        return min(trainer.turn(1)['seconds'] for _ in range(3))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # what the compiler of PyTorch raises where it or the compiler below it fails
        return f'failed: {str(error).strip().splitlines()[0][:200]}'


def matmul_rate(trainer: Trainer, size: int) -> float:
    """FLOP/s of this library's own square product by the chosen way, the best of a few, in the compute dtype."""
    a, b = (torch.randn(size, size, device=trainer.device).to(trainer.dtype or torch.float32) for _ in range(2))
    best = math.inf
    for _ in range(6):
        trainer.wait()
        start = time.perf_counter()
        for _ in range(4):
            Linear.product(a, b, None)
        trainer.wait()
        best = min(best, (time.perf_counter() - start) / 4)
    return 2 * size**3 / best


def flops(trainer: Trainer) -> Shape:
    """What PyTorch counts for one step of the batch, attention decomposed into its products."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    Linear.product = staticmethod(F.linear)
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = trainer.loss(trainer.image, trainer.label)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    return {'forward': forward.get_total_flops(), 'training': forward.get_total_flops() + backward.get_total_flops()}


def answers(requests: Iterator[str]) -> Iterator[Shape]:
    """One answer a request."""
    trainer: Trainer | None = None
    for line in requests:
        request = json.loads(line)
        if request['do'] == 'stop':
            return
        if request['do'] == 'setup':
            trainer, about = setup(request)
            yield about
        elif request['do'] == 'turn':
            yield {**trainer.turn(request['steps']), 'memory': trainer.memory()}
        elif request['do'] == 'matmul':
            yield {'rate': matmul_rate(trainer, request['size'])}
        elif request['do'] == 'flops':
            yield flops(trainer)


def main() -> None:
    """Answers until `stop` or the end of the input; a failure is the last answer, as one sentence."""
    channel = os.fdopen(os.dup(1), 'w', encoding='utf-8', buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to standard error: this channel carries answers alone
    warnings.filterwarnings('ignore')
    try:
        for answer in answers(sys.stdin):
            print(json.dumps(answer), file=channel)
    except torch.OutOfMemoryError as error:
        print(json.dumps({'error': f'out of memory ({str(error).splitlines()[0]})'}), file=channel)


if __name__ == '__main__':
    main()
