from __future__ import annotations

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import lnsegfm.cli.main as program
from lnsegfm.cli.evaluate_command import evaluate
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid((4, 5, 10), (10.0, 10.0, 10.0))
NAMED = ["--label", "node=1"]


def row(voxels: int) -> np.ndarray:
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    mask[0, 0, :voxels] = 1
    return mask


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for name, ours, theirs in (("a", 4, 4), ("b", 2, 4), ("c", 0, 0)):
        write_mask(tmp_path / "masks" / f"{name}.nii.gz", row(ours), GRID)
        write_mask(tmp_path / "references" / f"{name}.nii.gz", row(theirs), GRID)
    return [str(tmp_path / "masks"), str(tmp_path / "references")]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command as the program does; its exit code and what it printed."""

    def run(*args: str) -> tuple[int, str, str]:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(evaluate)
        monkeypatch.setattr(program, "app", lambda: app(list(args)))
        monkeypatch.setenv("COLUMNS", "120")
        code = 0
        try:
            program.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return run


def test_prints_tables_and_the_notice(run, folders):
    code, out, err = run(*folders, *NAMED)

    assert (code, err) == (0, "")
    assert "0.667" in out  # case b
    assert "0.833" in out  # mean of 1 and 0.667
    assert "Left out:" in out
    assert out.splitlines()[-1] == "Not for clinical use."


def test_brackets_in_a_name_are_shown(run, tmp_path):
    for folder in ("masks", "references"):
        write_mask(tmp_path / folder / "scan[bold].nii.gz", row(3), GRID)

    _, out, _ = run(str(tmp_path / "masks"), str(tmp_path / "references"), "--label", "node[red]=1")

    assert "scan[bold]" in out
    assert "node[red]" in out


def test_writes_json_and_csv(run, folders, tmp_path):
    code, _, _ = run(*folders, *NAMED, "--out", str(tmp_path / "report"))

    content = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    rows = list(csv.DictReader((tmp_path / "report" / "evaluation.csv").open()))
    assert code == 0
    assert content["summary"]["node"]["dice"]["mean"] == pytest.approx(5 / 6)
    assert [(r["case"], r["label"]) for r in rows] == [("a", "node"), ("b", "node"), ("c", "node")]
    assert float(rows[1]["dice"]) == pytest.approx(2 / 3, abs=1e-4)
    assert float(rows[1]["volume_difference_ml"]) == -2.0
    assert rows[2]["dice"] == ""
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == [
        "evaluation.csv",
        "evaluation.json",
        "nodes.csv",
        "report.html",
    ]
    nodes = list(csv.DictReader((tmp_path / "report" / "nodes.csv").open()))
    assert [(n["case"], n["mask"], n["status"]) for n in nodes] == [
        (case, mask, "true-positive") for case in "ab" for mask in ("reference", "prediction")
    ]
    assert [float(n["volume_ml"]) for n in nodes] == [4.0, 4.0, 4.0, 2.0]
    assert [float(n["iou"]) for n in nodes] == [1.0, 1.0, 0.5, 0.5]


def test_json_alone_on_stdout(run, folders):
    code, out, _ = run(*folders, *NAMED, "--json")

    assert code == 0
    assert json.loads(out)["format"] == "lnsegfm.evaluation/3"


def test_a_dataset_folder_names_the_labels(run, folders, tmp_path):
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "references").rename(tmp_path / "labelsTr")
    for name in "abc":
        write_volume(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", row(0), GRID)
    described = {"labels": {"background": 0, "lymph_node": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps(described))

    for references in (tmp_path, tmp_path / "labelsTr"):
        code, out, _ = run(folders[0], str(references), "--json")
        assert code == 0
        assert next(iter(json.loads(out)["summary"])) == "lymph_node"


def test_the_predictions_may_name_the_labels(run, folders):
    (Path(folders[0]) / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "node": 1}}))

    code, out, _ = run(*folders, "--json")

    assert code == 0
    assert json.loads(out)["labels"] == {"background": 0, "node": 1}


def test_a_label_the_model_does_not_know_is_said(run, folders):
    (Path(folders[0]) / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "bone": 1}}))

    code, out, err = run(*folders, *NAMED)

    assert code == 0
    assert "node (not known)" in out
    assert "Label node: the model that predicted has only bone=1" in err


def test_some_cases_fail_and_the_others_are_evaluated(run, folders, tmp_path):
    (tmp_path / "masks" / "b.nii.gz").write_text("no mask")

    code, out, err = run(*folders, *NAMED, "--out", str(tmp_path / "report"))

    assert code == 1
    assert "1.000" in out
    assert sum(line.startswith("lnsegfm: ") for line in err.splitlines()) == 1
    assert "b.nii.gz: unreadable" in err
    assert len(json.loads((tmp_path / "report" / "evaluation.json").read_text())["failures"]) == 1


def test_a_missing_prediction_is_a_case_that_failed(run, folders, tmp_path):
    (tmp_path / "masks" / "b.nii.gz").unlink()

    code, _, err = run(*folders, *NAMED)

    assert code == 1
    assert "1 case has a reference and no prediction: b." in err


@pytest.mark.parametrize("choice", [("--cases", "a,c"), ("--exclude", "b"), ("--cases", "[ac]")])
def test_of_a_dataset_some_cases_are_judged_where_only_those_were_predicted(run, folders, tmp_path, choice):
    (tmp_path / "masks" / "b.nii.gz").unlink()

    code, out, err = run(*folders, *NAMED, *choice, "--json")

    assert (code, err) == (0, "")
    assert [case["case"] for case in json.loads(out)["cases"]] == ["a", "c"]


def test_a_chosen_case_without_prediction_or_reference_is_told(run, folders, tmp_path):
    (tmp_path / "masks" / "b.nii.gz").unlink()

    code, _, err = run(*folders, *NAMED, "--cases", "a,b")
    assert (code, err.count("no prediction: b.")) == (1, 1)

    code, _, err = run(*folders, *NAMED, "--cases", "a,z")
    assert code == 2
    assert err.startswith("lnsegfm: --cases z: ")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["{masks}", "{references}"], "nothing says what the labels are called. Name them: --label lymph_node=1."),
        (["{masks}", "{masks}/../gone", "--label", "node=1"], "no such folder"),
        (["{masks}/../gone", "{references}", "--label", "node=1"], "no such folder"),
        (["{masks}", "{references}", "--label", "node"], "not NAME=VALUE"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(run, folders, args, said):
    code, out, err = run(*(a.format(masks=folders[0], references=folders[1]) for a in args))

    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith("lnsegfm: ")
    assert said in err


def test_nothing_evaluable_is_exit_code_2(run, folders, tmp_path):
    for path in (tmp_path / "masks").iterdir():
        path.write_text("no mask")

    code, out, err = run(*folders, *NAMED)

    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 3


def test_many_rows_are_left_to_the_csv(run, tmp_path):
    for k in range(41):
        for folder in ("masks", "references"):
            write_mask(tmp_path / folder / f"case{k:02d}.nii.gz", row(3), GRID)

    code, out, _ = run(str(tmp_path / "masks"), str(tmp_path / "references"), *NAMED)

    assert code == 0
    assert "case00" not in out
    assert "41 rows" in out


def test_the_commands_load_no_array_library_before_they_run_and_never_torch():
    code = (
        "import sys; import lnsegfm.cli.evaluate_command, lnsegfm.cli.data_check_command;"
        "print([m for m in ('numpy', 'SimpleITK', 'torch', 'nnunetv2') if m in sys.modules]);"
        "import lnsegfm.evaluation.scoring, lnsegfm.datasets.check, lnsegfm.datasets.shots;"
        "print([m for m in ('torch', 'nnunetv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["[]", "[]"]


def named(folder: str, labels: dict[str, int]) -> None:
    (Path(folder) / "dataset.json").write_text(json.dumps({"labels": {"background": 0, **labels}}))


@pytest.mark.parametrize("name", ["Lymph Node", "lymph-node", "LymphNode"])
def test_a_label_in_another_spelling_is_refused_with_the_option_that_joins_it(run, folders, name):
    named(folders[0], {name: 1})
    named(folders[1], {"lymph_node": 1})

    code, out, err = run(*folders)

    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"lnsegfm: Label lymph_node: the predictions call it {name}")
    option = shlex.split(line[line.index("--map") :].rstrip("."))
    code, out, err = run(*folders, *option)
    assert (code, err) == (0, "")
    assert "0.833" in out


def test_another_name_is_joined_by_map_and_another_model_beside_it_needs_none(run, folders, tmp_path):
    named(folders[0], {"other": 7, "LN": 1})
    named(folders[1], {"lymph_node": 1})
    write_mask(tmp_path / "beside" / "a.nii.gz", row(4), GRID)
    write_mask(tmp_path / "beside" / "b.nii.gz", row(4), GRID)
    write_mask(tmp_path / "beside" / "c.nii.gz", row(0), GRID)
    named(str(tmp_path / "beside"), {"lymph_node": 1})

    code, out, err = run(*folders, "--map", "LN=lymph_node", "--against", str(tmp_path / "beside"), "--json")

    assert (code, err) == (0, f"Evaluating {tmp_path / 'beside'}\n")
    judged = json.loads(out)
    assert judged["adapted"]["summary"]["lymph_node"]["dice"]["mean"] == pytest.approx(5 / 6)
    assert judged["base"]["summary"]["lymph_node"]["dice"]["mean"] == 1


def test_what_is_too_small_to_matter_is_settable_beside_another_model(run, folders):
    judged = json.loads(run(*folders, *NAMED, "--against", folders[0], "--smallest-difference", "0.3", "--json")[1])
    assert judged["smallest_difference"] == 0.3
    code, _, err = run(*folders, *NAMED, "--smallest-difference", "0.3")
    assert (code, err.count("\n")) == (2, 1)
    assert "Use it with --against." in err
    code, _, err = run(*folders, *NAMED, "--against", folders[0], "--smallest-difference", "2")
    assert (code, "at least 0 and below 1" in err) == (2, True)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("lung=lymph_node", "there is no label lung. There are: LN=1."),
        ("LN=lung", "the references have no label lung. They have: lymph_node=1."),
        ("LN", "not NAME=VALUE"),
    ],
)
def test_a_map_that_cannot_be(run, folders, option, said):
    named(folders[0], {"LN": 1})
    named(folders[1], {"lymph_node": 1})
    code, _, err = run(*folders, "--map", option)
    assert code == 2
    assert said in err


def test_a_map_where_nothing_names_the_predictions_labels(run, folders):
    code, _, err = run(*folders, *NAMED, "--map", "LN=node")
    assert code == 2
    assert "no dataset.json beside the predictions names their labels" in err
