"""`retfound_jax.load`: the same numbers as evaluation, written out by hand where that can be done, and one sentence for what is wrong."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import api_runs
import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

import retfound_jax
from retfound_jax.api.loading import run_weights
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest.process import process
from retfound_jax.interop.timm_names import to_timm
from retfound_jax.models.positions import resample, sincos_2d
from retfound_jax.train.checkpoint import load_run


@pytest.fixture(scope='module')
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run directory of each kind."""
    root = tmp_path_factory.mktemp('runs')
    return {kind: api_runs.save_run(root / kind, task) for kind, task in api_runs.TASKS.items()}


@pytest.fixture(scope='module')
def single(runs: dict[str, Path]) -> retfound_jax.Model:
    """The classifier, loaded once."""
    return retfound_jax.load(runs['single'])


def squares(images: np.ndarray, *, size: int = 32) -> np.ndarray:
    """What evaluation sees of square photographs, at the whole share: Pillow's bicubic."""
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images])


def test_the_package_gives_load_without_importing_jax() -> None:
    code = 'import sys, retfound_jax; assert "load" in dir(retfound_jax); print("jax" in sys.modules, callable(retfound_jax.load))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['False', 'True']
    with pytest.raises(AttributeError, match='laod'):
        _ = retfound_jax.laod


@pytest.mark.parametrize('kind', ['single', 'ordinal', 'multi', 'regress'])
def test_predicts_what_the_run_predicts(runs: dict[str, Path], kind: str) -> None:
    images, task = api_runs.photographs(), api_runs.TASKS[kind]
    model = retfound_jax.load(runs[kind])
    wanted = load_run(runs[kind]).predict({'image': squares(images), 'labels': np.zeros((5, len(task.labels)), np.float32)})['score']
    found = model.predict(images)
    assert found.dtype == np.float32 and np.ptp(found, axis=0).max() > 0.05  # each photograph has scores of its own
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert (model.kind, model.labels, model.classes) == (task.kind, task.labels, task.class_names)
    assert model.score_names == (task.class_names or task.labels) and model.names_known
    assert model.origin['step'] == api_runs.STEP and model.image_size == 32


def test_a_class_probability_is_the_softmax_of_the_head_over_the_embedding(runs: dict[str, Path]) -> None:
    images = api_runs.photographs()
    model, head = retfound_jax.load(runs['single']), load_run(runs['single']).params['head']
    logits = model.embed(images).astype(np.float64) @ np.asarray(head['kernel'], np.float64) + np.asarray(head['bias'])
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict(images), wanted, rtol=1e-4)


