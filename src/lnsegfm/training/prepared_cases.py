"""Labelled scans prepared for training as nnU-Net prepares them, in this process: cropped, normalised, resampled.

Before that each is turned, exactly, to the axes that the plans state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.messages import counted
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.nnunet.scan_arrays import ScanArrays
from lnsegfm.progress import Progress
from lnsegfm.storage import atomic_write, clear_partials
from lnsegfm.training.prepared_cache import PreparedCache, locations_from_npz, locations_to_npz
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase


def prepare_cases(
    cases: Sequence[Case],
    plans: Any,
    configuration: Any,
    dataset_json: dict[str, Any],
    progress: Progress,
    folder: Path | None = None,
    cache: PreparedCache | None = None,
) -> tuple[PreparedCase, ...]:
    """Prepare labelled scans; give them by name.

    Args:
        cases: Scans with references.
        plans: nnU-Net's ``PlansManager``.
        configuration: nnU-Net's ``ConfigurationManager``.
        dataset_json: The data set's description.
        progress: Where progress is reported.
        folder: Where to keep them as files that are mapped into memory and not read, for sets larger than memory and
            for several processes; existing files are used. None keeps them in memory.
        cache: Prepared scans of earlier runs. Not used with ``folder``, which may hold many.
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
        if case.unlabelled:
            outputs = LabelMap.of_model(dataset_json).names
            found[-1] = replace(found[-1], unlabelled=tuple(sorted(outputs[name] for name in case.unlabelled)))
        progress.advance(done, len(cases), case.name)
    return tuple(sorted(found, key=lambda shot: shot.name))


def _found_or_prepared(
    case: Case, plans: Any, configuration: Any, dataset_json: dict[str, Any], cache: PreparedCache | None
) -> PreparedCase:
    key = cache.key(case, plans, configuration, dataset_json) if cache is not None else None
    if cache is None or key is None:
        return _prepared(case, plans, configuration, dataset_json)
    shot = cache.find(key, case.name)
    if shot is None:
        shot = _prepared(case, plans, configuration, dataset_json)
        cache.keep(key, shot)
    return shot


def _prepared(case: Case, plans: Any, configuration: Any, dataset_json: dict[str, Any]) -> PreparedCase:
    if case.label is None:
        raise DataError(f"Case {case.name}: it has no reference. Label it, or leave it out.")
    arrays = ScanArrays.stack([Volume.read(image) for image in case.images], axes_of_plans(plans.plans)[0])
    mask, grid = read_mask(case.label)
    reference = arrays.reference(Volume(LabelMap.of_training(dataset_json).to_consecutive(mask), grid))
    with nnunet_environment():
        data, labels, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
            arrays.data, reference, arrays.properties, plans, configuration, dataset_json
        )
    return PreparedCase.prepared(case.name, data, labels, properties["class_locations"])


def _keep(folder: Path, shot: PreparedCase) -> None:
    """Write a prepared scan; the file of label locations comes last and marks it as complete."""
    for part, array in (("data", shot.image.numpy()), ("labels", shot.labels.numpy())):
        with atomic_write(folder / f"{shot.name}.{part}.npy") as partial:
            np.save(partial, array)
    with atomic_write(folder / f"{shot.name}.npz") as partial:
        np.savez(partial, **locations_to_npz(shot.locations))


def _kept(folder: Path, name: str) -> PreparedCase:
    data, labels = (np.load(folder / f"{name}.{part}.npy", mmap_mode="r") for part in ("data", "labels"))
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return PreparedCase.prepared(
            name, data, labels[None], locations_from_npz({text: file[text] for text in file.files})
        )
