"""Labelled scans prepared for training as nnU-Net prepares them, in this process: cropped, normalised, resampled.

Before that each is turned, exactly, to the axes that the plans state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lnsegfm.case_processes import JOIN_AFTER_S, Work, shared_out
from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.messages import counted
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.nnunet.plan_configuration import plans_managers
from lnsegfm.nnunet.scan_arrays import ScanArrays
from lnsegfm.progress import Progress
from lnsegfm.storage import clear_partials
from lnsegfm.training.prepared_cache import PreparedCache
from lnsegfm.training.prepared_files import PreparedFiles
from lnsegfm.training.preprocessed_folder import NnunetFolder
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.weights.checkpoint import Checkpoint

PREPARER = "lnsegfm.training.prepared_cases:preparer"


def prepare_cases(
    cases: Sequence[Case],
    plans: Any,
    configuration: Any,
    dataset_json: dict[str, Any],
    progress: Progress,
    cache: PreparedCache | None = None,
) -> tuple[PreparedCase, ...]:
    """Prepare labelled scans in memory; give them by name.

    Args:
        cases: Scans with references.
        plans: nnU-Net's ``PlansManager``.
        configuration: nnU-Net's ``ConfigurationManager``.
        dataset_json: The data set's description.
        progress: Where progress is reported.
        cache: Prepared scans of earlier runs.
    """
    from lnsegfm.nnunet.fast_resampling import with_fast_resampling

    progress.stage(f"Preparing {counted(len(cases), 'labelled scan')}")
    fast = with_fast_resampling(configuration)
    found = []
    for done, case in enumerate(cases, 1):
        found.append(with_unlabelled(_found_or_prepared(case, plans, fast, dataset_json, cache), case, dataset_json))
        progress.advance(done, len(cases), case.name)
    return tuple(sorted(found, key=lambda shot: shot.name))


def prepare_in_files(
    cases: Sequence[Case],
    start: Checkpoint,
    files: PreparedFiles,
    progress: Progress,
    *,
    processes: int = 1,
    join_after_s: float = JOIN_AFTER_S,
    ready: NnunetFolder | None = None,
    also: NnunetFolder | None = None,
) -> tuple[PreparedCase, ...]:
    """Prepare labelled scans in files, of which patches are read, in several processes; give them by name.

    For sets larger than memory, and for several processes that train. Scans that are there are kept, so that a call
    that was stopped goes on. The files do not depend on the number of processes.

    Args:
        cases: Scans with references.
        start: Plans and description.
        files: Where they lie.
        progress: Where progress is reported.
        processes: That prepare scans, at most.
        join_after_s: As of `shared_out`.
        ready: Scans that nnU-Net preprocessed by the same plans, which are read in place of preparing any.
        also: A folder to write them to for nnU-Net as well.
    """
    dataset_json = dict(start.dataset_json)
    if ready is not None:
        return tuple(
            with_unlabelled(ready.read(case.name), case, dataset_json)
            for case in sorted(cases, key=lambda case: case.name)
        )
    clear_partials(files.folder)
    write_prepared(cases, start, files, progress, processes=processes, join_after_s=join_after_s, also=also)
    found = (with_unlabelled(files.read(case.name), case, dataset_json) for case in cases)
    return tuple(sorted(found, key=lambda shot: shot.name))


def write_prepared(
    cases: Sequence[Case],
    start: Checkpoint,
    files: PreparedFiles,
    progress: Progress,
    *,
    processes: int = 1,
    join_after_s: float = JOIN_AFTER_S,
    also: NnunetFolder | None = None,
) -> None:
    """Prepare those of some scans that are not there; several calls, on several machines, may share the folder.

    Args:
        cases: Scans with references.
        start: Plans and description.
        files: Where they lie.
        progress: Where progress is reported.
        processes: That prepare scans, at most.
        join_after_s: As of `shared_out`.
        also: A folder to write them to for nnU-Net as well.
    """
    missing = [case for case in cases if not files.has(case.name) or (also is not None and not also.has(case.name))]
    progress.stage(f"Preparing {counted(len(cases), 'labelled scan')}")
    done = len(cases) - len(missing)
    setup = {
        "plans": dict(start.plans),
        "configuration": start.configuration,
        "dataset_json": dict(start.dataset_json),
        "folder": str(files.folder),
        "stored": files.stored,
        "also": None if also is None else str(also.folder),
    }
    for number, _ in shared_out(
        PREPARER,
        json.loads(json.dumps(setup)),
        [case.to_json() for case in missing],
        names=[case.name for case in missing],
        processes=processes,
        join_after_s=join_after_s,
    ):
        done += 1
        progress.advance(done, len(cases), missing[number].name)


def preparer(setup: Mapping[str, Any]) -> Work:
    """What prepares a case in files, for any process (`lnsegfm.case_processes`).

    Args:
        setup: ``plans``, ``configuration``, ``dataset_json``, ``folder`` and how scans are ``stored``.
    """
    from lnsegfm.nnunet.fast_resampling import with_fast_resampling

    plans, configuration = plans_managers(setup["plans"], setup["configuration"])
    fast, files = with_fast_resampling(configuration), PreparedFiles(Path(setup["folder"]), setup["stored"])
    also = None if setup.get("also") is None else NnunetFolder(Path(setup["also"]))

    def prepare(table: Any) -> dict[str, Any]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the same in every process
        try:
            case = Case.from_json(table)
            data, labels, properties = _preprocessed(case, plans, fast, setup["dataset_json"])
            if also is not None:
                also.write(case.name, data, labels, properties, tuple(fast.patch_size))
            return files.write(PreparedCase.prepared(case.name, data, labels, properties["class_locations"]))
        finally:
            torch.set_num_threads(threads)

    return prepare


def with_unlabelled(shot: PreparedCase, case: Case, dataset_json: Mapping[str, Any]) -> PreparedCase:
    """The scan with the values of the labels that nobody annotated in it."""
    if not case.unlabelled:
        return shot
    outputs = LabelMap.of_model(dataset_json).names
    return replace(shot, unlabelled=tuple(sorted(outputs[name] for name in case.unlabelled)))


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
    data, labels, properties = _preprocessed(case, plans, configuration, dataset_json)
    return PreparedCase.prepared(case.name, data, labels, properties["class_locations"])


def _preprocessed(
    case: Case, plans: Any, configuration: Any, dataset_json: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Image, labels and properties as nnU-Net's preprocessing gives them."""
    if case.label is None:
        raise DataError(f"Case {case.name}: it has no reference. Label it, or leave it out.")
    arrays = ScanArrays.stack([Volume.read(image) for image in case.images], axes_of_plans(plans.plans)[0])
    mask, grid = read_mask(case.label)
    reference = arrays.reference(Volume(LabelMap.of_training(dataset_json).to_consecutive(mask), grid))
    with nnunet_environment():
        data, labels, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
            arrays.data, reference, arrays.properties, plans, configuration, dataset_json
        )
    return data, labels, properties
