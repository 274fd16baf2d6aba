"""Files of weights: every known layout is read, nothing in one is ever run, and a bad one gets one sentence."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from files_helpers import TINY, TINY_MAE, call, random_tensors, save_torch, wrapped
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.interop import files, torch_file
from retfound_jax.interop.read import read_weights
from retfound_jax.models.vit import ViTConfig


def test_what_torch_save_wrote_is_read_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    value = {
        'a': rng.normal(size=(3, 4)).astype(np.float32),
        'half': rng.normal(size=5).astype(np.float16),
        'brain': rng.normal(size=5).astype(ml_dtypes.bfloat16),
        'inside': {'count': np.arange(4), 'text': 'x', 'none': None},
        'empty': np.zeros((0, 3), np.float32),
    }
    found = torch_file.read(save_torch(tmp_path / 'x.pth', value))
    assert found.keys() == value.keys() and found['inside']['text'] == 'x' and found['inside']['none'] is None
    for name in ('a', 'half', 'brain', 'empty'):
        np.testing.assert_array_equal(found[name], value[name])
        assert found[name].dtype == value[name].dtype
    np.testing.assert_array_equal(found['inside']['count'], np.arange(4))


def test_arguments_of_a_program_are_boxes_and_never_objects_of_its_classes(tmp_path: Path) -> None:
    args = call('argparse', 'Namespace')
    found = torch_file.read(save_torch(tmp_path / 'x.pth', {'args': args, 'device': call('torch', 'device', 'cuda', 0)}))
    assert type(found['args']) is torch_file.Box and found['device'].arguments == ('cuda', 0)


@pytest.mark.parametrize(
    ('module', 'name'),
    [('os', 'system'), ('posix', 'system'), ('builtins', 'eval'), ('builtins', 'getattr'), ('subprocess', 'Popen'), ('torch', 'load'),
     ('torch.storage', '_load_from_bytes'), ('numpy.core.multiarray', '_reconstruct'), ('retfound_jax.core.files', 'atomic_write')],
)  # fmt: skip
def test_a_pickle_with_code_is_refused_and_the_code_not_run(tmp_path: Path, module: str, name: str) -> None:
    mark = tmp_path / 'ran'
    path = save_torch(tmp_path / 'evil.pth', {'model': call(module, name, f'touch {mark}')})
    with pytest.raises(UserError, match=f'evil.pth asks to call {module}.{name} .* was not read: have its owner save the weights alone'):
        read_weights(path)
    assert not mark.exists()


def test_fields_of_our_own_functions_cannot_be_set(tmp_path: Path) -> None:
    pickled = b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x05\x00\x00\x00field' + b'K\x01sb.'
    with zipfile.ZipFile(tmp_path / 'x.pth', 'w') as archive:
        archive.writestr('archive/data.pkl', pickled)
    with pytest.raises(UserError, match='sets fields of a function'):
        torch_file.read(tmp_path / 'x.pth')


@pytest.mark.parametrize(
    ('shape', 'stride', 'offset'),
    [((4, 4), (4, 1), 1), ((2,), (-1,), 3), ((17,), (1,), 0), ((2, 2), (100, 1), 0), ((1,), (1,), -1), ((9, 9), (0, 1), 0)],
)
def test_a_tensor_outside_its_storage_is_refused(shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> None:
    with pytest.raises(torch_file.pickle.UnpicklingError):
        torch_file._tensor(np.zeros(16, np.float32), offset, shape, stride)


@given(st.data())
def test_a_damaged_file_is_told_or_read_but_never_worse(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    path = tmp_path_factory.mktemp('damaged') / 'x.pth'
    save_torch(path, {'a': np.arange(6, dtype=np.float32)})
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        found = files.find(path).value
    except UserError as error:
        assert 'x.pth' in str(error)
    else:
        assert isinstance(found, dict)


@hypothesis.settings(max_examples=500)
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_pickle_that_was_made_to_harm_is_told_or_read_but_never_worse(tmp_path_factory: pytest.TempPathFactory, changes: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    value = {'model': {'a': np.ones((2, 3), np.float32)}, 'args': call('argparse', 'Namespace'), 'epoch': 3, 'none': (None, 2.5, 'text')}
    with zipfile.ZipFile(save_torch(folder / 'sound.pth', value)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    described = bytearray(entries['archive/data.pkl'])
    for place, byte in changes:
        described[int(place * len(described))] = byte
    with zipfile.ZipFile(folder / 'changed.pth', 'w') as archive:  # with its checksums right, as who makes such a file would have them
        for name, data in {**entries, 'archive/data.pkl': bytes(described)}.items():
            archive.writestr(name, data)
    try:
        torch_file.read(folder / 'changed.pth')
    except UserError as error:
        assert 'changed.pth' in str(error)


@pytest.mark.parametrize(
    ('described', 'said'),
    [
        (b'\x80\x02}r\xff\xff\xff\x0f.', 'numbers more objects than it can hold'),
        (b'\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.', 'BYTEARRAY8'),
    ],
)
def test_a_pickle_that_asks_for_memory_it_has_no_use_for_is_refused(tmp_path: Path, described: bytes, said: str) -> None:
    with zipfile.ZipFile(tmp_path / 'x.pth', 'w') as archive:
        archive.writestr('archive/data.pkl', described)
    with pytest.raises(UserError, match=f'x.pth is damaged .*({said}|expected)'):
        torch_file.read(tmp_path / 'x.pth')


def test_a_flipped_bit_of_a_tensor_is_found(tmp_path: Path) -> None:
    path = save_torch(tmp_path / 'x.pth', {'a': np.full(64, 7, np.float32)})
    raw = path.read_bytes()
    place = raw.index(np.full(64, 7, np.float32).tobytes()) + 100
    path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    with pytest.raises(UserError, match='x.pth is damaged in archive/data/0: copy or download it again'):
        torch_file.read(path)


@pytest.mark.parametrize('ending', ['pth', 'safetensors'])
def test_a_truncated_file_is_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f'x.{ending}'
    save_torch(path, wrapped(random_tensors(TINY))) if ending == 'pth' else save_file(random_tensors(TINY), path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=f'x.{ending} is truncated or damaged .*: copy or download it again'):
        read_weights(path)


@pytest.mark.parametrize(
    ('content', 'said'),
    [(b'version https://git-lfs.github.com/spec/v1\n', 'text, such as a pointer'), (b'<html>', 'text'), (b'', 'cut or damaged'),
     (b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.', 'before 1.6')],
)  # fmt: skip
def test_what_is_no_file_of_weights_is_named(tmp_path: Path, content: bytes, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'torch', None)
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_weights(path)


def test_a_directory_and_its_config_are_read(tmp_path: Path) -> None:
    config = ViTConfig(image_size=32, patch_size=16, width=32, depth=1, heads=4, positions='learned', pool='mean_normed')
    save_file(random_tensors(config, outputs=2), tmp_path / 'model.safetensors')
    said = {'architecture': 'x', 'global_pool': 'avg', 'model_args': {'num_heads': 4}, 'label_names': ['no', 'yes'],
            'pretrained_cfg': {'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5], 'crop_pct': 0.9}}  # fmt: skip
    (tmp_path / 'config.json').write_text(json.dumps(said))
    weights = read_weights(tmp_path)
    assert weights.config == config and weights.meaning.classes == ('no', 'yes')
    assert weights.preprocessing.mean == (0.5, 0.5, 0.5) and weights.preprocessing.crop == 0.9


def test_several_files_of_one_model_are_joined_and_may_not_lead_elsewhere(tmp_path: Path) -> None:
    tensors = random_tensors(TINY)
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[::2]}, tmp_path / 'a.safetensors')
    save_file({name: tensors[name] for name in names[1::2]}, tmp_path / 'b.safetensors')
    places = {name: 'ab'[i % 2] + '.safetensors' for i, name in enumerate(names)}
    index = tmp_path / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': places}))
    assert read_weights(tmp_path).size == sum(array.size for array in tensors.values())
    index.write_text(json.dumps({'weight_map': {**places, 'cls_token': '../elsewhere.safetensors'}}))
    with pytest.raises(UserError, match='does not list the files of a model beside it'):
        read_weights(tmp_path)
    index.write_text(json.dumps({'weight_map': {**places, 'cls_token': 'c.safetensors'}}))
    with pytest.raises(UserError, match='c.safetensors, a part of the weights, is missing'):
        read_weights(tmp_path)


def test_places_without_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='there are no weights at .*nowhere'):
        read_weights(tmp_path / 'nowhere')
    with pytest.raises(UsageError, match='holds no weights; it should have one of model.safetensors'):
        read_weights(tmp_path)
    for name in ('a.pth', 'b.pth'):
        save_torch(tmp_path / name, wrapped(random_tensors(TINY)))
    with pytest.raises(UsageError, match='holds 2 files of weights .a.pth, b.pth.; name one of them'):
        read_weights(tmp_path)
    with pytest.raises(UsageError, match='did you mean "a.pth"'):
        read_weights(tmp_path / 'aa.pth')


class TestHub:
    """The Hub is not asked: what huggingface_hub raises is raised by hand."""

    @pytest.fixture(autouse=True)
    def _library(self) -> None:
        pytest.importorskip('huggingface_hub', reason='the extra `hub` is not installed')

    def _raising(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr('huggingface_hub.list_repo_files', refuse)

    def test_a_gated_model_without_a_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub.errors import GatedRepoError

        self._raising(monkeypatch, GatedRepoError.__new__(GatedRepoError))
        with pytest.raises(UserError, match='YukunZhou/RETFound_mae_natureCFP is gated.*ask for access.*hf auth login'):
            read_weights('hf:YukunZhou/RETFound_mae_natureCFP')

    def test_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._raising(monkeypatch, OSError('name resolution failed'))
        with pytest.raises(UserError, match='a/b could not be downloaded .name resolution failed.: check the network'):
            read_weights('hf:a/b')

    def test_an_unknown_model_and_a_wrong_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub.errors import RepositoryNotFoundError

        self._raising(monkeypatch, RepositoryNotFoundError.__new__(RepositoryNotFoundError))
        with pytest.raises(UserError, match='there is no model a/b on the Hub'):
            read_weights('hf:a/b')
        with pytest.raises(UsageError, match='not of the form hf:owner/name'):
            read_weights('hf:alone')

    def test_a_model_is_downloaded_and_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        save_torch(tmp_path / 'RETFound_cfp_weights.pth', wrapped(random_tensors(TINY_MAE)))
        monkeypatch.setattr('huggingface_hub.list_repo_files', lambda repo: ['README.md', 'RETFound_cfp_weights.pth'])
        monkeypatch.setattr('huggingface_hub.hf_hub_download', lambda repo, name: str(tmp_path / name))
        weights = read_weights('hf:a/b')
        assert weights.meaning.kind == 'mae' and weights.origin['hub'] == 'a/b'
