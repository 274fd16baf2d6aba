"""Where the datasets of a study are: found, built where they lie as they were published, and refused where they leak."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from retfound_jax.core.errors import UserError
from retfound_jax.data.config import DataConfig
from retfound_jax.data.sources import open_source
from retfound_jax.ingest import manifest
from retfound_jax.registry import build, catalogue
from retfound_jax.studies import guard
from retfound_jax.studies.grid import Study, StudyData

BUILT = 'datasets'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Directories and fingerprints by dataset."""

    paths: Mapping[str, str]
    fingerprints: Mapping[str, str]


def find(study: Study, *, root: Path, data: Path) -> Places:
    """Every dataset of a study, whole and without leaks.

    A folder DATA/NAME with a manifest is one of our datasets; any other is read as the registry says and built into ROOT/datasets/NAME.

    Raises:
      UserError: one is missing or leaks: a patient, a group or a photograph on two sides, or, in an external evaluation, in two datasets.
    """
    configs = {one.name: _config(one, root=root, data=data) for one in study.data}
    for config in configs.values():
        guard.check_splits(config)
    if study.external:
        for name in study.train_on or tuple(configs):
            for other in configs:
                if other != name and not (configs[name].phantom and configs[other].phantom):
                    guard.check_external(configs[name], configs[other])
    for one in study.data:  # a label that it has not is told before the first cell
        open_source(dataclasses.replace(configs[one.name], labels=one.labels))
    return Places(
        paths={name: config.path for name, config in configs.items()},
        fingerprints={name: open_source(config).fingerprint for name, config in configs.items()},
    )


def _config(one: StudyData, *, root: Path, data: Path) -> DataConfig:
    if one.phantom:
        return DataConfig(phantom=one.phantom)
    folder = data / one.name
    if (folder / manifest.FILE).is_file():
        return DataConfig(path=str(folder))
    built = root / BUILT / one.name
    if not (built / manifest.FILE).is_file():
        if one.name not in catalogue.datasets():
            raise UserError(f'there is no dataset {folder}; make it with `retfound ingest --out {folder}`')
        if not folder.is_dir():
            raise UserError(f'there is no folder {folder}; `retfound datasets --name {one.name}` says how to get the images')
        build.build(one.name, source=folder, out=built)
    return DataConfig(path=str(built))
