"""Trainers that nnU-Net has, that it lacks, and that change the network; TotalSegmentator's models."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsegfm.errors import ModelError
from lnsegfm.models.install import install
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.registry.model_card import ModelCard
from lnsegfm.weights.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lnsegfm.weights.state import weights_hash
from tests.models.importing.producers import DATASET_JSON
from tests.scenes import small_plans

TOTAL = "Dataset297_TotalSegmentator_total_3mm_1559subj"


def made_by(trainer: str, place: Path) -> Path:
    """A checkpoint of the network that a trainer of nnU-Net builds."""
    start = Checkpoint({}, "3d_fullres", small_plans(), DATASET_JSON, trainer, (0, 1))
    torch.manual_seed(1)
    network = build_network(start, deep_supervision=True)
    write_checkpoint(place, replace(start, weights=network.state_dict()))
    return place


def old_plans() -> dict[str, Any]:
    """As nnU-Net before 2.2 wrote them, and TotalSegmentator's models still have them."""
    plans = copy.deepcopy(small_plans())
    configuration = plans["configurations"]["3d_fullres"]
    arguments = configuration.pop("architecture")["arch_kwargs"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": arguments["features_per_stage"][0],
        "unet_max_num_features": max(arguments["features_per_stage"]),
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [2, 2, 2],
        "pool_op_kernel_sizes": arguments["strides"],
        "conv_kernel_sizes": arguments["kernel_sizes"],
    }
    return plans | {"dataset_name": TOTAL}


@pytest.mark.parametrize("trainer", ["nnUNetTrainerNoMirroring", "nnUNetTrainer_4000epochs_NoMirroring"])
def test_a_trainer_that_nnunet_has_is_kept(trainer, tmp_path, take):
    stored = take(made_by(trainer, tmp_path / "a.pth"))
    assert stored.notes == ()
    assert read_model(Path("it")).first.trainer_name == trainer


def test_a_trainer_that_changes_the_network_is_kept(tmp_path, take):
    stored = take(made_by("nnUNetTrainerBN", tmp_path / "a.pth"))
    model = read_model(Path("it"))
    assert model.first.trainer_name == "nnUNetTrainerBN"
    assert any(name.endswith("running_mean") for name in model.first.weights)
    assert any(tensor.dtype is torch.int64 for tensor in model.first.weights.values())
    assert stored.notes == ()


def test_a_trainer_that_nnunet_lacks_gives_way_where_the_network_is_the_plans(tmp_path, take):
    made_by("nnUNetTrainer", tmp_path / "a.pth")
    write_checkpoint(
        tmp_path / "a.pth", replace(read_checkpoint(tmp_path / "a.pth"), trainer_name="nnUNetTrainer_Ours")
    )
    stored = take(tmp_path / "a.pth")
    assert read_model(Path("it")).first.trainer_name == "nnUNetTrainer"
    assert stored.notes[0].startswith("Its trainer nnUNetTrainer_Ours is none of nnU-Net's; ")


def test_a_trainer_that_nnunet_lacks_and_that_builds_another_network_is_refused(tmp_path, take):
    made_by("nnUNetTrainerBN", tmp_path / "a.pth")
    write_checkpoint(
        tmp_path / "a.pth", replace(read_checkpoint(tmp_path / "a.pth"), trainer_name="nnUNetTrainer_Ours")
    )
    with pytest.raises(ModelError) as refused:
        take(tmp_path / "a.pth")
    assert "its trainer nnUNetTrainer_Ours is none of nnU-Net's" in str(refused.value)
    assert "running_mean 4 is none of the network's" in str(refused.value)


@pytest.mark.parametrize(
    "name", ["os", "nnUNetTrainer.__init__", "../nnUNetTrainer", "np", "recursive_find_python_class"]
)
def test_a_name_that_is_no_trainer_is_none(name, tmp_path, take):
    made_by("nnUNetTrainer", tmp_path / "a.pth")
    write_checkpoint(tmp_path / "a.pth", replace(read_checkpoint(tmp_path / "a.pth"), trainer_name=name))
    take(tmp_path / "a.pth")
    assert read_model(Path("it")).first.trainer_name == "nnUNetTrainer"


@pytest.mark.parametrize(
    ("dataset", "axes", "expected"),
    [
        ("Dataset775_head_glands_cavities_492subj", None, "RAS"),
        ("Dataset850_TotalSegMRI_part1_organs_1088subj", None, "RAS"),
        ("Dataset008_HepaticVessel", None, None),  # the Medical Segmentation Decathlon's own name
        ("Dataset008_HepaticVessel", "RAS", "RAS"),
        ("Dataset297_TotalSegmentator_x", "LPS", "RAS"),  # what the file says counts
    ],
)
def test_axes_by_the_name_of_a_data_set_or_by_the_card(dataset, axes, expected, tmp_path, home):
    file = made_by("nnUNetTrainer", tmp_path / "m" / "fold_0" / "checkpoint_final.pth")
    plans = small_plans() | {"dataset_name": dataset, "image_reader_writer": "SimpleITKIO"}
    write_checkpoint(file, replace(read_checkpoint(file), plans=plans))
    (tmp_path / "m" / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "m" / "dataset.json").write_text(json.dumps(DATASET_JSON))
    card = ModelCard(name="it", title="It", architecture="nnunet", task="x", licence="CC0", axes=axes)

    install(tmp_path / "m", "it", card=card)

    assert read_model(Path("it")).axes == expected
    assert read_model(tmp_path / "m").axes == (None if axes == "RAS" else expected)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer_4000epochs_NoMirroring", "nnUNetTrainer_Nobody_NoMirroring"])
def test_a_totalsegmentator_folder(trainer, tmp_path, take):
    folder = tmp_path / TOTAL / f"{trainer}__nnUNetPlans__3d_fullres"
    file = made_by("nnUNetTrainer", folder / "fold_0" / "checkpoint_final.pth")
    checkpoint = replace(read_checkpoint(file), plans=old_plans(), trainer_name=trainer, mirroring_axes=None)
    write_checkpoint(file, checkpoint)
    (folder / "plans.json").write_text(json.dumps(old_plans()))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON | {"labels": {"background": 0, "spleen": 1}}))

    stored = take(tmp_path / TOTAL)

    model = read_model(Path("it"))
    assert stored.source.form == "TotalSegmentator model folder, 3d_fullres, PlainConvUNet, 1 channel, labels spleen=1"
    assert stored.card.architecture == "nnunet"
    assert model.first.mirroring_axes is None
    assert model.axes == "RAS"
    assert model.first.trainer_name == ("nnUNetTrainer" if "Nobody" in trainer else trainer)
    assert len(stored.notes) == ("Nobody" in trainer)
    assert weights_hash(model.first.weights) == weights_hash(checkpoint.weights)
    assert model.network_class.endswith(".PlainConvUNet")
