"""Labelled scans prepared for training as nnU-Net prepares them, in this process: cropped, normalised, resampled."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import DataError
from lnsegfm.nnunet.environment import engine
from lnsegfm.progress import Progress, counted
from lnsegfm.storage import clear_partials, whole

if TYPE_CHECKING:
    from lnsegfm.training.prepared_cache import ShotCache


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A prepared scan with its labels, whole.

    Args:
        name: Of the case.
        image: (C, Z, Y, X) in float32.
        labels: (Z, Y, X) in int16; -1 where the scan has no data.
        locations: Some voxels of each label, (N, 4): channel, z, y, x.
    """

    name: str
    image: Tensor
    labels: Tensor
    locations: Mapping[Any, np.ndarray]

    def __post_init__(self) -> None:
        if self.image.ndim != 4 or self.image.shape[1:] != self.labels.shape:
            raise DataError(
                f"Case {self.name}: an image of {tuple(self.image.shape)} and labels of {tuple(self.labels.shape)}."
                " Use (C, Z, Y, X) and (Z, Y, X) of the same voxels."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along z, y, x."""
        z, y, x = self.labels.shape
        return z, y, x

    @classmethod
    def prepared(cls, name: str, image: np.ndarray, labels: np.ndarray, locations: Mapping[Any, np.ndarray]) -> Shot:
        """What nnU-Net's preprocessing gives, labels (1, Z, Y, X); no voxel is copied, nor one changed."""
        return cls(
            name=name,
            image=_tensor(image, np.float32),
            labels=_tensor(labels, np.int16)[0],
            locations={key: np.asarray(places) for key, places in locations.items()},
        )

    def to(self, device: str) -> Shot:
        """The same on a device."""
        return replace(self, image=self.image.to(device), labels=self.labels.to(device))


def prepare(
    cases: Sequence[Case],
    plans: Any,
    configuration: Any,
    dataset_json: dict[str, Any],
    progress: Progress,
    folder: Path | None = None,
    cache: ShotCache | None = None,
) -> tuple[Shot, ...]:
    """Prepare labelled scans; give them by name.

    Args:
        cases: Scans with references.
        plans: nnU-Net's ``PlansManager``.
        configuration: nnU-Net's ``ConfigurationManager``.
        dataset_json: The data set's description.
        progress: Told how far it is.
        folder: Where to keep them as files that are mapped into memory and not read, for sets larger than memory and
            for several processes; what lies there already is taken. None keeps them in memory.
        cache: Those of earlier runs. Not asked for scans that are kept in a folder, of which there may be many.
    """
    from lnsegfm.nnunet.fast_resampling import with_fast_resampling

    progress.stage(f"Preparing {counted(len(cases), 'labelled scan')}")
    if folder is not None:
        clear_partials(folder)
    fast = with_fast_resampling(configuration)
    found = []
    for done, case in enumerate(cases, 1):
        if folder is None:
            found.append(_found_or_prepared(case, plans, fast, dataset_json, cache))
        else:
            if not (folder / f"{case.name}.npz").is_file():
                _keep(folder, _prepared(case, plans, fast, dataset_json))
            found.append(_kept(folder, case.name))
        progress.advance(done, len(cases), case.name)
    return tuple(sorted(found, key=lambda shot: shot.name))


def _found_or_prepared(
    case: Case, plans: Any, configuration: Any, dataset_json: dict[str, Any], cache: ShotCache | None
) -> Shot:
    key = cache.key(case, plans, configuration, dataset_json) if cache is not None else None
    if cache is None or key is None:
        return _prepared(case, plans, configuration, dataset_json)
    shot = cache.find(key, case.name)
    if shot is None:
        shot = _prepared(case, plans, configuration, dataset_json)
        cache.keep(key, shot)
    return shot


def _prepared(case: Case, plans: Any, configuration: Any, dataset_json: dict[str, Any]) -> Shot:
    with engine():
        data, labels, properties = configuration.preprocessor_class(verbose=False).run_case(
            [str(image) for image in case.images], str(case.label), plans, configuration, dataset_json
        )
    return Shot.prepared(case.name, data, labels, properties["class_locations"])


def _keep(folder: Path, shot: Shot) -> None:
    """Write a prepared scan; the places of its labels come last and say that it is whole."""
    for part, array in (("data", shot.image.numpy()), ("labels", shot.labels.numpy())):
        with whole(folder / f"{shot.name}.{part}.npy") as partial:
            np.save(partial, array)
    with whole(folder / f"{shot.name}.npz") as partial:
        np.savez(partial, **by_text(shot.locations))


def _kept(folder: Path, name: str) -> Shot:
    data, labels = (np.load(folder / f"{name}.{part}.npy", mmap_mode="r") for part in ("data", "labels"))
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return Shot.prepared(name, data, labels[None], by_label({text: file[text] for text in file.files}))


def by_text(locations: Mapping[Any, np.ndarray]) -> dict[str, Any]:
    """Places of labels under names that a file may have: a label's key is a number, or several for annotated voxels."""
    return {json.dumps(key): places for key, places in locations.items()}


def by_label(written: Mapping[str, np.ndarray]) -> dict[Any, np.ndarray]:
    """The places that `by_text` named."""
    keys = {text: json.loads(text) for text in written}
    return {tuple(key) if isinstance(key, list) else key: written[text] for text, key in keys.items()}


def _tensor(array: np.ndarray, kind: type) -> Tensor:
    with warnings.catch_warnings():  # torch warns of a file that is mapped to be read; nothing writes into a scan
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.asarray(array, dtype=kind))
