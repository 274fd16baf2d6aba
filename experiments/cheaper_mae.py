"""Cheaper ways to pretrain a masked autoencoder: what each saves, and what it does to the linear probe, in one table.

All see the same number of samples. The baseline is MAE's recipe in small: 96 px, 16-px patches, 75 % masked, an encoder of 6 blocks of
width 192, a decoder of 4 blocks of the same width. Each recipe changes one thing:

- `mask_85`: 85 % masked, as RETFound's OCT model;
- `decoder_1`: a decoder of one block (He et al., arXiv 2111.06377, table 1a: a linear probe wants a deep one);
- `progressive`: 64 px for the first three quarters of the steps, 96 px to the end;
- `repeat_2`: two samples of each decoded photograph, with flips and masks of their own: half the decoding, half the photographs seen;
- `all_together`: the four at once.

    python -m experiments.cheaper_mae --source ODIR5K --workdir RUN        # ODIR5K holds images/ and labels.csv

For ViT-L at 224 px the same changes are `--set task.model.mask_ratio=0.85`, `task.model.decoder_depth=1`, `data.repeat=2` and
`data.resolution=[[0,160],[N,224]]` on `experiments.pretrain_mae:vit_l16`; not yet measured.

Speed is that of whole steps on synthetic images, recipe and baseline by turns, weighted by the steps at each resolution, and the decoding
that a sample needs is in it as measured in the same run. The probe is that of experiments.odir5k on the same held-out patients, with the
paired patient bootstrap of its difference from the baseline. One seed. Split, probe and tasks are that study's, fixed before.

Run again, it goes on where it stopped; the table is RUN/tables/cheaper_mae.json. Measured 2026-11-25 on two shared CPU cores (AMD EPYC, jax
0.10.2, commits 5838d0f and f37994e), without `repeat_2` and `all_together`; samples/s over the baseline's 287, AUROC:

    recipe       samples/s  cataract  myopia  diabetes  sex
    baseline     1.00       .860      .945    .638      .542
    mask_85      1.12       .853      .916    .623      .540   (every interval of the difference holds 0)
    decoder_1    1.89       .867      .897    .618      .545   (worse on myopia, -.095 to -.008, and diabetes, -.039 to -.000)
    progressive  1.64       .889      .929    .637      .554   (every interval holds 0)
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from experiments import odir5k, pretrain_mae
from retfound_jax.core.files import write_json
from retfound_jax.data.loader import Loader
from retfound_jax.data.sources import open_source
from retfound_jax.evals.compare import paired_difference
from retfound_jax.evals.predictions import write_predictions
from retfound_jax.speed import measure
from retfound_jax.train.config import TrainConfig, align, assume
from retfound_jax.train.loop import train
from retfound_jax.train.program import make_program

STEPS = 500
_TURNS = 7
_DECODED = 20  # batches


def baseline() -> TrainConfig:
    """MAE's recipe in small; 64,000 samples."""
    config = pretrain_mae.small_cpu(image_size=odir5k.IMAGE_SIZE)
    model = dataclasses.replace(config.task.model, decoder_width=192, decoder_depth=4, decoder_heads=6)
    task = dataclasses.replace(config.task, model=model)
    return dataclasses.replace(config, name='cheaper_mae_baseline', task=task, steps=STEPS, epochs=0.0, warmup_epochs=2.0)


def mask_85() -> TrainConfig:
    """85 % masked. Measured: 1.12 times the samples/s; no difference of the probe that can be told at this size."""
    return _named('mask_85', _model(baseline(), mask_ratio=0.85))


def decoder_1() -> TrainConfig:
    """A decoder of one block. Measured: 1.89 times the samples/s; the probe is worse on myopia and diabetes."""
    return _named('decoder_1', _model(baseline(), decoder_depth=1))


