"""A run on merged labels is the run on masks that were merged beforehand, and is scored so."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from lnsegfm.evaluation.evaluation_files import read_evaluation
from lnsegfm.imaging.files import read_mask, write_mask
from lnsegfm.models.model_folder import read_model
from lnsegfm.progress import Progress
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan


class Noted(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def sides(world, tmp_path):
    """The clinic with its nodes as ``left`` and ``right`` of the middle, and a label of no interest."""
    shutil.copytree(world.clinic, tmp_path / "sides")
    description = json.loads((world.clinic / "dataset.json").read_text())
    labels = {"background": 0, "left": 1, "right": 2, "other": 5}
    (tmp_path / "sides" / "dataset.json").write_text(json.dumps(description | {"labels": labels}))
    for file in sorted((tmp_path / "sides" / "labelsTr").iterdir()):
        mask, grid = read_mask(file)
        mask[..., mask.shape[2] // 2 :] *= 2
        mask[0, 0, :3] = 5
        write_mask(file, mask, grid)
    return tmp_path / "sides"


def test_a_run_on_merged_labels_is_that_on_merged_masks(world, sides, tmp_path, lnsegfm_here):
    choice = {"merge": {"node": ("left", "right")}, "keep_labels": ("node",)}
    merged = finetune(plan(sides, world.base, world.recipe(**choice)), tmp_path / "merged", device="cpu", workers=0)
    plain = finetune(plan(world.clinic, world.base, world.recipe()), tmp_path / "plain", device="cpu", workers=0)
    assert read_model(merged.model).weights_sha256 == read_model(plain.model).weights_sha256
    assert read_model(merged.model).mask_labels.names == {"node": 1}

    def dice(run):
        return [case.labels["node"].dice for case in run.evidence.comparison.adapted.cases]

    assert dice(merged) == dice(plain)
    again = read_evaluation(tmp_path / "merged" / "predictions" / "adapted")
    assert again.labels.covered == {"node": (1, 2)}
    words = ("--merge", "node=left+right", "--keep-labels", "node", "--json")
    scored = lnsegfm_here("evaluate", merged.folder / "predictions" / "adapted", sides / "labelsTr", *words)
    by_case = {case["case"]: case["labels"]["node"]["dice"] for case in json.loads(scored.stdout)["cases"]}
    assert [by_case[case] for case in merged.record["held_out"]] == dice(merged)


def test_a_label_that_no_shot_holds_is_said_not_to_be_learned(world, sides):
    file = sides / "labelsTr" / "case_1.nii.gz"
    mask, grid = read_mask(file)
    write_mask(file, (mask > 0).astype(mask.dtype), grid)  # all of it left
    noted = Noted()
    plan(sides, world.base, world.recipe(shots="case_1"), progress=noted)
    (line,) = [line for line in noted.said if line.startswith("Not learned")]
    assert line == "Not learned: no shot holds right, other. Choose other --shots, or leave it out by --keep-labels."
    noted.said.clear()
    plan(sides, world.base, world.recipe(shots="case_0,case_1,case_2"), progress=noted)
    assert not [line for line in noted.said if line.startswith("Not learned")]


def test_masks_that_have_the_parts_are_merged_too(sides, tmp_path, lnsegfm_here):
    shutil.copytree(sides / "labelsTr", tmp_path / "masks")
    shutil.copy(sides / "dataset.json", tmp_path / "masks")
    for file in sorted((tmp_path / "masks").glob("*.nii.gz")):
        mask, grid = read_mask(file)
        write_mask(file, np.choose(np.minimum(mask, 3), [0, 2, 1, 5]).astype(mask.dtype), grid)  # sides exchanged
    plain = lnsegfm_here("evaluate", tmp_path / "masks", sides, "--json")
    merged = lnsegfm_here("evaluate", tmp_path / "masks", sides, "--merge", "node=left+right", "--json")
    assert json.loads(plain.stdout)["cases"][0]["labels"]["left"]["dice"] == 0
    assert (merged.returncode, merged.stderr) == (0, "")
    assert len(json.loads(merged.stdout)["cases"]) == len(json.loads(plain.stdout)["cases"])
    assert {case["labels"]["node"]["dice"] for case in json.loads(merged.stdout)["cases"]} == {1.0}
