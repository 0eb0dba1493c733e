"""VoxTell's checkpoint: nnU-Net's residual encoder under a text-prompted decoder, imitated key by key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
from torch import Tensor, nn

from lnsegfm.errors import LnSegFmError
from lnsegfm.models.importing.forms import voxtell_encoder as voxtell
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.architectures import ARCHITECTURES
from lnsegfm.recipe import Recipe
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.scenes import write_scenes

FEATURES, STRIDES = (4, 6, 8), ((1, 1, 1), (2, 2, 2), (2, 2, 2))
SPACING = (2.0, 1.0, 1.0)


def weights() -> dict[str, Tensor]:
    """Of a small one: encoder, the same again below the decoder, and the parts that take a text."""
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "input_channels": 1,
        "n_stages": 3,
        "features_per_stage": FEATURES,
        "conv_op": nn.Conv3d,
        "kernel_sizes": 3,
        "strides": STRIDES,
        "num_classes": 2,
        "conv_bias": True,
        "norm_op": nn.InstanceNorm3d,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "n_blocks_per_stage": (1, 3, 4),
        "n_conv_per_stage_decoder": 1,
    }
    unet = ResidualEncoderUNet(**arguments).state_dict()
    kept = {name: tensor for name, tensor in unet.items() if name.startswith(("encoder.", "decoder.encoder."))}
    return kept | {
        "decoder.stages.0.convs.0.conv.weight": torch.zeros(6, 44, 3, 3, 3),
        "decoder.transpconvs.0.weight": torch.zeros(8, 6, 2, 2, 2),
        "project_bottleneck_embed.0.weight": torch.zeros(16, 8),
        "project_text_embed.0.weight": torch.zeros(16, 32),
        "project_to_decoder_channels.0.0.weight": torch.zeros(16, 16),
        "pos_embed": torch.zeros(64, 1, 16),
        "transformer_decoder.layers.0.self_attn.in_proj_weight": torch.zeros(48, 16),
        "transformer_decoder.norm.weight": torch.ones(16),
    }


def plans() -> dict[str, Any]:
    """As the release has them: reader and architecture, no spacing."""
    return {
        "dataset_name": "VoxTellDataset",
        "image_reader_writer": "NibabelIOWithReorient",
        "configurations": {
            "3d_fullres": {
                "patch_size": [16, 16, 32],
                "normalization_schemes": ["ZScoreNormalization"],
                "architecture": ARCHITECTURES["resenc-l"].build_plan(FEATURES, STRIDES),
            }
        },
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "voxtell"
    (place / "fold_0").mkdir(parents=True)
    torch.save({"network_weights": weights()}, place / "fold_0" / "checkpoint_final.pth")
    (place / "plans.json").write_text(json.dumps(plans()))
    return place


@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize("given", [".", "fold_0/checkpoint_final.pth"])
def test_its_encoder_is_taken(given, described, folder, take):
    if described:
        description = {"channel_names": {"0": "image"}, "labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz"}
        (folder / "dataset.json").write_text(json.dumps(description))
    stored = take(folder / given, spacing_mm=SPACING)
    assert stored.source.form == ("VoxTell, image encoder, 3d_fullres, ResidualEncoderUNet, 1 channel, encoder only")
    assert stored.parts == "encoder"
    assert "VoxTell" in (stored.card.citation or "")
    assert stored.notes[1] == (
        "Not taken, because they make masks of a text: decoder, pos_embed, project_bottleneck_embed, "
        "project_text_embed, project_to_decoder_channels, transformer_decoder."
    )
    model = read_model(Path("it"), whole=False)
    wanted = {name: tensor for name, tensor in weights().items() if name.startswith("encoder.")}
    assert all(torch.equal(model.first.weights[name], tensor) for name, tensor in wanted.items())
    assert model.axes == "RAS"
    settings = model.plans["configurations"]["3d_fullres"]
    assert (settings["spacing"], settings["patch_size"]) == ([2.0, 1.0, 1.0], [16, 16, 32])
    assert settings["normalization_schemes"] == ["ZScoreNormalization"]


def test_without_plans_it_is_the_releases(folder, take, monkeypatch):
    (folder / "plans.json").unlink()
    monkeypatch.setattr(voxtell, "FEATURES", FEATURES)
    monkeypatch.setattr(voxtell, "STRIDES", STRIDES)
    take(folder / "fold_0" / "checkpoint_final.pth", spacing_mm=SPACING)
    assert read_model(Path("it"), whole=False).plans["configurations"]["3d_fullres"]["patch_size"] == [192] * 3


def test_a_spacing_is_asked_for(folder, take):
    with pytest.raises(LnSegFmError, match="VoxTell was trained on scans at whatever spacing they had") as refused:
        take(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", ["dgst", "full", pytest.param("lora", marks=pytest.mark.long)])
def test_it_is_adapted(method, folder, tmp_path, take):
    take(folder, spacing_mm=SPACING)
    planned = plan(
        write_scenes(tmp_path / "clinic", 3), Path("it"), Recipe(method=method, iterations=1, mirroring=False)
    )
    assert planned.transfer.share == 1
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    assert read_model(run.model).axes == "RAS"
