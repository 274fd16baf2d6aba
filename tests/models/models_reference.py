"""ViT and MAE in plain numpy, float64, image by image and head by head, written from the papers and not from the library.

ViT: arXiv 2010.11929, equations 1 to 4 and appendix A. MAE: arXiv 2111.06377, section 3. Parameters come as a flat dict of
float64 arrays by dotted name, unrolled ('encoder.blocks.0.norm1.scale').
"""

from __future__ import annotations

import math

import numpy as np

Named = dict[str, np.ndarray]
erf = np.vectorize(math.erf)


def norm(x: np.ndarray, p: Named, name: str) -> np.ndarray:
    out = np.empty_like(x)
    for i, row in enumerate(x):
        out[i] = (row - row.mean()) / math.sqrt(row.var() + 1e-6) * p[f'{name}.scale'] + p[f'{name}.bias']
    return out


def block(x: np.ndarray, p: Named, name: str, *, heads: int) -> np.ndarray:
    width = x.shape[1]
    y = norm(x, p, f'{name}.norm1')
    joined = []
    for head in range(heads):
        kernel, bias = p[f'{name}.attn.qkv.kernel'], p[f'{name}.attn.qkv.bias']
        q, k, v = (y @ kernel[:, t, head] + bias[t, head] for t in range(3))
        score = q @ k.T / math.sqrt(width // heads)
        weight = np.exp(score - score.max(axis=1, keepdims=True))
        joined.append(weight / weight.sum(axis=1, keepdims=True) @ v)
    x = x + np.concatenate(joined, axis=1) @ p[f'{name}.attn.proj.kernel'].reshape(width, width) + p[f'{name}.attn.proj.bias']
    y = norm(x, p, f'{name}.norm2') @ p[f'{name}.mlp.fc1.kernel'] + p[f'{name}.mlp.fc1.bias']
    y = y * 0.5 * (1 + erf(y / math.sqrt(2)))
    return x + y @ p[f'{name}.mlp.fc2.kernel'] + p[f'{name}.mlp.fc2.bias']


def patches(image: np.ndarray, size: int) -> np.ndarray:
    """Row by row, each patch flattened row, column, channel."""
    grid = len(image) // size
    return np.array([image[r * size : (r + 1) * size, c * size : (c + 1) * size].ravel() for r in range(grid) for c in range(grid)])


def position(width: int, row: int, column: int) -> np.ndarray:
    """One row of the fixed table, value by value."""
    quarter = width // 4
    out = []
    for place in (column, row):
        out += [math.sin(place / 10000 ** (i / quarter)) for i in range(quarter)]
        out += [math.cos(place / 10000 ** (i / quarter)) for i in range(quarter)]
    return np.array(out)


def table(width: int, grid: int) -> np.ndarray:
    return np.array([position(width, r, c) for r in range(grid) for c in range(grid)])


def encode(image: np.ndarray, p: Named, *, size: int, depth: int, heads: int, keep: list[int] | None = None) -> np.ndarray:
    """Tokens, cls first, without the last norm."""
    pieces = patches(image, size)
    x = pieces @ p['encoder.patch_embed.proj.kernel'] + p['encoder.patch_embed.proj.bias']
    x = x + table(x.shape[1], len(image) // size)
    x = x if keep is None else x[keep]
    x = np.concatenate([p['encoder.cls_token'][None], x])
    for i in range(depth):
        x = block(x, p, f'encoder.blocks.{i}', heads=heads)
    return x


def classify(image: np.ndarray, p: Named, *, pool: str, **shape: int) -> np.ndarray:
    x = encode(image, p, **shape)
    x = norm(x[1:].mean(axis=0, keepdims=True), p, 'encoder.fc_norm') if pool == 'mean' else norm(x, p, 'encoder.norm')[:1]
    return (x @ p['head.kernel'] + p['head.bias'])[0]


def mae(
    image: np.ndarray, noise: np.ndarray, p: Named, *, visible: int, normalise: bool, decoder_depth: int, decoder_heads: int, **shape: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, prediction of every patch, mask; the decoder gets its tokens unshuffled, as the paper says."""
    order = sorted(range(len(noise)), key=lambda i: noise[i])
    keep = order[:visible]
    x = norm(encode(image, p, keep=keep, **shape), p, 'encoder.norm') @ p['decoder_embed.kernel'] + p['decoder_embed.bias']
    full = np.tile(p['mask_token'], (len(noise), 1))
    for token, place in zip(x[1:], keep, strict=True):
        full[place] = token
    x = np.concatenate([x[:1], full + table(x.shape[1], len(image) // shape['size'])])
    for i in range(decoder_depth):
        x = block(x, p, f'decoder_blocks.{i}', heads=decoder_heads)
    pred = norm(x, p, 'decoder_norm')[1:] @ p['decoder_pred.kernel'] + p['decoder_pred.bias']
    target = patches(image, shape['size'])
    if normalise:
        target = np.array([(row - row.mean()) / math.sqrt(row.var(ddof=1) + 1e-6) for row in target])
    mask = np.array([0.0 if i in keep else 1.0 for i in range(len(noise))])
    return float((((pred - target) ** 2).mean(axis=1) * mask).sum() / mask.sum()), pred, mask