def progressive() -> TrainConfig:
    """64, then 96 px. Measured: 1.64 times the samples/s; no difference of the probe that can be told at this size."""
    return _named('progressive', _data(baseline(), resolution=((0, 64), (3 * STEPS // 4, odir5k.IMAGE_SIZE))))


def repeat_2() -> TrainConfig:
    """Two samples of each decoded photograph. Not yet measured."""
    return _named('repeat_2', _data(baseline(), repeat=2))


def all_together() -> TrainConfig:
    """The four at once. Not yet measured."""
    data = progressive().data
    return _named('all_together', _model(_data(baseline(), resolution=data.resolution, repeat=2), mask_ratio=0.85, decoder_depth=1))


RECIPES: tuple[Callable[[], TrainConfig], ...] = (baseline, mask_85, decoder_1, progressive, repeat_2, all_together)


def _named(name: str, config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, name=f'cheaper_mae_{name}')


def _model(config: TrainConfig, **changes: Any) -> TrainConfig:
    model = dataclasses.replace(config.task.model, **changes)
    return dataclasses.replace(config, task=dataclasses.replace(config.task, model=model))


def _data(config: TrainConfig, **changes: Any) -> TrainConfig:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))


def stages(config: TrainConfig) -> list[tuple[float, TrainConfig]]:
    """Share of the steps, and the recipe at the one resolution they have."""
    starts = [start for start, _ in config.data.resolution] or [0]
    shares = [(end - start) / config.steps for start, end in itertools.pairwise([*starts, config.steps])]
    fixed = [_data(config, resolution=(), image_size=size) for size in config.data.sizes]
    return list(zip(shares, [_at(stage, stage.data.image_size) for stage in fixed], strict=True))


def _at(config: TrainConfig, size: int) -> TrainConfig:
    return _model(config, encoder=dataclasses.replace(config.task.model.encoder, image_size=size))


def samples_per_second(configs: Sequence[TrainConfig]) -> list[float]:
    """[samples/s] of each recipe, its decoding included: steps by turns, then decoding by turns, times added up."""
    steps = {(i, j): _step(stage) for i, config in enumerate(configs) for j, (_, stage) in enumerate(stages(config))}
    taken = measure.alternate(_TURNS, {str(key): one for key, one in steps.items()})
    decoding = measure.alternate(3, {str(i): _decoding(config) for i, config in enumerate(configs)})
    found = []
    for i, config in enumerate(configs):
        step = sum(share * statistics.median(taken[str((i, j))]) for j, (share, _) in enumerate(stages(config)))
        found.append(config.data.batch_size / (step + statistics.median(decoding[str(i)])))
    return found


def _step(config: TrainConfig) -> Callable[[], float]:
    program = make_program(assume(config))
    held = [program.init_state()]
    batch = jax.device_put(program.random_batch())

    def one() -> float:
        start = time.perf_counter()
        held[0], metrics = program.step(held[0], batch)
        jax.block_until_ready(metrics)
        return time.perf_counter() - start

    one()
    return one


def _decoding(config: TrainConfig) -> Callable[[], float]:
    """[s] of all cores that the photographs of one step take to decode, all resolutions of the recipe in their shares."""
    source = open_source(config.data)

    def one() -> float:
        total = 0.0
        for share, stage in stages(config):
            loader = Loader(stage.data, source, seed=0)
            next(loader)
            start = time.perf_counter()
            for _ in range(_DECODED):
                next(loader)
            total += share * (time.perf_counter() - start) / _DECODED
            loader.close()
        return total

    return one


def run(*, source: Path, root: Path) -> list[dict[str, Any]]:
    """The whole study; returns the table's rows."""
    study = odir5k.Study(source=source, root=root, seeds=(0,))
    study.ingest()
    configs = [align(_data(recipe(), path=str(study.dataset))) for recipe in RECIPES]
    for config in configs:
        out = study.predictions(config.name, 'probe', 0)
        if not out.exists():
            train(config, workdir=root / config.name, resume=True)
            write_predictions(odir5k.probe(study.configured(odir5k.findings()), encoder=root / config.name), path=out)
    rates = samples_per_second(configs)
    rows = [_row(config, study, rate / rates[0], rate) for config, rate in zip(configs, rates, strict=True)]
    write_json(root / 'tables' / 'cheaper_mae.json', rows)
    return rows


def _row(config: TrainConfig, study: odir5k.Study, speed_up: float, rate: float) -> dict[str, Any]:
    row: dict[str, Any] = {'recipe': config.name.removeprefix('cheaper_mae_'), 'speed_up': speed_up, 'samples_per_second': rate}
    ours, base = (study.predictions(name, 'probe', 0) for name in (config.name, baseline().name))
    for target in odir5k.FINDINGS:
        metric, level = odir5k.TASKS[target]
        found = paired_difference([ours], b=[base], target=target, metric=metric, level=level)
        row[target] = {'AUROC': found.a, 'difference': found.a - found.b, 'low': found.interval.low, 'high': found.interval.high}
    return row


def main(arguments: Sequence[str]) -> None:
    """Runs the study and prints its table as Markdown."""
    del arguments
    given = flags.FLAGS
    print(f'devices: {jax.devices()}')
    print(f'| recipe | samples/s, ratio | {" | ".join(odir5k.FINDINGS)} |\n|---|---|{"---|" * len(odir5k.FINDINGS)}')
    for row in run(source=Path(given.source), root=Path(given.workdir)):
        found = [row[target] for target in odir5k.FINDINGS]
        cells = [f'{cell["AUROC"]:.3f}, {cell["difference"]:+.3f} ({cell["low"]:+.3f} to {cell["high"]:+.3f})' for cell in found]
        print(f'| {row["recipe"]} | {row["samples_per_second"]:.0f}, {row["speed_up"]:.2f} | {" | ".join(cells)} |')


if __name__ == '__main__':
    flags.DEFINE_string('source', None, 'folder with images/ and labels.csv', required=True)
    flags.DEFINE_string('workdir', None, 'directory for everything that is made', required=True)
    app.run(main)
