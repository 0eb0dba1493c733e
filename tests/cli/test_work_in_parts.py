"""Commands in parts leave what the same command leaves in one process, byte for byte."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lnsegfm.cli.work_in_parts import words_of
from lnsegfm.imaging.files import write_mask
from tests.conftest import Result
from tests.datasets.convert.clinic import GRID as CLINIC_GRID
from tests.datasets.convert.clinic import NODE, bytes_under, filled, rtstruct
from tests.datasets.convert.clinic import ct as clinic_ct
from tests.prediction.test_predict_flags import write_random
from tests.scenes import scene, write_image, write_scenes

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, five scans and one that is none, and references of all."""
    folder = tmp_path_factory.mktemp("parts")
    for case in range(5):
        image, mask = scene(case)
        write_image(folder / "scans" / f"case_{case}.nii.gz", image)
        write_image(folder / "references" / f"case_{case}.nii.gz", mask)
    (folder / "scans" / "broken.nii.gz").write_bytes(b"no scan")
    write_random(folder / "model")
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with a scan twice and a label of another shape."""
    root = write_scenes(tmp_path_factory.mktemp("labelled") / "data", 5)
    first, third = (root / "imagesTr" / f"case_{case}_0000.nii.gz" for case in (0, 3))
    third.write_bytes(first.read_bytes())
    write_image(root / "labelsTr" / "case_1.nii.gz", np.ones((3, 4, 5), np.uint8))
    return root


def predict(place: Path, out: Path, *more: object) -> list[object]:
    options = ("--no-mirroring", "--nodes", "--device", "cpu", "--model-axes", "LPS", "--out", out)
    return ["predict", *more, *options, place / "model", place / "scans"]


def test_parts_of_predict(place: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    serial = lnsegfm_here(*predict(place, tmp_path / "serial"))
    assert serial.returncode == 1
    codes = [lnsegfm_here(*predict(place, tmp_path / "parts", "--part", f"{k}/4")).returncode for k in (3, 1, 4, 2)]
    assert bytes_under(tmp_path / "parts") == bytes_under(tmp_path / "serial")
    assert sorted(codes) == [0, 0, 0, 1]  # one part has the broken scan
    again = json.loads(lnsegfm_here(*predict(place, tmp_path / "parts", "--json")).stdout)
    assert (again["done"], len(again["skipped"]), list(again["failed"])) == ([], 5, ["broken"])

    (tmp_path / "parts" / "case_2.nii.gz").unlink()
    (tmp_path / "parts" / "case_3.nii.gz").unlink()
    several = lnsegfm_here(*predict(place, tmp_path / "parts", "--jobs", 2))
    assert bytes_under(tmp_path / "parts") == bytes_under(tmp_path / "serial")
    assert (several.returncode, several.stdout.splitlines()[0][:12]) == (1, "2 predicted,")
    assert "Case broken" in several.stderr


def evaluate(place: Path, out: Path, *more: object) -> list[object]:
    labels = ("--label", "node=1", "--against", place / "others", "--out", out)
    return ["evaluate", *more, *labels, place / "masks", place / "references"]


@pytest.fixture(scope="module")
def predicted(place: Path) -> Path:
    """Masks and those of another model; one has another grid, and one is missing."""
    for folder, seeds in (("masks", range(5)), ("others", range(5, 10))):
        for case, seed in enumerate(seeds):
            write_image(place / folder / f"case_{case}.nii.gz", scene(case, balls=2)[1] | scene(seed)[1])
    write_image(place / "masks" / "case_1.nii.gz", np.ones((3, 4, 5), np.uint8))
    (place / "masks" / "case_3.nii.gz").unlink()
    return place


def test_parts_of_evaluate(predicted: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    serial = lnsegfm_here(*evaluate(predicted, tmp_path / "serial"))
    numbers = [("--part", f"{k}/3") for k in (3, 1, 2)]
    first, second, last = (lnsegfm_here(*evaluate(predicted, tmp_path / "parts", *part)) for part in numbers)
    assert (first.returncode, second.returncode, last.returncode) == (0, 0, serial.returncode)
    assert first.stdout == "Part 3/3: 1 case scored.\nLacking  1/3, 2/3\n"
    assert bytes_under(tmp_path / "parts") == bytes_under(tmp_path / "serial")
    assert last.stdout.replace("/parts", "/serial") == serial.stdout
    assert not (tmp_path / "parts" / "parts").exists()

    several = lnsegfm_here(*evaluate(predicted, tmp_path / "several", "--jobs", 2))
    assert bytes_under(tmp_path / "several") == bytes_under(tmp_path / "serial")
    assert several.stdout.replace("/several", "/serial") == serial.stdout


def test_a_part_of_other_masks_is_not_taken(predicted: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    """What a part left before a mask, or a setting, was changed does not count."""
    for k, more in ((1, []), (2, ["--tolerance", "2"])):
        said = lnsegfm_here(*evaluate(predicted, tmp_path / "out", "--part", f"{k}/2", *more))
        assert "Lacking" in said.stdout
    mask = predicted / "masks" / "case_0.nii.gz"
    write_image(mask, scene(7)[1])
    assert "Lacking" in lnsegfm_here(*evaluate(predicted, tmp_path / "out", "--part", "2/2")).stdout


def test_parts_of_data_check(labelled: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    command = ("data", "check", labelled, "--json")
    serial = lnsegfm_here(*command)
    kinds = {finding["kind"] for finding in json.loads(serial.stdout)["findings"]}
    assert {"duplicate-image", "label-geometry"} <= kinds
    parts = [lnsegfm_here(*command, "--part", f"{k}/2", "--work", tmp_path / "work") for k in (2, 1)]
    assert json.loads(parts[0].stdout) == {"part": "2/2", "items": 2, "lacking": [1]}
    assert (parts[1].stdout, parts[1].returncode) == (serial.stdout, 2)
    assert list((tmp_path / "work").iterdir()) == []
    several = lnsegfm_here(*command, "--jobs", 2)
    assert (several.stdout, several.returncode) == (serial.stdout, 2)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Series with structures, one without, one twice."""
    for number, seed in enumerate((1, 2, 3, 1)):
        folder = tmp_path / "tree" / str(number)
        tags = {"SeriesInstanceUID": f"1.2.{number + 1}", "FrameOfReferenceUID": f"1.9.{number + 1}"}
        clinic_ct(folder, seed, PatientID=f"P{number}", StudyInstanceUID=f"1.3.{number + 1}", **tags)
        if number != 2:
            names = {"series_uid": tags["SeriesInstanceUID"], "frame_uid": tags["FrameOfReferenceUID"]}
            rtstruct(folder / "rs.dcm", {"LN": NODE}, PatientID=f"P{number}", **names)
    return tmp_path / "tree"


