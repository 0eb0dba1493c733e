"""What a person sees, exit codes, and the real data in one command each."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from lnsegfm.cli.data_arrange_command import arrange
from lnsegfm.datasets.check import check
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.storage import sha256
from tests.datasets.arrange.layouts import files

app = typer.Typer()
app.command()(arrange)


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "80"})


def test_what_was_understood_is_shown_within_80_columns_and_then_written(tmp_path):
    names = ("Submandibular_L", "Submandibular_R", "Spinal_cord", "Brainstem", "Parotid_L", "Parotid_R", "Oesophagus")
    files("data/{p}/ct", *(f"data/{{p}}/seg/{name}" for name in names), structures=True)(tmp_path / "in")
    (tmp_path / "in" / "data" / "P2" / "seg" / "Brainstem.nii.gz").unlink()
    looked = run(tmp_path / "in", "--dry-run")
    assert looked.exit_code == 0
    assert not (tmp_path / "out").exists()
    told = looked.stdout.replace(str(tmp_path), "")
    for line in ("images: data/*/ct.nii.gz (3)", "masks: data/*/seg/NAME.nii.gz (20)", "channels: CT"):
        assert line in told
    assert "Brainstem=1" in told
    assert "P1: data/P1/ct.nii.gz" in told
    assert "Nothing was written" in told
    assert "Brainstem: 1 case of 3 have no file of it" in looked.stderr
    assert max(map(len, told.splitlines())) <= 80

    done = run(tmp_path / "in", "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout.startswith(looked.stdout.split("Nothing")[0].strip()[:40])
    assert "3 cases written to" in " ".join(done.stdout.split())
    assert check(open_dataset(tmp_path / "out")) == []


def test_some_failed_is_1_none_written_is_2_and_json_tells_all(tmp_path):
    files("{p}/ct", "{p}/mask")(tmp_path / "in")
    (tmp_path / "in" / "P1" / "ct.nii.gz").write_bytes(b"")
    words = (tmp_path / "in", "--label", "node=1", "--label", "vessel=2")
    told = run(*words, "--out", tmp_path / "out", "--json")
    assert told.exit_code == 1
    facts = json.loads(told.stdout)
    assert (facts["written"], len(facts["failed"])) == (["P10", "P2"], 1)
    assert [case["case"] for case in facts["cases"]] == ["P1", "P10", "P2"]
    for patient in ("P2", "P10"):
        (tmp_path / "in" / patient / "ct.nii.gz").write_bytes(b"")
    assert run(*words, "--out", tmp_path / "none").exit_code == 2


def test_a_request_that_says_too_little_is_refused(tmp_path):
    files("{p}/ct", "{p}/mask")(tmp_path / "in")
    assert isinstance(run(tmp_path / "in").exception, ConfigError)
    assert isinstance(run(tmp_path / "in", "--out", tmp_path / "out").exception, DataError)
    assert not (tmp_path / "out").exists()


@pytest.mark.realdata
def test_openkbp_in_one_command(tmp_path, real_data):
    source = real_data / "openkbp"
    names = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Mandible", "Larynx", "Esophagus")
    labels = [word for value, name in enumerate(names, 1) for word in ("--label", f"{name}={value}")]
    told = run(source, "--labels", "labels_oar", *labels, "--link", "--out", tmp_path / "out")
    assert told.exit_code == 0
    dataset = open_dataset(tmp_path / "out")
    assert len(dataset.labelled) == 60
    assert dataset.labels.names["Esophagus"] == 7
    for case in dataset.cases[:3]:
        assert sha256(case.images[0]) == sha256(source / "images" / f"{case.name}.nii.gz")
        assert sha256(case.label) == sha256(source / "labels_oar" / f"{case.name}.nii.gz")


@pytest.mark.realdata
def test_a_sarcoma_in_one_command(tmp_path, real_data):
    told = run(real_data / "sts_019", "--label", "tumour=1", "--out", tmp_path / "out")
    assert told.exit_code == 0
    dataset = open_dataset(tmp_path / "out")
    assert check(dataset) == []
    assert sha256(dataset.cases[0].images[0]) == sha256(real_data / "sts_019" / "CT_image.nii.gz")
