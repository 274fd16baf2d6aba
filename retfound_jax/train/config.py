"""The configuration of one training run; an experiment is a function that returns one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.core.mesh import MeshConfig, ShardingRules
from retfound_jax.data.balance import row_shares
from retfound_jax.data.config import DataConfig
from retfound_jax.data.pairs import epoch_rows
from retfound_jax.data.sources import Source
from retfound_jax.optim import OptimConfig
from retfound_jax.tasks.base import GroupColumn, TargetColumn, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keep:
    """Which checkpoints stay."""

    last: int = 1  # newest ones
    best: int = 1  # by the validation metric
    every: int = 0  # [steps]; those whose step is a multiple of it stay for good; 0: none

    def __post_init__(self) -> None:
        """Raises UsageError where nothing would be left to go on from."""
        if self.last < 1 or self.best < 0 or self.every < 0:
            given = f'keep.last={self.last} keep.best={self.best} keep.every={self.every}'
            raise UsageError(f'{given}: last is at least 1, the others 0 or more')


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultConfig:
    """What a run does when a number or a machine is wrong."""

    on_bad_numbers: Literal['stop', 'skip', 'rewind'] = 'stop'  # where the loss or a gradient is not finite, or the loss is a spike
    most_skipped: int = 10  # [steps] of the last 128 that `skip` may leave out before the run stops
    most_rewinds: int = 3  # times that `rewind` may go back before the run stops
    spike_factor: float = 0.0  # deviations of loss or gradient norm above the recent ones that make a spike; 0: never, MaxText has 6
    repeat_every: int = 0  # [steps]; such a step is computed twice and compared bit by bit (silent data corruption); 0: never
    compare_replicas_every: int = 0  # [steps], best one that divides checkpoint_every; copies on several devices are compared; 0: never

    def __post_init__(self) -> None:
        """Raises UsageError for a number that means nothing."""
        counts = {name: getattr(self, name) for name in ('most_skipped', 'most_rewinds', 'repeat_every', 'compare_replicas_every')}
        for name, value in counts.items():
            if value < 0:
                raise UsageError(f'faults.{name} is {value} and must be 0 or more')
        if self.spike_factor < 0:
            raise UsageError(f'faults.spike_factor is {self.spike_factor} and must be 0 (never) or more')


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """How long a process may go without a sign of life before it ends itself, so that a launcher can start again; 0: for ever."""

    start: float = 3600.0  # [s] for start-up, for reading a checkpoint, for compiling
    step: float = 1800.0  # [s] for one step, one validation batch or one save

    def __post_init__(self) -> None:
        """Raises UsageError for a negative limit."""
        if min(self.start, self.step) < 0:
            raise UsageError(f'watchdog.start={self.start} watchdog.step={self.step}: limits are seconds, 0 for none')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything a run depends on. `resolve` settles what only the data know, and that is what `config.json` keeps."""

    name: str  # of the experiment, shown in logs and reports
    task: Task
    data: DataConfig
    optim: OptimConfig
    steps: int = 0  # optimiser steps; 0: from `epochs`
    epochs: float = 0.0  # passes over the training rows, where `steps` is 0
    warmup_epochs: float = 0.0  # where `optim.warmup_steps` is 0
    seed: int = 0  # of initialisation, data order, masks and drop path
    init_from: str = ''  # run directory, or weights of another origin (file, directory, hf:owner/name), whose encoder this run starts from
    mesh: MeshConfig = MeshConfig()
    rules: ShardingRules = ShardingRules()
    log_every: int = 10  # [steps]
    checkpoint_every: int = 1000  # [steps]; the last step is always kept
    keep: Keep = Keep()
    faults: FaultConfig = FaultConfig()
    watchdog: WatchdogConfig = WatchdogConfig()
    eval_split: str = 'val'
    eval_every: int = 0  # [steps]; 0: only at the end; -1: never
    best_by: str = ''  # validation metric that decides the best checkpoint; '': AUROC, MAE or the loss, as the task has it


# What a resumed run may change: where and when, and what happens when something is wrong; never what is computed while all is well.
RESUMABLE_CHANGES = ('mesh', 'log_every', 'checkpoint_every', 'keep', 'faults', 'watchdog', 'data.workers', 'data.most_bad')