def test_parts_of_data_check_of_dicom(tree: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    command = ("data", "check", tree, "--roi", "LN=node", "--json")
    serial = lnsegfm_here(*command)
    assert json.loads(serial.stdout)["cases"] == 4
    last = [lnsegfm_here(*command, "--part", f"{k}/3", "--work", tmp_path / "work") for k in (2, 3, 1)][-1]
    assert (last.stdout, last.returncode) == (serial.stdout, serial.returncode)


def test_parts_of_data_convert(tmp_path: Path, lnsegfm_here: Run) -> None:
    """A duplicate of a case of another part, and one that fails."""
    source = tmp_path / "source"
    for number, seed in enumerate((5, 6, 5, 7, 6), start=1):
        name = f"MED_LYMPH_00{number}"
        clinic_ct(source / name, seed, PatientID=name)
        mask = filled(NODE) if number != 4 else np.zeros(CLINIC_GRID.shape)
        write_mask(source / "masks" / f"{name}_mask.nii.gz", mask.astype(np.uint8), CLINIC_GRID)

    def convert(out: str, *more: object) -> Result:
        return lnsegfm_here("data", "convert", "ct-lymph-nodes", source, "--out", tmp_path / out, *more)

    serial = convert("serial")
    assert "duplicate" in (tmp_path / "serial" / "conversion.json").read_text()
    parts = [convert("parts", "--part", f"{k}/3") for k in (2, 3, 1)]
    assert [one.returncode for one in parts[:2]] == [0, 0]
    assert "Lacking  1/3, 3/3" in parts[0].stdout
    assert bytes_under(tmp_path / "parts") == bytes_under(tmp_path / "serial")
    assert parts[2].stdout.replace("/parts", "/serial") == serial.stdout
    assert (parts[2].returncode, parts[2].stderr) == (serial.returncode, serial.stderr)

    several = convert("several", "--jobs", 2)
    assert bytes_under(tmp_path / "several") == bytes_under(tmp_path / "serial")
    assert several.stdout.replace("/several", "/serial") == serial.stdout
    assert "0 cases" in convert("several", "--jobs", 2).stdout


def test_parts_of_data_convert_at_the_same_time(tmp_path: Path) -> None:
    from lnsegfm.datasets.convert import SETS, ConversionOptions, convert
    from lnsegfm.datasets.convert.convert_parts import ConversionRequest, convert_part
    from lnsegfm.jobs.parts import ListPart, PartsPending

    source = tmp_path / "source"
    for number in range(1, 7):
        name = f"MED_LYMPH_00{number}"
        clinic_ct(source / name, number, PatientID=name)
        write_mask(source / "masks" / f"{name}_mask.nii.gz", filled(NODE).astype(np.uint8), CLINIC_GRID)
    request = ConversionRequest(SETS["ct-lymph-nodes"], source, tmp_path / "parts", ConversionOptions())
    ended: list[Any] = []

    def part(number: int) -> None:
        try:
            ended.append(convert_part(request, ListPart(number, 3)))
        except PartsPending as pending:
            ended.append(pending)

    threads = [threading.Thread(target=part, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    convert(request.card, source, tmp_path / "serial")
    assert len(ended) == 3
    assert bytes_under(tmp_path / "parts") == bytes_under(tmp_path / "serial")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--part", "5/4"), "--part 5/4: parts are numbered from 1"),
        (("--part", "half"), "--part half: not I/N. Write --part 1/4"),
        (("--part", "1/2", "--jobs", "2"), "--part 1/2: it is done here, by this process. Leave out --on and --jobs"),
        (("--jobs", "0"), "--jobs 0: nothing would be done. Use 1 or more"),
        (("--on", "cloud"), "--on cloud: there is no such place. Write local, slurm"),
        (("--on", "slurm:time=soon"), "--on slurm:time=soon: time=soon is not a whole number"),
        (("--part", "1/2"), "--out: parts meet in a folder that all of them see. Name one with --out"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], said: str, predicted: Path, lnsegfm_here: Run) -> None:
    found = lnsegfm_here("evaluate", predicted / "masks", predicted / "references", "--label", "node=1", *words)
    assert found.returncode == 2
    assert said in found.stderr


def test_the_words_of_a_command_are_read_back_as_the_same() -> None:
    app, seen = typer.Typer(), list[tuple[dict[str, Any], list[str]]]()

    def command(
        context: typer.Context,
        scan: str,
        out: Annotated[Path, typer.Option()],
        label: Annotated[list[str] | None, typer.Option("--label")] = None,
        mirroring: Annotated[bool, typer.Option("--mirroring/--no-mirroring")] = True,
        nodes: Annotated[bool, typer.Option("--nodes")] = False,
        step: Annotated[float, typer.Option("--step", "-s")] = 0.5,
        jobs: Annotated[int, typer.Option("--jobs")] = 1,
    ) -> None:
        values = {"scan": scan, "out": out, "label": label, "mirroring": mirroring, "nodes": nodes, "step": step}
        seen.append((values, words_of(context)))

    app.command()(command)
    given = [
        "--jobs",
        "3",
        "--out",
        "a b",
        "--label",
        "x=1",
        "--label",
        "-y",
        "--no-mirroring",
        "--nodes",
        "-s",
        "0.25",
    ]
    for _ in range(2):
        assert CliRunner().invoke(app, [*given, "--", "-scan"]).exit_code == 0
        given = seen[-1][1][: seen[-1][1].index("--")]
    assert seen[0][0] == seen[1][0]
    assert "--jobs" not in given
