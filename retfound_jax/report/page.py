"""The way in: run directories to one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retfound_jax.core.files import atomic_write
from retfound_jax.report import group_details, html, mistakes, people, provenance, results, subgroups, summary, training, uncertainty
from retfound_jax.report.collect import Collected, collect
from retfound_jax.report.mistakes import Thumbnail
from retfound_jax.report.remedies import read_remedies

NAME = 'report.html'


def build(
    workdir: Path | str,
    *,
    pretrain: Path | str | None = None,
    dataset: Path | str | None = None,
    thumbnail: Thumbnail | None = None,
    command: str = '',
    notice: str = '',
    show_keys: bool = False,
    photographs: bool = True,
    studies: Sequence[Path | str] = (),
) -> str:
    """The page of a run directory as text; what is absent is said in words.

    Args:
      workdir: a run directory, of a task or of pretraining.
      pretrain: the run directory of the pretraining the task started from.
      dataset: the dataset directory, for who is in the data.
      thumbnail: from a record key to a small JPEG, or None where there is none.
      command: what was typed, printed at the end.
      notice: a sentence above everything else, such as that the photographs are drawn.
      show_keys: whether record keys may appear; reports get shared, so they do not unless asked for.
      photographs: whether any photograph may appear.
      studies: study directories whose curves by group belong to this model.

    Raises:
      UserError: a file is damaged.
      UsageError: a directory is not what it was given as.
    """
    found = collect(Path(workdir), pretrain=Path(pretrain) if pretrain else None, dataset=Path(dataset) if dataset else None)
    sections = (
        summary.section(found, notice=notice),
        people.section(found.manifest, wanted=found.tables.labels if found.tables else (), dataset=dataset),
        results.section(found),
        subgroups.section(
            found.tables,
            others=found.other_splits,
            remedies=read_remedies(Path(workdir) / 'tables' / f'mitigation_{found.tables.name}.json') if found.tables else None,
            studies=tuple(map(Path, studies)),
        ),
        uncertainty.section(found),
        mistakes.section(found, thumbnail=thumbnail if photographs else None, show_keys=show_keys),
        training.curves_section(found),
        training.redrawn_section(found.pretrain, photographs=photographs),
        group_details.section(found.tables),
        provenance.section(found, command=command),
        provenance.glossary(found),
    )
    return html.render(summary.title(found), subtitle=_subtitle(found), sections=sections)


def write(workdir: Path | str, *, out: Path | str | None = None, **options: object) -> Path:
    """Builds the page and writes it to `out` (default `WORKDIR/report.html`), whole or not at all; `options` are those of `build`."""
    path = Path(out) if out else Path(workdir) / NAME
    atomic_write(path, build(workdir, **options))
    return path


def _subtitle(found: Collected) -> str:
    run = found.run or found.pretrain
    parts = [str(run.config['name'])] if run and run.config.get('name') else []
    if found.manifest and found.manifest.get('name'):
        parts.append(f'dataset {found.manifest["name"]}')
    if found.tables:
        parts.append(f'judged on split {found.tables.split}')
    return ' · '.join(parts)
