"""One base, any data: other channels, labels, patches, plans and names."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from lnsegfm.errors import ConfigError, ModelError, TransferError
from lnsegfm.models.model_folder import read_model
from lnsegfm.workflows.finetune_plan import plan
from tests.scenes import scene, small_plans, write_image, write_scenes

CHANNELS = ("CT", "PET")
LABELS = {"background": 0, "node": 1, "tumour": 2, "vessel": 3}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels and three labels, one of which the base knows."""
    root = tmp_path_factory.mktemp("other") / "clinic"
    for case in range(4):
        image, mask = scene(200 + case)  # none of the scans that trained the base
        mask[:, :, 14:] *= 2
        mask[:6] = np.where(mask[:6] > 0, 3, 0)
        for channel in range(2):
            write_image(root / "imagesTr" / f"case_{case}_000{channel}.nii.gz", image + 20 * channel)
        write_image(root / "labelsTr" / f"case_{case}.nii.gz", mask)
    described = {"channel_names": dict(enumerate(CHANNELS)), "labels": LABELS, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(described))
    return root


def test_one_command_takes_a_base_to_other_channels_labels_and_patch(
    world: Any, clinic: Path, tmp_path: Path, lnsegfm_here: Any
) -> None:
    out = tmp_path / "run"
    words = ("finetune", clinic, "--model", world.base, "--out", out, "--patch-size", 16, 24, 16, "--shots", 2)
    done = lnsegfm_here(*words, "--iterations", 3, "--device", "cpu", "--no-mirroring")
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())

    groups = {group["name"]: group for group in record["transfer"]["groups"]}
    assert set(groups) == {"encoder.stages", "decoder.stages", "decoder.transpconvs", "head"}
    assert groups["encoder.stages"]["parameters"]["adapted"] == 4 * 2 * 27
    assert "input channels 1 -> 2" in groups["encoder.stages"]["notes"][0]
    assert groups["decoder.stages"]["tensors"] == {**groups["decoder.stages"]["tensors"], "adapted": 0, "fresh": 0}
    assert groups["head"]["notes"] == ["labels kept: node; new: tumour, vessel"]
    for name in groups:
        assert name in done.stderr
        assert name in (out / "report.html").read_text()
    assert record["patch_size"] == [16, 24, 16]

    adapted = read_model(out)
    assert adapted.channel_names == CHANNELS
    assert adapted.dataset_json["labels"] == LABELS
    assert adapted.plans["configurations"]["3d_fullres"]["normalization_schemes"] == [
        "CTNormalization",
        "ZScoreNormalization",
    ]
    properties, base = adapted.plans["foreground_intensity_properties_per_channel"], read_model(world.base)
    assert properties["0"] == base.plans["foreground_intensity_properties_per_channel"]["0"]
    assert properties["1"]["mean"] == pytest.approx(properties_of(clinic, record["shots"]), abs=0.5)
    assert record["result"]["unknown_to_base"] == ["node", "tumour", "vessel"]
    masks = sorted((out / "predictions" / "adapted").glob("*.nii.gz"))
    assert len(masks) == 2
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(masks[0]))))) <= {0, 1, 2, 3}


def properties_of(clinic: Path, shots: list[str]) -> float:
    """Mean of the second channel's foreground, read with SimpleITK."""
    values = []
    for case in shots:
        image, mask = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(clinic / path)))
            for path in (f"imagesTr/{case}_0001.nii.gz", f"labelsTr/{case}.nii.gz")
        )
        values.append(image[mask > 0])
    return float(np.concatenate(values).mean())


def test_the_first_layer_answers_as_before_to_one_image_in_every_channel(world: Any, clinic: Path) -> None:
    planned = plan(clinic, world.base, world.recipe())
    name = "encoder.stages.0.0.convs.0.conv.weight"
    before, after = read_model(world.base).first.weights[name], planned.start.weights[name]
    assert after.shape[1] == 2
    assert torch.allclose(after.sum(1), before.sum(1), atol=1e-6)


