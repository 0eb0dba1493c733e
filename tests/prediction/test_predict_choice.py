"""``lnsegfm predict`` makes one mask of each scan, says which series it left, and takes others when told to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import lnsegfm
from lnsegfm.cli.series_lines import print_choice, print_series_notes
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.prediction.case_names import Names
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import Scans
from tests.imaging.dicom.studies import MIP, MPR, add, uid
from tests.world import World

QUICK = ("--no-mirroring", "--device", "cpu", "--no-flags")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


@pytest.fixture
def study(tmp_path) -> Path:
    root = tmp_path / "study"
    add(root, "soft", SeriesNumber=2)
    add(root, "lung", SeriesNumber=3, ConvolutionKernel="B70f")
    add(root, "cor", SeriesNumber=4, plane="coronal", ImageType=MPR)
    return root


def scans(place: Path, *selectors: str) -> Scans:
    with find_inputs(place, 1, names=Names.SERIES, series=selectors) as inputs:
        return inputs


def taken(place: Path, *selectors: str) -> set[str]:
    return {series.description for series in scans(place, *selectors).series.values()}


def test_one_mask_a_scan_and_a_line_for_each_other_series(lnsegfm_here, world: World, study, tmp_path):
    out = tmp_path / "out"
    done = lnsegfm_here("predict", world.base, study, "--out", out, *QUICK)

    assert (done.returncode, len(list(out.glob("*.nii.gz")))) == (0, 1), done.stderr
    assert "2 series passed over (--series takes others):" in done.stdout
    assert '  3 "lung": second kernel B70f of 2 "soft"\n' in done.stdout
    assert '  4 "cor": coronal reformat of 2 "soft"\n' in done.stdout
    (case,) = (mask.name.removesuffix(".nii.gz") for mask in out.glob("*.nii.gz"))
    assert f'  {case} is series 2 "soft": axial, 3 mm, B31f\n' in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80 + len(str(out))
    for name in ("series.json", "summary.json"):
        told = json.loads((out / name).read_text())["passed_over"]
        assert {(each["series"], each["kind"], each["taken_instead"]) for each in told} == {
            (uid("lung"), "kernel", uid("soft")),
            (uid("cor"), "reformat", uid("soft")),
        }
    (record,) = json.loads((out / "summary.json").read_text())["cases"]
    assert any("taken: first of the 3 series of its scan" in note for note in record["series"]["notes"])
    everything = b"".join(file.read_bytes() for file in out.glob("*.json"))
    assert not any(word in everything for word in (b"Doe", b"P1", b"Jane"))


def test_the_same_command_goes_on_when_a_reformat_was_added(lnsegfm_here, world: World, study, tmp_path):
    out = tmp_path / "out"
    lnsegfm_here("predict", world.base, study, "--out", out, *QUICK)
    masks = {file.name: file.read_bytes() for file in out.glob("*.nii.gz")}
    add(study, "sag", SeriesNumber=5, plane="sagittal", ImageType=MPR)
    add(study, "mip", SeriesNumber=1, step=10, ImageType=MIP)
    again = lnsegfm_here("predict", world.base, study, "--out", out, *QUICK)

    assert again.returncode == 0, again.stderr
    assert "0 predicted, 1 were there already" in again.stdout
    assert {file.name: file.read_bytes() for file in out.glob("*.nii.gz")} == masks

    more = lnsegfm_here("predict", world.base, study, "--out", out, *QUICK, "--series", "plane=coronal", "--json")
    assert more.returncode == 0, more.stderr
    assert len(json.loads(more.stdout)["done"]) == 1
    assert len(json.loads(more.stdout)["passed_over"]) == 4
    assert len(list(out.glob("*.nii.gz"))) == 2


@pytest.mark.parametrize(
    ("selector", "line"),
    [
        ("plane=sagittal", "lnsegfm: --series plane=sagittal: no series fits it. There are: "),
        ("plan=axial", "lnsegfm: --series plan=axial: there is no key plan. Use description"),
    ],
)
def test_a_selector_that_fits_nothing_is_a_wrong_request(lnsegfm_here, world: World, study, tmp_path, selector, line):
    done = lnsegfm_here("predict", world.base, study, "--out", tmp_path / "out", *QUICK, "--series", selector)
    assert done.returncode == 2
    (told,) = done.stderr.splitlines()
    assert told.startswith(line)
    assert not (tmp_path / "out").exists()


def test_lines_of_a_terminal(study, capsys):
    add(study, "other", SeriesNumber=4, SeriesDescription="cor", plane="sagittal", ImageType=MPR, PatientPosition="FFP")
    with find_inputs(study, 1, names=Names.SERIES, series=["plane=sagittal"]) as inputs:
        print_choice(inputs.series, inputs.passed_over)
    said = capsys.readouterr().out.splitlines()
    assert len(said[0]) == 80  # the UID is the case's name here
    assert said[1] == "3 series passed over (--series takes others):"
    assert set(said[2:]) == {
        f'  4 "cor" ...{uid("cor")[-6:]}: not selected by --series',
        '  3 "lung": not selected by --series',
        '  2 "soft": not selected by --series',
    }
    with find_inputs(study / "soft", 1, names=Names.SERIES) as inputs:
        print_choice(inputs.series, inputs.passed_over)
    assert capsys.readouterr().out == ""  # one series, as all are: nothing to say
    with find_inputs(study / "other", 1) as inputs:
        (series,) = inputs.series.values()
        print_choice({"C-1": series}, inputs.passed_over)
    assert capsys.readouterr().out == '  C-1 is series 4 "cor": sagittal, 3 mm, B31f, feet first, prone\n'


def test_parts_of_a_series_and_notes_on_it_are_printed(study, capsys):
    with find_inputs(study / "soft", 1) as inputs:
        (series,) = inputs.series.values()
    parts = {f"C-{k}": replace(series, part=k, notes=(f"number {k}",)) for k in (1, 2)}
    print_choice(parts, ())
    print_series_notes(parts)
    assert capsys.readouterr().out.splitlines() == [
        '  C-1 is series 2 "soft" part 1: axial, 3 mm, B31f',
        '  C-2 is series 2 "soft" part 2: axial, 3 mm, B31f',
        "C-1: number 1",
        "C-2: number 2",
    ]
    print_series_notes({f"C-{k}": part for k, part in enumerate([parts["C-1"]] * 15)})
    assert capsys.readouterr().out.splitlines()[12:] == ["3 more notes on series: in the records of their cases"]


def test_images_that_are_no_ct_are_named(tmp_path):
    add(tmp_path, "pet", Modality="PT")
    with (
        pytest.raises(DataError, match=r"it holds no CT images, but \d+ PT images \(Modality\)\."),
        find_inputs(tmp_path, 1),
    ):
        pass


def test_selectors_of_a_tree(study):
    assert taken(study) == {"soft"}
    assert taken(study, "kernel=B70f") == {"lung"}
    assert taken(study, "plane=coronal", "kernel=sharp") == {"lung", "cor"}
    assert taken(study, "all") == {"soft", "lung", "cor"}
    with pytest.raises(DataError, match="--series number=9: no series fits it"):
        scans(study, "all", "number=9")


def test_each_line_of_a_list_chooses_for_itself(tmp_path, study):
    other = tmp_path / "other"
    add(other, "thin", step=2, study="2", frame="2", SeriesNumber=7)
    add(other, "thick", step=6, study="2", frame="2", SeriesNumber=8)
    table = tmp_path / "scans.csv"
    table.write_text(f"path,case\n{study},a\n{other},b\n{study / 'cor'},c\n")

    both = scans(table)
    assert {name: series.description for name, series in both.series.items()} == {"a": "soft", "b": "thin", "c": "cor"}
    assert {each.series.description for each in both.passed_over} == {"lung", "cor", "thick"}
    assert taken(table, "plane=axial") == {"soft", "thin"}  # the third line has none: it fails alone
    failed = [str(each) for each in scans(table, "plane=axial").refused]
    assert len(failed) == 1
    assert failed[0].startswith('scans.csv, line 4: --series plane=axial: no series fits it. There are: 4 "cor"')
    assert taken(table, "kernel=B70f", "thickness=6") == {"lung", "thick"}
    with pytest.raises(DataError, match="--series number=99: no series fits it"):
        scans(table, "all", "number=99")


def test_a_session_takes_one_scan_by_the_same_order(world: World, study):
    session = lnsegfm.load(world.base, device="cpu", mirroring=False, flags=False)
    made = session.predict(study)
    assert made.series is not None
    assert made.series.description == "soft"
    lung = lnsegfm.load(world.base, device="cpu", mirroring=False, flags=False, series="kernel=sharp")
    assert lung.predict(study).series.description == "lung"


def test_options_refuse_a_selector_that_cannot_be_read():
    with pytest.raises(ConfigError, match="there is no plane axal"):
        PredictOptions(series=("plane=axal",))
