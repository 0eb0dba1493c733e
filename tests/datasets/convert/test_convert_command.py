from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest
import typer
from pydicom.datadict import tag_for_keyword
from pydicom.tag import Tag
from typer.testing import CliRunner

from lnsegfm.cli.data_convert_command import convert
from lnsegfm.errors import ConfigError, DataError, UnknownName
from tests.datasets.convert.clinic import NODE, bytes_under, ct, rtstruct

app = typer.Typer()
app.command()(convert)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


@pytest.fixture
def source(tmp_path):
    for number, tilt_mm in ((1, 0.0), (2, 2.9)):
        head = ct(tmp_path / "in" / f"ct{number}", number, PatientID=f"P{number}")
        rtstruct(
            tmp_path / "in" / f"rs{number}.dcm",
            {"LN": NODE},
            series_uid=head.SeriesInstanceUID,
            frame_uid=head.FrameOfReferenceUID,
            tilt_mm=tilt_mm,
        )
    return tmp_path / "in"


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_without_a_name_the_sets_are_listed():
    told = run()
    assert told.exit_code == 0
    for name in ("dicom", "radcure", "segrap2023", "lnq2023", "ct-lymph-nodes", "mediastinal-lymph-node-seg"):
        assert name in told.stdout
    sets = json.loads(run("--json").stdout)["sets"]
    assert {"licence", "citation", "download", "url", "open_points"} <= set(sets[1])


def test_without_a_source_the_set_is_described():
    told = " ".join(run("radcure").stdout.split())
    assert "https://doi.org/10.7937/J47W-NM11" in told
    assert "NIH controlled access" in told
    assert "not checked, not found" in told


def test_one_failure_is_exit_code_1_and_the_rest_is_done(source, tmp_path):
    told = run("dicom", source, "--out", tmp_path / "out", "--roi", "LN*=lymph_node", "--json")
    assert told.exit_code == 1
    result = json.loads(told.stdout)
    assert (len(result["written"]), len(result["failed"])) == (1, 1)
    told = run("dicom", source, "--out", tmp_path / "out", "--roi", "LN*=lymph_node")
    assert told.exit_code == 1
    assert "0 cases of dicom written" in told.stdout
    assert "1 were there, 1 failed" in told.stdout
    assert "failed: Case C-" in told.stderr


def test_a_listing_prints_and_writes_nothing(source, tmp_path):
    before = bytes_under(tmp_path)
    told = run("dicom", source, "--list", "--roi", "LN*=lymph_node")
    assert told.exit_code == 0
    assert "LN -> lymph_node: taken; by a person" in told.stdout
    assert "paired by SeriesInstanceUID" in " ".join(told.stdout.split())
    assert json.loads(run("dicom", source, "--list", "--json").stdout)["format"] == "lnsegfm.dicom-list/2"
    assert bytes_under(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["luna", "SOURCE", "--out", "OUT"], UnknownName),
        (["dicom", "SOURCE", "--out", "OUT"], ConfigError),
        (["dicom", "SOURCE", "--roi", "LN*=lymph_node"], ConfigError),
        (["dicom", "SOURCE", "--out", "OUT", "--roi", "LN"], ConfigError),
        (["dicom", "SOURCE", "--out", "OUT", "--roi", "a=background"], DataError),
        (["dicom", "SOURCE", "--out", "OUT", "--roi", "LN=x", "--shell", "2"], ConfigError),
        (["lnq2023", "SOURCE", "--out", "OUT"], DataError),
        (["lnq2023", "SOURCE", "--list"], ConfigError),
        (["lnq2023", "SOURCE", "--out", "OUT", "--part", "exam"], ConfigError),
        (["radcure", "SOURCE", "--out", "OUT", "--masks", "nowhere"], ConfigError),
        (["segrap2023", "NOWHERE", "--out", "OUT"], DataError),
    ],
)
def test_a_wrong_request_is_one_error_of_ours_and_writes_nothing(source, tmp_path, words, kind):
    places = {"SOURCE": source, "NOWHERE": tmp_path / "nowhere", "OUT": tmp_path / "out"}
    told = run(*(places.get(word, word) for word in words))
    assert isinstance(told.exception, kind)
    assert not (tmp_path / "out").exists()


