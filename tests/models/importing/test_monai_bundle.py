"""Bundles of MONAI's model zoo: what their configs say is taken, nothing in them is executed.

The weights are saved by ``torch.save`` of a state dict, as MONAI's ``CheckpointSaver`` leaves it of one network; it
needs pytorch-ignite and is not run. The configs have the keys of the zoo's own. The reference of the prediction is
MONAI's transforms and sliding window.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.transforms import Orientation, ScaleIntensityRange, Spacing
from torch import nn

from lnsegfm.errors import LnSegFmError
from lnsegfm.models.export_model import export_model
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.recipe import Recipe
from lnsegfm.testing.tiny_networks import SWIN
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.nnunet.stock import stock_predict_here
from tests.scenes import scene, write_image, write_scenes

SIZE: dict[str, Any] = {"init_filters": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 1)}
PIXDIM = [1.0, 1.5, 2.0]
ROI = [16, 24, 32]
RANGE = {"_target_": "ScaleIntensityRanged", "a_min": -100, "a_max": 300, "b_min": 0.0, "b_max": 1.0, "clip": True}
Z_SCORE = {"_target_": "NormalizeIntensityd", "keys": "@image_key", "nonzero": True}


def transforms(intensity: dict[str, Any], pixdim: Any = "@pixdim", axes: str = "RAS") -> list[dict[str, Any]]:
    return [
        {"_target_": "LoadImaged", "keys": "@image_key"},
        {"_target_": "Orientationd", "keys": "@image_key", "axcodes": axes},
        {"_target_": "Spacingd", "keys": "@image_key", "pixdim": pixdim, "mode": "bilinear"},
        {"keys": "@image_key", **intensity},
    ]


def seg_res_net() -> nn.Module:
    torch.manual_seed(0)
    return SegResNet(in_channels=1, out_channels=3, dropout_prob=0.2, **SIZE).eval()


def bundle(
    place: Path, chain: list[dict[str, Any]], network: nn.Module | None = None, *, ending: str = "json", **config: Any
) -> nn.Module:
    network = network or seg_res_net()
    (place / "models").mkdir(parents=True)
    (place / "configs").mkdir()
    torch.save(network.state_dict(), place / "models" / "model.pt")
    torch.save(network.state_dict(), place / "models" / "model_lowres.pt")
    inference = {
        "imports": ["$import os"],
        "image_key": "image",
        "pixdim": PIXDIM,
        "network_def": {"_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": chain},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": ROI},
        "initialize": [f"$__import__('os').mkdir('{place / 'executed'}')"],
    } | config
    labels = {"0": "background", "1": "spleen", "2": "Left Kidney"}
    metadata = {
        "references": ["A paper, 2022."],
        "network_data_format": {
            "inputs": {"image": {"modality": "CT", "num_channels": 1, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {"num_channels": 3, "channel_def": labels}},
        },
    }
    written = json.dumps if ending == "json" else yaml.safe_dump
    (place / "configs" / f"inference.{ending}").write_text(written(inference))
    (place / "configs" / f"metadata.{ending}").write_text(written(metadata))
    return network


@pytest.mark.parametrize("how", ["json", "yaml", "yml", "archived"])
def test_no_option_is_needed_where_the_configs_say_it(how, tmp_path, take):
    bundle(tmp_path / "zoo", transforms(RANGE), ending="json" if how == "archived" else how)
    source = tmp_path / "zoo"
    if how == "archived":
        source = Path(shutil.make_archive(str(tmp_path / "bundle"), "zip", tmp_path, "zoo"))
    stored = take(source)
    assert stored.source.form.startswith("MONAI SegResNet of a bundle, 3d_fullres, SegResNet, 1 channel")
    assert stored.card.spacing_mm == (2.0, 1.5, 1.0)
    assert stored.card.citation == "A paper, 2022."
    model = read_model(Path("it"))
    assert model.axes == "RAS"
    assert dict(model.labels.names) == {"spleen": 1, "Left Kidney": 2}
    configuration = model.first.plans["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == ROI
    assert configuration["spacing"] == PIXDIM
    assert not (tmp_path / "zoo" / "executed").exists()


def gaussian() -> torch.Tensor:
    """nnU-Net's weights of a tile, centred on voxel n // 2; MONAI's own lie half a voxel lower."""
    axes = [torch.exp(-(((torch.arange(n) - n // 2) / (n / 8)) ** 2) / 2) for n in ROI]
    return torch.einsum("i,j,k->ijk", *axes)


@pytest.mark.parametrize("axes", ["RAS", "LPS"])
def test_a_bundle_predicts_what_monai_predicts(axes, tmp_path, take, lnsegfm_here):
    network = bundle(tmp_path / "zoo", transforms(RANGE, axes=axes))
    take(tmp_path / "zoo")
    scan = np.random.default_rng(0).normal(50, 150, (40, 30, 24)).astype(np.float32)  # z, y, x on LPS axes
    image = sitk.GetImageFromArray(scan)
    image.SetSpacing(PIXDIM)
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image, str(tmp_path / "in" / "scan_0000.nii.gz"))
    words = ("predict", "it", tmp_path / "in", "--out", tmp_path / "out", "--device", "cpu", "--no-mirroring")
    assert lnsegfm_here(*words).returncode == 0

    affine = np.diag([-PIXDIM[0], -PIXDIM[1], PIXDIM[2], 1.0])  # LPS voxels in MONAI's RAS world
    seen = MetaTensor(torch.from_numpy(scan.transpose(2, 1, 0).copy())[None], affine=torch.from_numpy(affine))
    turn = Orientation(axcodes=axes)
    seen = ScaleIntensityRange(-100, 300, 0, 1, clip=True)(Spacing(pixdim=PIXDIM)(turn(seen)))
    with torch.no_grad():
        logits = sliding_window_inference(seen[None], ROI, 1, network, overlap=0.5, roi_weight_map=gaussian())
    wanted = Orientation(axcodes="LPS")(MetaTensor(logits[0].argmax(0)[None], affine=seen.affine))[0]
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "scan.nii.gz")))
    same = mask == wanted.numpy().transpose(2, 1, 0)
    assert len(np.unique(mask)) > 1
    assert same.mean() > 0.99


@pytest.mark.parametrize("method", ["dgst", "lora", "full"])
def test_a_bundle_is_adapted(method, tmp_path, take):
    bundle(tmp_path / "zoo", transforms(RANGE))
    take(tmp_path / "zoo", patch_size=(16, 16, 16))
    planned = plan(write_scenes(tmp_path / "clinic", 3), Path("it"), Recipe(method=method, iterations=1))
    groups = {group.name: group for group in planned.transfer.groups}
    assert all(group.tensors.fresh == 0 for name, group in groups.items() if name != "head")
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    assert read_model(run.model).axes == "RAS"


def test_an_expression_is_asked_for(tmp_path, take):
    bundle(tmp_path / "zoo", transforms(RANGE), pixdim="$[1.5, 1.5, 1.5] if True else [3.0, 3.0, 3.0]")
    with pytest.raises(LnSegFmError, match="Give --spacing Z Y X"):
        take(tmp_path / "zoo")
    assert take(tmp_path / "zoo", spacing_mm=(1.5, 1.5, 1.5)).card.spacing_mm == (1.5, 1.5, 1.5)


def test_intensities_that_plans_cannot_state_are_refused_unless_a_window_is_given(tmp_path, take):
    bundle(tmp_path / "zoo", transforms(Z_SCORE))
    with pytest.raises(LnSegFmError, match="scales intensities by NormalizeIntensityd, which plans"):
        take(tmp_path / "zoo")
    notes = take(tmp_path / "zoo", window_hu=(-175.0, 250.0)).notes
    assert any("it does not predict as MONAI's does" in note for note in notes)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unclipped": (
        {"preprocessing": {"_target_": "Compose", "transforms": transforms({**RANGE, "clip": False})}},
        "cannot",
    ),
    "axes": ({"preprocessing": transforms(RANGE, axes="SPL")}, "turns scans to 'SPL'"),
    "network": ({"network_def": {"_target_": "UNETR"}}, "builds MONAI's UNETR"),
    "norm": ({"network_def": {"_target_": "SegResNet", "norm": ["INSTANCE", {}]}}, "with norm"),
    "sigmoid": ({"postprocessing": [{"_target_": "Activationsd", "sigmoid": True}]}, "labels overlap"),
}


@pytest.mark.parametrize("ending", ["json", "yaml"])
@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_would_be_read_wrongly_is_refused(case, ending, tmp_path, take):
    config, reason = REFUSED[case]
    bundle(tmp_path / "zoo", transforms(RANGE), ending=ending, **config)
    with pytest.raises(LnSegFmError, match=reason):
        take(tmp_path / "zoo")


def test_two_configs_of_one_name_are_refused(tmp_path, take):
    bundle(tmp_path / "zoo", transforms(RANGE))
    (tmp_path / "zoo" / "configs" / "inference.yaml").write_text("network_def: {_target_: UNETR}")
    with pytest.raises(LnSegFmError, match=r"inference\.json and inference\.yaml are configs of one name"):
        take(tmp_path / "zoo")


GROUPED: dict[str, Any] = {"norm_name": ["GROUP", {"num_groups": 2}], "act_name": ["GELU", {}]}
DYN_UNET: dict[str, Any] = {
    "_target_": "monai.networks.nets.DynUNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 6, 8],
    **GROUPED,
}


def dyn_unet() -> nn.Module:
    torch.manual_seed(0)
    return DynUNet(**{key: value for key, value in DYN_UNET.items() if key != "_target_"}).eval()


def test_of_a_dyn_unet_the_config_says_what_leaves_no_mark(tmp_path, take):
    network = bundle(tmp_path / "zoo", transforms(RANGE), dyn_unet(), network_def=DYN_UNET)
    stored = take(tmp_path / "zoo")
    assert stored.source.form.startswith("MONAI DynUNet of a bundle")
    assert not any("leaves no mark" in note for note in stored.notes)
    first = read_model(Path("it")).first
    ours = build_network(first, deep_supervision=False).eval()
    ours.load_state_dict(first.weights)
    image = torch.randn(1, 1, *ROI)
    with torch.no_grad():
        assert torch.equal(ours(image), network(image))


@pytest.mark.parametrize(
    "changed", [{"strides": [2, 2, 2]}, {"act_name": "prelu"}, {"norm_name": "$make()"}, {"spatial_dims": 2}]
)
def test_a_dyn_unet_that_is_not_built_here_is_refused(changed, tmp_path, take):
    bundle(tmp_path / "zoo", transforms(RANGE), dyn_unet(), network_def=DYN_UNET | changed)
    with pytest.raises(LnSegFmError, match=r"its config builds DynUNet (with|for)"):
        take(tmp_path / "zoo")


def swin_unetr() -> nn.Module:
    torch.manual_seed(0)
    return SwinUNETR(in_channels=1, out_channels=3, **SWIN).eval()


@pytest.mark.parametrize(
    ("make", "target", "roi"),
    [
        pytest.param(swin_unetr, {"_target_": "SwinUNETR"}, [32, 32, 64], marks=pytest.mark.long),
        (dyn_unet, DYN_UNET, ROI),
    ],
)
def test_exported_it_predicts_in_stock_nnunet_what_it_does_here(make, target, roi, tmp_path, take, lnsegfm_here):
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": roi}
    bundle(tmp_path / "zoo", transforms(RANGE), make(), network_def=target, inferer=inferer)
    take(tmp_path / "zoo")
    write_image(tmp_path / "in" / "case_0_0000.nii.gz", scene(50)[0])
    words = ("predict", "it", tmp_path / "in", "--out", tmp_path / "here", "--device", "cpu", "--exact")
    assert lnsegfm_here(*words).returncode == 0
    export_model(Path("it"), "folder", tmp_path / "exported")
    stock_predict_here(tmp_path / "exported", tmp_path / "in", tmp_path / "there")
    here, there = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / side / "case_0.nii.gz"))) for side in ("here", "there")
    )
    assert len(np.unique(there)) > 1
    np.testing.assert_array_equal(here, there)
