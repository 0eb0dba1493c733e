"""A labelled scan, preprocessed for training: image, labels, and some voxels of each label."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnsegfm.errors import DataError
from lnsegfm.transforms.augmentation.compressed_volume import CompressedVolume, Places, Voxels


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """A preprocessed scan with its labels.

    Args:
        name: Of the case.
        image: (C, Z, Y, X) in float32, in memory or in a file.
        labels: (Z, Y, X) in int16, in memory or in a file; -1 where the scan has no data.
        locations: Some voxels of each label, (N, 4): channel, z, y, x.
        unlabelled: Values of the labels that nobody annotated in it, ascending.
    """

    name: str
    image: Voxels
    labels: Voxels
    locations: Mapping[Any, Places]
    unlabelled: tuple[int, ...] = ()

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
    def prepared(
        cls, name: str, image: np.ndarray, labels: np.ndarray, locations: Mapping[Any, np.ndarray]
    ) -> PreparedCase:
        """What nnU-Net's preprocessing gives, labels (1, Z, Y, X); no voxel is copied, nor one changed."""
        return cls(
            name=name,
            image=_tensor(image, np.float32),
            labels=_tensor(labels, np.int16)[0],
            locations={key: np.asarray(places) for key, places in locations.items()},
        )

    def to(self, device: str) -> PreparedCase:
        """The same in the memory of a device."""
        image, labels = (in_memory(voxels).to(device) for voxels in (self.image, self.labels))
        return replace(self, image=image, labels=labels)


def in_memory(voxels: Voxels) -> Tensor:
    """Voxels as a tensor; those of a file are read."""
    return voxels.whole() if isinstance(voxels, CompressedVolume) else voxels


def _tensor(array: np.ndarray, kind: type) -> Tensor:
    with warnings.catch_warnings():  # torch warns of a file that is mapped to be read; nothing writes into a scan
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.asarray(array, dtype=kind))
