"""MONAI's DynUNet and SegResNetDS, saved by its classes: recognised by their weights, adapted, the logits MONAI's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet_ds import SegResNetDS
from torch import nn

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import LnSegFmError
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.cards import has_deep_supervision
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.recipe import Recipe
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.scenes import write_scenes

SAID: dict[str, Any] = {"spacing_mm": (2.0, 1.0, 1.0), "window_hu": (-100.0, 300.0), "patch_size": (16, 16, 16)}
LABELS: dict[str, Any] = {"labels": LabelMap({"spleen": 1, "node": 2})}


def dyn_unet(supervised: bool = True) -> nn.Module:
    torch.manual_seed(0)
    strides: list[Any] = [1, 2, (2, 2, 1), 2]
    settings: dict[str, Any] = {"filters": [4, 6, 8, 8], "res_block": True}
    return DynUNet(3, 1, 3, [3] * 4, strides, strides[1:], deep_supervision=supervised, deep_supr_num=2, **settings)


def res_net(supervised: bool = True) -> nn.Module:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"norm": "INSTANCE", "dsdepth": 2 if supervised else 1, "resolution": (1, 1, 2)}
    return SegResNetDS(3, 4, 1, 3, blocks_down=(1, 1, 1), **settings)


def saved(network: nn.Module, file: Path) -> Path:
    """As Auto3DSeg saves: the weights beside its config, in plain values."""
    torch.save({"state_dict": network.state_dict(), "config": {"roi_size": [16, 16, 16]}, "epoch": 3}, file)
    return file


@pytest.mark.parametrize("supervised", [True, False])
@pytest.mark.parametrize("make", [dyn_unet, res_net])
def test_it_is_recognised_and_its_logits_are_monais(make, supervised, tmp_path, take):
    network = make(supervised)
    stored = take(saved(network, tmp_path / "model.pt"), **SAID, **LABELS)
    assert stored.source.form.startswith(f"MONAI {type(network).__name__}, 3d_fullres")
    assert any("leaves no mark" in note for note in stored.notes)
    model = read_model(Path("it"))
    assert model.axes == "RAS"
    assert model.first.plans["transpose_forward"] == [2, 1, 0]
    ours = build_network(model.first, deep_supervision=False).eval()
    ours.load_state_dict(model.first.weights)
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(ours(image), network.eval()(image))
    entry = model.first.plans["configurations"]["3d_fullres"]["architecture"]
    assert has_deep_supervision(entry["network_class_name"], entry["arch_kwargs"]) == supervised


@pytest.mark.parametrize("method", ["dgst", "lora", "full"])
@pytest.mark.parametrize("make", [dyn_unet, res_net])
def test_it_is_adapted(make, method, tmp_path, take):
    take(saved(make(), tmp_path / "model.pt"), **SAID, **LABELS)
    planned = plan(write_scenes(tmp_path / "clinic", 3), Path("it"), Recipe(method=method, iterations=1))
    groups = {group.name: group for group in planned.transfer.groups}
    assert all(group.tensors.fresh == 0 for group in groups.values())  # the label node has its head
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    before, after = read_model(Path("it")).first.weights, read_model(run.model).first.weights
    assert any(not torch.equal(before[name], after[name]) for name in before if before[name].dim() == 5)


def test_what_the_weights_do_not_tell_is_asked_for(tmp_path, take):
    file = saved(dyn_unet(), tmp_path / "model.pt")
    with pytest.raises(
        LnSegFmError, match=r"have 3 outputs, background included, and nothing names them\. Give --label"
    ):
        take(file, **SAID)
    with pytest.raises(LnSegFmError, match=r"Give --spacing Z Y X and --window LOW HIGH\."):
        take(file, **LABELS)
    with pytest.raises(LnSegFmError, match="needs multiples of 4 8 8"):
        take(file, **SAID | {"patch_size": (16, 16, 12)}, **LABELS)


def test_weights_for_images_are_refused(tmp_path, take):
    network = DynUNet(2, 1, 3, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 6, 8])
    with pytest.raises(LnSegFmError, match=r"model\.pt: DynUNet: these weights are for 2D images"):
        take(saved(network, tmp_path / "model.pt"), **SAID, **LABELS)
