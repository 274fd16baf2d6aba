"""Hugging Face's ViT and ViTMAE come in and go out: the same numbers from theirs and ours, the same bytes after a round trip."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('torch', reason='launch/test --oracle installs it')

import torch
import transformers
from PIL import Image
from safetensors.numpy import load_file
from torch_models import sincos_table
from torch_names import difference, randomise

from retfound_jax.data.transforms import eval_image
from retfound_jax.interop.build import build
from retfound_jax.interop.read import read_weights
from retfound_jax.interop.timm_names import entries
from retfound_jax.interop.weights import Meaning, Preprocessing, Weights
from retfound_jax.interop.write import write_weights
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig

pytestmark = pytest.mark.oracle

TOLERANCE = 2e-5  # of the largest magnitude of the output
SHAPE = {'hidden_size': 32, 'num_hidden_layers': 3, 'num_attention_heads': 4, 'intermediate_size': 80, 'image_size': 32, 'patch_size': 8}
DECODER = {
    'decoder_hidden_size': 16,
    'decoder_num_hidden_layers': 2,
    'decoder_num_attention_heads': 2,
    'decoder_intermediate_size': 40,  # the share of the width that the encoder's has
}
ENCODER = ViTConfig(width=32, depth=3, heads=4, mlp_ratio=2.5, image_size=32, patch_size=8, pool='cls')
NAMES = {0: 'none', 1: 'mild', 2: 'severe'}


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)


def pixels() -> torch.Tensor:
    return torch.from_numpy(images()).permute(0, 3, 1, 2)


def classifier(folder: Path, **changes: Any) -> torch.nn.Module:
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**SHAPE, id2label=NAMES, **changes)).eval()
    randomise(model, seed=1)
    model.save_pretrained(folder)
    return model


def autoencoder(folder: Path, *, norm_pix_loss: bool) -> torch.nn.Module:
    model = transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**SHAPE, **DECODER, norm_pix_loss=norm_pix_loss)).eval()
    randomise(model, seed=2)
    # A new model of theirs has zeros here and only published files bring the tables, so they are put in by hand.
    model.vit.embeddings.position_embeddings.data = sincos_table(32, 4)
    model.decoder.decoder_pos_embed.data = sincos_table(16, 4)
    model.save_pretrained(folder)
    return model


def loaded(kind: Any, folder: Path) -> torch.nn.Module:
    """Their model from our directory; nothing missing, left over or of another shape."""
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def random_weights(config: ViTConfig | MAEConfig, *, meaning: Meaning, outputs: int = 0) -> Weights:
    """Weights of our own, random in every parameter."""
    rng, params = np.random.default_rng(3), {}
    for entry in entries(config, outputs=outputs):
        matrix = entry.ours.endswith('kernel')
        noise = rng.normal(size=entry.target) * (0.15 if matrix else 0.2) + entry.ours.endswith('scale')
        params[entry.ours] = noise.astype(np.float32)
    return Weights(config=config, params=params, meaning=meaning, preprocessing=Preprocessing(image_size=32))


@pytest.mark.parametrize('epsilon', [1e-12, 1e-3])
@torch.no_grad()
def test_their_classifier_gives_the_same_logits_here(epsilon: float, tmp_path: Path) -> None:
    """At the small epsilon of Hugging Face's default and at a large one, so that it is seen to be read."""
    model = classifier(tmp_path, layer_norm_eps=epsilon)
    weights = read_weights(tmp_path)
    assert (weights.meaning.kind, weights.meaning.classes) == ('single', tuple(NAMES.values()))
    assert difference(build(weights)(images()), model(pixels()).logits) <= TOLERANCE


@pytest.mark.parametrize('norm_pix_loss', [True, False])
def test_their_autoencoder_gives_the_same_loss_reconstruction_and_mask_here(norm_pix_loss: bool, tmp_path: Path) -> None:
    model = autoencoder(tmp_path, norm_pix_loss=norm_pix_loss)
    noise = np.random.default_rng(1).uniform(size=(2, 16)).astype(np.float32)
    with torch.no_grad():
        want = model(pixels(), noise=torch.from_numpy(noise))
    weights = read_weights(tmp_path)
    assert weights.config.norm_pix_loss == norm_pix_loss
    got = build(weights)(images(), noise_BL=noise)
    np.testing.assert_array_equal(got.mask_BL, want.mask)
    assert difference(got.pred_BLP, want.logits) <= TOLERANCE
    assert difference(got.loss, want.loss) <= TOLERANCE


