"""Masks in memory score as their files do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

import lnsegfm
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.folders import evaluate
from lnsegfm.evaluation.probabilities import write_probabilities
from lnsegfm.imaging.files import read_mask, write_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import as_mask
from tests.listening import OnAdvance

GRID = Grid((12, 14, 16), (2.0, 1.0, 1.5), (3.0, -7.0, 11.5), (-1.0, 0, 0, 0, 0, 1, 0, 1, 0))
LABELS = {"node": 1, "vessel": 2}


def mask(seed: int) -> np.ndarray:
    """Boxes of both labels, some of which move with the seed."""
    found = np.zeros(GRID.shape, np.uint8)
    found[1:5, 2:6, 3:7] = 1
    found[7:10, 2 + seed % 3 : 6, 8:12] = 1
    found[6:9, 9:12, 1 + seed : 5] = 2
    return found


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for number in range(3):
        write_mask(tmp_path / "ours" / f"case_{number:03d}.nii.gz", mask(number), GRID)
        write_mask(tmp_path / "theirs" / f"case_{number:03d}.nii.gz", mask(0), GRID)
    return tmp_path / "ours", tmp_path / "theirs"


def test_every_form_scores_as_the_folders_do(folders):
    ours, theirs = (sorted(folder.iterdir()) for folder in folders)
    expected = evaluate(*folders, labels=LABELS)
    assert expected.cases[0].labels["node"].dice == 1
    assert 0 < expected.cases[1].labels["node"].dice < 1

    def pairs(make: Any) -> Any:
        return [make(file) for file in ours], [make(file) for file in theirs]

    forms: list[Any] = [pairs(sitk.ReadImage), pairs(nibabel.load), pairs(str), pairs(read_mask), pairs(as_mask)]
    for form in forms:
        assert evaluate(*form, labels=LABELS).cases == expected.cases
    arrays = pairs(lambda file: read_mask(file)[0])
    assert evaluate(*arrays, grid=read_mask(ours[0])[1], labels=LABELS).cases == expected.cases
    one = evaluate(sitk.ReadImage(str(ours[1])), nibabel.load(theirs[1]), labels=LABELS)
    assert one.cases[0].labels == expected.cases[1].labels
    assert [case.case for case in one.cases] == ["case"]
    named = evaluate({"a": ours[1]}, {"a": theirs[1]}, labels=LABELS, subjects={"a": "p"})
    assert (named.cases[0].case, named.cases[0].subject) == ("a", "p")


def test_a_prediction_brings_its_labels_and_probabilities(folders, tmp_path):
    ours, theirs = (sorted(folder.iterdir()) for folder in folders)
    random = np.random.default_rng(0)
    predictions = []
    for file in ours:
        array, grid = read_mask(file)
        likely = random.uniform(0.1, 0.3, (3, *grid.shape)).astype(np.float32)
        for value in range(3):
            likely[value][array == value] += 0.5
        write_probabilities(folders[0] / f"{file.name.removesuffix('.nii.gz')}.npz", likely)
        predictions.append(lnsegfm.Prediction(array=array, grid=grid, labels=LABELS, probabilities=likely))
    expected = evaluate(*folders, labels=LABELS)
    assert expected.cases[0].labels["node"].froc is not None
    found = evaluate(predictions, theirs)
    assert found.cases == expected.cases
    assert found.prediction_labels == LabelMap(LABELS)
    # labels are matched by name where the references' are others
    swapped = [(np.array([0, 2, 1], np.uint8)[read_mask(file)[0]], GRID) for file in theirs]
    again = evaluate(predictions, swapped, labels={"vessel": 1, "node": 2})
    assert [case.labels["node"] for case in again.cases] == [case.labels["node"] for case in expected.cases]


def test_what_cannot_be_scored_is_refused_by_case(folders):
    ours, theirs = (sorted(folder.iterdir()) for folder in folders)
    with pytest.raises(DataError, match="nothing says what the masks hold"):
        evaluate(ours, theirs)
    with pytest.raises(DataError, match="Case case_002: it has no prediction"):
        evaluate(ours[:2], theirs, labels=LABELS)
    with pytest.raises(DataError, match="Case case: the prediction: its geometry is not its reference's: spacing"):
        evaluate((mask(0), Grid(GRID.shape, (1, 1, 1))), (mask(0), GRID), labels=LABELS)
    with pytest.raises(DataError, match=r"Case case: the reference: label values \[2\] are not among node=1"):
        evaluate((mask(0) % 2, GRID), (mask(0), GRID), labels={"node": 1})
    with pytest.raises(DataError, match="Case case: the prediction: label values must be whole numbers"):
        evaluate((mask(0) / 2, GRID), (mask(0), GRID), labels=LABELS)
    with pytest.raises(ConfigError, match="Node label nose"):
        evaluate(ours, theirs, labels=LABELS, nodes=["nose"])
    seen: list[Any] = []
    some = evaluate(ours[:2], theirs, labels=LABELS, partial=True, progress=OnAdvance(lambda *step: seen.append(step)))
    assert len(some.cases) == 2
    assert some.failures == ("Case case_002: it has no prediction. Give one.",)
    assert seen == [(1, 2, "case_000"), (2, 2, "case_001")]


def test_a_notebook_shows_the_means(folders):
    shown = evaluate(*folders, labels={"<b>node": 1, "vessel": 2})._repr_html_()
    assert "Evaluation of 3 cases" in shown
    assert "&lt;b&gt;node" in shown
    assert "<b>" not in shown
    assert "mean over labels" in shown
    assert shown.count("<table>") == 1