def _normalised(images: np.ndarray) -> np.ndarray:
    return ((squares(images) / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)


def test_a_mae_embeds_the_mean_patch_token_through_a_fresh_norm(runs: dict[str, Path]) -> None:
    images = api_runs.photographs()
    encoder = load_run(runs['mae']).model().encoder
    tokens = np.asarray(encoder(_normalised(images)), np.float64)
    mean = tokens[:, 1:].mean(axis=1)
    wanted = (mean - mean.mean(axis=1, keepdims=True)) / np.sqrt(mean.var(axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(retfound_jax.load(runs['mae']).embed(images), wanted, atol=1e-4)
    twice = (wanted - wanted.mean(axis=1, keepdims=True)) / np.sqrt(wanted.var(axis=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(retfound_jax.load(runs['mae'], norm_twice=True).embed(images), twice, atol=1e-4)
    normed = (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-6)
    normed = normed * np.asarray(encoder.norm.scale[...]) + np.asarray(encoder.norm.bias[...])
    np.testing.assert_allclose(retfound_jax.load(runs['mae'], pool='cls').embed(images), normed[:, 0], atol=1e-4)
    np.testing.assert_allclose(retfound_jax.load(runs['mae'], pool='mean_normed').embed(images), normed[:, 1:].mean(axis=1), atol=1e-4)


def test_attention_is_the_cls_row_without_what_goes_to_cls(runs: dict[str, Path]) -> None:
    images, model = api_runs.photographs(3), retfound_jax.load(runs['single'])
    encoder = load_run(runs['single']).model().encoder
    for layer in (0, 1):
        weights = np.asarray(encoder.attention(_normalised(images), layer=layer))
        found = model.attention(images, layer=layer)
        assert found.shape == (3, 2, 4, 4)
        np.testing.assert_allclose(found.reshape(3, 2, 16), weights[:, :, 0, 1:], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.sum(axis=(2, 3)) + weights[:, :, 0, 0], 1.0, rtol=1e-5)
    np.testing.assert_array_equal(model.attention(images), model.attention(images, layer=1))
    with pytest.raises(UsageError, match='no layer 2; choose one from -2 to 1'):
        model.attention(images, layer=2)


def test_another_input_size_resamples_the_positions(runs: dict[str, Path]) -> None:
    model = retfound_jax.load(runs['single'], image_size=48)
    assert model.image_size == 48 and model.config.grid == 6
    run = load_run(runs['single'])
    network = dataclasses.replace(run.task.model, image_size=48, positions='learned')
    from flax import nnx

    from retfound_jax.models.heads import Classifier

    made = Classifier(network, outputs=3, rngs=nnx.Rngs(0))
    state = nnx.state(made)
    table = resample(sincos_2d(16, grid=4), grid=6)
    nnx.replace_by_pure_dict(state, {**run.params, 'encoder': {**run.params['encoder'], 'pos_embed': table}})
    nnx.update(made, state)
    images = api_runs.photographs(side=48)
    logits = np.asarray(made(((images / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)), np.float64)
    np.testing.assert_allclose(model.predict(images), np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-4)
    with pytest.raises(UsageError, match='50 does not divide into patches of 8 px'):
        retfound_jax.load(runs['single'], image_size=50)


def test_rows_do_not_depend_on_their_batch_and_few_programs_are_compiled(runs: dict[str, Path]) -> None:
    images = api_runs.photographs(11)
    model = retfound_jax.load(runs['single'], batch_size=4)
    together = model.predict(images)
    assert together.shape == (11, 3)
    assert model._programs['scores']._cache_size() == 1
    alone = np.concatenate([model.predict(image) for image in images])
    np.testing.assert_allclose(alone, together, rtol=1e-5)
    model.predict(images[:3])
    assert model._programs['scores']._cache_size() == 2  # one photograph; a batch


def test_arrays_of_any_size_and_paths_together(runs: dict[str, Path], single: retfound_jax.Model, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    wide, tall = rng.integers(0, 256, (40, 90, 3), np.uint8), rng.integers(0, 256, (70, 33, 3), np.uint8)
    path = tmp_path / 'eye.png'
    cv2.imwrite(str(path), api_runs.photographs(1, side=64)[0])
    model = single
    found = model.predict([wide, tall, path])
    # evaluation's resize and cut, by Pillow: shorter side to 32 px, then the middle
    shrunk = np.asarray(Image.fromarray(wide).resize((72, 32), Image.Resampling.BICUBIC))[:, 20:52]
    np.testing.assert_allclose(found[0], model.predict(shrunk)[0], rtol=1e-5)
    ingested = cv2.cvtColor(cv2.imdecode(np.frombuffer(process(path)[0].jpeg, np.uint8), 1), cv2.COLOR_BGR2RGB)
    np.testing.assert_allclose(found[2], model.predict(ingested)[0], rtol=1e-2)  # two JPEG decoders
    np.testing.assert_array_equal(model.predict(str(path)), model.predict([path]))
    whole = retfound_jax.load(runs['single'], crop='none').predict(path)
    np.testing.assert_array_equal(whole, model.predict(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)))


GOOD = np.zeros((40, 40, 3), np.uint8)


@pytest.mark.parametrize(
    ('images', 'says'),
    [
        (GOOD / 255.0, 'images is of float64; give uint8 from 0 to 255'),
        (GOOD.astype(np.int64), 'images is of int64'),
        ([GOOD, GOOD[..., 0]], r'images\[1\] has the shape \[40, 40\].*np.stack'),
        (GOOD[..., 0], r'has the shape \[40, 40\].*np.stack'),
        (np.moveaxis(GOOD, -1, 0), r'has the shape \[3, 40, 40\].*np.moveaxis'),
        (np.zeros((2, 40, 40, 4), np.uint8), 'drop the fourth channel'),
        (np.zeros((2, 3, 40, 40, 3), np.uint8), 'has the shape'),
        (np.zeros((0, 40, 40, 3), np.uint8), 'there is no image'),
        ([], 'there is no image'),
        (np.zeros((0, 40, 3), np.uint8), 'has a header without a size|too small'),
        (np.zeros((40, 4000, 3), np.uint8), 'too long and narrow'),
        ([GOOD, None], r'images\[1\] is a NoneType'),
        ([[1, 2, 3]], r'images\[0\] is a list'),
        ((image for image in [GOOD]), 'images is a generator'),
        ('nowhere.png', r'images\[0\] names a file that does not exist'),
        (['.'], r'images\[0\] is a folder'),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(single: retfound_jax.Model, images: object, says: str) -> None:
    with pytest.raises(UsageError, match=says) as error:
        single.predict(images)
    assert '\n' not in str(error.value)


def test_a_file_that_gives_no_picture_is_named_by_its_place_alone(single: retfound_jax.Model, tmp_path: Path) -> None:
    broken = tmp_path / 'Jane_Doe.png'
    broken.write_bytes(b'\x89PNG\r\n\x1a\n' + b'rubbish')
    with pytest.raises(UserError, match=r'images\[1\] ') as error:
        single.predict([GOOD, broken])
    assert 'Jane' not in str(error.value)


@pytest.mark.parametrize(
    ('kind', 'options', 'says'),
    [
        ('single', {'classes': ('a', 'b')}, '2 classes are given, and the head has 3'),
        ('single', {'classes': ('a', 'b', 'c')}, 'carry their own: none, mild, severe'),
        ('single', {'classes': ('a', 'a', 'c')}, 'not all different'),
        ('regress', {'classes': ('a',)}, 'predicts a number'),
        ('mae', {'classes': ('a',)}, 'no head'),
        ('single', {'pool': 'cls'}, 'trained on pooling "mean", not "cls"'),
        ('single', {'pool': 'men'}, 'did you mean "mean"'),
        ('mae', {'pool': 'cls', 'norm_twice': True}, 'norm_twice is for weights with an fc_norm'),
        ('single', {'batch_size': 0}, 'batch_size is 0'),
        ('single', {'batch_size': True}, 'batch_size is True'),
        ('single', {'image_size': 32.0}, 'image_size is 32.0'),
        ('single', {'crop': 'disc'}, 'choose one of fov, none'),
        ('single', {'checkpoint': 'last'}, 'choose one of best, latest'),
    ],
)
def test_options_that_do_not_fit_are_refused(runs: dict[str, Path], kind: str, options: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        retfound_jax.load(runs[kind], **options)


def test_a_model_without_a_head_does_not_predict(runs: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match='masked autoencoder and have no head: fine-tune them .* or use embed'):
        retfound_jax.load(runs['mae']).predict(GOOD)


def test_says_what_it_is(runs: dict[str, Path]) -> None:
    shown = repr(retfound_jax.load(runs['single'], classes=('none', 'mild', 'severe')))
    assert 'single: none, mild, severe; 32 px' in shown and 'pool mean' in shown
    assert 'mae; 32 px' in repr(retfound_jax.load(runs['mae']))


def test_equal_weights_have_one_fingerprint(runs: dict[str, Path], tmp_path: Path) -> None:
    one = retfound_jax.load(runs['single']).fingerprint
    assert one == retfound_jax.load(api_runs.save_run(tmp_path / 'again', api_runs.TASKS['single'])).fingerprint
    assert one != retfound_jax.load(api_runs.save_run(tmp_path / 'other', api_runs.TASKS['single'], seed=1)).fingerprint


@pytest.fixture(scope='module')
def foreign(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights as files of somebody else: tensors by timm's names, and no word on what the outputs mean."""
    root, files = tmp_path_factory.mktemp('foreign'), {}
    for kind in ('single', 'mae'):
        files[kind] = root / f'{kind}.safetensors'
        weights = run_weights(load_run(runs[kind]))
        save_file(to_timm(weights.params, config=weights.config, outputs=weights.outputs), files[kind])
    return files


def test_weights_of_others_give_the_same_numbers_without_names(runs: dict[str, Path], foreign: dict[str, Path]) -> None:
    images = api_runs.photographs(side=32)
    model = retfound_jax.load(foreign['single'], heads=2)
    assert not model.names_known and model.score_names == ('class_0', 'class_1', 'class_2') and not model.labels
    assert model.central_share == 0.875 and model.origin['file'] == 'single.safetensors' and len(model.origin['sha256']) == 64
    # theirs is cut as RETFound does at 224 px and below
    resized = np.stack([np.asarray(Image.fromarray(image).resize((36, 36), Image.Resampling.BICUBIC))[2:34, 2:34] for image in images])
    np.testing.assert_allclose(model.predict(images), retfound_jax.load(runs['single']).predict(resized), rtol=1e-4)
    named = retfound_jax.load(foreign['single'], heads=2, classes=['a', 'b', 'c'])
    assert named.names_known and named.classes == ('a', 'b', 'c')
    with pytest.raises(UsageError, match='2 classes are given, and the head has 3'):
        retfound_jax.load(foreign['single'], heads=2, classes=['a', 'b'])


def test_names_that_stand_twice_are_no_names(runs: dict[str, Path]) -> None:
    from retfound_jax.api.loading import _names
    from retfound_jax.interop.weights import Meaning

    weights = dataclasses.replace(run_weights(load_run(runs['single'])), meaning=Meaning(kind='single', classes=('a', 'b', 'a')))
    assert _names(weights, ()) == (('class_0', 'class_1', 'class_2'), False)


def test_a_mae_of_others_embeds_as_ours(runs: dict[str, Path], foreign: dict[str, Path]) -> None:
    images = api_runs.photographs(side=32)
    resized = np.stack([np.asarray(Image.fromarray(image).resize((36, 36), Image.Resampling.BICUBIC))[2:34, 2:34] for image in images])
    model = retfound_jax.load(foreign['mae'], heads=2)
    assert model.kind == 'mae' and model.config.pool == 'mean'
    np.testing.assert_allclose(model.embed(images), retfound_jax.load(runs['mae']).embed(resized), rtol=1e-4, atol=1e-4)
    with pytest.raises(UsageError, match='no head'):
        model.predict(images)
    with pytest.raises(UsageError, match='is no run directory'):
        retfound_jax.load(foreign['mae'], checkpoint='latest')


def test_weights_that_are_not_finite_give_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = retfound_jax.load(api_runs.save_run(tmp_path / 'run', api_runs.TASKS['single']))
    import jax

    model._params = jax.tree.map(lambda leaf: leaf * np.nan, model._params)
    with pytest.raises(UserError, match='not finite'):
        model.embed(GOOD)


def _examples() -> list[str]:
    """The Python blocks of README that load a model."""
    blocks = re.findall(r'^```python\n(.*?)^```', (api_runs.ROOT / 'README.md').read_text('utf-8'), re.DOTALL | re.MULTILINE)
    return [block for block in blocks if 'retfound_jax.load' in block]


@pytest.mark.parametrize('code', _examples())
def test_the_example_of_the_readme_runs(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    for place in range(3):
        path = tmp_path / 'photographs' / 'images' / f'{place}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), api_runs.photographs(1, side=64, seed=place)[0])
    (tmp_path / 'runs').mkdir()
    (tmp_path / 'runs' / 'finetune').symlink_to(runs['single'])
    monkeypatch.chdir(tmp_path)
    exec(compile(code, 'README.md', 'exec'), {})
