"""timm's names and shapes against ours, one line a tensor: what is read is asserted by it, what is written comes from it.

D encoder width, M decoder width, F MLP width, T q, k, v (3), G gate and value (2), N heads, E head width, P patch values,
Y outputs. A torch matrix is [out, in], ours [in, out] with its axes split.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.models import positions
from retfound_jax.models.layers import BlockShape
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import CHANNELS, ViTConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor: reshape to `split`, transpose by `axes`, reshape to `target`; and the same backwards."""

    theirs: str
    ours: str
    source: tuple[int, ...]
    split: tuple[int, ...]
    axes: tuple[int, ...]
    target: tuple[int, ...]

    def read(self, array: np.ndarray) -> np.ndarray:
        """Theirs to ours: a view wherever numpy can make one."""
        return array.reshape(self.split).transpose(self.axes).reshape(self.target)

    def write(self, array: np.ndarray) -> np.ndarray:
        """Ours to theirs."""
        split = array.reshape([self.split[axis] for axis in self.axes])
        return split.transpose(np.argsort(self.axes)).reshape(self.source)


def entries(config: ViTConfig | MAEConfig, *, outputs: int) -> list[Entry]:
    """Every parameter of the network: an encoder, with a head where `outputs` is not 0, or a masked autoencoder."""
    if isinstance(config, MAEConfig):  # whose encoder ends in one norm, whatever its pool says
        out = [*_encoder(dataclasses.replace(config.encoder, pool='cls')), *_decoder(config)]
    else:
        out = list(_encoder(config))
    if outputs:
        out += _linear('head', 'head', inputs=(config.width,), outputs=(outputs,))
    return out


