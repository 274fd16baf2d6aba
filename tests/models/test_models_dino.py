"""The losses of DINO and DINOv2 against plain numpy, written from the papers and not from the library."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models_helpers import filled
from models_reference import block, encode, norm, patches, table

from retfound_jax.core.errors import UsageError
from retfound_jax.models.dino import DINO, DINOConfig, teacher_temperature, view_loss
from retfound_jax.models.dinov2 import DINOv2, DINOv2Config, blocks_mask, draw_masks, koleo, patch_loss
from retfound_jax.models.layers import param_letters, unstack_blocks
from retfound_jax.models.swav import sinkhorn
from retfound_jax.models.transfer import flat_names
from retfound_jax.models.vit import ViT, ViTConfig

ENCODER = ViTConfig(image_size=32, patch_size=8, width=16, depth=2, heads=2, pool='cls')
SMALL = {'encoder': ENCODER, 'hidden': 12, 'bottleneck': 6, 'prototypes': 10}
SHAPE = {'size': 8, 'depth': 2, 'heads': 2}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(target: np.ndarray, student: np.ndarray, temperature: float) -> float:
    return -sum(t * math.log(s) for t, s in zip(target, softmax(student / temperature), strict=True))


def multi_crop(student: np.ndarray, target: np.ndarray, temperature: float) -> list[float]:
    """DINO, equation 3, image by image: students [B, V, Y], targets [B, G, Y]."""
    losses = []
    for views, targets in zip(student, target, strict=True):
        pairs = [(t, s) for t in range(len(targets)) for s in range(len(views)) if s != t]
        losses.append(sum(cross_entropy(targets[t], views[s], temperature) for t, s in pairs) / len(pairs))
    return losses


def even_assignment(scores: np.ndarray, temperature: float, rounds: int = 3) -> np.ndarray:
    """Sinkhorn-Knopp as SwAV and DINOv2 describe it: prototypes used alike, then samples sum to 1."""
    q = np.exp(scores / temperature)
    for _ in range(rounds):
        for y in range(q.shape[1]):
            q[:, y] /= q[:, y].sum()
        for b in range(q.shape[0]):
            q[b] /= q[b].sum()
    return q


def spread_out(x: np.ndarray) -> list[float]:
    """KoLeo: -log of each vector's least distance to another one, on the unit sphere."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return [-math.log(min(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)) for i in range(len(x))]


def head(x: np.ndarray, p: dict[str, np.ndarray], name: str) -> np.ndarray:
    for layer in ('fc1', 'fc2', 'fc3'):
        x = x @ p[f'{name}.{layer}.kernel'] + p[f'{name}.{layer}.bias']
        if layer != 'fc3':
            x = np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)
    last = p[f'{name}.last.kernel']
    return x / np.linalg.norm(x) @ (last / np.linalg.norm(last, axis=0))


def of_encoder(p: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.replace(f'{name}.', 'encoder.', 1): value for key, value in p.items() if key.startswith(f'{name}.')}


def cls_of(image: np.ndarray, p: dict[str, np.ndarray], name: str) -> np.ndarray:
    own = of_encoder(p, name)
    return norm(encode(image, own, **SHAPE), own, 'encoder.norm')[0]


def exact(state: nnx.State) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf, np.float64) for name, leaf in flat_names(unstack_blocks(state)).items()}


@pytest.fixture(scope='module')
def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.normal(size=(3, 2, 32, 32, 3)).astype(np.float32), rng.normal(size=(3, 2, 16, 16, 3)).astype(np.float32)


def test_dino_is_the_paper_from_pixels_to_loss(views: tuple[np.ndarray, np.ndarray]) -> None:
    image, local = views
    config = DINOConfig(**SMALL, teacher_warmup=0.5)
    graph, state = filled(lambda: DINO(config, rngs=nnx.Rngs(0)))
    out = jax.jit(lambda s, *given: nnx.merge(graph, s)(*given, progress=0.25))(state, image, local)
    p = exact(state)
    teacher = np.array([[head(cls_of(one, p, 'encoder'), p, 'projector') for one in pair] for pair in image])
    target = softmax((teacher - p['centre']) / 0.055)
    every = [[*pair, *small] for pair, small in zip(image, local, strict=True)]
    student = np.array([[head(cls_of(one, p, 'student'), p, 'student_projector') for one in row] for row in every])
    np.testing.assert_allclose(out.loss_B, multi_crop(student, target, 0.1), rtol=2e-5)
    np.testing.assert_allclose(out.scalars['_centre'], teacher.mean((0, 1)), atol=2e-6)
    entropy = np.mean([[-(t * np.log(t)).sum() for t in pair] for pair in target])
    assert float(out.scalars['teacher_entropy']) == pytest.approx(entropy, rel=1e-4)


