"""``lnsegfm report``, and what ``lnsegfm evaluate`` leaves for it."""

import json
import shutil

import numpy as np
import pytest

from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid((12, 40, 40), (3.0, 2.0, 2.0))


def ball(*centres: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    for z, y, x in centres:
        mask[z - 1 : z + 2, y - 3 : y + 4, x - 3 : x + 4] = 1
    return mask


@pytest.fixture
def clinic(tmp_path):
    """Four scans with two nodes each; ``good`` finds both, ``poor`` one, and has a false positive."""
    for i in range(4):
        both = (5, 10, 10 + i), (5, 28, 20)
        write_volume(tmp_path / "data" / "images" / f"c{i}.nii.gz", np.full(GRID.shape, 40, np.int16), GRID)
        write_mask(tmp_path / "data" / "labels" / f"c{i}.nii.gz", ball(*both), GRID)
        write_mask(tmp_path / "good" / f"c{i}.nii.gz", ball(*both), GRID)
        write_mask(tmp_path / "poor" / f"c{i}.nii.gz", ball((5, 28, 21), (8, 10, 32)), GRID)
    (tmp_path / "data" / "labels.json").write_text('{"lymph_node": 1}')
    return tmp_path


def test_pages_of_two_models_and_of_one_against_the_other(lnsegfm_here, clinic):
    for name in ("good", "poor"):
        done = lnsegfm_here("evaluate", clinic / name, clinic / "data", "--out", clinic / f"report-{name}")
        assert done.returncode == 0, done.stderr
        assert f"Report   {clinic / f'report-{name}' / 'report.html'}" in done.stdout

    done = lnsegfm_here("report", "--compare", clinic / "report-poor", clinic / "report-good", "--out", clinic / "both")

    assert done.returncode == 0, done.stderr
    found = json.loads((clinic / "both" / "comparison.json").read_text())
    assert found["names"] == ["report-poor", "report-good"]
    assert found["outcome"] == "adapted better"
    assert (
        found["nodes"]["lymph_node"]["base_true_positives"],
        found["nodes"]["lymph_node"]["adapted_true_positives"],
    ) == (4, 8)
    assert (
        found["nodes"]["lymph_node"]["base_false_positives"],
        found["nodes"]["lymph_node"]["adapted_false_positives"],
    ) == (4, 0)
    page = (clinic / "both" / "report.html").read_text(encoding="utf-8")
    assert "report-good is better" in page or "Report-good is better" in page
    assert "Not for clinical use" in page


def test_a_comparison_in_one_command(lnsegfm_here, clinic):
    done = lnsegfm_here(
        "evaluate", clinic / "good", clinic / "data", "--against", clinic / "poor", "--out", clinic / "out"
    )

    assert done.returncode == 0, done.stderr
    assert "good is better than poor by" in done.stdout.replace("\n", " ")
    assert {p.name for p in (clinic / "out").iterdir()} == {
        "against",
        "comparison.json",
        "evaluation.csv",
        "evaluation.json",
        "nodes.csv",
        "report.html",
    }


def test_the_page_is_made_anew_where_the_folder_was_moved(lnsegfm_here, clinic):
    lnsegfm_here("evaluate", clinic / "poor", clinic / "data", "--out", clinic / "poor")
    first = (clinic / "poor" / "report.html").read_text(encoding="utf-8")
    moved = clinic.with_name(clinic.name + "-moved")
    shutil.copytree(clinic, moved)
    (moved / "poor" / "report.html").unlink()

    done = lnsegfm_here("report", moved / "poor")

    assert done.returncode == 0, done.stderr
    again = (moved / "poor" / "report.html").read_text(encoding="utf-8")
    assert again.count("<svg") == first.count("<svg") > 0


def test_a_model_against_itself_shows_no_difference(lnsegfm_here, clinic):
    lnsegfm_here("evaluate", clinic / "poor", clinic / "data", "--out", clinic / "one")
    shutil.copytree(clinic / "one", clinic / "other")

    done = lnsegfm_here("report", "--compare", clinic / "one", clinic / "other", "--out", clinic / "out", "--json")

    found = json.loads(done.stdout)
    assert found["outcome"] == "no difference"
    assert found["overall"]["p"] == 1.0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "give the folder of a run or an evaluation, or --compare A B"),
        (("{}/data",), "holds no evaluation.json"),
        (("{}/data", "--out", "{}/x"), "Use --out with --compare only"),
        (("--compare", "{}/data", "{}/poor"), "Name one: --out DIR"),
        (("--compare", "{}/data", "{}/poor", "--out", "{}/x"), "holds no evaluation.json"),
    ],
)
def test_wrong_requests_are_one_line(lnsegfm_here, clinic, words, said):
    done = lnsegfm_here("report", *(word.format(clinic) for word in words))

    assert done.returncode == 2
    assert done.stderr.startswith("lnsegfm: ")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not (clinic / "x").exists()


