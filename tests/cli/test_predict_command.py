from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from tests.cli.machines import write_machine
from tests.scenes import scene, write_image

QUICK = ["--no-mirroring", "--device", "cpu"]


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for case in range(3):
        write_image(tmp_path / "scans" / f"case_{case}.nii.gz", scene(case)[0])
    return tmp_path / "scans"


def masks(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*.nii.gz"))


def test_one_unreadable_scan_of_three(lnsegfm_here, model, scans, out):
    whole = (scans / "case_1.nii.gz").read_bytes()
    (scans / "case_1.nii.gz").write_bytes(whole[:-2000])

    done = lnsegfm_here("predict", model, scans, "--out", out, *QUICK)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Predicting 3 cases",
        f"lnsegfm: Case case_1: {scans / 'case_1.nii.gz'}: it is cut short or damaged (its compression does not end "
        "well). Copy or export it again.",
    ]
    told, *looks, last = done.stdout.splitlines()
    assert (told, last) == (f"2 predicted, 0 were there already: {out}", "Not for clinical use.")
    assert all(line.startswith(("Review case_0: ", "Review case_2: ")) for line in looks)
    assert masks(out) == ["case_0.nii.gz", "case_2.nii.gz"]
    for name in masks(out):
        mask, image = sitk.ReadImage(str(out / name)), sitk.ReadImage(str(scans / name))
        assert (mask.GetSize(), mask.GetSpacing(), mask.GetOrigin()) == (
            image.GetSize(),
            image.GetSpacing(),
            image.GetOrigin(),
        )

    before = {name: (out / name).stat().st_mtime_ns for name in masks(out)}
    again = lnsegfm_here("predict", model, scans, "--out", out, "--json", *QUICK)
    assert again.returncode == 1
    found = json.loads(again.stdout)
    assert (found["done"], found["skipped"], list(found["failed"])) == ([], ["case_0", "case_2"], ["case_1"])

    (scans / "case_1.nii.gz").write_bytes(whole)
    mended = lnsegfm_here("predict", model, scans, "--out", out, *QUICK)
    assert (mended.returncode, mended.stderr) == (0, "Predicting 3 cases\n")
    assert "1 predicted, 2 were there already" in mended.stdout
    assert masks(out) == [f"case_{case}.nii.gz" for case in range(3)]
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert not list(out.glob(".partial-*"))


def test_one_scan_alone_and_as_json(lnsegfm_here, model, scans, out):
    done = lnsegfm_here("predict", model, scans / "case_2.nii.gz", "--out", out, "--json", *QUICK)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    flags = found.pop("flags")
    assert found == {
        "folder": str(out),
        "done": ["case_2"],
        "skipped": [],
        "failed": {},
        "passed_over": [],
        "notes": [],
    }
    assert flags == json.loads((out / "flags.json").read_text())["cases"]["case_2"]
    assert masks(out) == ["case_2.nii.gz"]


def test_cases_to_look_at_are_named_with_their_reasons(lnsegfm_here, model, scans, out):
    """Noise about 0 is no CT; the second command predicts nothing and says the same."""
    for number in ("1 predicted, 0", "0 predicted, 1"):
        done = lnsegfm_here("predict", model, scans / "case_0.nii.gz", "--out", out, *QUICK)
        first, *looks, _ = done.stdout.splitlines()
        assert first == f"{number} were there already: {out}"
        assert looks[0].startswith("Review case_0: These are hardly HU: ")
        reasons = [flag["reason"] for flag in json.loads((out / "flags.json").read_text())["cases"]["case_0"]]
        assert looks == [f"Review case_0: {reason}" for reason in reasons]
    done = lnsegfm_here("predict", model, scans / "case_1.nii.gz", "--out", out, "--no-flags", *QUICK)
    assert len(done.stdout.splitlines()) == 2
    assert list(json.loads((out / "flags.json").read_text())["cases"]) == ["case_0"]


def test_nodes_and_probabilities_lie_beside_the_masks(lnsegfm_here, model, scans, out):
    beside = ("--nodes", "--probabilities")
    done = lnsegfm_here("predict", model, scans / "case_0.nii.gz", "--out", out, *beside, *QUICK)
    assert (done.returncode, done.stderr) == (0, "Predicting 1 case\n")
    assert sorted(path.name for path in out.glob("case_0*")) == [
        f"case_0{ending}" for ending in (".case.json", ".nii.gz", ".nodes.csv", ".nodes.json", ".npz")
    ]


def test_labels_that_are_not_named_as_nodes_are_all_measured(lnsegfm_here, model, scans, out, tmp_path):
    other = shutil.copytree(model, tmp_path / "other")
    told = json.loads((other / "dataset.json").read_text()) | {"labels": {"background": 0, "lesion": 1}}
    (other / "dataset.json").write_text(json.dumps(told))
    done = lnsegfm_here("predict", other, scans / "case_0.nii.gz", "--out", out, "--nodes", *QUICK)
    assert done.stderr.splitlines()[0] == "No label is named as nodes: all are measured (lesion)"
    assert list(json.loads((out / "case_0.nodes.json").read_text())["labels"]) == ["lesion"]


