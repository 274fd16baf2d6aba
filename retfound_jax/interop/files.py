"""From a name to tensors: a file, a directory, or a model of the Hugging Face Hub.

Only names, shapes and bytes are settled here; what the names mean is `layouts`.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from retfound_jax.core.errors import UsageError, UserError, nearest
from retfound_jax.core.files import read_json, sha256_file
from retfound_jax.interop import torch_file

HUB = 'hf:'
CONFIG = 'config.json'
PREPROCESSOR = 'preprocessor_config.json'
_INDEX = '.index.json'
# In this order: of several files of one directory the first that is there is read.
_NAMES = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json', 'checkpoint-best.pth')
_ENDINGS = ('.safetensors', '.pth', '.pt', '.bin', '.ckpt')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """The contents of a file: a dictionary of tensors (perhaps inside others), and the config.json beside it."""

    value: Mapping[str, Any]
    config: Mapping[str, Any]  # of config.json; empty where there is none
    preprocessor: Mapping[str, Any]  # of Hugging Face's preprocessor_config.json; empty where there is none
    origin: dict[str, Any]


def find(source: str | Path) -> Found:
    """Reads weights from a file, a directory, or 'hf:owner/name' (optionally 'hf:owner/name/file').

    Raises:
      UserError: there is nothing to read there, or what is there cannot be read.
    """
    name = str(source)
    path = _download(name) if name.startswith(HUB) else Path(source)
    if not path.exists():
        near = nearest(path.name, [item.name for item in path.parent.iterdir()]) if path.parent.is_dir() else ''
        hub = f'; a model of the Hub is written {HUB}{name}' if name.count('/') == 1 and not path.suffix and not near else ''
        raise UsageError(f'there are no weights at {name}{near or hub or "; give a file, a directory, or hf:owner/name"}')
    file = _of_directory(path) if path.is_dir() else path
    described = path.is_dir() or name.startswith(HUB) or file.name in _NAMES
    config, preprocessor = (_beside(file, item) if described else {} for item in (CONFIG, PREPROCESSOR))
    origin = {'file': file.name, 'sha256': sha256_file(file)}
    if name.startswith(HUB):
        origin['hub'] = name.removeprefix(HUB)
    value = _sharded(file) if file.name.endswith(_INDEX) else _tensors(file)
    return Found(value=value, config=config, preprocessor=preprocessor, origin=origin)


def _beside(file: Path, name: str) -> dict[str, Any]:
    value = read_json(file.parent / name) if (file.parent / name).is_file() else {}
    if not isinstance(value, dict):
        raise UserError(f'{file.parent / name} is not the description of a model: it holds no JSON object')
    return value


def _of_directory(path: Path) -> Path:
    for name in _NAMES:
        if (path / name).is_file():
            return path / name
    others = sorted(item for item in path.iterdir() if item.suffix in _ENDINGS)
    if len(others) == 1:
        return others[0]
    if others:
        raise UsageError(f'{path} holds {len(others)} files of weights ({", ".join(item.name for item in others[:4])}); name one of them')
    raise UsageError(f'{path} holds no weights; it should have one of {", ".join(_NAMES[:3])}')


def _tensors(file: Path) -> Mapping[str, Any]:
    """A file's contents; its kind is told by its first bytes, never by its name."""
    with open(file, 'rb') as opened:
        head = opened.read(16)
    if head[:4] == b'PK\x03\x04':
        value = torch_file.read(file)
    elif head[8:9] == b'{' and int.from_bytes(head[:8], 'little') < 100 * 2**20:
        value = _safetensors(file)
    elif head[:1] == b'\x80':
        value = _legacy(file)
    else:
        text = head.startswith((b'version https', b'<', b'{'))
        advice = 'it is text, such as a pointer or an error page: download the file itself' if text else 'it may be cut or damaged'
        raise UserError(f'{file} is neither a PyTorch nor a safetensors file; {advice}')
    if not isinstance(value, Mapping):
        raise UserError(f'{file} holds a {type(value).__name__}, not named tensors: save the state_dict of the model')
    return value


def _safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(file, framework='np') as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dictionary)
    except SafetensorError as error:
        raise UserError(f'{file} is truncated or damaged ({error}): copy or download it again') from error


def _legacy(file: Path) -> Mapping[str, Any]:
    """A file of PyTorch before 1.6: only PyTorch itself reads it, and only its weights."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UserError(
            f"{file} is in PyTorch's format of before 1.6, which needs PyTorch to be read: "
            "pip install 'retfound-jax[convert]', or save it again with a newer PyTorch"
        ) from error
    try:
        value = torch.load(file, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f'{file} holds more than weights or is damaged, and was not read ({first}): save its state_dict alone') from error
    return _as_numpy(value)


def _as_numpy(value: Any) -> Any:
    if hasattr(value, 'detach'):
        return value.detach().float().numpy()
    return {name: _as_numpy(item) for name, item in value.items()} if isinstance(value, Mapping) else value


def _sharded(index: Path) -> dict[str, Any]:
    """The tensors of several files, as an index lists them; a name that leads out of the directory is refused."""
    listed = read_json(index)
    files = listed.get('weight_map', {}) if isinstance(listed, dict) else {}
    if not files or not all(isinstance(name, str) and Path(name).name == name for name in files.values()):
        raise UserError(f'{index} does not list the files of a model beside it')
    tensors: dict[str, Any] = {}
    for name in sorted(set(files.values())):
        if not (index.parent / name).is_file():
            raise UserError(f'{index.parent / name}, a part of the weights, is missing: copy or download it')
        tensors.update(_tensors(index.parent / name))
    return tensors


def _download(name: str) -> Path:
    """The local copy of a Hub model's weights; its config.json lies beside it."""
    try:
        from huggingface_hub import hf_hub_download, list_repo_files
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    except ModuleNotFoundError as error:
        raise UserError(f"{name} is a model of the Hub: pip install 'retfound-jax[hub]', or download its file and name that") from error
    parts = name.removeprefix(HUB).strip('/').split('/')
    if len(parts) < 2 or not all(parts):
        raise UsageError(f'"{name}" is not of the form {HUB}owner/name')
    repo, wanted = '/'.join(parts[:2]), '/'.join(parts[2:])
    try:
        files = list_repo_files(repo)
        chosen = wanted or _choose(repo, files)
        for described in {CONFIG, PREPROCESSOR} & set(files):
            hf_hub_download(repo, described)
        return Path(hf_hub_download(repo, chosen))
    except GatedRepoError as error:
        steps = f'ask for access on https://huggingface.co/{repo}, then log in with `hf auth login` or set HF_TOKEN'
        raise UserError(f'{repo} is gated, and you are not known to have access: {steps}') from error
    except RepositoryNotFoundError as error:
        raise UserError(f'there is no model {repo} on the Hub, or it is private: check the name, or log in with `hf auth login`') from error
    except HFValidationError as error:
        raise UsageError(f'"{repo}" is not the name of a Hub model ({str(error).splitlines()[0]})') from error
    except (HfHubHTTPError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f'{repo} could not be downloaded ({first}): check the network, or download the file and name that') from error


def _choose(repo: str, files: list[str]) -> str:
    for name in _NAMES:
        if name in files and not name.endswith(_INDEX):
            return name
    weights = [name for name in files if name.endswith(_ENDINGS)]
    if len(weights) == 1:
        return weights[0]
    raise UserError(f'{repo} has {len(weights)} files of weights ({", ".join(weights[:5])}): name one, as {HUB}{repo}/FILE')

