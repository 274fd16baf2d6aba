"""The PyTorch peer does the same work as ours: as many parameters, as many FLOPs, a loss that falls; and what it says when it cannot."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.device import prepare
from retfound_jax.models.mae import MAEConfig
from retfound_jax.models.vit import ViTConfig
from retfound_jax.optim import OptimConfig
from retfound_jax.speed import flops
from retfound_jax.speed.peers.process import TORCH, Peer, setup_request
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.mae import MAETask
from retfound_jax.tasks.regress import RegressTask
from retfound_jax.train.config import TrainConfig, assume
from retfound_jax.train.state import abstract_params, model_spec, path_string

SMALL = ViTConfig(image_size=32, patch_size=8, width=64, depth=2, heads=2)
MODES = ('published', 'best')


def mae(**changes: Any) -> TrainConfig:
    model = MAEConfig(encoder=dataclasses.replace(SMALL, **changes), decoder_width=32, decoder_depth=2, decoder_heads=4)
    return run_of(MAETask(model=model))


def classify(**changes: Any) -> TrainConfig:
    model = dataclasses.replace(SMALL, **{'positions': 'learned', 'drop_path': 0.1, **changes})
    return run_of(ClassifyTask(model=model, labels=('grade',), classes=tuple('abcde')), layer_decay=0.7)


def run_of(task: Any, **optim: Any) -> TrainConfig:
    data = DataConfig(path='DATASET', image_size=32, batch_size=4)
    return assume(TrainConfig(name='small', task=task, data=data, optim=OptimConfig(lr=3e-3, **optim), steps=100))


def request(config: TrainConfig, mode: str, *, ways: tuple[str, ...] = (), **changes: Any) -> dict[str, Any]:
    return {**setup_request(config, mode=mode, device='cpu', threads=1, ways=ways, budget=60.0), **changes}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer('PyTorch', python=sys.executable) as made:
        yield made


@pytest.mark.oracle
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('config', [mae(), classify()], ids=['mae', 'classify'])
def test_peer_has_our_parameters_our_flops_and_a_loss_that_falls(peer: Peer, config: TrainConfig, mode: str) -> None:
    about = peer.ask(request(config, mode))
    ours = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(model_spec(config.task))))
    assert about['parameters'] == ours and about['dtype'] == 'float32' and about['way'] == 'eager'
    batch, counted, torchs = config.data.batch_size, flops.count(config.task), peer.ask({'do': 'flops'})
    more = _of_every_patch(config) if mode == 'published' and config.task.kind == 'mae' else {'forward': 0, 'training': 0}
    assert torchs['forward'] == batch * (counted.forward_total + more['forward'])
    assert torchs['training'] == batch * (counted.training + more['training'])
    later = peer.ask({'do': 'turn', 'steps': 30})
    assert later['seconds'] > 0 and later['memory'] > 0 and later['loss'] < 0.9 * about['loss']


def _of_every_patch(config: TrainConfig) -> dict[str, int]:
    """What published code computes and ours does not: hidden patches are embedded, visible ones predicted."""
    model = config.task.model
    patches, values = model.encoder.grid**2, model.encoder.patch_values
    embed = 2 * (patches - model.visible) * values * model.encoder.width
    predict = 2 * model.visible * values * model.decoder_width
    return {'forward': embed + predict, 'training': 2 * embed + 3 * predict}


@pytest.mark.oracle
@pytest.mark.slow
def test_peer_at_its_best_tries_its_ways_and_says_which_way_was_faster(peer: Peer) -> None:
    about = peer.ask(request(mae(), 'best', ways=('onednn+eager', 'default', 'onednn+default')))
    assert set(about['tried']) == {'eager', 'onednn+eager', 'default', 'onednn+default'}
    assert about['tried'][about['way']] == min(about['tried'].values())


@pytest.mark.oracle
def test_products_of_onednn_and_their_gradients_are_those_of_pytorch() -> None:
    """By PyTorch's own linear layer, on the same numbers."""
    import torch

    script = _as_module(TORCH)
    shapes = (2, 5, 24), (16, 24), (16,)
    draws = [torch.randn(*shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(shapes)]
    results = []
    for product in (torch.nn.functional.linear, script.onednn, torch.compile(script.onednn, backend='aot_eager')):
        leaves = [draw.clone().requires_grad_() for draw in draws]
        value = product(*leaves)
        value.square().sum().backward()
        results.append([value, *(leaf.grad for leaf in leaves)])
    for theirs, *others in zip(*results, strict=True):
        for ours in others:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def _as_module(path: Path) -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.oracle
def test_peer_out_of_time_tries_no_further_way(peer: Peer) -> None:
    about = peer.ask(request(mae(), 'best', ways=('default',), budget=0.0))
    assert about['tried'].keys() == {'eager', 'default'} and about['tried']['default'].startswith('not tried') and about['way'] == 'eager'


@pytest.mark.oracle
def test_peer_that_breaks_says_its_last_words(peer: Peer) -> None:
    with pytest.raises(UserError, match='PyTorch ended before it answered "setup": KeyError: .no such task'):
        peer.ask(request(mae(), 'published', task='no such task'))


def script(folder: Path, text: str) -> Path:
    path = folder / 'peer.py'
    path.write_text('import json, sys\n' + text, encoding='utf-8')
    return path


def test_answers_come_in_order_and_printed_noise_does_not_matter(tmp_path: Path) -> None:
    text = 'for line in sys.stdin: print("noise", file=sys.stderr); print(json.dumps({"got": json.loads(line)["n"]}), flush=True)'
    with Peer('echo', python=sys.executable, script=script(tmp_path, text)) as echo:
        assert [echo.ask({'do': 'x', 'n': n})['got'] for n in range(3)] == [0, 1, 2]


def test_missing_interpreter_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='could not be started with .*nowhere.*give --peer_python'):
        Peer('PyTorch', python=str(tmp_path / 'nowhere'))


