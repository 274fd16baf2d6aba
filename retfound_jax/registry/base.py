"""What the registry says of a dataset, and what a reader of its folder says of each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

Modality = Literal['CFP', 'OCT']
NAN = float('nan')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One image as the original files tell of it. Missing text is '', a missing number is NaN."""

    key: str  # unique in the dataset, safe as a file name
    file: str  # below the dataset's folder, with '/'; 'ARCHIVE.npz#ARRAY/INDEX' for a member of an archive of arrays
    labels: Mapping[str, str]  # label to class name, or to a number as text; '' missing
    split: str = ''  # the official one: train, val, test; '' where the dataset has none
    patient: str = ''  # '' where the dataset does not say who
    laterality: str = ''  # L or R
    age: float = NAN  # [years]
    sex: str = ''  # F or M
    ethnicity: str = ''
    country: str = ''
    site: str = ''
    camera: str = ''
    diabetes_type: str = ''
    masks: Mapping[str, str] = dataclasses.field(default_factory=dict)  # structure to file, as `file`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Label:
    """A label column and what it means."""

    name: str
    classes: tuple[str, ...]  # in the order of their numbers; () for a number
    meaning: str
    ordinal: bool = False  # the classes are grades


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSizes:
    """Images of each part as a paper prints them."""

    train: int
    val: int
    test: int
    source: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """A file to be had by hand or by address, with a checksum where one is known. An archive is looked at only where it was kept."""

    name: str  # as it has to lie in the dataset's folder
    url: str = ''
    md5: str = ''  # in hex; '' unknown
    sha256: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """One public dataset. What could not be confirmed is said to be so in the text, or left ''."""

    name: str  # ours: lower case, such as aptos2019
    title: str
    modality: Modality
    images: int  # as published
    licence: str
    citation: str
    homepage: str
    instructions: str  # how a person gets it, step by step, and where to put it
    files: tuple[File, ...]  # what the folder must hold, at its top
    labels: tuple[Label, ...]
    patient_key: str  # where the patient is named; '' where he is not, and then each image counts as one
    demographics: tuple[str, ...]  # of age, sex, ethnicity, country, site, camera, diabetes_type
    official_split: str  # in words; '' where there is none
    retfound_split: SplitSizes | None
    made_from: tuple[str, ...] = ()  # datasets whose images it holds, such as kermany_oct2017 for octmnist
    notes: str = ''
    read: Callable[[Path], list[Example]]  # of the dataset's folder; a UserError names the path that is wrong and the way out
    draw: Callable[[Path], None]  # writes a tiny copy in the very layout of the original, by the phantom, into an empty folder