@pytest.mark.parametrize("there", ["nothing", "a text"])
def test_a_folder_without_scans(refused, model, tmp_path, out, there):
    (tmp_path / "scans").mkdir()
    if there == "a text":
        (tmp_path / "scans" / "readme.txt").write_text("no scan")
    assert refused("predict", model, tmp_path / "scans", "--out", out, *QUICK) == [
        f"{tmp_path / 'scans'}: it holds no images. Give a folder with NIfTI, NRRD or MHA files, or DICOM CT."
    ]


def test_no_such_scan(refused, model, tmp_path, out):
    assert refused("predict", model, tmp_path / "none.nii.gz", "--out", out, *QUICK) == [
        f"{tmp_path / 'none.nii.gz'}: no such file or folder. Give a scan, or a folder of scans."
    ]


def test_missing_channels_are_all_named(refused, tmp_path, out):
    two = write_machine(tmp_path / "two", ("CT", "PET"))
    for name in ("a_0000", "c_0001"):
        write_image(tmp_path / "scans" / f"{name}.nii.gz", scene(0)[0])
    assert refused("predict", two, tmp_path / "scans", "--out", out, *QUICK) == [
        f"Case {case} in {tmp_path / 'scans'}: channels [{there}] are there, but the model takes 2. Add the others."
        for case, there in (("a", 0), ("c", 1))
    ]


def test_a_case_that_lacks_a_channel_stops_no_other(lnsegfm_here, tmp_path, out):
    two = write_machine(tmp_path / "two", ("CT", "PET"))
    for name in ("a_0000", "b_0000", "b_0001"):
        write_image(tmp_path / "scans" / f"{name}.nii.gz", scene(0)[0])
    done = lnsegfm_here("predict", two, tmp_path / "scans", "--out", out, *QUICK)
    assert done.returncode == 1
    assert f"Case a in {tmp_path / 'scans'}: channels [0] are there, but the model takes 2." in done.stderr
    assert masks(out) == ["b.nii.gz"]


def test_two_files_of_one_scan(refused, model, scans, out):
    shutil.copy(scans / "case_1.nii.gz", scans / "case_1_0000.nii.gz")
    (said,) = refused("predict", model, scans, "--out", out, *QUICK)
    assert said.endswith("is the same case. Rename or remove one of the two.")


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_masks_never_take_the_place_of_their_scans(refused, model, scans, more):
    said = [f"--out {scans}: the scans lie there, and masks have their names. Name another folder."]
    assert refused("predict", model, scans, "--out", scans, *QUICK, *more) == said
    assert refused("predict", model, scans / "case_0.nii.gz", "--out", scans, *QUICK, *more) == said


@pytest.mark.parametrize("step", ["0", "1.5", "nan"])
def test_a_window_that_does_not_move_or_leaves_gaps(refused, model, scans, out, step):
    assert refused("predict", model, scans, "--out", out, "--step", step, *QUICK) == [
        f"--step {float(step)}: windows must touch or overlap. Use a share above 0, at most 1."
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("none", "labelsTr", "{ours}: no such folder. Give the folder that holds the masks."),
        ("labelsTr", "none", "{theirs}: no such folder. Give the folder that holds the masks."),
        (
            "empty",
            "labelsTr",
            "{ours}: it holds no masks (.nii.gz, .nii, .nrrd, .mha). Give the folder that holds them.",
        ),
    ],
)
def test_evaluate_refuses(refused, clinic, out, ours, theirs, said):
    (clinic / "empty").mkdir()
    folders = {"ours": clinic / ours, "theirs": clinic / theirs}
    found = refused("evaluate", *folders.values(), "--label", "node=1", "--out", out)
    assert found == [said.format(**folders)]


def test_evaluate_refuses_a_label_that_is_none(refused, clinic, out):
    assert refused("evaluate", clinic / "labelsTr", clinic / "labelsTr", "--label", "node", "--out", out) == [
        "Label option 'node': not NAME=VALUE. Write --label lymph_node=1."
    ]


def test_what_was_predicted_can_be_evaluated(lnsegfm_here, model, clinic, out, tmp_path):
    assert lnsegfm_here("predict", model, clinic / "imagesTr", "--out", out, *QUICK).returncode == 0
    done = lnsegfm_here("evaluate", out, clinic, "--json", "--out", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["node"]["dice"]["n"] == 3
    names = {path.name for path in (tmp_path / "scores").iterdir()}
    assert names == {"evaluation.csv", "evaluation.json", "nodes.csv", "report.html"}
