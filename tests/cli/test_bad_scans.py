"""Scans and labels that cannot be trained on, through the real command: one line each, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from tests.scenes import scene, write_image

ANNOTATE = "Annotate it, take the case out, or keep every such scan with --allow-empty: it truly holds nothing."


def image(clinic: Path, case: int = 1) -> Path:
    return clinic / "imagesTr" / f"case_{case}_0000.nii.gz"


def label(clinic: Path, case: int = 1) -> Path:
    return clinic / "labelsTr" / f"case_{case}.nii.gz"


def unreadable(clinic: Path) -> str:
    image(clinic).write_text("not an image")
    what = "unreadable: it is no NIfTI, NRRD or MHA, or it is cut short or empty"
    return f"Case case_1: {image(clinic)}: {what}. Copy or export it again."


def cut_short(clinic: Path) -> str:
    image(clinic).write_bytes(image(clinic).read_bytes()[:-2000])
    what = "it is cut short or damaged (its compression does not end well)"
    return f"Case case_1: {image(clinic)}: {what}. Copy or export it again."


def unreadable_label(clinic: Path) -> str:
    label(clinic).write_bytes(b"")
    what = "unreadable: it is no NIfTI, NRRD or MHA, or it is cut short or empty"
    return f"Case case_1: {label(clinic)}: {what}. Copy or export it again."


def geometry_differs(clinic: Path) -> str:
    mask = sitk.ReadImage(str(label(clinic)))
    mask.SetSpacing((1.5, 1.0, 2.5))
    sitk.WriteImage(mask, str(label(clinic)))
    return (
        f"Case case_1: {label(clinic)}: its geometry is not its image's: spacing (2.5, 1, 1.5) "
        "against (2, 1, 1.5) mm (z, y, x; by 0.5 mm). "
        "Resample the label onto the image, or copy the image's header where only the header is wrong."
    )


def labels_not_in_the_map(clinic: Path) -> str:
    mask = scene(1)[1]
    mask[0, 0, :2] = (3, 7)
    write_image(label(clinic), mask)
    return (
        f"Case case_1: {label(clinic)}: label values 3, 7 are not among node=1. "
        "Name every value (--label NAME=VALUE) or renumber the mask."
    )


def nan(clinic: Path) -> str:
    voxels = scene(1)[0].astype(np.float32)
    voxels[3, 4, :5] = np.nan
    write_image(image(clinic), voxels)
    return f"Case case_1: {image(clinic)}: 5 voxels are NaN or infinite. Replace them, for CT by -1024 (air)."


def two_dimensional(clinic: Path) -> str:
    sitk.WriteImage(sitk.GetImageFromArray(scene(1)[0][0]), str(image(clinic)))
    return f"Case case_1: {image(clinic)}: it is 2D (28x24). Give the whole scan as one 3D volume."


def four_dimensional(clinic: Path) -> str:
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(scene(1)[0])] * 2), str(image(clinic)))
    return f"Case case_1: {image(clinic)}: it is 4D (28x24x20x2). Save each 3D volume in a file of its own."


def empty_label(clinic: Path) -> str:
    write_image(label(clinic), np.zeros_like(scene(1)[1]))
    return f"Case case_1: {label(clinic)}: the label is empty. {ANNOTATE}"


def no_label(clinic: Path) -> str:
    label(clinic).unlink()
    return f"Case case_1: {image(clinic)}: an image without a label. Add its label or remove the image."


def no_image(clinic: Path) -> str:
    image(clinic).unlink()
    return f"Case case_1: {label(clinic)}: a label without an image. Add its image or remove the label."


def duplicate_image(clinic: Path) -> str:
    image(clinic).write_bytes(image(clinic, 0).read_bytes())
    label(clinic).write_bytes(label(clinic, 0).read_bytes())
    return f"Case case_1: {image(clinic)}: the same image as case case_0 (case_0_0000.nii.gz). Keep one of the two."


def duplicate_name(clinic: Path) -> str:
    sitk.WriteImage(sitk.ReadImage(str(image(clinic))), str(image(clinic)).replace(".nii.gz", ".nrrd"))
    return (
        "Case case_1: this name occurs 2 times: case_1_0000.nii.gz, case_1.nii.gz, case_1_0000.nrrd. "
        "Keep one image and one label of each name."
    )


BAD = [
    unreadable,
    cut_short,
    unreadable_label,
    geometry_differs,
    labels_not_in_the_map,
    nan,
    two_dimensional,
    four_dimensional,
    empty_label,
    no_label,
    no_image,
    duplicate_image,
    duplicate_name,
]


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_finetune_refuses(refused, model, clinic, out, spoil):
    said = spoil(clinic)
    assert refused("finetune", clinic, "--model", model, "--out", out, "--device", "cpu") == [said]


def test_everything_that_is_wrong_is_told_in_one_go(refused, lnsegfm_here, model, clinic, out):
    write_image(label(clinic, 0), np.zeros_like(scene(0)[1]))
    image(clinic, 2).write_text("not an image")
    label(clinic, 2).write_text("nor a mask")
    said = [
        f"Case case_0: {label(clinic, 0)}: the label is empty. {ANNOTATE}",
        nan(clinic),
        *(
            f"Case case_2: {file}: unreadable: it is no NIfTI, NRRD or MHA, or it is cut short or empty. "
            "Copy or export it again."
            for file in (image(clinic, 2), label(clinic, 2))
        ),
    ]
    assert refused("finetune", clinic, "--model", model, "--out", out, "--device", "cpu") == said
    assert refused("finetune", clinic, "--model", model, "--out", out, "--dry-run") == said
    assert refused("pretrain", clinic, "--out", out, "--device", "cpu") == said
    checked = lnsegfm_here("data", "check", clinic)  # a table of warnings goes to the standard output
    assert checked.returncode == 2
    assert [line for line in checked.stderr.splitlines() if line.startswith("lnsegfm: ")] == [
        f"lnsegfm: {line}" for line in said
    ]
    found = json.loads(lnsegfm_here("data", "check", clinic, "--json").stdout)
    assert [problem["case"] for problem in found["problems"]] == ["case_0", "case_1", "case_2", "case_2"]


@pytest.mark.parametrize("how", ["missing", "empty", "a file", "no layout"])
def test_a_folder_without_scans(refused, model, tmp_path, out, how):
    data = tmp_path / "data"
    said = f"{data}: no such folder. Give the folder that holds images and labels."
    if how == "a file":
        data.write_text("")
    elif how != "missing":
        (data / "imagesTr" if how == "empty" else data).mkdir(parents=True)
        said = (
            f"{data}: it has imagesTr/ and no labelsTr/. Put the masks there, named as their images."
            if how == "empty"
            else f"{data}: neither an nnU-Net dataset (dataset.json, imagesTr/, labelsTr/) nor a folder with images/ "
            "and labels/. Give the folder that holds them."
        )
    assert refused("finetune", data, "--model", model, "--out", out) == [said]
    assert refused("pretrain", data, "--out", out) == [said]
    if how == "missing":
        said = f"{data}: no such file or folder. Give a dataset, or a folder tree or zip of DICOM."
    elif how != "empty":
        said = f"{data}: no CT in it (no DICOM). Give a dataset, or a folder tree or zip with DICOM CT series."
    assert refused("data", "check", data) == [said]


def test_masks_that_nobody_names_and_the_base_does_not_know(refused, model, clinic, out):
    labels_not_in_the_map(clinic)
    (clinic / "dataset.json").unlink()
    (clinic / "imagesTr").rename(clinic / "images")
    (clinic / "labelsTr").rename(clinic / "labels")
    assert refused("finetune", clinic, "--model", model, "--out", out) == [
        f"{clinic}: the masks hold the values [0, 1, 3, 7] and the base model's labels (node=1) do not have [3, 7]. "
        'Name them: --label lymph_node=1, or a labels.json with {"lymph_node": 1}.'
    ]
