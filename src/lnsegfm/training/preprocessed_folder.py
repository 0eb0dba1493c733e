"""Scans that nnU-Net preprocessed, and folders of them that nnU-Net trains on: people move either way.

Such a folder, ``nnUNet_preprocessed/DatasetXXX_Name``, holds plans, ``dataset.json`` and, below the name that a
configuration gives, a scan as ``NAME.b2nd`` (C, Z, Y, X), ``NAME_seg.b2nd`` (1, Z, Y, X) and ``NAME.pkl``.
"""

from __future__ import annotations

import inspect
import io
import pickle
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, DataError, UnsafeFile
from lnsegfm.storage import atomic_write, content_hash, write_json
from lnsegfm.transforms.augmentation.compressed_volume import CompressedVolume
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase

PLANS = "nnUNetPlans.json"
_ARRAYS = frozenset(
    {
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(("numpy", name) for name in ("ndarray", "dtype")),
        ("collections", "OrderedDict"),
    }
)


@dataclass(frozen=True)
class NnunetFolder:
    """The scans of one configuration that nnU-Net preprocessed.

    Args:
        folder: Where they lie: below the data set's folder, under the configuration's ``data_identifier``.
    """

    folder: Path

    @classmethod
    def of(cls, dataset: Path, plans: Mapping[str, Any], configuration: str) -> NnunetFolder:
        """That of a configuration of a data set's folder."""
        return cls(dataset / str(plans["configurations"][configuration]["data_identifier"]))

    def has(self, name: str) -> bool:
        """Whether all files of a scan are there."""
        return all(file.is_file() for file in self._files(name))

    def lacking(self, cases: Iterable[Case]) -> list[str]:
        """Those of some cases that are not there."""
        return [case.name for case in cases if not self.has(case.name)]

    def digest(self, cases: Iterable[Case]) -> str:
        """Hash of the names and sizes of the files; their content would have to be read."""
        return content_hash([[file.name, file.stat().st_size] for case in cases for file in self._files(case.name)])

    def read(self, name: str) -> PreparedCase:
        """A scan of which patches are read.

        Raises:
            DataError: It is not there, damaged, or no labelled volume.
            UnsafeFile: Reading it would execute something.
        """
        require_safe_reading()
        image, labels, properties = self._files(name)
        return PreparedCase(
            name=name,
            image=CompressedVolume.of_file(image, torch.float32),
            labels=CompressedVolume.of_file(labels, torch.int16, channel=0),
            locations=_locations(properties),
        )

    def write(
        self, name: str, data: np.ndarray, labels: np.ndarray, properties: dict[str, Any], patch: tuple[int, ...]
    ) -> None:
        """Write a scan as nnU-Net does, by its own function; the properties come last.

        Args:
            name: The case.
            data: (C, Z, Y, X), preprocessed.
            labels: (1, Z, Y, X).
            properties: What nnU-Net's preprocessing gives beside them.
            patch: Voxels of a patch, after which nnU-Net chooses the size of chunks.
        """
        from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

        arrays = (data.astype(np.float32, copy=False), labels.astype(np.int16, copy=False))
        self.folder.mkdir(parents=True, exist_ok=True)
        image, mask, facts = self._files(name)
        with atomic_write(facts) as last, atomic_write(mask) as second, atomic_write(image) as first:
            whole = first.with_suffix("")
            (blocks, chunks), (blocks_seg, chunks_seg) = (
                comp_blosc2_params(array.shape, patch, array.itemsize) for array in arrays
            )
            nnUNetDatasetBlosc2.save_case(*arrays, properties, str(whole), chunks, blocks, chunks_seg, blocks_seg)
            whole.with_name(f"{whole.name}_seg.b2nd").replace(second)
            whole.with_name(f"{whole.name}.pkl").replace(last)

    def _files(self, name: str) -> tuple[Path, Path, Path]:
        return self.folder / f"{name}.b2nd", self.folder / f"{name}_seg.b2nd", self.folder / f"{name}.pkl"


def write_dataset_files(
    place: Path, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], cases: Iterable[Case]
) -> None:
    """What nnU-Net's training reads beside the scans: plans, description, fingerprint, and the references as they are.

    Args:
        place: The data set's folder.
        plans: Of the training.
        dataset_json: The data set's description.
        cases: Scans with references.
    """
    write_json(place / PLANS, {key: value for key, value in plans.items() if key != "trained_on"})
    write_json(place / "dataset.json", dict(dataset_json))
    intensities = plans.get("foreground_intensity_properties_per_channel")
    write_json(place / "dataset_fingerprint.json", {"foreground_intensity_properties_per_channel": intensities})
    for case in cases:
        if case.label is not None:
            ending = str(dataset_json["file_ending"])
            copy = place / "gt_segmentations" / f"{case.name}{ending}"
            if case.label.name.endswith(ending) and not copy.is_file():
                with atomic_write(copy) as partial:
                    shutil.copyfile(case.label, partial)


def require_safe_reading() -> None:
    """Refuse a version of blosc2 that executes what some files ask for.

    Raises:
        ConfigError: It is too old.
    """
    import blosc2

    if "deserialize" not in inspect.signature(blosc2.open).parameters:
        raise ConfigError(
            f"blosc2 {blosc2.__version__}: it executes what some files ask for. Update it: pip install -U blosc2."
        )


def _locations(file: Path) -> dict[Any, np.ndarray]:
    """Places of the labels, which nnU-Net keeps in a pickle: read without executing anything but making arrays."""
    try:
        found = _ArraysOnly(io.BytesIO(file.read_bytes())).load()["class_locations"]
        return {key: np.asarray(places) for key, places in found.items()}
    except UnsafeFile as error:
        raise UnsafeFile(f"{file}: {error}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise DataError(
            f"{file}: not the properties of a preprocessed scan ({type(error).__name__}). Preprocess it again."
        ) from None


class _ArraysOnly(pickle.Unpickler):
    """Makes arrays of numbers and plain values, and refuses anything else that would be imported."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ARRAYS:
            return super().find_class(module, name)
        raise UnsafeFile(f"it would run {module}.{name} when read. Preprocess the scan again, with nnU-Net.")
