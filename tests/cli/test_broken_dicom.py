"""Broken DICOM through the real commands: the table of ``docs/broken.md`` is the table of these tests."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pydicom
import pytest

from lnsegfm.imaging.dicom import dicom_zip as archive
from lnsegfm.imaging.dicom import series as dicom_series
from lnsegfm.imaging.dicom import values
from lnsegfm.imaging.files import write_volume
from tests.cli import broken
from tests.cli.machines import write_machine
from tests.cli.test_predict_command import QUICK
from tests.conftest import Result
from tests.datasets.convert.clinic import GRID, scan

PAGE = Path(__file__).parents[2] / "docs" / "broken.md"
ROW = re.compile(
    r"^\| `(?P<kind>[\w-]+)` \| (?P<what>[^|]+) \| `(?P<line>[^`]+)` \| (?P<do>[^|]+) \| (?P<commands>[^|]+) \| "
    r"(?P<codes>\d(?: / \d)?) \|$",
    re.MULTILINE,
)
LIMIT = 1 << 20  # instead of 1 and 32 GiB
REQUESTS = {
    "no-such-format", "format-without-dicom", "out-within-input", "out-is-a-file", "out-not-writable", "two-channels",
    "key-public", "key-damaged", "key-in-out", "no-roi", "no-uids", "long-label",
    "no-such-profile", "no-such-thinning", "holes-without-rtstruct", "add-to-nothing", "add-to-another",
}  # fmt: skip


class Row(NamedTuple):
    """One kind of broken input, as the page tells it."""

    kind: str
    line: re.Pattern[str]
    commands: tuple[str, ...]
    alone: int
    cohort: int | None


def rows() -> dict[str, Row]:
    found = {}
    for match in ROW.finditer(PAGE.read_text(encoding="utf-8")):
        alone, _, cohort = match["codes"].partition(" / ")
        core = ".*".join(re.escape(part) for part in match["line"].split("..."))
        commands = tuple(match["commands"].split(", "))
        found[match["kind"]] = Row(
            match["kind"], re.compile(core), commands, int(alone), int(cohort) if cohort else None
        )
    return found


TABLE = rows()
BUILT = {**broken.SERIES, **broken.STRUCTURES, **broken.SEGMENTS, **broken.FILES}
Run = Callable[..., Result]


def test_every_kind_of_the_page_is_tested_and_every_tested_kind_is_on_the_page():
    assert set(TABLE) == {*BUILT, *broken.LISTS, *REQUESTS}
    assert len(ROW.findall(PAGE.read_text(encoding="utf-8"))) == len(TABLE)
    assert len(TABLE) >= 25


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(values, "MAX_INFLATED", LIMIT)
    rules = replace(archive.RULES, limit_bytes=LIMIT)
    monkeypatch.setattr(archive, "RULES", rules)
    monkeypatch.setattr(archive.unpacked_tree.__wrapped__, "__kwdefaults__", {"rules": rules})


def spoil(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no file can hold: a permission that root has anyway, and a change between finding and reading."""
    if kind == "no-permission":
        opened = Path.open

        def refusing(path: Path, *more: object, **named: object) -> object:
            if path.parent == folder / "ct" and path.name == "0002.dcm":
                raise PermissionError(13, os.strerror(13), str(path))
            return opened(path, *more, **named)  # type: ignore[call-overload]

        monkeypatch.setattr(Path, "open", refusing)
    if kind == "changed":
        read = dicom_series.read_series

        def later(series: object) -> object:
            if (folder / "ct" / "0002.dcm").is_file() and getattr(series, "uid", "") == broken.UID:
                broken.smaller(folder)
            return read(series)  # type: ignore[arg-type]

        monkeypatch.setattr(dicom_series, "read_series", later)


def asked(run: Run, command: str, model: Path, source: Path, out: Path, *more: object) -> Result:
    words: dict[str, tuple[object, ...]] = {
        "predict": ("predict", model, source, "--out", out, *QUICK, "--no-flags"),
        "convert": ("data", "convert", "dicom", source, "--out", out, "--roi", "LN*=lymph_node"),
        "check": ("data", "check", source),
    }
    return run(*words[command], *more)