def test_dinov2_is_the_papers_from_pixels_to_loss(views: tuple[np.ndarray, np.ndarray]) -> None:
    image, local = views
    config = DINOv2Config(**SMALL, iterations=3)
    graph, state = filled(lambda: DINOv2(config, rngs=nnx.Rngs(0)))
    key = jax.random.key(3)
    out = jax.jit(lambda s, *given: nnx.merge(graph, s)(*given, key=key))(state, image, local)
    masks = jax.jit(lambda: draw_masks(jax.random.fold_in(key, 0), count=3, views=2, grid=4, masked=config.masked))()
    p = exact(state)

    own = of_encoder(p, 'encoder')
    whole = np.array([[norm(encode(one, own, **SHAPE), own, 'encoder.norm') for one in pair] for pair in image])
    scores = np.array([[head(tokens[0], p, 'projector') for tokens in pair] for pair in whole])
    target = even_assignment(scores.reshape(6, 10), 0.07).reshape(3, 2, 10)

    seen = []
    for b in range(3):
        blank = np.zeros((2, 16), bool)
        blank[int(masks.view_B[b])] = np.asarray(masks.blank_BL[b])
        student = of_encoder(p, 'student')
        pixels = image[b].astype(np.float64)
        pairs = zip(pixels, blank, strict=True)
        seen.append([norm(masked_encode(x, student, p['mask_token'], m), student, 'encoder.norm') for x, m in pairs])
    seen = np.array(seen)
    small = np.array([[head(cls_of(one, p, 'student'), p, 'student_projector') for one in row] for row in local])
    student = np.concatenate([np.array([[head(x[0], p, 'student_projector') for x in pair] for pair in seen]), small], axis=1)
    dino = np.array(multi_crop(student, target, 0.1))

    places = [(b, int(masks.view_B[b]), place) for b in range(3) for place in np.flatnonzero(masks.blank_BL[b])]
    wanted = even_assignment(np.array([head(whole[b, v, 1 + i], p, 'patch_projector') for b, v, i in places]), 0.07)
    ibot = np.zeros(3)
    for (b, v, i), t in zip(places, wanted, strict=True):
        count = sum(other[0] == b for other in places)
        ibot[b] += cross_entropy(t, head(seen[b, v, 1 + i], p, 'student_patch_projector'), 0.1) / count / 2
    np.testing.assert_allclose(float(out.scalars['loss_dino']), dino.mean(), rtol=2e-5)
    np.testing.assert_allclose(float(out.scalars['loss_ibot']), ibot.mean(), rtol=2e-5)
    np.testing.assert_allclose(out.loss_B, dino + ibot + 0.1 * np.array(spread_out(seen[:, 0, 0])), rtol=5e-5)