def test_a_label_that_is_no_node_by_name_is_counted_when_named(lnsegfm_here, clinic):
    (clinic / "data" / "labels.json").write_text('{"tumour": 1}')

    plain = json.loads(lnsegfm_here("evaluate", clinic / "poor", clinic / "data", "--json").stdout)
    named = json.loads(lnsegfm_here("evaluate", clinic / "poor", clinic / "data", "--json", "--node", "tumour").stdout)

    assert plain["node_labels"] == []
    assert named["nodes"]["tumour"][0]["all"]["nodes"] == 8


def test_subjects_come_from_a_file_or_from_the_dataset(lnsegfm_here, clinic):
    table = "case,subject\n" + "".join(f"c{i},p{i % 2}\n" for i in range(4))
    (clinic / "s.csv").write_text(table)
    (clinic / "data" / "subjects.csv").write_text(table.replace("p1", "p0"))

    def subjects(*words: object) -> list[str]:
        done = lnsegfm_here("evaluate", clinic / "poor", clinic / "data", "--json", *words)
        return [case["subject"] for case in json.loads(done.stdout)["cases"]]

    assert subjects() == ["p0"] * 4
    assert subjects("--subjects", clinic / "s.csv") == ["p0", "p1"] * 2


def test_a_scan_on_another_grid_is_one_line_and_leaves_nothing(lnsegfm_here, clinic):
    small = Grid((6, 40, 40), (3.0, 2.0, 2.0))
    write_volume(clinic / "scans" / "c2.nii.gz", np.zeros(small.shape, np.int16), small)

    done = lnsegfm_here(
        "evaluate", clinic / "good", clinic / "data", "--images", clinic / "scans", "--out", clinic / "out"
    )

    assert done.returncode == 2
    assert sum(line.startswith("lnsegfm: ") for line in done.stderr.splitlines()) == 1
    assert "c2" in done.stderr
    assert not list(clinic.glob("out/*"))


def test_without_scans_masks_are_drawn_alone(lnsegfm_here, clinic):
    done = lnsegfm_here(
        "evaluate", clinic / "poor", clinic / "data" / "labels", "--label", "node=1", "--out", clinic / "poor-out"
    )
    (clinic / "data" / "labels").rename(clinic / "masks")
    alone = lnsegfm_here("evaluate", clinic / "poor", clinic / "masks", "--label", "node=1", "--out", clinic / "alone")

    assert (done.returncode, alone.returncode) == (0, 0), alone.stderr
    with_scans = (clinic / "poor-out" / "report.html").read_text(encoding="utf-8")
    without = (clinic / "alone" / "report.html").read_text(encoding="utf-8")
    assert with_scans.count("data:image/jpeg") + with_scans.count("<image") > 0
    assert without.count("<svg") == with_scans.count("<svg")
    assert "<image" not in without


def test_what_only_one_evaluation_has_is_left_out_and_told(lnsegfm_here, clinic):
    lnsegfm_here("evaluate", clinic / "good", clinic / "data", "--out", clinic / "all")
    (clinic / "poor" / "c3.nii.gz").unlink()
    assert lnsegfm_here("evaluate", clinic / "poor", clinic / "data", "--out", clinic / "some").returncode == 1

    done = lnsegfm_here("report", "--compare", clinic / "some", clinic / "all", "--out", clinic / "out", "--json")

    found = json.loads(done.stdout)
    assert list(found["overall"]["by_case"]) == ["c0", "c1", "c2"]
    assert any("not compared: c3" in note for note in found["notes"])
