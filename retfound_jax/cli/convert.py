"""`retfound convert`: weights of other libraries to ours and timm's, or to Hugging Face's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
    from retfound_jax.interop.weights import Weights

SUMMARY = 'weights of RETFound, MAE, DINOv2, timm or Hugging Face, or a run of ours, to safetensors that we and timm read'


def define(values: flags.FlagValues) -> None:
    """Declares the verb's flags."""
    flags.DEFINE_string('source', None, 'file, directory, hf:owner/name, or run directory', flag_values=values, required=True)
    flags.DEFINE_string('out', None, 'directory to make', flag_values=values, required=True)
    flags.DEFINE_enum('format', 'timm', ['timm', 'hf'], "timm, which is our own format too, or Hugging Face's ViT", flag_values=values)
    flags.DEFINE_bool('encoder', False, 'the encoder alone, without decoder or head', flag_values=values)
    flags.DEFINE_integer('image_size', None, 'input size [px] to resample the positions to', flag_values=values, lower_bound=1)
    flags.DEFINE_enum('pool', None, ['mean', 'cls', 'mean_normed'], 'what tokens become one vector by', flag_values=values)
    flags.DEFINE_bool('norm_twice', None, "fc_norm twice, as in RETFound's code of 2025; left out: as the file says", flag_values=values)
    flags.DEFINE_integer('heads', None, 'attention heads, where they are not 64 channels each', flag_values=values, lower_bound=1)
    flags.DEFINE_list('classes', [], "names of the head's outputs, in its order", flag_values=values)
    flags.DEFINE_list('allow_missing', [], 'tensors that may be missing, by name or pattern', flag_values=values)
    flags.DEFINE_list('allow_extra', [], 'tensors that may be left over, by name or pattern', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Reads, writes, and says what it was."""
    from retfound_jax.interop.write import check_out, timm_gap, write_weights

    check_out(values.out)  # before the work
    weights = _read(values)
    write_weights(weights, out=values.out, layout=values.format)
    print(describe(weights))
    gap = timm_gap(weights) if values.format == 'timm' else ''
    if gap:
        print(f'timm itself cannot run them: {gap}')
    ours = weights.origin.get('layout') == 'run'
    print(f'written to {values.out}' + ('' if ours else '; the licence is still that of the source (RETFound: CC BY-NC 4.0)'))


def _read(values: flags.FlagValues) -> Weights:
    from retfound_jax.api.loading import read
    from retfound_jax.interop.adapt import adapted

    foreign = {'heads': values.heads, 'classes': values.classes, 'allow_missing': values.allow_missing, 'allow_extra': values.allow_extra}
    weights, _ = read(values.source, **foreign)
    return adapted(weights, encoder=values.encoder, pool=values.pool, norm_twice=values.norm_twice, image_size=values.image_size)


def describe(weights: Weights) -> str:
    """What the weights are, in two lines."""
    from retfound_jax.models.mae import MAEConfig

    config, meaning = weights.encoder, weights.meaning
    what = f'width {config.width}, {config.depth} blocks, {config.heads} heads, patches of {config.patch_size} px at {config.image_size} px'
    parts = [f'pooling {config.pool}{", norm twice" if config.norm_twice else ""}']
    if isinstance(weights.config, MAEConfig):
        parts = [f'a masked autoencoder, decoder {weights.config.decoder_depth} x {weights.config.decoder_width}']
    parts += [f'positions {config.positions}', *(['LayerScale'] if config.layer_scale is not None else [])]
    parts += [*(['SwiGLU'] if config.mlp == 'swiglu' else []), *([f'{config.registers} registers'] if config.registers else [])]
    names = ', '.join(meaning.classes or meaning.labels) or 'not named in the file (--classes names them)'
    head = f'; {meaning.kind} head of {weights.outputs}: {names}' if weights.outputs else ''
    return f'a Vision Transformer of {weights.size:,} parameters: {what}\n{"; ".join(parts)}{head}'
