"""A label that a reference lacks and most others hold is scored apart and told; never silently Dice 0."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.doubtful_labels import doubtful_labels, may_be_absent
from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.doubtful_references import KnownAbsence, with_doubtful_apart
from lnsegfm.evaluation.folders import evaluate
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.tables import cases_csv
from lnsegfm.imaging.files import write_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.page_summary import limits

LABELS = {"background": 0, "cord": 1, "mandible": 2}
GRID = Grid(shape=(4, 8, 8), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0))


def test_the_rule_needs_most_cases_and_knows_what_a_patient_need_not_have():
    holding = {"a": ["cord", "mandible"], "b": ["cord", "mandible"], "c": ["cord"]}
    assert doubtful_labels(["cord", "mandible"], holding) == {"mandible": ("c",)}
    assert doubtful_labels(["mandible"], holding, absent=["mandible"]) == {}
    assert doubtful_labels(["mandible"], holding, unlabelled={"c": ["mandible"]}) == {}
    assert doubtful_labels(["mandible"], holding | {"d": []}) == {}  # half
    assert doubtful_labels(["mandible"], {"a": ["mandible"], "c": []}) == {}  # too few
    few = {"a": ["mandible"], "b": ["mandible"], "c": [], "d": [], "e": []}
    seen = {case: ["mandible"] for case in "abcde"}
    assert doubtful_labels(["mandible"], few) == {}
    assert doubtful_labels(["mandible"], few, predicted=seen) == {"mandible": ("c", "d", "e")}
    assert doubtful_labels(["mandible"], few, predicted=seen | {"d": [], "e": []}) == {}
    assert all(
        map(may_be_absent, ["lymph_node", "GTVp", "gtv", "LiverTumor", "lung_tumour", "Metastases", "kidney_cyst"])
    )
    assert not any(map(may_be_absent, ["Mandible", "Larynx", "LeftParotid", "spinal_cord", "esophagus"]))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Six cases; in two of them nobody contoured the mandible, and in one of these it is not predicted either."""
    for case in range(6):
        for part in ("predictions", "references"):
            mask = np.zeros(GRID.shape, np.uint8)
            mask[:, 1:3, 1:3] = 1
            contoured = case < 4 if part == "references" else case < 5
            mask[:, 4 : 6 if part == "references" else 7, 4:6] = 2 * contoured
            write_mask(tmp_path / part / f"case{case}.nii.gz", mask, GRID)
        for part in ("predictions", "references"):
            (tmp_path / part / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    return tmp_path / "predictions", tmp_path / "references"


def test_the_case_is_scored_apart_and_told_everywhere(folders):
    found = evaluate(*folders)
    dice = 2 * 4 * 4 / (4 * 4 + 4 * 6)  # 2 x 2 voxels of 2 x 3, on each of four slices
    summary = found.summary()["mandible"]["dice"]
    assert summary.n == 4
    assert summary.mean == pytest.approx(dice)
    assert math.isnan(found.case("case4").value("dice", "mandible"))
    assert found.case("case4").mean_dice == 1.0
    apart = found.doubtful()["mandible"]
    assert apart.cases == ("case4",)
    assert apart.dice_if_absent == pytest.approx(dice * 4 / 5)
    line = str(apart)
    assert "the reference of 1 of 6 cases has none" in line
    assert f"{dice:.2f} over 4 cases, {dice * 4 / 5:.2f} if they count as absent" in line
    assert line in limits(found)
    assert found.to_json()["doubtful"]["mandible"]["of"] == 6
    again = Evaluation.from_json(json.loads(json.dumps(found.to_json())))
    assert again.doubtful() == found.doubtful()
    rows = {(row["case"], row["label"]): row for row in csv.DictReader(io.StringIO(cases_csv(found)))}
    assert rows["case4", "mandible"]["judged"] == "doubtful"
    assert rows["case4", "mandible"]["dice"] == ""
    assert rows["case5", "mandible"]["judged"] == "yes"
    assert Comparison(found, found).difference("mandible").n == 4


def test_what_is_said_to_be_absent_or_not_annotated_is_not_in_doubt(folders):
    counted = evaluate(*folders, absent=["mandible"])
    assert counted.doubtful() == {}
    assert counted.summary()["mandible"]["dice"].n == 5
    assert counted.case("case4").value("dice", "mandible") == 0
    with pytest.raises(ConfigError, match="--absent jaw"):
        evaluate(*folders, absent=["jaw"])
    (folders[1] / "unlabelled.csv").write_text("case,label\ncase4,mandible\ncase5,mandible\n")
    listed = evaluate(*folders)
    assert listed.doubtful() == {}
    assert listed.summary()["mandible"]["dice"].n == 4


def test_of_few_cases_the_others_of_their_dataset_say_whether_most_have_the_label(folders):
    """One of two held-out scans lacks the mandible: by themselves they say nothing, four scans trained on do."""
    found = evaluate(*folders, absent=["mandible"])
    two = replace(found, cases=tuple(case for case in found.cases if case.case in ("case3", "case4")))
    others = {f"shot{number}": ["cord", "mandible"] for number in range(4)}
    assert with_doubtful_apart(two) == two
    apart = with_doubtful_apart(two, KnownAbsence(others=others))
    assert apart.doubtful()["mandible"].cases == ("case4",)
    assert with_doubtful_apart(two, KnownAbsence(("mandible",), others=others)) == two
    lacking = {case: ["cord"] for case in others}
    assert with_doubtful_apart(two, KnownAbsence(others=lacking)) == two
    nobody = KnownAbsence(others=lacking | {"shot9": ["mandible"]}, unlabelled={case: ["mandible"] for case in others})
    assert with_doubtful_apart(two, nobody).doubtful()["mandible"].cases == ("case4",)


def test_false_positives_of_nodes_and_tumours_count(folders):
    labels = {"background": 0, "cord": 1, "GTVp": 2}
    for folder in folders:
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    found = evaluate(*folders)
    assert found.doubtful() == {}
    assert found.case("case4").value("dice", "GTVp") == 0


def test_the_command_says_it(folders, lnsegfm_here):
    said = lnsegfm_here("evaluate", *folders)
    assert said.returncode == 0
    assert "mandible: the reference of 1 of 6 cases has none" in said.stderr
    counted = lnsegfm_here("evaluate", *folders, "--absent", "mandible")
    assert "if they count as absent" not in counted.stderr
