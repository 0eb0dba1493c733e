"""What a study's folders hold: which scans shots are drawn from, which are held out, and the hashes of all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.check import require_usable
from lnsegfm.datasets.dataset import Dataset, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError
from lnsegfm.messages import listed
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.progress import Progress
from lnsegfm.spelling import nearest
from lnsegfm.study.study_file import Study, StudyData

_OF_HELD_OUT = 7919
"""Seed of the choice of held-out scans, so that it is none of the draws of shots."""


@dataclass(frozen=True, kw_only=True)
class DataContent:
    """The scans of one set.

    Args:
        pool: Names of those that shots are drawn from.
        held_out: Names of those that are scored, of the set or of the further folder.
        excluded: Names of those of the set that no run trains on.
        hashes: Of all that results depend on, by what it is.
    """

    pool: tuple[str, ...]
    held_out: tuple[str, ...]
    excluded: tuple[str, ...]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class StudyContent:
    """The scans of all sets, and the weights of the bases.

    Args:
        data: By name.
        bases: SHA-256 of each base's weights, by name.
    """

    data: Mapping[str, DataContent]
    bases: Mapping[str, Any]


def read_content(study: Study, progress: Progress) -> StudyContent:
    """Open every folder of a study.

    Raises:
        DataError: A folder that is none, or that nothing can be read from.
        ModelError: A base that cannot be read.
        ConfigError: Scans that are not there, or too few of them.
    """
    models = {name: read_model(study.base_place(name), whole=False) for name in study.bases}
    found = {}
    for data in study.data:
        progress.stage(f"Reading {data.name}: {data.folder}")
        found[data.name] = _content(study, data, [models[name] for name in data.bases], progress)
    hashes = {name: list(model.weights_sha256) for name, model in models.items()}
    return StudyContent(found, hashes)


def open_for(folder: Path, base: Model) -> Dataset:
    """A folder of labelled scans; where nobody names its labels, they are the base's."""
    labels: LabelMap | None = None if base.covers else base.mask_labels
    return open_dataset(folder, default_labels=labels)


def _content(study: Study, data: StudyData, bases: Sequence[Model], progress: Progress) -> DataContent:
    there = open_for(data.folder, bases[0])
    where = f"{study.file}: data.{data.name}"
    _require(data.exclude, [case.name for case in there.cases], f"{where}: exclude")
    usable = there.with_cases([case.name for case in there.labelled if case.name not in data.exclude])
    labelled = [case.name for case in usable.cases]
    trained = _trained_bases(usable, bases, progress)
    hashes, names = {"scans": usable.content_hash()}, {case.name for case in there.cases}
    mine: tuple[str, ...] = ()
    if data.held_out_data is not None:
        further = open_for(data.held_out_data, bases[0])
        further = further.with_cases([case.name for case in further.labelled])
        held_out = tuple(case.name for case in further.cases)
        _refuse_known(held_out, _trained_bases(further, bases, progress), f"{where}: held_out_data")
        hashes["held-out scans"] = further.content_hash()
    else:
        held_out = mine = _held_out(data, labelled, trained, f"{where}: held_out")
    subjects = {usable.subjects[name] for name in mine if name in usable.subjects}
    pool = tuple(n for n in labelled if n not in mine and usable.subjects.get(n) not in subjects)
    most = max((*study.shots, *(study.rate_choice or ())[:1]))
    if most > len(pool):
        raise ConfigError(
            f"{study.file}: shots = {most}: {data.name} has {len(pool)} scans to draw them from. Hold out fewer, or "
            "take fewer shots."
        )
    if data.source_data is not None:
        hashes["source data"] = open_for(data.source_data, bases[0]).content_hash()
    return DataContent(pool=pool, held_out=held_out, excluded=tuple(sorted(names - set(pool))), hashes=hashes)


def _trained_bases(data: Dataset, bases: Sequence[Model], progress: Progress) -> set[str]:
    """The scans that trained a base: what it does on them is no evidence."""
    checked = require_usable(data, progress=progress)
    known: set[str] = set()
    for base in bases:
        known |= set(base.trained_scans.among(checked.scan_hashes, data.subjects).cases)
    return known


def _held_out(data: StudyData, labelled: Sequence[str], trained: Collection[str], where: str) -> tuple[str, ...]:
    """The scans that all runs are scored on: those that are named, or so many, chosen once and for all."""
    if isinstance(data.held_out, tuple):
        _require(data.held_out, labelled, where)
        _refuse_known(data.held_out, trained, where)
        return tuple(sorted(data.held_out))
    free = sorted(name for name in labelled if name not in trained)
    if data.held_out > len(free) or data.held_out >= len(labelled):
        without = f", {len(trained)} of which trained a base" if trained else ""
        raise ConfigError(
            f"{where} = {data.held_out}: there are {len(labelled)} labelled scans{without}. Hold out fewer."
        )
    order = [free[i] for i in np.random.default_rng([_OF_HELD_OUT]).permutation(len(free))]
    return tuple(sorted(order[: data.held_out]))


def _refuse_known(held_out: Collection[str], trained: Collection[str], where: str) -> None:
    if known := sorted(set(held_out) & set(trained)):
        raise ConfigError(f"{where}: a base was trained on {listed(known)}. Hold out other scans.")


def _require(named: Sequence[str], names: Sequence[str], where: str) -> None:
    for name in named:
        if name not in names:
            raise ConfigError(f"{where}: {name}: no labelled scan has this name. {nearest(name, names)}")
