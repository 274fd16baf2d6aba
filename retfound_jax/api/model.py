"""A model to use: photographs to probabilities, embeddings and attention.

Letters: N images, B batch, H W S image height, width and side [px], D encoder width, Y outputs, A heads, G patches along one side.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

from retfound_jax.api.images import Crop, Image, as_images, in_order, read_one
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.mesh import MeshConfig, batch_sharding, make_mesh, replicated
from retfound_jax.data.config import DataConfig
from retfound_jax.data.decode import DecodeFailure
from retfound_jax.data.device import prepare
from retfound_jax.data.transforms import eval_image
from retfound_jax.interop.build import build
from retfound_jax.interop.weights import Meaning, Weights
from retfound_jax.models.vit import ViT, ViTConfig
from retfound_jax.tasks.classify import ClassifyTask
from retfound_jax.tasks.regress import RegressTask
from retfound_jax.tasks.supervised import SupervisedTask

_SHOWN = 6  # class names in the repr


class Model:
    """What `retfound_jax.load` returns. Images are uint8 [H, W, 3], [N, H, W, 3], or a list of arrays of any sizes or of paths.

    Arrays are taken as they are, resized and cut in the middle as in evaluation; the photograph at a path is first cut to its field of
    view as `retfound ingest` does (`crop='none'` at load for photographs that are cut already). Calls of fewer images than `batch_size`
    are filled up to a power of two, others to whole batches, so that few programs are compiled.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        kind: str,
        names: tuple[str, ...],
        names_known: bool,
        batch_size: int,
        crop: Crop,
        size: int,
        compute_dtype: str = 'float32',
    ) -> None:
        meaning, seen = weights.meaning, weights.preprocessing
        module = build(weights, scan=weights.encoder.scan, compute_dtype=compute_dtype)
        self._graph, params = nnx.split(module)
        self._mesh = make_mesh(MeshConfig())
        self._params = jax.device_put(params, replicated(self._mesh))
        self._config = _encoder(module).config
        self._data = DataConfig(image_size=seen.image_size, mean=seen.mean, std=seen.std, eval_crop=seen.crop, augment='none')
        self._task = _task(meaning, config=self._config, names=names) if weights.outputs else None
        self._programs: dict[Any, Callable[..., jax.Array]] = {}
        self.kind = kind  # encoder, mae, or what the head says: single, multi, ordinal, regress
        self.labels = names if kind == 'multi' else meaning.labels  # columns the head was trained on; empty where the weights do not say
        self.classes = names if kind in ('single', 'ordinal') else ()  # in the order of the scores
        self.score_names = names  # what each column of `predict` is the score of
        self.names_known = names_known  # False: the weights do not say what their outputs mean, and the names are class_0, class_1, ...
        self.origin = dict(weights.origin)  # where the weights come from
        self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
        self.crop, self.size = crop, size  # how files are read: see `api.images.read_pictures`

    @property
    def config(self) -> ViTConfig:
        """The shape of the encoder."""
        return self._config

    @property
    def image_size(self) -> int:
        """Side of the square the network sees [px]."""
        return self._data.image_size

    @property
    def mean(self) -> tuple[float, float, float]:
        """Subtracted from each channel on a scale of 0 to 1."""
        return self._data.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Each channel is divided by it."""
        return self._data.std

    @property
    def central_share(self) -> float:
        """Share of the shorter side that the central cut keeps."""
        return self._data.central_share

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all parameters, by name: equal for equal weights, whatever file they came from."""
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(self._params))[0]:
            value = np.asarray(leaf)
            digest.update(f'{jax.tree_util.keystr(path)} {value.dtype} {value.shape}\n'.encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def predict(self, images: Any) -> np.ndarray:
        """Probabilities [N, Y] float32, columns as in `score_names`; of a regression [N, 1] in the label's own unit.

        Raises:
          UsageError: the weights have no head, or `images` are no images.
          UserError: a file cannot be read.
        """
        self.check_head()
        return self._over(as_images(images), self.scores)

    def embed(self, images: Any) -> np.ndarray:
        """Embeddings [N, D] float32, pooled as `config.pool` says; of a classifier those its head sees.

        Raises: as `predict`, but for the head.
        """
        return self._over(as_images(images), self.vectors)

    def attention(self, images: Any, *, layer: int = -1) -> np.ndarray:
        """Attention [N, A, G, G] float32 of the cls token to each patch in one block; what goes to cls and registers is left out.

        Raises: as `embed`, and UsageError where there is no such layer.
        """
        if not isinstance(layer, int) or not -self.config.depth <= layer < self.config.depth:
            raise UsageError(f'there is no layer {layer}; choose one from {-self.config.depth} to {self.config.depth - 1}')
        layer %= self.config.depth
        return self._over(as_images(images), functools.partial(self._run, what=('attention', layer), apply=self._look(layer)))

    def check_head(self) -> None:
        """Raises UsageError where there is nothing to predict."""
        if self._task is None:
            told = 'a masked autoencoder' if self.kind == 'mae' else 'an encoder'
            raise UsageError(f'the weights are those of {told} and have no head: fine-tune them with `retfound train`, or use embed')

    def square(self, data: bytes | np.ndarray) -> np.ndarray:
        """An encoded or decoded picture as evaluation sees it: uint8 [S, S, 3].

        Raises:
          DecodeFailure: it cannot be decoded.
        """
        return eval_image(data, size=self.image_size, share=self.central_share)

    def scores(self, squares_BSSC: np.ndarray) -> np.ndarray:
        """`predict` for squares, B at most `batch_size`."""
        self.check_head()
        return self._run(squares_BSSC, what='scores', apply=lambda module, image: self._task.predict(module, {'image': image})['score'])

    def vectors(self, squares_BSSC: np.ndarray) -> np.ndarray:
        """`embed` for squares, B at most `batch_size`."""
        return self._run(squares_BSSC, what='vectors', apply=lambda module, image: _encoder(module).embed(image))

    def _look(self, layer: int) -> Callable[[nnx.Module, jax.Array], jax.Array]:
        prefix, grid = self.config.prefix, self.config.grid

        def apply(module: nnx.Module, image_BSSC: jax.Array) -> jax.Array:
            weights_BATT = _encoder(module).attention(image_BSSC, layer=layer)
            return weights_BATT[:, :, 0, prefix:].reshape(*weights_BATT.shape[:2], grid, grid)

        return apply

    def _over(self, images: list[Image], run: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Image after image made square by threads, batch after batch through the model."""
        tasks = (functools.partial(self._prepared, image, place) for place, image in enumerate(images))
        squares = in_order(tasks, ahead=self.batch_size)
        return np.concatenate([run(np.stack(batch)) for batch in batched(squares, self.batch_size)])

    def _prepared(self, image: Image, place: int) -> np.ndarray:
        data = image if isinstance(image, np.ndarray) else read_one(image, place=place, crop=self.crop, size=self.size)
        try:
            return self.square(data)
        except DecodeFailure as error:
            raise UserError(f'images[{place}] cannot be decoded ({error}); leave it out or give another file') from error

    def _run(self, squares_BSSC: np.ndarray, *, what: Any, apply: Callable[[nnx.Module, jax.Array], jax.Array]) -> np.ndarray:
        """One batch through the program `what`, compiled at its first use for each padded size."""
        if what not in self._programs:

            def program(params: nnx.State, image_BSSC: jax.Array) -> jax.Array:
                return apply(nnx.merge(self._graph, params), prepare(image_BSSC, key=None, config=self._data))

            self._programs[what] = jax.jit(program, out_shardings=replicated(self._mesh))
        count = len(squares_BSSC)
        padded = np.zeros((self._padded(count), *squares_BSSC.shape[1:]), np.uint8)
        padded[:count] = squares_BSSC
        out = np.asarray(self._programs[what](self._params, jax.device_put(padded, batch_sharding(self._mesh))), np.float32)[:count]
        if not np.isfinite(out).all():
            raise UserError('the model gives numbers that are not finite: its training diverged or the file is damaged; load other weights')
        return out

    def _padded(self, count: int) -> int:
        """The next power of two, in whole rounds over the devices, and at most a batch."""
        power = 1 << (count - 1).bit_length()
        return min(self.batch_size, -(-power // self._mesh.size) * self._mesh.size)

    def __repr__(self) -> str:
        config, more = self.config, len(self.score_names) - _SHOWN
        names = ', '.join(self.score_names[:_SHOWN]) + (f' and {more} more' if more > 0 else '')
        network = f'ViT {config.width} wide, {config.depth} blocks, patches of {config.patch_size} px, pool {config.pool}'
        return f'Model({self.kind}{f": {names}" if names else ""}; {self.image_size} px; {network})'


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items, the last one shorter."""
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def _task(meaning: Meaning, *, config: ViTConfig, names: tuple[str, ...]) -> SupervisedTask:
    """The task whose `predict` turns a head's outputs into scores."""
    if meaning.kind == 'regress':
        return RegressTask(model=config, labels=names, target_mean=meaning.target_mean, target_std=meaning.target_std)
    if meaning.kind == 'multi':
        return ClassifyTask(model=config, labels=names, mode='multi')
    return ClassifyTask(model=config, labels=meaning.labels or ('class',), mode=meaning.kind, classes=names)


def _encoder(module: nnx.Module) -> ViT:
    return module if isinstance(module, ViT) else module.encoder
