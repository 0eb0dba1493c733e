"""Phantoms as files: nnU-Net's layout, the same bytes, and what a second command finds."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from typer.testing import CliRunner

from lnsegfm.cli.data_phantom_command import phantom
from lnsegfm.datasets.check import examine
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.datasets.phantom import make_case, preset, write_dataset
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.storage import sha256
from tests.listening import OnAdvance

SMALL = replace(preset("base"), spacing_mm=(4.0, 4.0, 4.0), size_mm=(80.0, 150.0, 150.0), node_count=(4, 8))


def contents(folder):
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantoms") / "set"
    write_dataset(out, cases=2, domain=SMALL, seed=4)
    return out


def test_same_seed_same_bytes(dataset, tmp_path):
    write_dataset(tmp_path / "again", cases=2, domain=SMALL, seed=4)
    assert contents(tmp_path / "again") == contents(dataset)
    assert len(contents(dataset)) == 2 * 3 + 2

    write_dataset(tmp_path / "other", cases=2, domain=SMALL, seed=5)
    assert (
        contents(tmp_path / "other")["imagesTr/phantom_neck_000_0000.nii.gz"]
        != (contents(dataset)["imagesTr/phantom_neck_000_0000.nii.gz"])
    )


def test_a_case_does_not_depend_on_how_many_are_made(dataset, tmp_path):
    write_dataset(tmp_path / "one", cases=1, domain=SMALL, seed=4, first=1)
    one, both = contents(tmp_path / "one"), contents(dataset)
    assert {k: v for k, v in one.items() if k != "dataset.json"}.items() <= both.items()


def test_layout_is_that_of_nnunet(dataset):
    card = json.loads((dataset / "dataset.json").read_text())
    assert card == {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "lymph_node": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    assert sorted(p.name for p in (dataset / "imagesTr").iterdir()) == [
        "phantom_neck_000_0000.nii.gz",
        "phantom_neck_001_0000.nii.gz",
    ]
    assert sorted(p.name for p in (dataset / "labelsTr").iterdir()) == [
        "phantom_neck_000.nii.gz",
        "phantom_neck_001.nii.gz",
    ]


def test_files_hold_the_case(dataset):
    case = make_case(SMALL, 4, 1)
    image = sitk.ReadImage(str(dataset / "imagesTr" / "phantom_neck_001_0000.nii.gz"))
    mask = sitk.ReadImage(str(dataset / "labelsTr" / "phantom_neck_001.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), case.image_hu)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), case.mask)
    assert image.GetPixelID() == sitk.sitkInt16
    for part in (image, mask):
        assert part.GetSpacing() == pytest.approx(SMALL.spacing_mm[::-1])
        assert part.GetOrigin() == case.grid.origin_mm
        assert part.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_sidecar_says_where_the_nodes_are(dataset):
    truth = json.loads((dataset / "nodes" / "phantom_neck_001.json").read_text())
    mask = sitk.ReadImage(str(dataset / "labelsTr" / "phantom_neck_001.nii.gz"))
    assert truth == json.loads(json.dumps(make_case(SMALL, 4, 1).truth()))
    for node in truth["nodes"]:
        assert mask.TransformPhysicalPointToContinuousIndex(node["centre_mm"])[::-1] == pytest.approx(
            node["centre_index"], abs=1e-4
        )


def test_ignore_is_a_label_only_where_nodes_are_left_out(tmp_path):
    write_dataset(tmp_path / "part", cases=1, domain=replace(SMALL, annotated_share=0.25), seed=0)
    labels = json.loads((tmp_path / "part" / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "lymph_node": 1, "ignore": 2}
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "part" / "labelsTr" / "phantom_neck_000.nii.gz")))
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert 2 in mask


def test_the_doctor_has_no_findings(tmp_path):
    write_dataset(tmp_path / "set", cases=1, domain=replace(SMALL, annotated_share=0.5), seed=1)
    found = examine(open_dataset(tmp_path / "set", LabelMap.from_options([])))
    assert not found.problems


def test_the_same_call_makes_only_what_is_missing(dataset, tmp_path):
    out = tmp_path / "set"
    write_dataset(out, cases=1, domain=SMALL, seed=4)
    before = (out / "imagesTr" / "phantom_neck_000_0000.nii.gz").stat().st_mtime_ns
    (out / "imagesTr" / ".partial-1-phantom_neck_001_0000.nii.gz").write_bytes(b"half")
    told = []
    write_dataset(out, cases=2, domain=SMALL, seed=4, progress=OnAdvance(lambda *args: told.append(args)))
    assert (out / "imagesTr" / "phantom_neck_000_0000.nii.gz").stat().st_mtime_ns == before
    assert contents(out) == contents(dataset)
    assert told == [(1, 2, "phantom_neck_000"), (2, 2, "phantom_neck_001")]


def test_a_stopped_run_leaves_no_dataset_card(tmp_path):
    def stop(done, total, name):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "set", cases=2, domain=SMALL, seed=4, progress=OnAdvance(stop))
    assert not (tmp_path / "set" / "dataset.json").exists()


def test_a_folder_with_something_else_is_refused(dataset, tmp_path):
    before = contents(dataset)
    with pytest.raises(DataError, match="seed 4 instead of 9"):
        write_dataset(dataset, cases=2, domain=SMALL, seed=9)
    with pytest.raises(DataError, match="noise_hu"):
        write_dataset(dataset, cases=2, domain=replace(SMALL, noise_hu=30), seed=4)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match="no phantom dataset"):
        write_dataset(tmp_path, cases=1, domain=SMALL, seed=4)
    with pytest.raises(DataError, match="is a file"):
        write_dataset(tmp_path / "dataset.json", cases=1, domain=SMALL, seed=4)
    assert contents(dataset) == before


@pytest.mark.parametrize("wrong", [{"cases": 0}, {"seed": -1}, {"first": -1}])
def test_impossible_numbers_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        write_dataset(tmp_path / "set", **{"cases": 1, "seed": 0, **wrong}, domain=SMALL)
    assert not (tmp_path / "set").exists()


def test_the_command_writes_what_it_was_asked_for(tmp_path):
    app = typer.Typer()
    app.command()(phantom)
    out = tmp_path / "set"
    call = f"{out} --cases 1 --site neck --domain far --seed 3 --contrast arterial --noise 5 --blur 1 --spacing 4 4 4"
    call += " --size 80 150 150 --nodes 4 8 --node-size 5 20 --annotated 0.5"
    done = CliRunner().invoke(app, call.split())
    assert done.exit_code == 0, done.output
    card = json.loads((out / "phantom.json").read_text())
    assert card["seed"] == 3
    asked = {
        "contrast": "arterial",
        "noise_hu": 5,
        "spacing_mm": [4, 4, 4],
        "node_count": [4, 8],
        "annotated_share": 0.5,
    }
    assert asked.items() <= card["domain"].items()
    assert card["domain"]["necrotic_share"] == preset("far").necrotic_share

    assert CliRunner().invoke(app, [str(tmp_path / "x"), "--site", "knee"]).exit_code == 2
