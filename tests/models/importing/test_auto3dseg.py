"""Algorithm folders of MONAI's Auto3DSeg: what their YAML states is taken, nothing in it is executed.

The networks are MONAI's; the configs are written with the keys of Auto3DSeg's templates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.networks.nets.segresnet_ds import SegResNetDS
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.transforms import ScaleIntensityRange
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from torch import nn

from lnsegfm.errors import LnSegFmError, UnsafeFile
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.testing.tiny_networks import SWIN

HYPER: dict[str, Any] = {
    "bundle_root": "/input/segresnet_0",
    "ckpt_path": "$@bundle_root + '/model'",
    "modality": "ct",
    "input_channels": 1,
    "output_classes": 3,
    "class_names": ["tumor", "node"],
    "class_index": None,
    "roi_size": [16, 16, 24],
    "orientation_ras": True,
    "crop_foreground": True,
    "sigmoid": False,
    "resample": True,
    "resample_resolution": [1.0, 1.0, 2.0],
    "normalize_mode": "ct",
    "intensity_bounds": [-150.0, 250.0],
    "loss": {"_target_": "DiceCELoss", "softmax": "$not @sigmoid"},
    "network": {
        "_target_": "SegResNetDS",
        "init_filters": 4,
        "blocks_down": [1, 1, 1],
        "norm": "INSTANCE_NVFUSER",
        "in_channels": "@input_channels",
        "out_channels": "@output_classes",
        "dsdepth": 2,
    },
}


def segresnet(place: Path, name: str = "hyper_parameters.yaml", **changed: Any) -> nn.Module:
    torch.manual_seed(0)
    network = SegResNetDS(3, 4, 1, 3, norm="INSTANCE", blocks_down=(1, 1, 1), dsdepth=2).eval()
    config = HYPER | changed
    (place / "configs").mkdir(parents=True)
    (place / "model").mkdir()
    (place / "configs" / name).write_text(yaml.safe_dump(config, sort_keys=False))
    saved = {"state_dict": network.state_dict(), "config": HYPER, "epoch": 3, "best_metric": 0.5}
    torch.save(saved, place / "model" / "model.pt")
    torch.save(saved, place / "model" / "model_final.pt")
    return network


def swinunetr(place: Path, target: str = "SwinUNETR") -> None:
    """As the templates of a network, transforms and parameters of their own."""
    torch.manual_seed(0)
    network = SwinUNETR(in_channels=1, out_channels=3, **SWIN)
    scaled = {"_target_": "ScaleIntensityRanged", "a_min": -120, "a_max": 240, "b_min": 0.0, "b_max": 1.0, "clip": True}
    cropped = {"_target_": "CropForegroundd", "keys": "@image_key", "source_key": "@image_key"}
    chain = [
        {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "$@training#resample_to_spacing"},
        {"_target_": "CastToTyped", "dtype": "$torch.float32"},
        {"_target_": "Compose", "transforms": [scaled, cropped]},
    ]
    training = {"patch_size": [32, 32, 64], "resample_to_spacing": [1.0, 1.0, 3.0], "softmax": True}
    training |= {"input_channels": 1, "output_classes": 3}
    files = {
        "hyper_parameters": {"fold": 0, "training": training, "class_names": ["tumor", "node"], "modality": "CT"},
        "network": {"network": {"_target_": target, "feature_size": 12, "spatial_dims": 3, "use_v2": False}},
        "transforms_infer": {"image_key": "image", "transforms_infer": {"_target_": "Compose", "transforms": chain}},
    }
    (place / "configs").mkdir(parents=True)
    for name, table in files.items():
        (place / "configs" / f"{name}.yaml").write_text(yaml.safe_dump(table))
    for folder, file in (("model_fold0", "best_metric_model.pt"), ("pretrained_model", "pretrained.pt")):
        (place / folder).mkdir()
        torch.save(network.state_dict(), place / folder / file)


@pytest.mark.parametrize("name", ["hyper_parameters.yaml", "hyperparameters.yaml"])
def test_a_segresnet_folder_needs_no_option_and_its_logits_are_monais(name, tmp_path, take):
    network = segresnet(tmp_path / "segresnet_0", name)
    stored = take(tmp_path / "segresnet_0")
    assert stored.source.form.startswith("MONAI SegResNetDS of an Auto3DSeg folder, 3d_fullres, SegResNetDS, 1 channel")
    assert stored.card.spacing_mm == (2.0, 1.0, 1.0)
    (tmp_path / "segresnet_0" / "configs" / name).write_text(yaml.safe_dump(HYPER | {"fold": 1}))
    assert take(tmp_path / "segresnet_0", "other").source.sha256 != stored.source.sha256
    model = read_model(Path("it"))
    assert model.axes == "RAS"
    assert dict(model.labels.names) == {"tumor": 1, "node": 2}
    configuration = model.first.plans["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == [16, 16, 24]

    hu = np.random.default_rng(0).normal(0, 400, (1, 16, 16, 24)).astype(np.float32)
    hu[0, 0] = -3000
    properties = model.first.plans["foreground_intensity_properties_per_channel"]["0"]
    ours = build_network(model.first, deep_supervision=False).eval()
    ours.load_state_dict(model.first.weights)
    seen = torch.sigmoid(torch.as_tensor(ScaleIntensityRange(-150, 250, -1, 1, clip=False)(hu)))
    scaled = CTNormalization(use_mask_for_norm=False, intensityproperties=properties).run(hu.copy())
    with torch.no_grad():
        given, wanted = ours(torch.from_numpy(scaled)[None]), network(seen[None])
    torch.testing.assert_close(given, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(given, network(torch.from_numpy(scaled)[None]), atol=0.01)


def test_a_swinunetr_folder_says_it_in_several_files(tmp_path, take):
    swinunetr(tmp_path / "swinunetr_0")
    stored = take(tmp_path / "swinunetr_0")
    assert stored.source.form.startswith("MONAI SwinUNETR of an Auto3DSeg folder")
    assert stored.card.spacing_mm == (3.0, 1.0, 1.0)
    model = read_model(Path("it"))
    properties = model.first.plans["foreground_intensity_properties_per_channel"]["0"]
    assert (properties["percentile_00_5"], properties["percentile_99_5"], model.axes) == (-120.0, 240.0, "RAS")
    assert model.first.plans["configurations"]["3d_fullres"]["patch_size"] == [32, 32, 64]


def test_scans_that_are_not_ct_are_normalised_each_on_its_own(tmp_path, take):
    segresnet(tmp_path / "segresnet_0", modality="mri", normalize_mode="meanstd", intensity_bounds=None)
    take(tmp_path / "segresnet_0")
    configuration = read_model(Path("it")).first.plans["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == ["ZScoreNormalization"]
    assert "intensities" not in configuration["architecture"]["arch_kwargs"]


def test_what_it_does_not_say_is_asked_for(tmp_path, take):
    segresnet(tmp_path / "a", resample=False)
    with pytest.raises(LnSegFmError, match="Give --spacing Z Y X"):
        take(tmp_path / "a")
    segresnet(tmp_path / "b", class_names=None)
    with pytest.raises(LnSegFmError, match="have 3 outputs, background included, and nothing names them"):
        take(tmp_path / "b")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "sigmoid": ({"sigmoid": True}, "labels overlap"),
    "other network": ({"network": {"_target_": "DiNTS"}}, "builds MONAI's DiNTS"),
    "other scaling": ({"normalize_mode": "pet"}, "normalize_mode pet, which plans of nnU-Net cannot state"),
    "code": ({"custom_transforms": {"load_transforms": ["$open('x')"]}}, "which are code"),
    "slices": ({"network": HYPER["network"] | {"spatial_dims": 2}}, "for 2D images"),
    "norm": ({"network": HYPER["network"] | {"norm": "LAYER"}}, "with norm 'LAYER'"),
    "expression": ({"network": HYPER["network"] | {"preprocess": "$lambda x: x"}}, "with preprocess"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_would_be_read_wrongly_is_refused(case, tmp_path, take):
    changed, reason = REFUSED[case]
    segresnet(tmp_path / "segresnet_0", **changed)
    with pytest.raises(LnSegFmError, match=reason) as refused:
        take(tmp_path / "segresnet_0")
    assert "\n" not in str(refused.value)


def test_dints_is_refused(tmp_path, take):
    swinunetr(tmp_path / "dints_0", "DiNTS")
    with pytest.raises(LnSegFmError, match="its config builds MONAI's DiNTS"):
        take(tmp_path / "dints_0")


HOSTILE = {
    "code": "a: !!python/object/apply:os.mkdir ['executed']",
    "aliases": "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))]),
    "endless": "a: &a [*a]",
    "broken": "a: [1",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_yaml_is_data(kind, tmp_path, take, monkeypatch):
    monkeypatch.chdir(tmp_path)
    segresnet(tmp_path / "segresnet_0")
    (tmp_path / "segresnet_0" / "configs" / "hyper_parameters.yaml").write_text(HOSTILE[kind])
    with pytest.raises(LnSegFmError, match=r"hyper_parameters\.yaml: not YAML in plain values"):
        take(tmp_path / "segresnet_0")
    assert not (tmp_path / "executed").exists()


def test_torchscript_is_refused(tmp_path, take):
    file = tmp_path / "models" / "model.ts"
    file.parent.mkdir()
    torch.jit.save(torch.jit.trace(nn.Conv3d(1, 2, 1), torch.zeros(1, 1, 2, 2, 2)), str(file))
    with pytest.raises(UnsafeFile, match=r"model\.ts: TorchScript, which runs code\. .* models/model\.pt"):
        take(file)
    with pytest.raises(LnSegFmError, match=r"TorchScript \(\.ts\).*give models/model\.pt"):
        take(tmp_path)