def assert_told(done: Result, row: Row, code: int) -> None:
    """The line is there once, every line is ours, and none tells who the patient is."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("Predicting ", "Looking through "))]
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.startswith("lnsegfm: ") for line in lines), lines
    assert len([line for line in lines if row.line.search(line)]) == 1, lines
    assert all(line.endswith((".", ")")) for line in lines), lines
    for secret in broken.SECRETS:
        assert secret not in done.stdout + done.stderr


def assert_nothing_half_written(out: Path) -> None:
    written = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in written if ".partial" in path.name]
    for path in written:
        assert not any(secret in path.name for secret in broken.SECRETS)
        if path.suffix in (".json", ".csv"):
            assert not any(secret in path.read_text(encoding="utf-8") for secret in broken.SECRETS)


def results(out: Path) -> list[str]:
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.name.endswith((".nii.gz", ".dcm")))


EACH = [(kind, command) for kind, row in TABLE.items() if kind in BUILT for command in row.commands]


@pytest.mark.parametrize(("kind", "command"), EACH)
def test_alone(lnsegfm_here, model, tmp_path, monkeypatch, kind, command):
    row, folder, out = TABLE[kind], tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    source = BUILT[kind](folder) or folder
    if kind in broken.SERIES and command == "convert":
        broken.contours(folder)
    spoil(kind, folder, monkeypatch)

    done = asked(lnsegfm_here, command, model, source, out)

    assert_told(done, row, row.alone)
    assert results(out) == []
    assert_nothing_half_written(out)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(("kind", "command"), [(k, c) for k, c in EACH if TABLE[k].cohort is not None and c != "check"])
def test_in_a_cohort(lnsegfm_here, model, tmp_path, monkeypatch, kind, command):
    row, folder, out = TABLE[kind], tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    assert BUILT[kind](folder) is None
    if kind in broken.SERIES and command == "convert" and row.cohort:
        broken.contours(folder)
    broken.healthy(folder / "good")
    spoil(kind, folder, monkeypatch)

    done = asked(lnsegfm_here, command, model, folder, out)

    assert row.cohort is not None
    if row.cohort:
        assert_told(done, row, row.cohort)
    assert done.returncode == row.cohort, done.stderr
    assert_nothing_half_written(out)
    if command == "predict":
        assert len(results(out)) == 1
        told = json.loads((out / "summary.json").read_text())
        failed = [*told["refused"], *(case for case in told["cases"] if case["status"] == "failed")]
        assert "done" in [case["status"] for case in told["cases"]]
    else:
        assert [name.split("/")[0] for name in results(out)] == ["imagesTr", "labelsTr"]
        failed = json.loads((out / "conversion.json").read_text())["failed"]
    assert bool(failed) == bool(row.cohort)


@pytest.mark.parametrize("kind", broken.LISTS)
@pytest.mark.parametrize("how", ["alone", "cohort"])
def test_lists(lnsegfm_here, model, tmp_path, kind, how):
    row, out = TABLE[kind], tmp_path / "out"
    (tmp_path / "in").mkdir()
    build = broken.LISTS[kind][how == "cohort"]
    if build is None:
        assert row.cohort is None
        return
    broken.healthy(tmp_path / "in" / "good")
    source = build(tmp_path / "in")
    assert source is not None
    code = row.alone if how == "alone" else row.cohort

    done = asked(lnsegfm_here, "predict", model, source, out)

    assert code is not None
    assert_told(done, row, code)
    assert len(results(out)) == (how == "cohort")
    if how == "cohort":
        assert len(json.loads((out / "summary.json").read_text())["refused"]) == 1


def drawn_of_another(folder: Path, place: Path) -> Path:
    """The structure set of a scan, as if it were another patient's."""
    data = pydicom.dcmread(folder / "rs.dcm")
    data.PatientID = "another"
    data.save_as(place)
    return place


@pytest.mark.parametrize("kind", sorted(REQUESTS))
def test_requests(lnsegfm_here, model, tmp_path, monkeypatch, kind):
    row, folder, out = TABLE[kind], tmp_path / "in", tmp_path / "out"
    (command,) = row.commands
    more: tuple[object, ...] = ()
    broken.ct(folder, **({"FrameOfReferenceUID": ""} if kind == "no-uids" else {}))
    broken.contours(folder)
    source = folder
    if kind == "no-such-format":
        more = ("--format", "pdf")
    elif kind == "format-without-dicom":
        source, more = tmp_path / "nifti", ("--format", "seg")
        write_volume(source / "a.nii.gz", scan(), GRID)
    elif kind == "out-within-input":
        out = folder / "out"
    elif kind == "out-is-a-file":
        out.write_text("")
    elif kind == "out-not-writable":
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "out"
    elif kind == "two-channels":
        model = write_machine(tmp_path / "two", ("CT", "PET"))
    elif kind in ("key-public", "key-damaged"):
        (tmp_path / "key").write_text("ab" * (32 if kind == "key-public" else 3))
        (tmp_path / "key").chmod(0o644 if kind == "key-public" else 0o600)
        more = ("--key", tmp_path / "key")
    elif kind == "key-in-out":
        monkeypatch.setenv("LNSEGFM_HOME", str(out / "home"))
    elif kind == "no-uids":
        more = ("--format", "rtstruct")
    elif kind == "no-such-profile":
        more = ("--format", "rtstruct", "--profile", "pinnacle")
    elif kind == "no-such-thinning":
        more = ("--format", "rtstruct", "--thin", "much")
    elif kind == "holes-without-rtstruct":
        more = ("--format", "seg", "--holes", "keyhole")
    elif kind == "add-to-nothing":
        more = ("--format", "rtstruct", "--add-to", tmp_path / "none.dcm")
    elif kind == "add-to-another":
        more = ("--format", "rtstruct", "--add-to", drawn_of_another(folder, tmp_path / "other.dcm"))
    elif kind == "long-label":
        model, more = write_machine(tmp_path / "long"), ("--format", "rtstruct")
        told = json.loads((model / "dataset.json").read_text()) | {"labels": {"background": 0, "n" * 70: 1}}
        (model / "dataset.json").write_text(json.dumps(told))

    if kind == "no-roi":
        done = lnsegfm_here("data", "convert", "dicom", source, "--out", out)
    else:
        done = asked(lnsegfm_here, command, model, source, out, *more)

    assert_told(done, row, row.alone)
    if kind in ("no-uids", "add-to-another"):  # the mask is there, and what refers to the series is not
        assert [name.rpartition(".nii.gz")[1] for name in results(out)] == [".nii.gz"]
    else:
        assert results(out) == []
    assert_nothing_half_written(out)