def from_timm(
    tensors: Mapping[str, np.ndarray],
    *,
    config: ViTConfig | MAEConfig,
    outputs: int,
    allow_missing: Sequence[str] = (),
    allow_extra: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Our parameters, float32, every tensor visited and every shape asserted.

    Raises:
      UserError: a tensor is missing, left over, of another shape, or holds a number that is not finite. Names (or patterns) in
        `allow_missing` start as zeros, or ones for norms; those in `allow_extra` are left out.
    """
    wanted = entries(config, outputs=outputs)
    constants = tables(config)
    missing = [entry.theirs for entry in wanted if entry.theirs not in tensors]
    extra = sorted(tensors.keys() - {entry.theirs for entry in wanted} - constants.keys())
    _refuse('lack', missing, allow_missing, flag='--allow_missing')
    _refuse('hold unknown', extra, allow_extra, flag='--allow_extra')
    for name, table in constants.items():
        if name in tensors and not (tensors[name].shape == table.shape and np.allclose(tensors[name], table, atol=1e-5)):
            raise UserError(f'{name} is not the sine-cosine table that a masked autoencoder has; these weights are of another model')
    return {entry.ours: _start(entry) if entry.theirs not in tensors else _checked(entry, tensors[entry.theirs]) for entry in wanted}


def to_timm(params: Mapping[str, np.ndarray], *, config: ViTConfig | MAEConfig, outputs: int) -> dict[str, np.ndarray]:
    """Tensors by timm's names, C-contiguous; a masked autoencoder's fixed tables are written too, as its own files have them."""
    out = {name: np.array(table) for name, table in tables(config).items()}
    for entry in entries(config, outputs=outputs):
        if params[entry.ours].shape != entry.target:
            raise UserError(f'{entry.ours} is {params[entry.ours].shape} and should be {entry.target} in this configuration')
        out[entry.theirs] = np.ascontiguousarray(entry.write(params[entry.ours]))
    return out


def tables(config: ViTConfig | MAEConfig) -> dict[str, np.ndarray]:
    """The positions that are constants here and tensors in a file, by timm's names."""
    encoder = config.encoder if isinstance(config, MAEConfig) else config
    found = {'pos_embed': positions.sincos_2d(encoder.width, grid=encoder.grid)[None]} if encoder.positions == 'sincos' else {}
    if isinstance(config, MAEConfig):
        found['decoder_pos_embed'] = positions.sincos_2d(config.decoder_width, grid=encoder.grid)[None]
    return found


def _checked(entry: Entry, array: np.ndarray) -> np.ndarray:
    if array.shape != entry.source:
        raise UserError(f'{entry.theirs} is {array.shape} and should be {entry.source}; the weights are of another architecture')
    array = array if array.dtype == np.float32 else array.astype(np.float32)
    if not np.isfinite(array).all():
        raise UserError(f'{entry.theirs} holds numbers that are not finite; the file is damaged, or its training diverged')
    return entry.read(array)


def _start(entry: Entry) -> np.ndarray:
    return np.full(entry.target, float(entry.ours.endswith('.scale')), np.float32)


def _refuse(what: str, names: Sequence[str], allowed: Sequence[str], *, flag: str) -> None:
    names = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
    if names:
        more = f' and {len(names) - 5} more' if len(names) > 5 else ''
        raise UserError(f'the weights {what} {", ".join(names[:5])}{more}; they are cut or of another model ({flag} NAME lets one be)')


def _encoder(config: ViTConfig) -> Iterator[Entry]:
    width, patch = config.width, config.patch_size
    shape = (width, CHANNELS, patch, patch)
    yield Entry(
        theirs='patch_embed.proj.weight', ours='encoder.patch_embed.proj.kernel',
        source=shape, split=shape, axes=(2, 3, 1, 0), target=(patch * patch * CHANNELS, width),
    )  # fmt: skip
    yield _plain('patch_embed.proj.bias', 'encoder.patch_embed.proj.bias', (width,))
    yield _plain('cls_token', 'encoder.cls_token', (width,), leading=2)
    if config.registers:
        yield _plain('reg_token', 'encoder.reg_token', (config.registers, width), leading=1)
    if config.positions == 'learned':
        yield _plain('pos_embed', 'encoder.pos_embed', (config.grid**2 + config.cls_position, width), leading=1)
    for index in range(config.depth):
        yield from _block(f'blocks.{index}', f'encoder.blocks.{index}', shape=config.block)
    norm = 'fc_norm' if config.pool == 'mean' else 'norm'
    yield from _norm(norm, f'encoder.{norm}', width)


def _decoder(config: MAEConfig) -> Iterator[Entry]:
    width = config.decoder_width
    yield _plain('mask_token', 'mask_token', (width,), leading=2)
    yield from _linear('decoder_embed', 'decoder_embed', inputs=(config.encoder.width,), outputs=(width,))
    for index in range(config.decoder_depth):
        yield from _block(f'decoder_blocks.{index}', f'decoder_blocks.{index}', shape=config.decoder_block)
    yield from _norm('decoder_norm', 'decoder_norm', width)
    yield from _linear('decoder_pred', 'decoder_pred', inputs=(width,), outputs=(config.encoder.patch_values,))


def _block(theirs: str, ours: str, *, shape: BlockShape) -> Iterator[Entry]:
    width, heads = (shape.width,), (shape.heads, shape.width // shape.heads)
    hidden = (2, shape.hidden) if shape.mlp == 'swiglu' else (shape.hidden,)
    for norm in ('norm1', 'norm2'):
        yield from _norm(f'{theirs}.{norm}', f'{ours}.{norm}', shape.width)
    yield from _linear(f'{theirs}.attn.qkv', f'{ours}.attn.qkv', inputs=width, outputs=(3, *heads), bias=shape.qkv_bias)
    yield from _linear(f'{theirs}.attn.proj', f'{ours}.attn.proj', inputs=heads, outputs=width)
    yield from _linear(f'{theirs}.mlp.fc1', f'{ours}.mlp.fc1', inputs=width, outputs=hidden)
    yield from _linear(f'{theirs}.mlp.fc2', f'{ours}.mlp.fc2', inputs=(shape.hidden,), outputs=width)
    if shape.layer_scale is not None:
        yield from (_plain(f'{theirs}.{ls}.gamma', f'{ours}.{ls}.gamma', width) for ls in ('ls1', 'ls2'))


def _linear(theirs: str, ours: str, *, inputs: tuple[int, ...], outputs: tuple[int, ...], bias: bool = True) -> Iterator[Entry]:
    """A torch matrix [out, in], both split here where they are heads or parts, inputs first."""
    first = range(len(outputs), len(outputs) + len(inputs))
    source = (math.prod(outputs), math.prod(inputs))
    split, axes = (*outputs, *inputs), (*first, *range(len(outputs)))
    yield Entry(theirs=f'{theirs}.weight', ours=f'{ours}.kernel', source=source, split=split, axes=axes, target=(*inputs, *outputs))
    if bias:
        same = tuple(range(len(outputs)))
        yield Entry(theirs=f'{theirs}.bias', ours=f'{ours}.bias', source=source[:1], split=outputs, axes=same, target=outputs)


def _norm(theirs: str, ours: str, width: int) -> Iterator[Entry]:
    yield _plain(f'{theirs}.weight', f'{ours}.scale', (width,))
    yield _plain(f'{theirs}.bias', f'{ours}.bias', (width,))


def _plain(theirs: str, ours: str, shape: tuple[int, ...], *, leading: int = 0) -> Entry:
    """The same numbers, theirs with some leading axes of 1."""
    source = (1,) * leading + shape
    return Entry(theirs=theirs, ours=ours, source=source, split=source, axes=tuple(range(len(source))), target=shape)
