"""The walk that `predict` and `embed` share: photographs through a model to a file of results."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from retfound_jax import __version__
from retfound_jax.api.images import in_order
from retfound_jax.api.loading import load
from retfound_jax.api.model import Model, batched
from retfound_jax.cli._photographs import Row, open_source
from retfound_jax.cli._results import check_out, make_writer, rejects_path, write_rejects
from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.mirror import opened
from retfound_jax.core.progress import bar
from retfound_jax.core.storage import is_remote

_SHOWN = 5  # reasons that are printed


class Work:
    """One call, checked before it begins: where the photographs are, what looks at them, where the results go."""

    def __init__(self, values: flags.FlagValues) -> None:
        self.out = Path(values.out).expanduser()
        path = Path(values.source).expanduser()
        self.keep = [name.strip() for name in values.keep if name.strip()]
        if len(set(self.keep)) < len(self.keep):
            raise UsageError(f'--keep {",".join(self.keep)} names a column twice; name each once')
        check_out(self.out, overwrite=values.overwrite, source=path)
        self.source = open_source(
            path, image_column=values.image_column, keep=self.keep, split=values.split, crop=values.crop
        )
        with opened(values.weights) as weights:
            self.model = self._load(values, weights)

    @staticmethod
    def _load(values: flags.FlagValues, weights: Path) -> Model:
        made = load(
            weights if is_remote(values.weights) else values.weights,
            image_size=values.image_size,
            pool=values.pool,
            norm_twice=values.norm_twice,
            classes=[name.strip() for name in values.classes],
            checkpoint=values.checkpoint,
            batch_size=values.batch_size,
            crop=values.crop,
            size=values.size or None,
        )
        if is_remote(values.weights):
            made.origin['run'] = values.weights
        return made

    def check_columns(self, own: Sequence[str]) -> None:
        """Raises UsageError where a column to keep has the name of one that is written anyway."""
        written = {*own, 'key', *self.source.columns[: len(self.source.columns) - len(self.keep)]}
        for name in self.keep:
            if name in written:
                raise UsageError(f'--keep "{name}" has the name of a column that is written anyway; leave it out, or rename it')

    def header(self, **more: Any) -> dict[str, Any]:
        """What a reader of the results must know to use or repeat them."""
        model = self.model
        reading = {} if self.source.kind == 'dataset' else {'field_of_view': model.crop, 'shorter_side': model.size}
        return {
            'origin': {name: str(value) if isinstance(value, Path) else value for name, value in model.origin.items()},
            'parameters_sha256': model.fingerprint,
            'kind': model.kind,
            'labels': list(model.labels),
            'classes': list(model.classes),
            'image_size': model.image_size,
            'preprocessing': {'mean': list(model.mean), 'std': list(model.std), 'central_share': model.central_share, **reading},
            'source': {'kind': self.source.kind, **self.source.about},
            'version': __version__,
            **more,
        }

    def run(
        self, *, desc: str, metadata: dict[str, Any], columns: Callable[[list[str], dict[str, list[str]], np.ndarray], dict[str, Any]],
        apply: Callable[[np.ndarray], np.ndarray],
    ) -> int:
        """Reads, computes and writes; returns how many rows were written.

        Args:
          columns: keys, what the source knows (by column), and what `apply` gave, to the columns of the result.

        Raises:
          UserError: none of the photographs could be read.
        """
        writer, count = make_writer(self.out, metadata=metadata), 0
        rejects = [(reject.key, reject.reason) for reject in self.source.refused]
        with bar(self.source.total, desc=desc, unit='photographs') as progress:
            for rows in batched(self._rows(progress, rejects), self.model.batch_size):
                known = {name: [row.known[place] for row in rows] for place, name in enumerate(self.source.columns)}
                values = apply(np.stack([row.square for row in rows]))
                writer.append(columns([row.key for row in rows], known, values))
                count += len(rows)
        write_rejects(self.out, rejects)
        self._tell(rejects, count)
        writer.write(self.out)
        return count

    def _rows(self, progress: Any, rejects: list[tuple[str, str]]) -> Iterator[Any]:
        """Rows as they come; what could not be read goes to `rejects`."""
        for part in in_order(self.source.tasks(self.model), ahead=self.model.batch_size):
            for item in part.items:
                if isinstance(item, Row):
                    yield item
                else:
                    rejects.append((item.key, item.reason))
            progress.update(part.count)

    def _tell(self, rejects: list[tuple[str, str]], count: int) -> None:
        """How many could not be read, and why; which ones is in the list alone, as a file's name may be a person's."""
        if not rejects:
            return
        counted = Counter(reason for _, reason in rejects).most_common()
        reasons = '; '.join(f'{number} {reason}' for reason, number in counted[:_SHOWN]) + ('; ...' if len(counted) > _SHOWN else '')
        place = rejects_path(self.out)
        if not count:
            raise UserError(f'none of the {len(rejects)} photographs could be read ({reasons}); {place} lists them')
        found = self.source.total + len(self.source.refused)
        print(f'{len(rejects)} of {found} photographs could not be read and have no row ({reasons}): {place}', file=sys.stderr)
