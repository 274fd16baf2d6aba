"""Files that PyTorch and timm write are read, and what we write they load: the same bytes back, the same numbers out."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='launch/test --oracle installs it')
import timm  # noqa: E402
from torch_models import MAE, ViT  # noqa: E402
from torch_names import difference, randomise  # noqa: E402

from retfound_jax.core.errors import UserError  # noqa: E402
from retfound_jax.interop.adapt import as_encoder, at_size  # noqa: E402
from retfound_jax.interop.build import build  # noqa: E402
from retfound_jax.interop.read import read_weights  # noqa: E402
from retfound_jax.interop.write import write_weights  # noqa: E402
from retfound_jax.models.mae import MAEConfig  # noqa: E402
from retfound_jax.models.vit import ViTConfig, vit_config  # noqa: E402

pytestmark = pytest.mark.oracle

SMALL = ViTConfig(image_size=64, patch_size=16, width=128, depth=2, heads=2, positions='learned')
MODELS = {
    'vit_base_patch16_224': {},
    'vit_base_patch16_224, mean': {'global_pool': 'avg'},
    'vit_base_patch16_224, normed mean': {'global_pool': 'avg', 'fc_norm': False},
    'vit_large_patch14_dinov2.lvd142m': {'img_size': 224},
    'vit_small_patch14_reg4_dinov2.lvd142m': {'img_size': 112},
    'vit_giant_patch14_reg4_dinov2': {'img_size': 56},
    'vit_small_patch16_dinov3.lvd1689m': {},
    'vit_small_patch16_dinov3_qkvb.lvd1689m': {},
    'vit_small_plus_patch16_dinov3.lvd1689m': {},
}


def photographs(size: int, *, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, size, size, 3)).astype(np.float32)


@torch.no_grad()
def run(model: torch.nn.Module, image_BHWC: np.ndarray) -> torch.Tensor:
    return model.eval()(torch.from_numpy(image_BHWC).permute(0, 3, 1, 2))


@pytest.mark.parametrize('named', MODELS)
def test_a_timm_model_comes_in_goes_out_and_is_the_same(named: str, tmp_path: Path) -> None:
    model = timm.create_model(named.split(',')[0], depth=2, num_classes=5, **MODELS[named])
    randomise(model, seed=1)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'x.pth')
    options = {'pool': 'mean_normed'} if 'normed' in named else {}
    weights = read_weights(tmp_path / 'x.pth', classes=tuple('abcde'), **options)
    image = photographs(weights.encoder.image_size)
    want = run(model, image)
    assert difference(np.asarray(build(weights)(jnp.asarray(image))), want) <= 2e-5
    out = write_weights(weights, out=tmp_path / 'out')
    loaded = timm.create_model(f'local-dir:{out}', pretrained=True)
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys() and all(before[name].numpy().tobytes() == after[name].numpy().tobytes() for name in before)
    assert torch.equal(run(loaded, image), want)
    assert loaded.pretrained_cfg['label_names'] == list('abcde') and tuple(loaded.pretrained_cfg['mean']) == weights.preprocessing.mean


def test_a_masked_autoencoder_of_pytorch_comes_back_in_the_same_bytes(tmp_path: Path) -> None:
    encoder = ViTConfig(image_size=64, patch_size=16, width=128, depth=2, heads=2, pool='cls')
    config = MAEConfig(encoder=encoder, decoder_width=64, decoder_depth=2)
    model = MAE(config)
    randomise(model, seed=2)
    args = argparse.Namespace(model='mae', output_dir=tmp_path, device=torch.device('cpu'), seeds=[0, 1], score=np.float64(3))
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    torch.save({'model': model.state_dict(), 'optimizer': optimizer, 'args': args, 'scaler': {}}, tmp_path / 'x.pth')
    weights = read_weights(tmp_path / 'x.pth')
    assert weights.config == config
    from safetensors.torch import load_file

    written = load_file(write_weights(weights, out=tmp_path / 'out') / 'model.safetensors')
    state = model.state_dict()
    assert written.keys() == state.keys() and all(written[name].numpy().tobytes() == state[name].numpy().tobytes() for name in state)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize('form', ['zip', 'legacy', 'safetensors'])
def test_every_form_of_file_gives_the_numbers_of_torch_load(form: str, dtype: Any, tmp_path: Path) -> None:
    model = ViT(SMALL, outputs=3).to(dtype)
    randomise(model, seed=3)
    path = tmp_path / 'weights.any'
    if form == 'safetensors':
        from safetensors.torch import save_file

        save_file(model.state_dict(), path)
    else:
        torch.save({'model': model.state_dict()}, path, _use_new_zipfile_serialization=form == 'zip')
    weights = read_weights(path)
    for name, ours in {'head.weight': 'head.kernel', 'blocks.1.mlp.fc1.weight': 'encoder.blocks.1.mlp.fc1.kernel'}.items():
        want = model.state_dict()[name].float().numpy().T
        assert weights.params[ours].dtype == np.float32
        np.testing.assert_array_equal(weights.params[ours], want)


def test_tensors_that_share_or_skip_storage_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    from retfound_jax.interop import torch_file

    base = torch.arange(60, dtype=torch.float32).reshape(5, 12)
    value = {'turned': base.T, 'part': base[1:4, ::3], 'same': base, 'whole': torch.nn.Parameter(base[2]), 'one': base[0, 0]}
    torch.save(value, tmp_path / 'x.pth')
    found = torch_file.read(tmp_path / 'x.pth')
    for name, tensor in value.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy(), err_msg=name)


def test_a_pickle_that_torch_refuses_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, (f'open({str(tmp_path / "ran")!r}, "w")',)

    for zipped in (True, False):
        torch.save({'model': {'cls_token': torch.zeros(1)}, 'x': Evil()}, tmp_path / 'evil.pth', _use_new_zipfile_serialization=zipped)
        with pytest.raises(UserError, match='evil.pth .*not read'):
            read_weights(tmp_path / 'evil.pth')
    assert not (tmp_path / 'ran').exists()


def test_positions_are_resampled_as_their_source_does(tmp_path: Path) -> None:
    def interpolated(table: torch.Tensor, grid: int, *, antialias: bool) -> np.ndarray:
        old = round((table.shape[1] - 1) ** 0.5)
        square = table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
        new = torch.nn.functional.interpolate(square, size=(grid, grid), mode='bicubic', align_corners=False, antialias=antialias)
        return torch.cat([table[:, :1], new.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)[0].numpy()

    model = ViT(SMALL, outputs=1)
    randomise(model, seed=4)
    torch.save({'model': model.state_dict()}, tmp_path / 'retfound.pth')
    torch.save(model.state_dict(), tmp_path / 'timm.pth')
    for size in (32, 96, 128):
        for name, antialias in (('retfound', False), ('timm', True)):
            got = read_weights(tmp_path / f'{name}.pth', image_size=size).params['encoder.pos_embed']
            want = interpolated(model.pos_embed.detach(), size // 16, antialias=antialias)
            assert np.abs(got - want).max() <= 2e-6, (name, size)
    mae = MAE(MAEConfig(encoder=ViTConfig(image_size=64, patch_size=16, width=128, depth=1, heads=2), decoder_width=64, decoder_depth=1))
    torch.save({'model': mae.state_dict()}, tmp_path / 'mae.pth')
    got = at_size(as_encoder(read_weights(tmp_path / 'mae.pth')), 128).params['encoder.pos_embed']
    assert np.abs(got - interpolated(mae.pos_embed.detach(), 8, antialias=False)).max() <= 2e-6


@pytest.mark.slow
def test_a_vit_l_converts_within_a_minute_and_three_times_its_size(tmp_path: Path) -> None:
    torch.save({'model': ViT(vit_config('L', positions='learned', pool='cls'), outputs=1).state_dict()}, tmp_path / 'x.pth')
    size = (tmp_path / 'x.pth').stat().st_size
    assert size > 1.2e9
    code = 'import resource, sys; from retfound_jax.cli.main import main; code = main(sys.argv[1:]); '
    code += 'print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024); sys.exit(code)'
    begun = time.monotonic()
    words = ['convert', '--source', str(tmp_path / 'x.pth'), '--out', str(tmp_path / 'out')]
    done = subprocess.run([sys.executable, '-c', code, *words], capture_output=True, text=True, check=False, timeout=300)
    spent = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split('peak ')[1])
    print(f'{spent:.1f} s, {peak / size:.2f} times the file of {size / 1e9:.2f} GB')
    assert spent <= 60 and peak <= 3 * size
