"""ViT and MAE in PyTorch, written from the papers for the tests to compare with; parameters are named as timm names them.

ViT: Dosovitskiy et al. 2020 (2010.11929). MAE: He et al. 2021 (2111.06377). LayerScale: Touvron et al. 2021 (2103.17239).
SwiGLU: Shazeer 2020 (2002.05202). Registers: Darcet et al. 2023 (2309.16588). Rotary positions: Simeoni et al. 2025 (2508.10104).

Clarity over speed. Letters: B batch, L tokens, D width, N heads, E head width, P values of a patch (row, column, channel).
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig


def patches(image: Tensor, size: int) -> Tensor:
    """[B, 3, H, W] to [B, L, P]: patches in reading order, each flattened in the order row, column, channel."""
    rows = [row for band in image.split(size, dim=2) for row in band.split(size, dim=3)]
    return torch.stack([patch.permute(0, 2, 3, 1).flatten(1) for patch in rows], dim=1)


def sincos_table(width: int, grid: int) -> Tensor:
    """Positions [1, 1 + grid^2, width], the first zero: half the channels tell the column, half the row (MAE's order)."""
    table = torch.zeros(1 + grid * grid, width, dtype=torch.float64)
    quarter = width // 4
    for place in range(grid * grid):
        for half, coordinate in enumerate((place % grid, place // grid)):
            angle = coordinate / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
            start = half * 2 * quarter
            table[1 + place, start : start + quarter] = angle.sin()
            table[1 + place, start + quarter : start + 2 * quarter] = angle.cos()
    return table.float()[None]


def rotations(head_width: int, grid: int, *, base: float = 100.0) -> Tensor:
    """Unit complex numbers [L, E / 2]: the first half of the pairs turns with the row, the second with the column, both in -1..1."""
    quarter = head_width // 4
    frequency = 2 * math.pi * base ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    centre = (torch.arange(grid, dtype=torch.float64) * 2 + 1) / grid - 1
    row, column = centre.repeat_interleave(grid), centre.repeat(grid)
    angle = torch.cat([row[:, None] * frequency, column[:, None] * frequency], dim=1)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def turn(x: Tensor, by: Tensor, prefix: int) -> Tensor:
    """Rotates channels (j, j + E / 2) of each patch; the `prefix` tokens before the patches have no place. x [B, N, L, E]."""
    first, second = x[:, :, prefix:].chunk(2, dim=-1)
    turned = torch.complex(first, second) * by
    return torch.cat([x[:, :, :prefix], torch.cat([turned.real, turned.imag], dim=-1)], dim=2)


class Attention(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads, self.prefix = config.heads, 1 + config.registers
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.qkv_bias)
        self.proj = nn.Linear(config.width, config.width)

    def weights_and_values(self, x: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor]:
        b, length, d = x.shape
        q, k, v = (part.view(b, length, self.heads, d // self.heads).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        if rotation is not None:
            q, k = turn(q, rotation, self.prefix), turn(k, rotation, self.prefix)
        return (q @ k.mT / math.sqrt(d // self.heads)).softmax(dim=-1), v

    def forward(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        weights, v = self.weights_and_values(x, rotation)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """fc2(gelu(fc1 x)); gated, fc1 gives gate and value: fc2(silu(gate) * value)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        hidden, self.gated = int(config.width * config.mlp_ratio), config.mlp == 'swiglu'
        self.fc1 = nn.Linear(config.width, hidden * (1 + self.gated))
        self.fc2 = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        if not self.gated:
            return self.fc2(F.gelu(x))
        gate, value = x.chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


class LayerScale(nn.Module):
    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = MLP(config)
        scaled = config.layer_scale is not None
        self.ls1 = LayerScale(config.width, config.layer_scale) if scaled else nn.Identity()
        self.ls2 = LayerScale(config.width, config.layer_scale) if scaled else nn.Identity()

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x), rotation))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.width, kernel_size=config.patch_size, stride=config.patch_size)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).transpose(1, 2)


class ViT(nn.Module):
    """Encoder and linear head. `tokens` before the final norm, `features` after it where that norm is over tokens, `forward` logits."""

    def __init__(self, config: ViTConfig, *, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, config.registers, config.width))
        if config.positions != 'rope':
            table = sincos_table(config.width, config.grid)[:, 0 if config.cls_position else 1 :]
            self.pos_embed = nn.Parameter(table, requires_grad=config.positions == 'learned')
        self.patch_embed = PatchEmbed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        if config.pool == 'mean':
            self.fc_norm = norm
        else:
            self.norm = norm
        self.head = nn.Linear(config.width, outputs)

    def start(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """What enters the first block, and the rotations of its patches."""
        config = self.config
        x, cls = self.patch_embed(image), self.cls_token
        if config.positions != 'rope':
            x = x + self.pos_embed[:, 1 if config.cls_position else 0 :]
            cls = cls + self.pos_embed[:, :1] if config.cls_position else cls
        prefix = [cls, self.reg_token] if config.registers else [cls]
        x = torch.cat([token.expand(len(x), -1, -1) for token in prefix] + [x], dim=1)
        return x, rotations(config.width // config.heads, config.grid) if config.positions == 'rope' else None

    def tokens(self, image: Tensor) -> Tensor:
        x, rotation = self.start(image)
        for block in self.blocks:
            x = block(x, rotation)
        return x

    def attention(self, image: Tensor, layer: int) -> Tensor:
        """Softmax weights [B, N, L, L] of one block."""
        x, rotation = self.start(image)
        for block in self.blocks[:layer]:
            x = block(x, rotation)
        block = self.blocks[layer]
        return block.attn.weights_and_values(block.norm1(x), rotation)[0]

    def features(self, image: Tensor) -> Tensor:
        x = self.tokens(image)
        return x if self.config.pool == 'mean' else self.norm(x)

    def embed(self, image: Tensor) -> Tensor:
        x, config = self.features(image), self.config
        if config.pool == 'cls':
            return x[:, 0]
        x = x[:, 1 + config.registers :].mean(dim=1)
        if config.pool == 'mean_normed':
            return x
        return self.fc_norm(self.fc_norm(x)) if config.norm_twice else self.fc_norm(x)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.embed(image))


class MAE(nn.Module):
    """Encode the visible patches, put mask tokens in the places of the others, decode all, compare the hidden pixels."""

    def __init__(self, config: MAEConfig) -> None:
        super().__init__()
        self.config, encoder, width = config, config.encoder, config.decoder_width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, encoder.width))
        self.pos_embed = nn.Parameter(sincos_table(encoder.width, encoder.grid), requires_grad=False)
        self.patch_embed = PatchEmbed(encoder)
        self.blocks = nn.ModuleList(Block(encoder) for _ in range(encoder.depth))
        self.norm = nn.LayerNorm(encoder.width, eps=1e-6)
        self.decoder_embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(sincos_table(width, encoder.grid), requires_grad=False)
        decoder = dataclasses.replace(encoder, width=width, heads=config.decoder_heads)
        self.decoder_blocks = nn.ModuleList(Block(decoder) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder_pred = nn.Linear(width, encoder.patch_size**2 * 3)

    def encode(self, image: Tensor, visible: Tensor) -> Tensor:
        """Normed tokens [B, 1 + V, D], cls and the patches whose places are `visible` [B, V]."""
        x = self.patch_embed(image) + self.pos_embed[:, 1:]
        x = torch.stack([tokens[places] for tokens, places in zip(x, visible, strict=True)])
        x = torch.cat([(self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def decode(self, encoded: Tensor, visible: Tensor) -> Tensor:
        """Predicted patches [B, L, P]: each visible token goes back to its place, the mask token stands in all others."""
        x = self.decoder_embed(encoded)
        rows = []
        for tokens, places in zip(x, visible, strict=True):
            row = self.mask_token[0].expand(self.decoder_pos_embed.shape[1], -1).clone()
            row[0], row[1 + places] = tokens[0], tokens[1:]
            rows.append(row)
        x = torch.stack(rows) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]

    def targets(self, image: Tensor) -> Tensor:
        """The pixels; or each patch standardised, its variance the unbiased one plus 1e-6 as for the published weights."""
        target = patches(image, self.config.encoder.patch_size)
        if not self.config.norm_pix_loss:
            return target
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True, correction=1)
        return (target - mean) / torch.sqrt(variance + 1e-6)

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss over the hidden patches, predictions [B, L, P], mask [B, L] (1 hidden): the patches of least noise are visible."""
        kept = int(noise.shape[1] * (1 - self.config.mask_ratio))
        visible = noise.argsort(dim=1)[:, :kept]
        predicted = self.decode(self.encode(image, visible), visible)
        hidden = torch.ones_like(noise).scatter(1, visible, 0.0)
        error = (predicted - self.targets(image)).square().mean(dim=-1)
        return (error * hidden).sum() / hidden.sum(), predicted, hidden
