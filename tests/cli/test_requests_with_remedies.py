"""Requests that were understood before they cost anything, or that are now understood."""

from __future__ import annotations

import shutil

import pytest

from lnsegfm.datasets.case_choice import CaseChoice
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError

NAMES = ("case_0", "case_1", "other_0001")


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        (("case_1_0000.nii.gz",), ("case_1",)),
        (("case_1.nii.gz", "case_0"), ("case_1", "case_0")),
        (("case_*",), ("case_0", "case_1")),
        (("case_[1]", "case_?"), ("case_1", "case_0")),
        (("other_0001",), ("other_0001",)),
        (("other_0001_0000.mha",), ("other_0001",)),
    ],
)
def test_names_of_files_and_wildcards_stand_for_cases(named, meant):
    for option in ("cases", "shots", "held_out", "exclude"):
        choice = CaseChoice(**{option: named})
        assert getattr(choice.spelt_out(NAMES), option) == meant
    assert set(CaseChoice(cases=named).usable(NAMES)) == set(meant)
    assert set(CaseChoice(shots=named).split(NAMES).shots) == set(meant)


def test_a_name_that_fits_nothing_is_refused_as_it_was_given():
    for name in ("cases_*", "case_7_0000.nii.gz"):
        with pytest.raises(ConfigError, match="no labelled case has this name") as refused:
            CaseChoice(shots=(name,)).usable(NAMES)
        assert f"--shots {name}:" in str(refused.value)


def test_whole_numbers_with_a_point_are_values():
    assert LabelMap.from_dataset_json({"background": 0.0, "node": 1.0}).names == {"node": 1}
    regions = LabelMap.from_dataset_json({"whole": [1.0, 2.0], "core": 2}, [1.0, 2.0])
    assert regions == LabelMap.from_dataset_json({"whole": [1, 2], "core": 2}, [1, 2])
    with pytest.raises(DataError, match="not a whole number"):
        LabelMap.from_dataset_json({"node": 1.5})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_job_file_may_come_from_a_windows_editor(encoding, lnsegfm_here, tmp_path, model):
    job = tmp_path / "run.toml"
    job.write_bytes(
        'data = "nöwhere"\r\nmodel = "MODEL"\r\nout = "o"\r\n'.replace("MODEL", str(model)).encode(encoding)
    )
    assert "nöwhere" in lnsegfm_here("finetune", "--job", job).stderr
    job.write_bytes("data = 'nöwhere'".encode("latin-1"))
    assert "its text is not UTF-8. Save it as UTF-8." in lnsegfm_here("finetune", "--job", job).stderr


@pytest.mark.parametrize("address", ["https://example.org/a.zip", "http://example.org/b/c"])
def test_an_address_is_no_file_to_import(refused, address):
    assert refused("models", "import", address, "--as", "mine") == [
        f"{address}: an address, not a file. Download it and import the file; models of lnsegfm models list are "
        "fetched by lnsegfm models pull NAME."
    ]


@pytest.mark.parametrize("command", ["finetune", "pretrain"])
def test_a_batch_that_no_memory_holds_is_refused_at_once(refused, clinic, model, out, command):
    base = ("--model", model, "--shots", 1) if command == "finetune" else ("--preset", "tiny")
    (line,) = refused(command, clinic, *base, "--batch-size", 100_000_000, "--out", out)
    assert line.startswith("--batch-size 100000000: its patches alone take ")


def test_references_judged_by_themselves_are_named(lnsegfm_here, clinic, tmp_path):
    masks = clinic / "labelsTr"
    said = "predictions are the reference files themselves"
    assert said in lnsegfm_here("evaluate", masks, masks).stderr
    copied = shutil.copytree(masks, tmp_path / "copies")
    assert said not in lnsegfm_here("evaluate", copied, masks).stderr
