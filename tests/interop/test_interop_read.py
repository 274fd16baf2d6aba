"""Weights in and out without PyTorch: every layout by its tensors' names, round trips bit for bit, other uses, bad input."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from files_helpers import TINY, TINY_MAE, call, random_tensors, save_torch, wrapped
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.interop import hf_names, layouts, timm_names
from retfound_jax.interop.adapt import as_encoder, at_size, with_norm_twice, with_pool
from retfound_jax.interop.build import build
from retfound_jax.interop.read import read_weights
from retfound_jax.interop.weights import Meaning, Weights, name_classes
from retfound_jax.interop.write import timm_gap, write_weights
from retfound_jax.models.mae import MAE
from retfound_jax.models.vit import ViTConfig

DINO = dataclasses.replace(TINY, patch_size=8, layer_scale=1e-5, image_size=24)
EVA = ViTConfig(image_size=32, patch_size=16, width=64, depth=2, heads=1, positions='rope', registers=4, layer_scale=1e-5,
                pool='mean_normed', norm_epsilon=1e-5)  # fmt: skip


def saved(tmp_path: Path, tensors: Any, **beside: Any) -> Path:
    return save_torch(tmp_path / 'weights.pth', wrapped(tensors, **beside))


def test_a_full_mae_is_read_and_written_in_the_same_bytes(tmp_path: Path) -> None:
    tensors = random_tensors(TINY_MAE)
    weights = read_weights(saved(tmp_path, tensors, epoch=800, args=call('argparse', 'Namespace')))
    assert weights.config == TINY_MAE and weights.meaning == Meaning(kind='mae')
    assert isinstance(build(weights), MAE)
    written = load_file(write_weights(weights, out=tmp_path / 'out') / 'model.safetensors')
    assert written.keys() == tensors.keys()
    for name, array in tensors.items():
        assert written[name].tobytes() == array.tobytes(), name


def test_an_encoder_of_mae_keeps_its_table_as_a_parameter(tmp_path: Path) -> None:
    weights = read_weights(saved(tmp_path, random_tensors(TINY)))
    assert weights.config == TINY and weights.meaning.kind == 'encoder'
    np.testing.assert_array_equal(weights.params['encoder.pos_embed'], random_tensors(TINY)['pos_embed'][0])


def test_dinov2_of_a_teacher_is_found_behind_its_prefix(tmp_path: Path) -> None:
    tensors = {f'backbone.{name}': array for name, array in random_tensors(DINO).items()}
    tensors |= {'backbone.mask_token': np.zeros((1, 64), np.float32), 'dino_head.mlp.0.weight': np.zeros((3, 64), np.float32)}
    student = {name: array + 1 for name, array in tensors.items()}
    weights = read_weights(save_torch(tmp_path / 'x.pth', {'student': student, 'teacher': tensors, 'iteration': 7}))
    assert weights.config == DINO
    np.testing.assert_array_equal(weights.params['encoder.cls_token'], tensors['backbone.cls_token'][0, 0])


def test_names_of_swiglu_registers_and_chunked_blocks(tmp_path: Path) -> None:
    config = dataclasses.replace(DINO, mlp='swiglu', registers=2)
    renamed = {}
    for name, array in random_tensors(config).items():
        name = name.replace('mlp.fc1', 'mlp.w12').replace('mlp.fc2', 'mlp.w3').replace('reg_token', 'register_tokens')
        renamed[name.replace('blocks.', 'blocks.0.')] = array
    weights = read_weights(saved(tmp_path, renamed))
    assert weights.config == config
    gate = random_tensors(config)['blocks.1.mlp.fc1.weight'][:256].T
    np.testing.assert_array_equal(weights.params['encoder.blocks.1.mlp.fc1.kernel'][:, 0], gate)


def test_a_rotary_vit_goes_round_by_evas_names(tmp_path: Path) -> None:
    for swiglu in (False, True):
        config = dataclasses.replace(EVA, mlp='swiglu' if swiglu else 'gelu')
        tensors = random_tensors(config)
        for index in range(config.depth):
            tensors[f'blocks.{index}.attn.qkv.bias'][64:128] = 0
        theirs = layouts.split_eva(tensors, swiglu=swiglu)
        assert 'blocks.0.attn.q_bias' in theirs and ('blocks.0.mlp.fc1_g.weight' in theirs) == swiglu
        folder = tmp_path / str(swiglu)
        folder.mkdir()
        save_file(theirs, folder / 'model.safetensors')
        (folder / 'config.json').write_text(json.dumps({'global_pool': 'avg', 'pretrained_cfg': {'input_size': [3, 32, 32]}}))
        weights = read_weights(folder)
        assert weights.config == config
        written = load_file(write_weights(weights, out=tmp_path / f'out{swiglu}') / 'model.safetensors')
        assert written.keys() == theirs.keys() and all(np.array_equal(written[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(('program', 'twice'), [({'model': 'RETFound_mae'}, True), ({'model': 'vit_large_patch16'}, False), ({}, False)])
def test_fine_tuned_checkpoints_of_2023_and_2025(tmp_path: Path, program: dict[str, str], twice: bool) -> None:
    config = dataclasses.replace(TINY, pool='mean')
    args = call('argparse', 'Namespace') if not program else program
    path = saved(tmp_path, random_tensors(config, outputs=3), args=args, epoch=9, optimizer={'state': {0: np.zeros(3, np.float32)}})
    weights = read_weights(path, classes=('no', 'mild', 'severe'))
    assert weights.config == dataclasses.replace(config, norm_twice=twice)
    assert weights.meaning == Meaning(kind='single', classes=('no', 'mild', 'severe')) and weights.outputs == 3
    assert read_weights(path, norm_twice=not twice).config.norm_twice is not twice
    assert bool(timm_gap(weights)) == twice


def test_norm_twice_is_layer_norm_of_the_normed_mean(tmp_path: Path) -> None:
    weights = read_weights(saved(tmp_path, random_tensors(dataclasses.replace(TINY, pool='mean'))))
    image = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)), jnp.float32)
    once = np.asarray(build(weights).embed(image))
    scale, bias = weights.params['encoder.fc_norm.scale'], weights.params['encoder.fc_norm.bias']
    want = (once - once.mean(-1, keepdims=True)) / np.sqrt(once.var(-1, keepdims=True) + 1e-6) * scale + bias
    np.testing.assert_allclose(build(with_norm_twice(weights, True)).embed(image), want, atol=1e-6)


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, pool='mean', norm_twice=True, norm_epsilon=1e-5, heads=4)
    meanings = (
        Meaning(kind='ordinal', labels=('icdr',), classes=('0', '1', '2', '3')),
        Meaning(kind='multi', labels=('a', 'b', 'c')),
        Meaning(kind='regress', labels=('age',), target_mean=61.5, target_std=9.25),
    )
    for index, meaning in enumerate(meanings):
        outputs = {'ordinal': 3, 'multi': 3, 'regress': 1}[meaning.kind]
        params = timm_names.from_timm(random_tensors(config, outputs=outputs), config=config, outputs=outputs)
        weights = dataclasses.replace(read_weights(saved(tmp_path, random_tensors(TINY))), config=config, params=params, meaning=meaning)
        again = read_weights(write_weights(weights, out=tmp_path / str(index)))
        assert (again.config, again.meaning, again.preprocessing) == (config, meaning, weights.preprocessing)
        for name, array in params.items():
            np.testing.assert_array_equal(again.params[name], array, err_msg=name)


@given(
    st.sampled_from(['gelu', 'swiglu']), st.sampled_from(['mean', 'cls', 'mean_normed']), st.integers(0, 3), st.booleans(), st.booleans(),
    st.booleans(), st.integers(0, 3),
)  # fmt: skip
def test_every_network_goes_to_timm_names_and_back_unchanged(
    mlp: Any, pool: Any, registers: int, scaled: bool, biased: bool, placed: bool, outputs: int
) -> None:
    config = dataclasses.replace(
        TINY, mlp=mlp, pool=pool, registers=registers, layer_scale=1e-5 if scaled else None, qkv_bias=biased, cls_position=placed, heads=4
    )
    tensors = random_tensors(config, outputs=outputs)
    params = timm_names.from_timm(tensors, config=config, outputs=outputs)
    again = timm_names.to_timm(params, config=config, outputs=outputs)
    assert again.keys() == tensors.keys() and all(again[name].tobytes() == tensors[name].tobytes() for name in tensors)


def test_hugging_face_names_of_every_generation(tmp_path: Path) -> None:
    for config in (TINY, TINY_MAE):
        tensors = random_tensors(config)
        published = hf_names.from_timm(tensors, bare=False)
        newer = {_newer(name): array for name, array in published.items()}
        assert newer.keys() != published.keys()
        for names in (published, newer):
            back, facts = hf_names.to_timm(names, config={'layer_norm_eps': 1e-12, 'num_attention_heads': 2})
            assert back.keys() == tensors.keys() and facts['heads'] == 2
            assert all(np.array_equal(back[name], tensors[name]) for name in tensors)
    save_file(hf_names.from_timm(random_tensors(TINY), bare=True), tmp_path / 'model.safetensors')
    assert read_weights(tmp_path).config == dataclasses.replace(TINY, norm_epsilon=1e-12)


def _newer(name: str) -> str:
    parts = {'query': 'q_proj', 'key': 'k_proj', 'value': 'v_proj'}
    attention = {f'attention.attention.{old}': f'attention.{new}' for old, new in parts.items()}
    rest = {'attention.output.dense': 'attention.o_proj', 'intermediate.dense': 'mlp.fc1', 'output.dense': 'mlp.fc2'}
    renames = {'encoder.layer.': 'layers.', **attention, **rest}
    for old, new in renames.items():
        name = name.replace(old, new)
    return name


def test_hugging_face_export_is_read_back(tmp_path: Path) -> None:
    weights = read_weights(saved(tmp_path, random_tensors(TINY, outputs=2)), classes=('no', 'yes'))
    again = read_weights(write_weights(weights, out=tmp_path / 'hf', layout='hf'))
    assert (again.config, again.meaning) == (weights.config, weights.meaning)
    assert int(32 / again.preprocessing.crop) == int(32 / weights.preprocessing.crop) == 36
    assert all(np.array_equal(again.params[name], array) for name, array in weights.params.items())


@pytest.mark.parametrize(
    ('change', 'said'),
    [({'pool': 'mean'}, 'pool the mean'), ({'layer_scale': 1}, 'LayerScale'), ({'mlp': 'swiglu'}, 'SwiGLU'), ({'registers': 1}, 'regist')],
)
def test_what_hugging_face_cannot_express_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    weights = read_weights(saved(tmp_path, random_tensors(dataclasses.replace(TINY, **change))))
    with pytest.raises(UserError, match=f"Hugging Face's ViT cannot express these weights: they .*{said}.*export them for timm"):
        write_weights(weights, out=tmp_path / 'out', layout='hf')
    assert not (tmp_path / 'out').exists()


def test_other_uses_of_the_same_weights(tmp_path: Path) -> None:
    weights = read_weights(saved(tmp_path, random_tensors(TINY_MAE)))
    alone = as_encoder(weights)
    assert alone.config.pool == 'mean' and alone.outputs == 0 and set(alone.params['encoder.fc_norm.scale']) == {1.0}
    assert as_encoder(weights, pool='cls').params['encoder.norm.scale'] is weights.params['encoder.norm.scale']
    larger = at_size(weights, 64)
    assert larger.encoder.image_size == larger.preprocessing.image_size == 64 and larger.encoder.positions == 'learned'
    assert larger.params['encoder.pos_embed'].shape == (17, 64)
    with pytest.raises(UsageError, match='image size 40 does not divide into patches of 16 px'):
        at_size(weights, 40)
    with pytest.raises(UsageError, match='masked autoencoder has no pooling'):
        with_pool(weights, 'cls')
    headed = read_weights(saved(tmp_path, random_tensors(TINY, outputs=2)))
    assert with_pool(headed, 'mean_normed').config.pool == 'mean_normed'
    with pytest.raises(UsageError, match='trained on pooling "cls", not "mean"'):
        with_pool(headed, 'mean')


def test_registers_are_written_so_that_timm_gives_the_same(tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, registers=4)
    weights = read_weights(saved(tmp_path, random_tensors(config)))
    again = read_weights(write_weights(weights, out=tmp_path / 'out'))
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 32, 32, 3)), jnp.float32)
    assert not again.config.cls_position
    np.testing.assert_allclose(build(again).tokens(image), build(weights).tokens(image), atol=1e-6)


@pytest.mark.parametrize(
    ('break_it', 'said'),
    [
        (lambda t: t.pop('blocks.1.mlp.fc1.bias'), 'lack blocks.1.mlp.fc1.bias; they are cut or of another model'),
        (lambda t: t.update(surplus=np.zeros(3, np.float32)), 'hold unknown surplus; .*--allow_extra'),
        (lambda t: t.update({'norm.weight': np.zeros(63, np.float32)}), r'norm.weight is \(63,\) and should be \(64,\); .*another arch'),
        (lambda t: t.update({'norm.weight': np.full(64, np.nan, np.float32)}), 'norm.weight holds numbers that are not finite'),
        (lambda t: t.pop('patch_embed.proj.weight'), 'lack patch_embed.proj.weight'),
        (lambda t: t.pop('pos_embed'), 'lack pos_embed'),
        (lambda t: t.update(pos_embed=np.zeros((1, 7, 64), np.float32)), 'pos_embed has 7 positions, which are no square grid'),
        (lambda t: t.update({'patch_embed.proj.weight': np.zeros((64, 1, 16, 16), np.float32)}), 'takes 1 channels'),
        (lambda t: t.pop('cls_token'), 'holds no Vision Transformer that is known here'),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named_by_their_tensor(tmp_path: Path, break_it: Any, said: str) -> None:
    tensors = random_tensors(TINY)
    break_it(tensors)
    with pytest.raises(UserError, match=said):
        read_weights(saved(tmp_path, tensors))


def test_a_missing_block_and_another_architecture(tmp_path: Path) -> None:
    tensors = {name: array for name, array in random_tensors(TINY).items() if not name.startswith('blocks.0.attn')}
    with pytest.raises(UserError, match='lack blocks.0.attn.qkv.weight, blocks.0.attn.proj.weight'):
        read_weights(saved(tmp_path, tensors))
    deeper = random_tensors(dataclasses.replace(TINY, depth=3))
    tensors = {name: array for name, array in deeper.items() if not name.startswith('blocks.1')}
    with pytest.raises(UserError, match='lack blocks.1, a block of 3'):
        read_weights(saved(tmp_path, tensors))
    with pytest.raises(UserError, match='weights.pth holds no Vision Transformer .*it has fc.weight, layer1.0.conv1.weight'):
        read_weights(saved(tmp_path, {'layer1.0.conv1.weight': np.zeros((1, 1), np.float32), 'fc.weight': np.zeros((1, 1), np.float32)}))
    with pytest.raises(UserError, match='decoder_pos_embed is not the sine-cosine table'):
        read_weights(saved(tmp_path, random_tensors(TINY_MAE) | {'decoder_pos_embed': np.ones((1, 5, 32), np.float32)}))


def test_what_is_allowed_by_name_may_be_missing_or_left_over(tmp_path: Path) -> None:
    tensors = random_tensors(TINY) | {'surplus.a': np.zeros(3, np.float32)}
    del tensors['norm.weight'], tensors['norm.bias']
    weights = read_weights(saved(tmp_path, tensors), allow_missing=('norm.*',), allow_extra=('surplus.*',))
    assert set(weights.params['encoder.norm.scale']) == {1.0} and set(weights.params['encoder.norm.bias']) == {0.0}


def test_a_head_with_other_classes(tmp_path: Path) -> None:
    path = saved(tmp_path, random_tensors(TINY, outputs=3))
    with pytest.raises(UsageError, match='2 class names were given .no, yes. and the head has 3'):
        read_weights(path, classes=('no', 'yes'))
    with pytest.raises(UsageError, match='for weights without a head'):
        name_classes(as_encoder(read_weights(path)), ('no', 'yes'))
    (tmp_path / 'config.json').write_text(json.dumps({'label_names': ['no', 'yes']}))
    with pytest.raises(UserError, match='names 2 classes and the head has 3 outputs'):
        read_weights(path.rename(tmp_path / 'checkpoint-best.pth').parent)


def test_a_place_that_is_taken_is_refused_and_kept(tmp_path: Path) -> None:
    weights: Weights = read_weights(saved(tmp_path, random_tensors(TINY)))
    out = write_weights(weights, out=tmp_path / 'out')
    before = (out / 'model.safetensors').read_bytes()
    with pytest.raises(UsageError, match='out exists already'):
        write_weights(weights, out=out)
    assert (out / 'model.safetensors').read_bytes() == before
