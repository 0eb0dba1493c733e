"""The axes on which a network was trained, as plans state or imply them.

Plans say how scans are prepared: spacing, intensities and, here, which way the axes of an array run. nnU-Net has no
entry for that. Ours, ``axes``, is passed over by nnU-Net and travels wherever plans do: model folders, checkpoints,
adapters, exports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lnsegfm.errors import ConfigError, ModelError
from lnsegfm.evaluation.domain_ranges import STATED
from lnsegfm.imaging.axis_code import require_axes

AXES = "axes"
"""The entry of plans."""
RAS = "RAS"
REORIENTING = {"NibabelIOWithReorient": RAS, "SimpleITKIOWithReorient": RAS}
"""Readers of nnU-Net that turn every scan, and to which axes; its others leave scans as they are stored."""
_READER = "image_reader_writer"
_NIFTI = (".nii.gz", ".nii")


def axes_of_plans(plans: Mapping[str, Any]) -> tuple[str | None, str]:
    """The axis code that plans state or imply, and by what, in words; None and "" where they do not tell.

    Raises:
        ModelError: They state what is no axis code.
    """
    if plans.get(AXES) is not None:
        try:
            return require_axes(plans[AXES], f"plans.json: {AXES}"), STATED
        except ConfigError as error:
            raise ModelError(str(error)) from None
    if (reader := str(plans.get(_READER))) in REORIENTING:
        return REORIENTING[reader], f"the reader in its plans, {reader}"
    if is_totalsegmentators(str(plans.get("dataset_name"))):
        return RAS, "its origin, TotalSegmentator"
    return None, ""


def is_totalsegmentators(dataset: str) -> bool:
    """Whether a data set is one of TotalSegmentator's, which turns every scan to RAS before nnU-Net sees it.

    Args:
        dataset: Its name, as plans hold it.
    """
    if "TotalSegmentator" in dataset or "TotalSegMRI" in dataset:
        return True
    from lnsegfm.registry.manifest import totalsegmentator_datasets

    return dataset in totalsegmentator_datasets()


def with_axes(plans: Mapping[str, Any], axes: str, file_ending: str) -> dict[str, Any]:
    """Plans that state the axes, with the reader by which stock nnU-Net turns scans to them, where it has one.

    Args:
        plans: nnU-Net's.
        axes: An axis code.
        file_ending: Of the images in ``dataset.json``, which the reader has to know.
    """
    reader = plans.get(_READER)
    if axes == RAS:
        reader = "NibabelIOWithReorient" if file_ending in _NIFTI else "SimpleITKIOWithReorient"
    elif reader in REORIENTING:
        reader = "SimpleITKIO"
    return {**plans, AXES: axes, _READER: reader}
