"""Bundles of MONAI's model zoo: what their configs say is taken, nothing in them is executed.

The weights are saved by MONAI's own `CheckpointSaver` path (``torch.save`` of a state dict); the configs have the keys
of the zoo's own. The reference of the prediction is MONAI's transforms and sliding window.
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
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.networks.nets.segresnet import SegResNet
from monai.transforms import Orientation, ScaleIntensityRange, Spacing

from lnsegfm.errors import LnSegFmError
from lnsegfm.models.model_folder import read_model
from lnsegfm.recipe import Recipe
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.scenes import write_scenes

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


def bundle(place: Path, chain: list[dict[str, Any]], **config: Any) -> SegResNet:
    torch.manual_seed(0)
    network = SegResNet(in_channels=1, out_channels=3, dropout_prob=0.2, **SIZE).eval()
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
    (place / "configs" / "inference.json").write_text(json.dumps(inference))
    (place / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return network


@pytest.mark.parametrize("archived", [False, True])
def test_no_option_is_needed_where_the_configs_say_it(archived, tmp_path, take):
    bundle(tmp_path / "zoo", transforms(RANGE))
    source = tmp_path / "zoo"
    if archived:
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
    "network": ({"network_def": {"_target_": "DynUNet"}}, "builds MONAI's DynUNet"),
    "norm": ({"network_def": {"_target_": "SegResNet", "norm": ["INSTANCE", {}]}}, "with norm"),
    "sigmoid": ({"postprocessing": [{"_target_": "Activationsd", "sigmoid": True}]}, "labels overlap"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_would_be_read_wrongly_is_refused(case, tmp_path, take):
    config, reason = REFUSED[case]
    bundle(tmp_path / "zoo", transforms(RANGE), **config)
    with pytest.raises(LnSegFmError, match=reason):
        take(tmp_path / "zoo")