def test_dead_peer_is_one_sentence_with_what_it_said(tmp_path: Path) -> None:
    text = 'sys.exit("ModuleNotFoundError: No module named torch")'
    with Peer('PyTorch', python=sys.executable, script=script(tmp_path, text)) as dead:
        with pytest.raises(UserError, match='ended before it answered "setup": ModuleNotFoundError: No module named torch'):
            dead.ask({'do': 'setup'})


def test_silent_peer_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with Peer('PyTorch', python=sys.executable, script=script(tmp_path, 'sys.stdin.read()'), reply_seconds=0.2) as silent:
        with pytest.raises(UserError, match='gave no answer to "turn" within 0 s'):
            silent.ask({'do': 'turn'})


def test_full_memory_is_one_sentence(tmp_path: Path) -> None:
    text = 'sys.stdin.readline(); print(json.dumps({"error": "out of memory (all of it)"}))'
    with Peer('PyTorch', python=sys.executable, script=script(tmp_path, text)) as full:
        with pytest.raises(UserError, match=r'PyTorch: out of memory \(all of it\); lower the batch size'):
            full.ask({'do': 'setup'})


@pytest.mark.parametrize(
    ('config', 'told'),
    [
        (mae(mlp='swiglu'), 'the plain ViT'),
        (classify(layer_scale=1e-5), 'the plain ViT'),
        (classify(pool='mean', norm_twice=True), 'the plain ViT'),
        (run_of(RegressTask(model=SMALL, labels=('age',))), 'no regress'),
    ],
)
def test_a_model_the_peer_has_not_is_refused_before_it_starts(config: TrainConfig, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        request(config, 'best')


def test_peer_trains_at_the_peak_rate_of_the_schedule() -> None:
    config = run_of(MAETask(model=MAEConfig(encoder=SMALL)), warmup_steps=10, b2=0.95)
    assert request(config, 'best')['optim'] == {
        'lr': pytest.approx(3e-3), 'weight_decay': 0.05, 'b1': 0.9, 'b2': 0.95, 'layer_decay': 1.0,
    }  # fmt: skip


def _peers_weights(params: dict[str, Any], *, patch: int, convolution: bool) -> dict[str, Any]:
    """Our parameters (blocks in lists) under the peer's names and in its shapes."""
    import torch

    names = {'kernel': 'weight', 'scale': 'weight', 'fc1': '0', 'fc2': '2'}
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        parts = path_string(path).split('.')
        value = np.asarray(leaf)
        if parts[-1] == 'kernel':
            inputs = 2 if parts[-2] == 'proj' and parts[-3] == 'attn' else 1
            value = value.reshape(int(np.prod(value.shape[:inputs])), -1).T
        elif parts[-1].endswith('token'):
            value = value[None, None]
        elif parts[-1] == 'bias':
            value = value.ravel()
        name = '.'.join(names.get(part, part) for part in parts)
        name = name.replace('patch_embed.proj', 'patch_embed').replace('encoder.norm.', 'norm.')
        if convolution and name == 'encoder.patch_embed.weight':
            value = value.reshape(-1, patch, patch, 3).transpose(0, 3, 1, 2)
        found[name] = torch.from_numpy(value.copy())
    return found


@pytest.mark.oracle
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('norm_pix_loss', [True, False])
def test_peer_and_ours_give_one_image_batch_the_same_loss(mode: str, norm_pix_loss: bool) -> None:
    """Same weights, same masks, same bytes of the images, normalised on either side: what is timed is the same function."""
    import torch

    config = mae(scan=False)
    task = dataclasses.replace(config.task, model=dataclasses.replace(config.task.model, norm_pix_loss=norm_pix_loss))
    config = dataclasses.replace(config, task=task)
    ours = task.init(rngs=nnx.Rngs(3))
    trainer = _as_module(TORCH).Trainer(request(config, mode))
    weights = _peers_weights(nnx.to_pure_dict(nnx.state(ours)), patch=8, convolution=mode == 'published')
    missing, unexpected = trainer.model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) == {'encoder.table', 'decoder_table'}
    torch.manual_seed(11)
    noise_BL = torch.rand(4, 16).numpy()
    torch.manual_seed(11)
    theirs = trainer.loss(trainer.image, trainer.label).item()
    image_BHWC = prepare(jnp.asarray(trainer.image.numpy()), key=None, config=config.data)
    assert float(ours(image_BHWC, noise_BL=jnp.asarray(noise_BL)).loss) == pytest.approx(theirs, rel=2e-6)
