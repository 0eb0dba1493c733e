"""``data check --model``: what a fine-tuning with that base would refuse, in its lines, and what it would do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lnsegfm.datasets.check import examine
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import LnSegFmError
from lnsegfm.imaging.files import read_mask, read_volume, write_mask, write_volume
from lnsegfm.workflows.base_check import check_with_base
from lnsegfm.workflows.finetune_plan import plan
from tests.prediction.test_cascades_and_ensembles import write_configuration
from tests.scenes import write_scenes
from tests.workflows.test_check_and_work import cut
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_thread")
Change = Callable[[Path, World], Path]


def labelled(**labels: int) -> Change:
    """Clinics whose dataset.json names these labels; gives the base."""

    def change(clinic: Path, world: World) -> Path:
        described = json.loads((clinic / "dataset.json").read_text())
        (clinic / "dataset.json").write_text(json.dumps(described | {"labels": {"background": 0, **labels}}))
        return world.base

    return change


def of_slices(clinic: Path, _: World) -> Path:
    return write_configuration(clinic.parent / "slices", "2d")


def damaged_base(clinic: Path, world: World) -> Path:
    shutil.copytree(world.base, clinic.parent / "base", dirs_exist_ok=True)
    for file in (clinic.parent / "base").rglob("plans.json"):
        plans = json.loads(file.read_text())
        plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
        file.write_text(json.dumps(plans))
    return clinic.parent / "base"


def without_a_label(clinic: Path, world: World) -> Path:
    (clinic / "labelsTr" / "case_1.nii.gz").unlink()
    return labelled(Node=1)(clinic, world)


BASES: dict[str, tuple[Change, int]] = {
    "as it is": (lambda _, world: world.base, 0),
    "a label of another name": (labelled(tumour=1), 0),
    "a label of another spelling": (labelled(Node=1), 1),
    "a label of another spelling, and data that are refused as well": (without_a_label, 1),
    "a base of slices": (of_slices, 1),
    "a base whose plans are not its weights'": (damaged_base, 1),
    "no base": (lambda clinic, _: clinic / "imagesTr", 1),
}


@pytest.mark.parametrize("name", BASES)
def test_it_refuses_what_a_fine_tuning_refuses_in_the_same_lines(name, world, tmp_path):
    clinic = shutil.copytree(world.clinic, tmp_path / "clinic")
    change, refused = BASES[name]
    base = change(clinic, world)
    checked = examine(open_dataset(clinic))
    found = [str(each) for each in check_with_base(clinic, base, checked) if each.severity == "error"]
    assert bool(found) == bool(refused)
    if refused:
        with pytest.raises(LnSegFmError) as error:
            plan(clinic, base, world.recipe())
        assert [line.removeprefix("Dataset: ") for line in found] == str(error.value).splitlines()
    else:
        plan(clinic, base, world.recipe())


def test_a_map_joins_what_only_spelling_parts(world, tmp_path, lnsegfm_here):
    clinic = shutil.copytree(world.clinic, tmp_path / "clinic")
    labelled(Node=1)(clinic, world)
    refused = lnsegfm_here("data", "check", clinic, "--model", world.base)
    assert refused.returncode == 2
    assert "--map node=Node" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1 + refused.stderr.count("Checking")
    joined = lnsegfm_here("data", "check", clinic, "--model", world.base, "--map", "node=Node")
    assert joined.returncode == 0, joined.stderr
    assert "heads kept: Node" in " ".join(joined.stdout.split())


def test_labels_that_the_data_do_not_name_are_the_bases(world, tmp_path, lnsegfm_here):
    clinic = shutil.copytree(world.clinic, tmp_path / "clinic")
    for old, new in (("imagesTr", "images"), ("labelsTr", "labels")):
        (clinic / old).rename(clinic / new)
    (clinic / "dataset.json").unlink()
    assert lnsegfm_here("data", "check", clinic).returncode == 2
    done = lnsegfm_here("data", "check", clinic, "--model", world.base)
    assert done.returncode == 0, done.stderr
    assert "the base model" in done.stdout


def test_cases_of_the_base_and_scans_smaller_than_half_its_patch_are_warned_of(world, tmp_path):
    data = write_scenes(tmp_path / "data", 4)  # as the base's own
    image, mask = (data / part for part in ("imagesTr/case_3_0000.nii.gz", "labelsTr/case_3.nii.gz"))
    (voxels, grid), (labels, _) = read_volume(image), read_mask(mask)
    voxels, labels, grid = cut(4, 8)(voxels, labels, grid)
    write_mask(mask, labels, grid)
    write_volume(image, voxels, grid)
    found = {each.kind: each for each in check_with_base(data, world.base, examine(open_dataset(data)))}
    assert found["base-patch"].severity == found["base-trained-on"].severity == "warning"
    assert "case_3 (" in found["base-patch"].what
    assert "1 scan of 4" in found["base-patch"].what
    assert "case_3" not in found["base-trained-on"].what


def test_options_of_a_base_need_one(world, lnsegfm_here, tmp_path):
    for option in (("--map", "a=b"), ("--model-axes", "RAS")):
        done = lnsegfm_here("data", "check", world.clinic, *option)
        assert done.returncode == 2
        assert "Name it with --model" in done.stderr
    (tmp_path / "dicom").mkdir()
    done = lnsegfm_here("data", "check", tmp_path / "dicom", "--model", world.base)
    assert done.returncode == 2
    assert "lnsegfm data convert" in done.stderr
