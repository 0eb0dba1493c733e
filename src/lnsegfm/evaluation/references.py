"""Which masks are compared, and what their labels are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from lnsegfm.datasets.arranging_command import arranging
from lnsegfm.datasets.dataset import named_labels, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.nnunet_layout import case_of
from lnsegfm.datasets.subjects import read_subjects, subjects_of
from lnsegfm.datasets.unlabelled import UNLABELLED, unlabelled_of
from lnsegfm.errors import DataError
from lnsegfm.evaluation.paired_masks import without_images
from lnsegfm.imaging.files import image_files, stem

_LABEL_FOLDERS = ("labelsTr", "labelsTs", "labels")


def masks_in(folder: Path) -> dict[str, Path]:
    """The masks directly in a folder, by case name; images that are next to them (``P7``, ``P7_seg``) are none.

    Raises:
        DataError: No such folder, no image in it, or a name that occurs twice (``a.nii.gz`` and ``a.nrrd``).
    """
    _require_folder(folder)
    masks: dict[str, Path] = {}
    problems = []
    for path in image_files(folder):
        if (other := masks.setdefault(stem(path), path)) != path:
            problems.append(f"{folder}: {other.name} and {path.name} are one case's. Keep one of the two.")
    if problems:
        raise DataError(*problems)
    if not masks:
        remedy = arranging(folder, "Give the folder that holds them")
        raise DataError(f"{folder}: it holds no masks (.nii.gz, .nii, .nrrd, .mha). {remedy}.")
    return without_images(masks)


def references_in(folder: Path, labels: LabelMap) -> dict[str, Path]:
    """The reference masks by case name, of a folder of masks or of a whole dataset folder.

    Raises:
        DataError: As :func:`masks_in` and :func:`lnsegfm.datasets.dataset.open_dataset`.
    """
    if not is_dataset(folder):
        return masks_in(folder)
    masks: dict[str, Path] = {}
    named = None if named_labels(folder) is not None else labels  # its own, where these are a choice of them
    for case in open_dataset(folder, named).labelled:
        if case.label is not None and (other := masks.setdefault(case.name, case.label)) != case.label:
            raise DataError(f"{folder}: {other.name} and {case.label.name} are one case's. Keep one of the two.")
    if not masks:
        raise DataError(f"{folder}: none of its cases has a label. Add the labels to compare with.")
    return masks


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a dataset, rather than a folder of masks that may hold a ``dataset.json`` as well."""
    return any((folder / inner).is_dir() for inner in ("imagesTr", "images", "labelsTr", "labels"))


def labels_to_score(predictions: Path, references: Path, given: LabelMap | None) -> LabelMap:
    """What the references' labels are called.

    Taken from the first of these that says it: ``given``; the references' ``dataset.json`` or ``labels.json``; that
    of the dataset folder in which the references lie as ``labelsTr``, ``labelsTs`` or ``labels``; the predictions'.

    Raises:
        DataError: A folder that is not there, nothing that says it, or a file that should and is not readable.
    """
    _require_folder(predictions)
    _require_folder(references)
    if given is not None:
        return given
    inside_dataset = [references.resolve().parent] if references.name in _LABEL_FOLDERS else []
    for place in (references, *inside_dataset, predictions):
        if (named := named_labels(place)) is not None:
            return named[0]
    raise DataError(f"{references}: nothing says what the labels are called. Name them: --label lymph_node=1.")


def labels_of_predictions(folder: Path) -> LabelMap | None:
    """The labels of the model that predicted, where its ``dataset.json`` is in the folder of the masks; else None."""
    named = named_labels(folder)
    return named[0] if named is not None else None


def missing_predictions(
    predictions: Mapping[str, Path], references: Mapping[str, Path], folder: Path, others: Collection[str] = ()
) -> list[str]:
    """One line naming every reference that has no prediction; empty when each has one.

    Args:
        predictions: By the names of their references.
        references: By case name.
        folder: Of the predictions.
        others: Names of predictions that belong to no reference.
    """
    missing = sorted(set(references) - set(predictions))
    more = f"; left over are {', '.join(sorted(others)[:3])}{', ...' if len(others) > 3 else ''}" if others else ""
    if not missing:
        return []
    number = "1 case has" if len(missing) == 1 else f"{len(missing)} cases have"
    return [
        f"{folder}: {number} a reference and no prediction: {', '.join(missing)}. "
        f"Predict them, or choose the others with --cases or --exclude{more}."
    ]


def scans_of(references: Path, labels: LabelMap, given: Path | None) -> dict[str, Path]:
    """The scan of each case, of several channels the first; empty where it is not known where the scans are.

    Taken from ``given``, a folder of scans or a dataset; else from the dataset that the references are, or lie in.

    Raises:
        DataError: ``given`` is no folder or holds no scans, or the dataset cannot be read.
    """
    if given is not None:
        _require_folder(given, "scans")
    root = _dataset_of(given if given is not None else references)
    if root is not None:
        return {case.name: case.images[0] for case in open_dataset(root, labels).cases if case.images}
    if given is None:
        return {}
    scans: dict[str, Path] = {}
    for file in image_files(given):
        scans.setdefault(case_of(file), file)
    if not scans:
        raise DataError(f"{given}: it holds no scans (.nii.gz, .nii, .nrrd, .mha). Give the folder that holds them.")
    return scans


def subjects_in(references: Path, given: Path | None) -> dict[str, str]:
    """The patient of each case: from the file ``given``, else from the ``subjects.csv`` of the references' dataset.

    Raises:
        DataError: The file cannot be read.
    """
    if given is not None:
        return read_subjects(given)
    return subjects_of(_dataset_of(references) or references)


def unlabelled_in(references: Path, labels: LabelMap) -> Mapping[str, frozenset[str]]:
    """Labels that nobody annotated, by case: from the ``unlabelled.csv`` of the references' folder or dataset.

    Raises:
        DataError: The file cannot be read, or names what is not there.
    """
    root = _dataset_of(references) or references
    cases = references_in(root, labels) if (root / UNLABELLED).is_file() else {}
    return unlabelled_of(root, cases, labels.names)


def probabilities_in(predictions: Path) -> dict[str, Path]:
    """Files of probabilities in the folder of the masks, by case."""
    return {stem(f"{file.stem}.nii"): file for file in sorted(predictions.glob("*.npz"))}


def _dataset_of(folder: Path) -> Path | None:
    """The dataset that a folder is, or whose labels it is."""
    parent = folder.resolve().parent
    if is_dataset(folder):
        return folder
    return parent if folder.name in _LABEL_FOLDERS and is_dataset(parent) and _has_scans(parent) else None


def _has_scans(root: Path) -> bool:
    return any((root / inner).is_dir() for inner in ("imagesTr", "imagesTs", "images"))


def _require_folder(folder: Path, what: str = "masks") -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Give the folder that holds the {what}.")