def test_notes_are_told_on_stderr_and_in_json(source, tmp_path):
    words = ("dicom", source, "--out", tmp_path / "out", "--roi", "LN*=lymph_node", "--roi", "Lymph=lymph_node")
    assert "lnsegfm: note: Pattern Lymph=lymph_node: no structure of any scan has such a name." in run(*words).stderr
    assert json.loads(run(*words, "--json").stdout)["notes"]


def test_a_zip_is_listed_as_json_too(source, tmp_path):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted(source.rglob("*.dcm")):
            archive.write(path, path.relative_to(source))
    tree = json.loads(run("dicom", tmp_path / "in.zip", "--list", "--json", "--roi", "LN*=lymph_node").stdout)
    rois = [roi for series in tree["series"] for roi in series["structures"][0]["rois"]]
    assert [(roi["name"], roi["label"]) for roi in rois] == [("LN", "lymph_node")] * 2


@pytest.mark.parametrize("which", ["ct1/0000.dcm", "rs1.dcm"])
def test_a_single_file_is_no_source(source, tmp_path, which):
    told = run("dicom", source / which, "--out", tmp_path / "out", "--roi", "LN*=lymph_node")
    assert isinstance(told.exception, DataError)
    assert "it holds no case of dicom" in str(told.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("label", ["lymph node", "GTV/n (left)", "Lymphknoten_ä", "*"])
def test_labels_may_be_called_as_people_like(source, tmp_path, label):
    assert run("dicom", source, "--out", tmp_path / "out", "--roi", f"LN*={label}").exit_code == 1
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"][label] == 1


@pytest.mark.parametrize(
    "keyword", ["StructureSetROISequence", "ROIContourSequence", "ReferencedFrameOfReferenceSequence"]
)
def test_a_damaged_structure_set_stops_nothing(source, tmp_path, keyword):
    content = (source / "rs2.dcm").read_bytes()
    tag = Tag(tag_for_keyword(keyword))
    place = content.index(tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"SQ")
    (source / "rs2.dcm").write_bytes(content[: place + 4] + b"OB" + content[place + 6 :])
    told = run("dicom", source, "--out", tmp_path / "out", "--roi", "LN*=lymph_node", "--json")
    assert told.exception is None or isinstance(told.exception, SystemExit)
    assert len(json.loads(told.stdout)["written"]) >= 1


def test_no_space_left_for_the_record_is_an_os_error_and_the_next_call_goes_on(source, tmp_path, monkeypatch):
    import lnsegfm.datasets.convert.convert_dataset as write

    (source / "rs2.dcm").unlink()

    def full(path, content):
        if path.parent.name == "cases":
            raise OSError(28, "No space left on device", str(path))
        write_json(path, content)

    write_json = write.write_json
    monkeypatch.setattr(write, "write_json", full)
    words = ("dicom", source, "--out", tmp_path / "out", "--roi", "LN*=lymph_node")
    assert isinstance(run(*words).exception, OSError)  # the program prints it in one line, exit code 2
    monkeypatch.undo()
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    assert run(*words).exit_code == 0
    assert not list((tmp_path / "out").glob(".partial-*"))


def test_the_help_and_the_sets_fit_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for words in ((), ("radcure",), ("dicom",)):
        told = run(*words).stdout
        assert "…" not in told
        assert all(len(line) <= 80 or "https://" in line for line in told.splitlines())


def test_the_page_has_a_row_for_every_option():
    page = (Path(__file__).parents[3] / "docs" / "convert.md").read_text(encoding="utf-8")
    command = typer.main.get_command(app)
    options = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    given = {"--install-completion", "--show-completion", "--help"}
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", page, re.MULTILINE)) == options - given
