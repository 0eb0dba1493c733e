"""Predictions and references whose names differ in words such as seg."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.folders import evaluate
from lnsegfm.evaluation.paired_masks import paired_names
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid((4, 6, 8), (2.0, 1.0, 1.0))
NODE = LabelMap({"node": 1})


@pytest.mark.parametrize(
    ("predictions", "references", "pairs"),
    [
        (["P1", "P2"], ["P1_seg", "P2_seg"], {"P1_seg": "P1", "P2_seg": "P2"}),
        (["P1_pred"], ["P1_gt"], {"P1_gt": "P1_pred"}),
        (["P1"], ["mask-P1"], {"mask-P1": "P1"}),
        (["P1_ct"], ["P1.seg"], {"P1.seg": "P1_ct"}),
        (["CHUM_001"], ["CHUM-001"], {"CHUM-001": "CHUM_001"}),
        (["P1", "P1_pred"], ["P1_seg"], {}),  # two could be meant
        (["P1", "P1_pred"], ["P1"], {"P1": "P1"}),
        (["P1"], ["P1_seg", "P1_gt"], {}),
        (["P10"], ["P1_seg"], {}),
        (["seg"], ["mask"], {}),  # nothing is left of the names
    ],
)
def test_names_pair_where_only_one_can_be_meant(predictions, references, pairs):
    assert paired_names(predictions, references) == pairs


def box(start: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, np.uint8)
    mask[1:3, 2:4, start : start + 2] = 1
    return mask


def test_folders_of_other_names_are_scored_under_the_references_names(tmp_path: Path):
    for k, name in enumerate(("Zoë", "P2")):
        write_mask(tmp_path / "pred" / f"{unicodedata.normalize('NFD', name)}.nii.gz", box(k), GRID)
        write_mask(tmp_path / "ref" / f"{unicodedata.normalize('NFC', name)}_seg.nii.gz", box(0), GRID)
        write_volume(tmp_path / "ref" / f"{name}.nii.gz", np.full(GRID.shape, -7, np.int16), GRID)
    (tmp_path / "subjects.csv").write_text("case,subject\nP2,Anna\nZoë_seg,Zoë\n")

    scores = evaluate(tmp_path / "pred", tmp_path / "ref", labels=NODE, subjects=tmp_path / "subjects.csv")

    assert {case.case: case.labels["node"].dice for case in scores.cases} == {"Zoë_seg": 1.0, "P2_seg": 0.5}
    assert {case.case: case.subject for case in scores.cases} == {"Zoë_seg": "Zoë", "P2_seg": "Anna"}


def test_predictions_that_pair_with_none_are_named(tmp_path: Path):
    write_mask(tmp_path / "pred" / "other.nii.gz", box(0), GRID)
    write_mask(tmp_path / "ref" / "P1_seg.nii.gz", box(0), GRID)
    remedy = "Predict them, or choose the others with --cases or --exclude"
    with pytest.raises(DataError, match=rf"no prediction: P1_seg\. {remedy}; left over are other\."):
        evaluate(tmp_path / "pred", tmp_path / "ref", labels=NODE)


def test_a_folder_of_patients_folders_names_the_command_that_arranges_it(tmp_path: Path):
    write_mask(tmp_path / "pred" / "P1.nii.gz", box(0), GRID)
    write_mask(tmp_path / "ref" / "P1" / "mask.nii.gz", box(0), GRID)
    with pytest.raises(DataError, match=f"or: lnsegfm data arrange {tmp_path / 'ref'} --out"):
        evaluate(tmp_path / "pred", tmp_path / "ref", labels=NODE)