@pytest.mark.parametrize('kind', ['classifier', 'autoencoder'])
def test_what_they_wrote_comes_back_in_the_same_bytes(kind: str, tmp_path: Path) -> None:
    theirs, back = tmp_path / 'theirs', tmp_path / 'back'
    if kind == 'classifier':
        model = classifier(theirs)
    else:
        model = autoencoder(theirs, norm_pix_loss=True)
    again = loaded(type(model), write_weights(read_weights(theirs), out=back, layout='hf')).state_dict()
    assert {name: value.numpy().tobytes() for name, value in model.state_dict().items()} == {
        name: value.numpy().tobytes() for name, value in again.items()
    }
    # Of the decoder's layers we write the published names, theirs of today are others; both load.
    ours, written = ({name for name in load_file(at / 'model.safetensors') if 'decoder_' not in name} for at in (back, theirs))
    assert ours == written


@pytest.mark.parametrize('positions', ['sincos', 'learned'])
@torch.no_grad()
def test_our_classifier_gives_the_same_logits_there(positions: str, tmp_path: Path) -> None:
    meaning = Meaning(kind='single', classes=tuple(NAMES.values()))
    weights = random_weights(dataclasses.replace(ENCODER, positions=positions), meaning=meaning, outputs=3)
    model = loaded(transformers.ViTForImageClassification, write_weights(weights, out=tmp_path / 'out', layout='hf'))
    assert difference(model(pixels()).logits, build(weights)(images())) <= TOLERANCE
    assert model.config.id2label == NAMES and model.config.problem_type == 'single_label_classification'


@torch.no_grad()
def test_our_encoder_gives_the_same_tokens_there(tmp_path: Path) -> None:
    weights = random_weights(dataclasses.replace(ENCODER, positions='learned'), meaning=Meaning(kind='encoder'))
    out = write_weights(weights, out=tmp_path / 'out', layout='hf')
    model = transformers.ViTModel.from_pretrained(out, add_pooling_layer=False).eval()
    assert difference(model(pixels()).last_hidden_state, build(weights).tokens(images())) <= TOLERANCE


@pytest.mark.parametrize('norm_pix_loss', [True, False])
@torch.no_grad()
def test_our_autoencoder_gives_the_same_loss_and_reconstruction_there(norm_pix_loss: bool, tmp_path: Path) -> None:
    config = MAEConfig(encoder=ENCODER, decoder_width=16, decoder_depth=2, decoder_heads=2, norm_pix_loss=norm_pix_loss)
    weights = random_weights(config, meaning=Meaning(kind='mae'))
    model = loaded(transformers.ViTMAEForPreTraining, write_weights(weights, out=tmp_path / 'out', layout='hf'))
    noise = np.random.default_rng(1).uniform(size=(2, 16)).astype(np.float32)
    there, here = model(pixels(), noise=torch.from_numpy(noise)), build(weights)(images(), noise_BL=noise)
    np.testing.assert_array_equal(there.mask, here.mask_BL)
    assert difference(there.logits, here.pred_BLP) <= TOLERANCE
    assert difference(there.loss, here.loss) <= TOLERANCE


@pytest.mark.parametrize(('height', 'width'), [(90, 131), (131, 90)])
def test_our_preprocessing_is_understood_there(height: int, width: int, tmp_path: Path) -> None:
    """Their image processor makes of a picture what evaluation makes of it, within a grey level: same crop, same normalisation."""
    weights = random_weights(ENCODER, meaning=Meaning(kind='single'), outputs=3)
    out = write_weights(weights, out=tmp_path / 'out', layout='hf')
    coarse = np.random.default_rng(4).integers(0, 256, (9, 9, 3), np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    there = processor(Image.fromarray(picture), return_tensors='np')['pixel_values'][0].transpose(1, 2, 0)
    given = weights.preprocessing
    here = (eval_image(picture, size=given.image_size, share=given.crop) / 255 - given.mean) / given.std
    assert there.shape == here.shape
    assert np.abs((there - here) * given.std * 255).max() <= 1.01
