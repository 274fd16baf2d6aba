"""`retfound convert`, from the outside: what it prints, what it writes, what it refuses; and a run that starts from what it wrote."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from retfound_jax.cli.main import main
from retfound_jax.core import config as config_lib
from retfound_jax.data.config import DataConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.interop.read import read_weights
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.train.checkpoint import load_run
from retfound_jax.train.config import TrainConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'interop'))
from files_helpers import TINY, TINY_MAE, random_tensors, save_torch, wrapped  # noqa: E402


@pytest.fixture
def mae_file(tmp_path: Path) -> Path:
    return save_torch(tmp_path / 'RETFound_cfp_weights.pth', wrapped(random_tensors(TINY_MAE)))


def tiny_run() -> TrainConfig:
    """Fine-tuning of the encoder of TINY_MAE for two steps."""
    model = dataclasses.replace(TINY_MAE.encoder, pool='mean', positions='learned')
    return TrainConfig(
        name='tiny',
        task=ClassifyTask(model=model, labels=('referable_dr',)),
        data=DataConfig(phantom=PhantomConfig(seed=0, patients=12, image_size=48), image_size=32, batch_size=8),
        optim=OptimConfig(lr=0.0, weight_decay=0.0),
        steps=1,
        eval_every=-1,
    )


def test_a_mae_is_told_and_converted(mae_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'out'
    assert main(['convert', '--source', str(mae_file), '--out', str(out)]) == 0
    said = capsys.readouterr().out
    assert 'width 64, 2 blocks, 1 heads, patches of 16 px at 32 px' in said and 'a masked autoencoder, decoder 1 x 32' in said
    assert 'timm itself cannot run them: timm has no masked autoencoder' in said and 'the licence is still that of the source' in said
    assert read_weights(out).config == TINY_MAE
    assert 'architecture' not in json.loads((out / 'config.json').read_text())


def test_an_encoder_at_another_size_is_for_timm(mae_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ['convert', '--source', str(mae_file), '--out', str(tmp_path / 'out'), '--encoder', '--image_size', '64', '--pool', 'cls']
    assert main(words) == 0
    assert 'timm itself' not in capsys.readouterr().out
    said = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert said['model_args']['img_size'] == 64 and said['global_pool'] == 'token' and said['num_classes'] == 0


def test_a_run_of_ours_goes_out_and_comes_back(mae_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from retfound_jax.cli import train as verb
    from retfound_jax.train.loop import train

    config = dataclasses.replace(tiny_run(), init_from=str(mae_file))
    train(config, workdir=tmp_path / 'run', read_weights=verb.read_weights)
    assert main(['convert', '--source', str(tmp_path / 'run'), '--out', str(tmp_path / 'out')]) == 0
    assert 'single head of 2: ' in capsys.readouterr().out
    weights, run = read_weights(tmp_path / 'out'), load_run(tmp_path / 'run')
    assert weights.meaning.labels == ('referable_dr',) and weights.meaning.classes == run.task.class_names
    want = random_tensors(TINY_MAE)['blocks.1.attn.proj.weight']
    np.testing.assert_array_equal(weights.params['encoder.blocks.1.attn.proj.kernel'].reshape(64, 64).T, want)
    assert weights.preprocessing.mean == run.config.data.mean


def test_training_starts_from_weights_by_name_of_the_flag(mae_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_lib, 'load_function', lambda name: tiny_run)
    words = ['train', '--experiment', 'x:y', '--workdir', str(tmp_path / 'run'), '--set', f'init_from={mae_file}']
    assert main(words) == 0
    kernel = np.asarray(load_run(tmp_path / 'run').params['encoder']['patch_embed']['proj']['kernel'])
    want = random_tensors(TINY_MAE)['patch_embed.proj.weight']
    np.testing.assert_array_equal(kernel.T.reshape(64, 16, 16, 3).transpose(0, 3, 1, 2), want)


@pytest.mark.parametrize('size', [32, 48])
def test_pretraining_goes_on_from_a_mae_at_any_size(size: int, mae_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = dataclasses.replace(TINY_MAE, encoder=dataclasses.replace(TINY_MAE.encoder, image_size=size))
    run = tiny_run()
    config = dataclasses.replace(run, task=MAETask(model=model), data=dataclasses.replace(run.data, image_size=size))
    monkeypatch.setattr(config_lib, 'load_function', lambda name: lambda: config)
    assert main(['train', '--experiment', 'x:y', '--workdir', str(tmp_path / 'run'), '--set', f'init_from={mae_file}']) == 0
    params = load_run(tmp_path / 'run').params
    np.testing.assert_array_equal(np.asarray(params['decoder_pred']['kernel']).T, random_tensors(TINY_MAE)['decoder_pred.weight'])


def test_training_from_weights_of_another_size_is_refused_in_one_sentence(
    mae_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny_run()
    task = dataclasses.replace(config.task, model=dataclasses.replace(config.task.model, width=128))
    monkeypatch.setattr(config_lib, 'load_function', lambda name: lambda: dataclasses.replace(config, task=task))
    assert main(['train', '--experiment', 'x:y', '--workdir', str(tmp_path / 'run'), '--set', f'init_from={mae_file}']) == 1
    assert 'in the weights and' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'code', 'said'),
    [
        (['--source', 'nowhere.pth'], 2, 'there are no weights at nowhere.pth'),
        (['--source', 'SOURCE', '--classes', 'a,b'], 2, 'for weights without a head'),
        (['--source', 'SOURCE', '--pool', 'cls'], 2, 'masked autoencoder has no pooling; take its encoder first'),
        (['--source', 'SOURCE', '--image_size', '40'], 2, 'image size 40 does not divide'),
        (['--source', 'SOURCE', '--norm_twice'], 2, 'norm_twice is for weights with an fc_norm'),
        (['--source', 'SOURCE', '--out', 'TAKEN'], 2, 'exists already'),
        (['--source', 'SOURCE', '--encoder', '--format', 'hf'], 1, "Hugging Face's ViT cannot express"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    words: list[str], code: int, said: str, mae_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [{'SOURCE': str(mae_file), 'TAKEN': str(tmp_path)}.get(word, word) for word in words]
    words = words if '--out' in words else [*words, '--out', str(tmp_path / 'out')]
    assert main(['convert', *words]) == code
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / 'out').exists()


def test_heads_are_taken_as_given(tmp_path: Path) -> None:
    path = save_torch(tmp_path / 'x.pth', wrapped(random_tensors(dataclasses.replace(TINY, heads=4))))
    assert main(['convert', '--source', str(path), '--out', str(tmp_path / 'out'), '--heads', '4']) == 0
    config: ViTConfig = read_weights(tmp_path / 'out').config
    assert config.heads == 4