def masked_encode(image: np.ndarray, p: dict[str, np.ndarray], token: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """The reference encoder with the embeddings of some patches replaced."""
    x = np.array([patch @ p['encoder.patch_embed.proj.kernel'] + p['encoder.patch_embed.proj.bias'] for patch in patches(image, 8)])
    x[blank] = token
    x = np.concatenate([p['encoder.cls_token'][None], x + table(16, 4)])
    for i in range(2):
        x = block(x, p, f'encoder.blocks.{i}', heads=2)
    return x


def test_pairs_of_views_sinkhorn_patches_and_koleo_one_by_one() -> None:
    rng = np.random.default_rng(0)
    student, target = rng.normal(size=(4, 5, 7)), softmax(rng.normal(size=(4, 2, 7)))
    scores, counted = rng.uniform(-1, 1, size=(9, 7)), np.array([1, 1, 0, 1, 1, 1, 0, 1, 1], bool)
    guess, wanted = rng.normal(size=(2, 4, 7)), softmax(rng.normal(size=(2, 4, 7)))
    weight = np.array([[1 / 3] * 3 + [0.0], [1.0, 0, 0, 0]])
    x = rng.normal(size=(8, 5))

    @jax.jit  # one program: compiling is what costs
    def ours(student, target, scores, counted, guess, wanted, weight, x):
        views, q = view_loss(student, target, temperature=0.1), sinkhorn(scores, epsilon=0.05, iterations=3, weight_B=counted)
        patches = patch_loss(guess, wanted, weight_BM=weight, temperature=0.1)
        return views, q, patches, koleo(x), koleo(x, weight_B=jnp.asarray([1.0] * 6 + [0, 0]))

    given = (student, target, scores, counted, guess, wanted, weight, x)
    views, q, patches, apart, kept = ours(*(jnp.asarray(x, jnp.float32) for x in given))
    np.testing.assert_allclose(views, multi_crop(student, target, 0.1), rtol=1e-5)
    np.testing.assert_allclose(q[counted], even_assignment(scores[counted], 0.05), atol=2e-6)
    assert not np.any(q[~counted])
    theirs = [sum(cross_entropy(wanted[b, m], guess[b, m], 0.1) * weight[b, m] for m in range(4)) for b in range(2)]
    np.testing.assert_allclose(patches, theirs, rtol=1e-5)
    np.testing.assert_allclose(apart, spread_out(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kept[:6], spread_out(x[:6]), rtol=1e-4, atol=1e-5)


def test_koleo_of_two_that_are_the_same_and_of_one_alone_is_finite() -> None:
    x = jnp.asarray([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    loss, grad, alone = jax.jit(lambda x: (*jax.value_and_grad(lambda x: koleo(x).sum())(x), koleo(x[:1])))(x)
    assert np.isfinite(loss) and np.isfinite(grad).all() and not np.any(alone)


def test_masks_are_of_blocks_of_the_asked_size_and_each_image_draws_its_own() -> None:
    key = jax.random.key(0)
    drawn = jax.jit(lambda: [draw_masks(key, count=n, views=2, grid=14, masked=(0.1, 0.5)) for n in (400, 3)])
    masks, fewer = drawn()
    share = np.asarray(masks.blank_BL).mean(1)
    assert 0 < share.min() and share.max() <= 0.5 and 0.25 < share.mean() < 0.31  # of 0.3, what the last rectangle does not fill
    assert 0.4 < np.asarray(masks.view_B).mean() < 0.6
    np.testing.assert_array_equal(fewer.blank_BL, masks.blank_BL[:3])
    chosen = np.take_along_axis(np.asarray(masks.blank_BL), np.asarray(masks.index_BM), axis=1)
    assert (chosen.sum(1) == np.asarray(masks.blank_BL).sum(1)).all() and masks.index_BM.shape == (400, 98)
    np.testing.assert_allclose(masks.weight_BM.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(masks.weight_BM > 0, chosen)
    picture = np.asarray(masks.blank_BL).reshape(-1, 14, 14)
    beside = (picture[:, :, 1:] & picture[:, :, :-1]).sum() / picture[:, :, :-1].sum()
    assert beside > 0.6  # of scattered patches, 0.3


def test_a_mask_of_one_patch_is_one_patch() -> None:
    one = jax.vmap(lambda i: blocks_mask(jax.random.key(i), grid=4, most=jnp.asarray(1.0)).sum())
    assert jax.jit(one)(jnp.arange(5)).tolist() == [1] * 5


def test_the_temperature_of_the_teacher_rises_and_stays() -> None:
    config = DINOConfig(**SMALL, teacher_warmup=0.2)
    found = [float(teacher_temperature(jnp.asarray(p), config=config)) for p in (0.0, 0.1, 0.2, 1.0)]
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_a_replaced_patch_says_nothing_of_its_pixels_and_zeros_are_the_default() -> None:
    graph, state = filled(lambda: ViT(ENCODER, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(1)
    image = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
    blank = jnp.zeros((2, 16), bool).at[:, 0].set(True)
    token = jnp.asarray(rng.normal(size=16), jnp.float32)
    run = jax.jit(lambda s, image, token: nnx.merge(graph, s)(image, blank_BL=blank, blank_D=token))
    changed = image.at[:, :8, :8].add(1.0)
    np.testing.assert_array_equal(run(state, image, token), run(state, changed, token))
    assert np.any(run(state, image, token) != run(state, image, None))
    np.testing.assert_array_equal(run(state, image, None), run(state, image, jnp.zeros(16)))


@pytest.mark.parametrize('kind', [(DINO, DINOConfig), (DINOv2, DINOv2Config)])
def test_every_parameter_has_its_letters(kind: tuple) -> None:
    model, config = kind
    params = nnx.state(nnx.eval_shape(lambda: model(config(**SMALL), rngs=nnx.Rngs(0))))
    for name, letters in flat_names(param_letters(params)).items():
        assert len(letters) == len(flat_names(params)[name].shape) - ('blocks.' in name), name


@pytest.mark.parametrize(
    ('changes', 'sentence'),
    [
        ({'encoder': dataclasses.replace(ENCODER, pool='mean')}, 'set it to cls'),
        ({'student_temperature': 0.0}, 'must be above 0'),
        ({'momentum': 1.5}, 'momentum 1.5'),
        ({'masked': (0.5, 0.1)}, 'two shares of the patches'),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        DINOv2(DINOv2Config(**SMALL | changes), rngs=nnx.Rngs(0))


def test_one_view_alone_is_refused(views: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(UsageError, match=r'data\.views\.global_views 2 or more'):
        nnx.eval_shape(lambda: DINO(DINOConfig(**SMALL), rngs=nnx.Rngs(0))(jnp.asarray(views[0][:, :1])))
