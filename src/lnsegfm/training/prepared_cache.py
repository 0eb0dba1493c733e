"""A cache of prepared scans between runs, keyed by the content that they depend on.

The same shots are prepared for every learning rate of a search and for every method of a comparison. Reading one
takes a tenth of the time of preparing it.
"""

from __future__ import annotations

import json
import math
import os
import time
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import CHOSEN, VALUES
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.registry.home import home
from lnsegfm.storage import PARTIAL, atomic_write, content_hash, sha256
from lnsegfm.transforms.augmentation.compressed_volume import Places
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase, in_memory

FOLDER = "prepared"
SIZE = "LNSEGFM_CACHE_GB"
DEFAULT_GB = 4.0
ABANDONED_S = 3600.0
"""Age from which an incomplete file is a leftover of a killed process."""
MADE_BY = ("lnsegfm", "nnunetv2", "torch", "numpy", "scipy", "SimpleITK")
ELSEWHERE = frozenset(
    {
        *("data_identifier", "batch_size", "patch_size", "median_image_size_in_voxels", "architecture", "batch_dice"),
        *("resampling_fn_probabilities", "resampling_fn_probabilities_kwargs", "inherits_from", "next_stage"),
    }
)
"""Entries of a configuration on which a prepared scan does not depend."""
DAMAGED = (OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class PreparedCache:
    """A folder of prepared scans of limited size; those that were used longest ago go first.

    It holds voxels of the user's scans, so only the user may read it. Several processes may use it at once: an entry
    appears complete, and an unreadable one counts as missing.

    Args:
        folder: Where they lie.
        limit: Bytes of all of them.
    """

    folder: Path
    limit: int

    @classmethod
    def of_this_machine(cls) -> Self | None:
        """Below the home of everything cached, ``LNSEGFM_CACHE_GB`` large (4 by default); none at 0.

        Raises:
            ConfigError: ``LNSEGFM_CACHE_GB`` is no number from 0.
        """
        text = os.environ.get(SIZE)
        try:
            size_gb = float(text) if text else DEFAULT_GB
        except ValueError:
            size_gb = math.nan
        if not 0 <= size_gb < math.inf:
            raise ConfigError(
                f"{SIZE}={text}: gigabytes for prepared scans are needed there. Set it to 0 to keep none."
            )
        return cls(home() / FOLDER, int(size_gb * 1e9)) if size_gb else None

    def key(self, case: Case, plans: Any, configuration: Any, dataset_json: Mapping[str, Any]) -> str | None:
        """Hash of the case's files and of all that its preparation depends on; None where that is not known.

        Args:
            case: Scan with its reference.
            plans: nnU-Net's ``PlansManager``.
            configuration: nnU-Net's ``ConfigurationManager``.
            dataset_json: The data set's description.
        """
        settings = configuration.configuration
        if settings.get("preprocessor_name") != "DefaultPreprocessor" or case.label is None:
            return None
        files = [[path.name.split(".", 1)[1:], sha256(path)] for path in (*case.images, case.label)]
        return content_hash(
            {
                "files": files,
                **preparing_settings(plans.plans, settings, dataset_json),
                "versions": _versions(),
            }
        )

    def find(self, key: str, name: str) -> PreparedCase | None:
        """The scan of a key, by the name that its case has now; None where there is none. A damaged one is removed."""
        file = self._file(key)
        try:
            with np.load(file, allow_pickle=False) as entry:  # every member is checked by its CRC-32
                places = {text: entry[text] for text in entry.files if text not in ("image", "labels")}
                shot = PreparedCase.prepared(name, entry["image"], entry["labels"], locations_from_npz(places))
        except FileNotFoundError:
            return None
        except (*DAMAGED, DataError):
            with suppress(OSError):
                file.unlink(missing_ok=True)
            return None
        with suppress(OSError):
            os.utime(file)
        return shot

    def keep(self, key: str, shot: PreparedCase) -> None:
        """Store a scan and remove what is too much; where the disk does not let it, nothing is stored."""
        arrays: dict[str, Any] = {
            "image": in_memory(shot.image).numpy(),
            "labels": in_memory(shot.labels).numpy()[None],
        }
        arrays |= locations_to_npz(shot.locations)
        if sum(array.nbytes for array in arrays.values()) > self.limit:
            return
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with atomic_write(self._file(key)) as partial:
                np.savez(partial, **arrays)
            self._trim()

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.npz"

    def _trim(self) -> None:
        for partial in self.folder.glob(f"{PARTIAL}*"):
            if time.time() - partial.stat().st_mtime > ABANDONED_S:
                partial.unlink(missing_ok=True)
        entries = sorted(((file.stat(), file) for file in self.folder.glob("*.npz")), key=lambda e: -e[0].st_mtime_ns)
        total = 0
        for state, file in entries:
            total += state.st_size
            if total > self.limit:
                file.unlink(missing_ok=True)


def preparing_settings(
    plans: Mapping[str, Any], configuration: Mapping[str, Any], dataset_json: Mapping[str, Any]
) -> dict[str, Any]:
    """What of plans and description the preparation of scans depends on.

    Args:
        plans: nnU-Net's plans.
        configuration: The configuration of the plans.
        dataset_json: The data set's description.
    """
    general = ("transpose_forward", "image_reader_writer", "foreground_intensity_properties_per_channel")
    return {
        "plans": {name: plans.get(name) for name in (*general, "label_manager")},
        "axes": axes_of_plans(plans)[0],
        "configuration": {name: value for name, value in configuration.items() if name not in ELSEWHERE},
        "data": {name: dataset_json.get(name) for name in ("labels", VALUES, CHOSEN, "regions_class_order")},
    }


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in MADE_BY}


def locations_to_npz(locations: Mapping[Any, Places]) -> dict[str, Any]:
    """Places of labels under names that a file may have: a label's key is a number, or several for annotated voxels."""
    return {json.dumps(key): places for key, places in locations.items()}


def locations_from_npz(written: Mapping[str, np.ndarray]) -> dict[Any, np.ndarray]:
    """The places that `locations_to_npz` named."""
    keys = {text: json.loads(text) for text in written}
    return {tuple(key) if isinstance(key, list) else key: written[text] for text, key in keys.items()}
