"""A study: a grid of cells, each a unit of work that is done once.

A study is data: which datasets, from which weights, adapted how, with how many labels, which seeds. An experiment is a function that
returns one (`experiments/tables/`); `studies.run` makes its cells, and `studies.making` its table.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Literal

from retfound_jax.core.errors import UsageError, nearest
from retfound_jax.data.compose import ComposeConfig
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.studies.labels import LabelMap
from retfound_jax.studies.rows import Judged
from retfound_jax.train.config import TrainConfig

Adaptation = Literal['finetune', 'probe', 'knn', 'green_probe']
ADAPTATIONS = ('finetune', 'probe', 'knn', 'green_probe')


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyData:
    """A dataset as a study uses it."""

    name: str  # of the registry, or the study's own; its folder below the data folder
    labels: tuple[str, ...]  # what is learned: one label, or for `multi` several
    kind: Literal['single', 'multi'] = 'single'
    common: LabelMap | None = None  # to the classes that all datasets of an external evaluation share; None: the dataset's own
    stratify: str = ''  # label by which shares of the labels are drawn; '' the first of `labels`
    min_age: float = 0.0  # [years] below it an age is a placeholder
    phantom: PhantomConfig | None = None  # drawn instead of read
    # What is adapted on, the same photographs for every method; a share of the labels is a share of its images. None: all there are.
    compose: ComposeConfig | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Weights that a study makes itself: once for each seed, before the first cell that starts from them."""

    recipe: TrainConfig  # place of the data and seed are those of the study; `recipe.data.compose` says who is in it
    on: str  # name of one of the study's `data`


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupQuestion:
    """What a study asks of groups of people."""

    by: str  # column of the predictions: sex, site, age_band, or several joined with '+'
    group: str = ''  # the value whose share in the pretraining varies; '' none does
    # Values that are one group, as (name, values), such as ('under 60', ('<40', '40-49', '50-59')); () each value is one.
    merged: tuple[tuple[str, tuple[str, ...]], ...] = ()
    plain: str = ''  # the method that other means against gaps are set against; '' the methods are no such means

    def values(self, group: str) -> tuple[str, ...]:
        """Of a group."""
        return dict(self.merged).get(group, (group,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """Where an encoder starts, and how it is adapted where that is not as in all of the study."""

    name: str  # in tables
    weights: str = ''  # run directory, file, or hf:owner/name; '' random; '?' must be given by whoever runs the study
    checkpoint: str = ''  # what the registry calls these weights; '' they are our own, or random
    pretrained_on: tuple[str, ...] = ()  # of our own: datasets, or NAME:train where the test images were left out
    only: tuple[str, ...] = ()  # datasets it is trained on, where it is not for all, such as weights for OCT; () all
    pretraining: Pretraining | None = None  # made by the study, in place of `weights`
    recipe: TrainConfig | None = None  # of fine-tuning; None: the study's
    words: str = ''  # what is done, for tables

    @property
    def starts(self) -> bool:
        """Whether it starts from weights, and not from random ones."""
        return bool(self.weights or self.pretraining)

    def share(self, values: tuple[str, ...]) -> float:
        """Of these values in its composed pretraining; NaN where there is none."""
        compose = self.pretraining.recipe.data.compose if self.pretraining else None
        return math.nan if compose is None else sum(dict(compose.shares).get(value, 0.0) for value in values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CellSpec:
    """One cell: what is trained once, on what, and where it is tested."""

    study: str
    train_on: str
    test_on: tuple[str, ...]
    method: str
    adaptation: Adaptation
    fraction: float
    seed: int

    @property
    def slug(self) -> str:
        """For people who look into the folder."""
        where = self.train_on if self.test_on == (self.train_on,) else f'{self.train_on}-external'
        return f'{where}-{self.method}-{self.adaptation}-{100 * self.fraction:g}-seed{self.seed}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A grid: every dataset trained on x method x adaptation x share of the labels x seed."""

    name: str
    title: str
    paper: str = ''  # which tables of which paper it is held to, in words
    data: tuple[StudyData, ...]
    train_on: tuple[str, ...] = ()  # names of `data`; () all
    external: bool = False  # each cell is tested on all of `data`, else on the dataset it was trained on
    methods: tuple[Method, ...]
    adaptations: tuple[Adaptation, ...] = ('finetune',)
    fractions: tuple[float, ...] = (1.0,)  # of the patients with a label
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    recipe: TrainConfig  # of fine-tuning; its encoder and its image size are those of every adaptation
    which: Literal['best', 'latest'] = 'latest'  # checkpoint that is tested; best: by validation
    judged: Judged = Judged()
    groups: GroupQuestion | None = None  # None: nothing is asked of groups

    def __post_init__(self) -> None:
        """Raises UsageError where the grid names what it has not."""
        names = [one.name for one in self.data]
        for name in self.train_on:
            if name not in names:
                raise UsageError(f'the study {self.name} trains on "{name}" and has no such dataset{nearest(name, names)}')
        for method in self.methods:
            for name in method.only:
                if name not in names:
                    told = f'has "{method.name}" for "{name}" and has no such dataset{nearest(name, names)}'
                    raise UsageError(f'the study {self.name} {told}')
        for method in self.methods:
            self._check_method(method, names)
        for what, values in (('data', names), ('methods', [one.name for one in self.methods]), ('seeds', self.seeds)):
            if not values or len(set(values)) != len(values):
                raise UsageError(f'{what} of the study {self.name} must be at least one, each once')
        if not all(0 < fraction <= 1 for fraction in self.fractions):
            raise UsageError(f'fractions of the study {self.name} are shares, above 0 and up to 1')

    def _check_method(self, method: Method, names: list[str]) -> None:
        told = f'the method {method.name} of the study {self.name}'
        if method.pretraining and method.weights:
            raise UsageError(f'{told} has weights and a pretraining of its own: give one of them')
        on = method.pretraining.on if method.pretraining else names[0]
        if on not in names:
            raise UsageError(f'{told} pretrains on "{on}", which is no dataset of it{nearest(on, names)}')
        forms = [(one.task.model, one.data.image_size) for one in (self.recipe, method.recipe or self.recipe)]
        if forms[0] != forms[1]:
            raise UsageError(f'{told} has a recipe with another encoder or image size than the study: these are the same for all')

    def cells(self) -> tuple[CellSpec, ...]:
        """Every cell, in the order in which they are made: seed by seed, so that a study that is stopped has whole rows of few seeds."""
        return tuple(self._cells())

    def _cells(self) -> Iterator[CellSpec]:
        every = tuple(one.name for one in self.data)
        grid = (self.seeds, self.train_on or every, self.adaptations, self.fractions, self.methods)
        for seed, train_on, adaptation, fraction, method in itertools.product(*grid):
            if method.only and train_on not in method.only:
                continue
            if seed != self.seeds[0] and not self._drawn_anew(adaptation, fraction, method):
                continue
            yield CellSpec(
                study=self.name,
                train_on=train_on,
                test_on=every if self.external else (train_on,),
                method=method.name,
                adaptation=adaptation,
                fraction=fraction,
                seed=seed,
            )

    def _drawn_anew(self, adaptation: Adaptation, fraction: float, method: Method) -> bool:
        """Whether another seed gives another result: frozen features of given weights with all labels have no randomness."""
        return adaptation == 'finetune' or fraction < 1 or not method.weights

    def dataset(self, name: str) -> StudyData:
        """The dataset of a name."""
        return next(one for one in self.data if one.name == name)

    def method(self, name: str) -> Method:
        """The method of a name."""
        return next(one for one in self.methods if one.name == name)


def with_weights(study: Study, given: dict[str, str]) -> Study:
    """The study with the addresses of weights that its user has: method -> run directory, file, or hf:owner/name.

    Raises:
      UsageError: the study has no such method.
    """
    names = [one.name for one in study.methods]
    for name in given:
        if name not in names:
            raise UsageError(f'the study {study.name} has no method "{name}"{nearest(name, names) or "; it has " + ", ".join(names)}')
    methods = [dataclasses.replace(one, weights=given.get(one.name, one.weights)) for one in study.methods]
    return dataclasses.replace(study, methods=tuple(methods))
