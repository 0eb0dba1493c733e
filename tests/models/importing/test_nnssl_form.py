"""Checkpoints of nnssl's self-supervised pretraining.

nnssl cannot be installed beside the tests, so the files are made here, key by key as its trainers write them, around
the networks of dynamic_network_architectures, which nnssl pretrains too.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from lnsegfm.errors import LnSegFmError
from lnsegfm.models.importing.forms import nnssl_encoder as nnssl
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.architectures import PLAIN, RESENC
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.weights.state import raw

FEATURES = (4, 4, 6, 6, 8, 8)
SPACING: dict[str, Any] = {"spacing_mm": (3.0, 1.0, 1.0)}


def network(features: Any = FEATURES, **changes: Any) -> ResidualEncoderUNet:
    """ResEnc-L of nnssl, as its get_res_enc_l builds it, with other features."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "n_stages": 6,
        "conv_op": nn.Conv3d,
        "kernel_sizes": [[3, 3, 3]] * 6,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * 5],
        "n_blocks_per_stage": [1, 3, 4, 6, 6, 6],
        "num_classes": 1,
        "n_conv_per_stage_decoder": [1] * 5,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
    return ResidualEncoderUNet(**({"input_channels": 1, "features_per_stage": features} | settings | changes))


def plan(**changes: Any) -> dict[str, Any]:
    """As AdaptationPlan.serialize of nnssl gives it."""
    configuration = {
        "data_identifier": "nnsslPlans_noresample",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing_style": "noresample",
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_mask": "resample_data_or_seg_to_shape",
        "resampling_fn_mask_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "spacing": None,
        "patch_size": [64, 64, 64],
    }
    return {
        "architecture_plans": {
            "arch_class_name": "ResEncL",
            "arch_kwargs": None,
            "arch_kwargs_requiring_import": None,
        },
        "pretrain_plan": {
            "dataset_name": "Dataset745_OpenMind",
            "plans_name": "nnsslPlans",
            "original_median_spacing_after_transp": [1, 1, 1],
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "configurations": {"noresample": configuration},
            "experiment_planner_used": "FixedResEncUNetPlanner",
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": [160, 160, 160],
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": ["encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0"],
        "key_to_lpe": None,
    } | changes


CITATIONS = [{"nnSSL": "@misc{wald,\n  title={An OpenMind for 3D medical vision}\n}"}, "@misc{other}"]


def write(file: Path, weights: Any, adaptation: Any, **further: Any) -> Path:
    torch.save({"network_weights": weights, "nnssl_adaptation_plan": adaptation} | further, file)
    return file


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network that the name ResEncL stands for, with fewer features."""
    monkeypatch.setattr(nnssl, "FEATURES", FEATURES)


def is_encoder_of(trained: nn.Module, name: str = "it") -> None:
    model = read_model(Path(name), whole=False)
    wanted = {n: t for n, t in trained.state_dict().items() if n.startswith("encoder.")}
    assert model.first.weights.keys() == wanted.keys()
    assert all(torch.equal(raw(model.first.weights[n]), raw(t)) for n, t in wanted.items())
    assert model.covers == ("encoder.",)
    state = build_network(model.first, deep_supervision=True).state_dict()
    assert {n: t.shape for n, t in state.items() if n.startswith("encoder.")} == {n: t.shape for n, t in wanted.items()}


def test_a_checkpoint_with_its_plan(tmp_path, take):
    trained = network()
    further = {"citations": CITATIONS, "trainer_name": "BaseMAETrainer", "init_args": {"plan": {}, "fold": 0}}
    stored = take(write(tmp_path / "checkpoint_final.pth", trained.state_dict(), plan(), **further), **SPACING)

    is_encoder_of(trained)
    model = read_model(Path("it"), whole=False)
    settings = model.plans["configurations"]["3d_fullres"]
    assert stored.source.form == (
        "nnssl checkpoint with its adaptation plan, self-supervised encoder, 3d_fullres, ResidualEncoderUNet, "
        "1 channel, encoder only"
    )
    assert (stored.parts, stored.covers, stored.card.architecture) == ("encoder", ("encoder.",), "resenc-l")
    assert stored.card.citation == "@misc{wald, title={An OpenMind for 3D medical vision} } @misc{other}"
    assert (settings["spacing"], settings["patch_size"]) == ([3.0, 1.0, 1.0], [160, 160, 160])
    assert settings["normalization_schemes"] == ["ZScoreNormalization"]
    assert settings["architecture"]["network_class_name"] == RESENC
    assert model.dataset_json["labels"] == {"background": 0}
    assert "encoder only" in stored.source.form
    assert any("of its pretraining's decoder and tasks were not taken" in note for note in stored.notes)


def test_the_plan_beside_the_checkpoint(tmp_path, take):
    trained = network()
    torch.save({"network_weights": trained.state_dict()}, tmp_path / "checkpoint_final.pth")
    (tmp_path / "adaptation_plan.json").write_text(json.dumps(plan() | {"trainer_name": "BaseMAETrainer"}))
    take(tmp_path, **SPACING)  # the folder, as a download leaves it
    is_encoder_of(trained)


def test_the_folder_that_its_trainer_leaves(tmp_path, take):
    """With plans.json and fold_X in it, as nnU-Net's, but no model of nnU-Net."""
    trained, folder = network(), tmp_path / "BaseMAETrainer__nnsslPlans__noresample"
    (folder / "fold_all").mkdir(parents=True)
    write(folder / "fold_all" / "checkpoint_final.pth", trained.state_dict(), plan(), init_args={"plan": {}})
    (folder / "plans.json").write_text(json.dumps(plan()["pretrain_plan"]))
    (folder / "adaptation_plan.json").write_text(json.dumps(plan()))
    take(folder, **SPACING)
    is_encoder_of(trained)


def test_a_stored_encoder_is_imported_again_as_one(tmp_path, take, home):
    trained = network()
    first = take(write(tmp_path / "a.pth", trained.state_dict(), plan()), **SPACING)
    second = take(home / "models" / "it", "again")
    is_encoder_of(trained, "again")
    assert second.files == first.files


@pytest.mark.parametrize("prefix", ["online_encoder", "net.encoder", "module.encoder", "student.backbone.encoder"])
def test_other_names_of_the_encoder(prefix, tmp_path, take):
    trained = network()
    weights = {
        f"{prefix}.{n.removeprefix('encoder.')}": t for n, t in trained.state_dict().items() if n[:8] == "encoder."
    }
    weights["projector.weight"] = torch.zeros(3)
    keys = {"key_to_encoder": f"{prefix}.stages", "key_to_stem": f"{prefix}.stem"}
    take(write(tmp_path / "a.pth", weights, plan(**keys)), **SPACING)
    is_encoder_of(trained)


ARGUMENTS = {
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage_decoder": [1, 1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.modules.activation.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


@pytest.mark.parametrize("plain", [False, True])
def test_an_architecture_with_its_arguments(plain, tmp_path, take):
    blocks = "n_conv_per_stage" if plain else "n_blocks_per_stage"
    arguments = ARGUMENTS | {blocks: [1, 2, 2]}
    built = {key: value for key, value in arguments.items() if "op" not in key or key.endswith("kwargs")}
    built |= {"conv_op": nn.Conv3d, "norm_op": nn.InstanceNorm3d, "nonlin": nn.LeakyReLU}
    trained = (PlainConvUNet if plain else ResidualEncoderUNet)(input_channels=2, num_classes=1, **built)
    architecture = {
        "arch_class_name": "PlainConvUNet" if plain else "ResidualEncoderUNet",
        "arch_kwargs": arguments,
        "arch_kwargs_requiring_import": ["conv_op", "norm_op", "nonlin"],
    }
    keys = {"key_to_encoder": "encoder.stages", "key_to_stem": "encoder.stages.0" if plain else "encoder.stem"}
    adaptation = plan(architecture_plans=architecture, pretrain_num_input_channels=2, **keys)
    take(write(tmp_path / "a.pth", trained.state_dict(), adaptation), channels=("T1", "T2"), **SPACING)
    is_encoder_of(trained)
    assert read_model(Path("it"), whole=False).network_class == (PLAIN if plain else RESENC)


def with_settings(**changes: Any) -> dict[str, Any]:
    adaptation = copy.deepcopy(plan())
    adaptation["pretrain_plan"]["configurations"]["noresample"] |= changes
    return adaptation


def test_spacing_and_axes_of_the_plan(tmp_path, take):
    adaptation = with_settings(spacing=[1.0, 2.0, 3.0])
    adaptation["pretrain_plan"]["transpose_forward"] = [2, 0, 1]
    adaptation["recommended_downstream_patchsize"] = [32, 64, 96]
    stored = take(write(tmp_path / "a.pth", network().state_dict(), adaptation))
    model = read_model(Path("it"), whole=False)
    settings = model.plans["configurations"]["3d_fullres"]
    assert (settings["spacing"], settings["patch_size"]) == ([1.0, 2.0, 3.0], [32, 64, 96])
    assert (model.plans["transpose_forward"], model.plans["transpose_backward"]) == ([2, 0, 1], [1, 2, 0])
    assert stored.card.spacing_mm == (2.0, 3.0, 1.0)


def refusal(take: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(LnSegFmError) as refused:
        take(*args, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["PrimusS", "PrimusM", "NoSkipResEncL", "os.system"])
def test_other_architectures_are_refused_by_name(name, tmp_path, take):
    adaptation = plan(architecture_plans={"arch_class_name": name, "arch_kwargs": None})
    said = refusal(take, write(tmp_path / "a.pth", network().state_dict(), adaptation), **SPACING)
    assert f"its architecture {name} is none that can be adapted here" in said


@pytest.mark.parametrize(
    ("adaptation", "options", "said"),
    [
        (plan(), {}, "Give --spacing Z Y X, in mm"),
        (with_settings(normalization_schemes=["CTNormalization"]), SPACING, "Give --window LOW HIGH"),
        (plan(key_to_encoder="backbone.stages", key_to_stem="backbone.stem"), SPACING, "begins with backbone.stages"),
        (
            plan(pretrain_num_input_channels=2),
            {**SPACING, "channels": ("a", "b")},
            "4x2x3x3x3 is 4x1x3x3x3 in the file",
        ),
        (plan(recommended_downstream_patchsize=[100, 100, 100]), SPACING, "Say so with --patch-size."),
        ({"architecture_plans": {}}, SPACING, "its adaptation plan is not nnssl's (KeyError('arch_class_name'))"),
        ([], SPACING, "adaptation plan: not what nnU-Net writes"),
    ],
    ids=["spacing", "window", "keys", "channels", "patch", "keys missing", "no table"],
)
def test_what_is_missing_or_does_not_fit_is_said(adaptation, options, said, tmp_path, take):
    assert said in refusal(take, write(tmp_path / "a.pth", network().state_dict(), adaptation), **options)


def test_an_encoder_that_is_not_whole_is_refused(tmp_path, take):
    weights = {n: t for n, t in network().state_dict().items() if not n.startswith("encoder.stages.5.blocks.5.conv2")}
    said = refusal(take, write(tmp_path / "a.pth", weights, plan()), **SPACING)
    assert "encoder.stages.5.blocks.5.conv2.conv.weight 8x8x3x3x3 is missing" in said


@pytest.mark.long
def test_at_full_size(tmp_path, take, monkeypatch):
    full = (32, 64, 128, 256, 320, 320)
    monkeypatch.setattr(nnssl, "FEATURES", full)
    trained = network(full)
    take(write(tmp_path / "a.pth", trained.state_dict(), plan()), **SPACING)
    is_encoder_of(trained)