def test_a_label_under_another_name_keeps_its_head(world: Any, tmp_path: Path, lnsegfm_here: Any) -> None:
    data = write_scenes(tmp_path / "clinic", 3, seed=7, label="Lymph_Node")
    fresh = plan(data, world.base, world.recipe(shots=1))
    mapped = plan(data, world.base, world.recipe(shots=1, label_names={"node": "Lymph_Node"}))
    assert (fresh.transfer.labels_kept, fresh.transfer.labels_new) == ((), ("Lymph_Node",))
    assert (mapped.transfer.labels_kept, mapped.transfer.labels_new) == (("Lymph_Node",), ())
    assert mapped.identity != fresh.identity

    out = tmp_path / "run"
    words = ("finetune", data, "--model", world.base, "--out", out, "--map", "node=Lymph_Node", "--shots", 1)
    done = lnsegfm_here(*words, "--iterations", 1, "--device", "cpu", "--no-mirroring")
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "run.json").read_text())["result"]
    assert result["unknown_to_base"] == []  # so the base was asked


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"lung": "node"}, "the base has no label lung. It has: node"),
        ({"node": "lung"}, "the data have no label lung. They have: node"),
    ],
)
def test_a_map_that_cannot_be_is_refused(world: Any, names: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(world.clinic, world.base, world.recipe(label_names=names))


def test_other_plans_take_what_fits_of_the_base(world: Any, tmp_path: Path) -> None:
    """The clinic's own plans: another spacing, a first stage that does not look across slices."""
    plans = small_plans()
    configuration = plans["configurations"]["3d_fullres"]
    configuration["spacing"] = [4.0, 1.0, 1.0]
    configuration["architecture"]["arch_kwargs"]["kernel_sizes"][0] = [1, 3, 3]
    file = tmp_path / "plans.json"
    file.write_text(json.dumps(plans))
    planned = plan(world.clinic, world.base, world.recipe(), plans=file)
    assert planned.to_json()["spacing_mm"] == [4.0, 1.0, 1.0]
    assert any("kernel 3x3x3 -> 1x3x3" in note for group in planned.transfer.groups for note in group.notes)
    name = "encoder.stages.0.0.convs.0.conv.weight"
    before, after = read_model(world.base).first.weights[name], planned.start.weights[name]
    assert torch.equal(after, before[:, :, 1:2])
    assert planned.recipe.plans is not None
    assert planned.identity != plan(world.clinic, world.base, world.recipe()).identity


def test_a_patch_is_said_in_the_images_order_whatever_axis_the_plans_look_along_first(
    world: Any, tmp_path: Path
) -> None:
    plans = small_plans() | {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    configuration = plans["configurations"]["3d_fullres"]
    configuration["spacing"] = [2.5, 1.0, 1.5]  # x first
    configuration["architecture"]["arch_kwargs"]["strides"][2] = [1, 2, 2]  # x is halved once, z and y twice
    file = tmp_path / "plans.json"
    file.write_text(json.dumps(plans))
    planned = plan(world.clinic, world.base, world.recipe(patch_size=(16, 24, 10), min_transfer=0.0), plans=file)
    shown = planned.to_json()
    assert (shown["patch_size"], shown["spacing_mm"]) == ([16, 24, 10], [1.0, 1.5, 2.5])
    assert planned.start.plans["configurations"]["3d_fullres"]["patch_size"] == [10, 16, 24]
    with pytest.raises(ConfigError, match=r"Patch size 10 24 16: the network needs multiples of 4 4 2"):
        plan(world.clinic, world.base, world.recipe(patch_size=(10, 24, 16), min_transfer=0.0), plans=file)


def test_a_network_that_takes_too_little_is_refused(world: Any, tmp_path: Path) -> None:
    plans = small_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
    file = tmp_path / "plans.json"
    file.write_text(json.dumps(plans))
    with pytest.raises(TransferError, match=r"% of the parameters come from it, at least 80 % should") as refusal:
        plan(world.clinic, world.base, world.recipe(), plans=file)
    assert len(str(refusal.value).splitlines()) == 1
    assert plan(world.clinic, world.base, world.recipe(min_transfer=0.1), plans=file).transfer.fresh


def test_a_model_by_a_name_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"no such folder, and no model of that name\. .*lnsegfm models list"):
        read_model(Path("nobody"))
    with pytest.raises(ModelError, match=r"it is not on this machine\. Run: lnsegfm models pull ln-resencl"):
        read_model(Path("ln-resencl"))


@pytest.mark.parametrize("name", ["Node", "NODE", " node", "no-de"])
def test_a_label_that_differs_in_its_spelling_alone_is_refused_with_the_option_that_joins_it(
    world: Any, tmp_path: Path, name: str
) -> None:
    data = write_scenes(tmp_path / "clinic", 3, seed=7, label=name)
    with pytest.raises(ConfigError) as refused:
        plan(data, world.base, world.recipe(shots=1))
    (said,) = str(refused.value).splitlines()
    option = shlex.split(said[said.index("--map") :].rstrip("."))
    assert option == ["--map", f"node={name}"]
    mapped = plan(data, world.base, world.recipe(shots=1, label_names={"node": name}))
    assert mapped.transfer.labels_kept == (name,)
    with pytest.raises(ConfigError, match=r"Give one label one name in both\."):
        plan(world.clinic, world.base, world.recipe(), source_data=data)