def align(config: TrainConfig) -> TrainConfig:
    """Gives the data the labels of the task, and checks that both mean the same images.

    Raises:
      UsageError: task and data disagree, or the seed is out of range.
    """
    if not 0 <= config.seed < 2**32:
        raise UsageError(f'seed is {config.seed} and must be a whole number from 0 to {2**32 - 1}')
    if config.task.image_size != config.data.image_size:
        sizes = f'{config.task.image_size} px and data.image_size is {config.data.image_size} px'
        raise UsageError(f'the task takes images of {sizes}; set both alike')
    if config.optim.gradient_dtype != 'float32' and config.task.compute_dtype != config.optim.gradient_dtype:
        made = f'the task computes in {config.task.compute_dtype}'
        raise UsageError(f'optim.gradient_dtype is {config.optim.gradient_dtype} and {made}; set its compute_dtype alike, or float32 here')
    if config.task.views != (config.data.views is not None):
        takes = 'views of each image and data.views is null' if config.task.views else 'single images and data.views is set'
        raise UsageError(f'the task takes {takes}; set data.views where the task compares views, and nowhere else')
    if config.task.whole_batch and config.optim.accumulate > 1:
        told = 'each image is compared with all others of its batch'
        raise UsageError(f'optim.accumulate is {config.optim.accumulate} and {told}; set it to 1, and more devices for a larger batch')
    if config.task.pairs != config.data.pairs:
        told = f'pairs of visits by "{config.task.pairs}"' if config.task.pairs else 'no pairs of visits'
        raise UsageError(f'the task takes {told} and data.pairs is "{config.data.pairs}"; set both alike')
    if config.data.pairs and config.data.batch_size % (2 * config.optim.accumulate):
        told = f'data.batch_size is {config.data.batch_size} and optim.accumulate {config.optim.accumulate}'
        raise UsageError(f'{told}, and pairs of rows stay together; set batch_size to a multiple of {2 * config.optim.accumulate}')
    if config.task.grouped and not config.data.groups:
        raise UsageError("task.robust weighs groups of people and data.groups is ''; name the column, such as sex, or several, as sex+site")
    if config.best_by.startswith('worst_group_') and not config.data.groups:
        raise UsageError(f"best_by is '{config.best_by}' and data.groups is ''; name the column of the groups, such as sex")
    if config.data.labels not in ((), config.task.labels):
        raise UsageError(f'data.labels is {list(config.data.labels)} and task.labels is {list(config.task.labels)}; set task.labels alone')
    return dataclasses.replace(config, data=dataclasses.replace(config.data, labels=config.task.labels))


def resolve(config: TrainConfig, *, source: Source) -> TrainConfig:
    """Settles steps, warm-up, class names, target scale and the names and weights of groups from the training rows.

    Raises:
      UserError: there is nothing to train on or for.
    """
    if len(source) == 0:
        raise UserError(f'the split "{config.data.split}" has no image{_with_label(config)}; ingest more or choose another label')
    per_epoch = epoch_rows(config.data, source) / config.data.batch_size
    steps = config.steps or math.ceil(config.epochs * per_epoch)
    if steps < 1:
        raise UsageError('the run has no step; set steps or epochs')
    warmup = config.optim.warmup_steps or round(config.warmup_epochs * per_epoch)
    columns = {name: target_column(source, name) for name in config.task.labels}
    return _settled(config, steps=steps, warmup=warmup, columns=columns, groups=group_column(config.data, source))


def assume(config: TrainConfig, *, rows: int = 1_000_000, classes: int = 5) -> TrainConfig:
    """`align` and `resolve` where there are no data to ask, for benchmarks and plans.

    Args:
      rows: [images] the training split is taken to have.
      classes: of a label whose classes the task does not name.

    Raises:
      UsageError: task and data disagree.
    """
    config = align(config)
    names = config.task.class_names or tuple(map(str, range(classes)))
    kinds = {'single': names, 'ordinal': names, 'multi': ('no', 'yes')}
    per_epoch = rows / config.data.batch_size
    steps = config.steps or max(1, math.ceil(config.epochs * per_epoch))
    warmup = config.optim.warmup_steps or round(config.warmup_epochs * per_epoch)
    groups = config.task.group_names or ('0', '1')
    values = np.arange(float(max(2, len(groups))))  # a row each
    column = TargetColumn(values=values % 2, classes=kinds.get(config.task.kind))
    drawn = GroupColumn(names=groups, index=np.arange(len(groups)), shares=np.full(len(groups), 1 / len(groups)))
    given = {'columns': dict.fromkeys(config.task.labels, column), 'groups': drawn if config.data.groups else None}
    return _settled(config, steps=steps, warmup=warmup, **given)


def _settled(
    config: TrainConfig, *, steps: int, warmup: int, columns: Mapping[str, TargetColumn], groups: GroupColumn | None
) -> TrainConfig:
    task = config.task.resolve(columns)
    return dataclasses.replace(
        config,
        steps=steps,
        epochs=0.0,
        warmup_epochs=0.0,
        optim=dataclasses.replace(config.optim, warmup_steps=min(warmup, steps)),
        task=task.resolve_groups(groups, columns) if groups else task,
    )


def target_column(source: Source, name: str) -> TargetColumn:
    """One label column of a source as the task sees it."""
    classes = source.label_classes.get(name)
    return TargetColumn(values=source.labels[:, source.label_names.index(name)], classes=None if classes is None else tuple(classes))


def group_column(data: DataConfig, source: Source) -> GroupColumn | None:
    """The groups of `data.groups` in the training rows, and how often each row is drawn; None where there are none.

    Raises:
      UsageError: a column to group or balance by is unknown.
    """
    if not data.groups:
        return None
    groups = source.strata(data.groups, field='data.groups')
    balanced = source.strata(data.balance.by, field='data.balance.by') if data.balance else None
    shares = row_shares(data.balance, strata=balanced, rows=len(source))
    return GroupColumn(names=groups.names, index=groups.index, shares=shares)


def _with_label(config: TrainConfig) -> str:
    return f' with a value in {" or ".join(config.data.labels)}' if config.data.labels else ''
