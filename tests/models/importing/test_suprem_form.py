"""SuPreM's files: backbones under text-driven heads, what its scripts fine-tune, and Models Genesis.

The release's networks cannot be installed here. SwinUNETR is MONAI's own; the U-Net and the heads are imitated key by
key, from the names and shapes that the release's code gives the tensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.networks.nets.segresnet import SegResNet as MonaiSegResNet
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import Tensor

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import LnSegFmError
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.architectures import GENESIS, SWIN
from lnsegfm.networks.genesis_unet import GenesisUNet
from lnsegfm.recipe import Recipe
from lnsegfm.weights.adapter import Adapter
from lnsegfm.weights.state import raw
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.networks.test_published_networks import genesis_reference
from tests.scenes import write_scenes

NODE = LabelMap({"node": 1})
FEATURES = 8
SWIN_SIZE: dict[str, Any] = {"feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 4), "window_size": 3}
SAID: dict[str, Any] = {"spacing_mm": (1.5, 1.5, 1.5), "window_hu": (-175.0, 250.0)}


def unet(outputs: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return GenesisUNet(1, outputs, features=FEATURES).state_dict()


def swin() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return MonaiSwinUNETR(in_channels=1, out_channels=2, **SWIN_SIZE).state_dict()


def heads(width: int, deepest: int) -> dict[str, Tensor]:
    """The text-driven heads of 25 organs, as the release's ``Universal_model`` has them."""
    return {
        "precls_conv.0.weight": torch.ones(width),
        "precls_conv.0.bias": torch.zeros(width),
        "precls_conv.2.weight": torch.randn(8, width, 1, 1, 1),
        "precls_conv.2.bias": torch.zeros(8),
        "GAP.0.weight": torch.ones(deepest),
        "GAP.0.bias": torch.zeros(deepest),
        "GAP.3.weight": torch.randn(256, deepest, 1, 1, 1),
        "GAP.3.bias": torch.zeros(256),
        "controller.weight": torch.randn(153, 512, 1, 1, 1),
        "controller.bias": torch.zeros(153),
        "organ_embedding": torch.randn(25, 512),
        "text_to_vision.weight": torch.randn(256, 512),
        "text_to_vision.bias": torch.zeros(256),
    }


def released(kind: str, file: Path, *, outputs: bool = False) -> Path:
    """As the release's training saves it: with optimizer, scheduler and epoch."""
    backbone = unet() if kind == "U-Net" else swin()
    kept = {name: t for name, t in backbone.items() if outputs or not name.startswith(("out.", "out_tr."))}
    inner = {f"backbone.{name}": tensor for name, tensor in kept.items()} | heads(FEATURES, 8 * FEATURES)
    net = {f"module.{name}": tensor for name, tensor in inner.items()}
    scheduler = {"warmup_epochs": 20, "max_epochs": 800, "_step_count": 3, "_last_lr": [1e-4]}
    torch.save({"net": net, "optimizer": {"state": {}, "param_groups": []}, "scheduler": scheduler, "epoch": 2}, file)
    return file


@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("kind", ["U-Net", "SwinUNETR"])
def test_the_release_is_a_backbone(kind, outputs, tmp_path, take, models):
    stored = take(released(kind, tmp_path / "suprem.pth", outputs=outputs))
    network = "GenesisUNet" if kind == "U-Net" else "SwinUNETR"
    assert stored.source.form == (
        f"SuPreM {kind} with text-driven heads, 3d_fullres, {network}, 1 channel, backbone only"
    )
    assert stored.parts == "backbone"
    assert stored.card.spacing_mm == (1.5, 1.5, 1.5)
    assert "ICLR 2024" in (stored.card.citation or "")
    left = "Not taken, because they make outputs of text: GAP, controller"
    assert any(note.startswith(left) for note in stored.notes)
    assert stored.notes[-1] == (
        "As SuPreM's release says of its training, a spacing of 1.5 mm and -175 to 250 HU as 0 to 1 were taken."
    )
    model = read_model(Path("it"), whole=False)
    wanted = {n: t for n, t in (unet() if kind == "U-Net" else swin()).items() if not n.startswith(("out.", "out_tr."))}
    assert model.first.weights.keys() == wanted.keys()
    assert all(torch.equal(model.first.weights[name], tensor) for name, tensor in wanted.items())
    assert model.axes == "RAS"
    assert model.network_class == (GENESIS if kind == "U-Net" else SWIN)
    statistics = model.plans["foreground_intensity_properties_per_channel"]["0"]
    assert (statistics["percentile_00_5"], statistics["percentile_99_5"], statistics["std"]) == (-175.0, 250.0, 425.0)
    assert "backbone: down_tr" in models("show", "it").stdout or kind == "SwinUNETR"
    with pytest.raises(LnSegFmError, match="it is a pretrained network without an output layer"):
        read_model(Path("it"))


def test_what_is_said_counts_before_the_release(tmp_path, take):
    stored = take(released("U-Net", tmp_path / "suprem.pth"), spacing_mm=(3.0, 1.0, 1.0), window_hu=(-100.0, 300.0))
    assert stored.card.spacing_mm == (3.0, 1.0, 1.0)
    assert not any("were taken" in note for note in stored.notes)


@pytest.mark.parametrize("method", ["dgst", "lora", "full"])
def test_the_releases_unet_is_adapted(method, tmp_path, take):
    take(released("U-Net", tmp_path / "suprem.pth"), patch_size=(16, 16, 32))
    _adapted(method, tmp_path)


@pytest.mark.parametrize("method", ["dgst", pytest.param("lora", marks=pytest.mark.long)])
def test_the_releases_swin_unetr_is_adapted(method, tmp_path, take):
    take(released("SwinUNETR", tmp_path / "suprem.pth"), patch_size=(32, 32, 64))
    _adapted(method, tmp_path)


def _adapted(method: str, place: Path) -> None:
    planned = plan(write_scenes(place / "clinic", 3), Path("it"), Recipe(method=method, iterations=1, mirroring=False))
    assert planned.transfer.share == 1
    groups = {group.name: group for group in planned.transfer.groups}
    assert all(group.tensors.fresh == 0 for name, group in groups.items() if name != "head")
    run = finetune(planned, place / "run", device="cpu", workers=0)
    model = read_model(run.model)
    assert model.axes == "RAS"
    rebuilt = Adapter.load(run.folder).apply(read_model(Path("it"), whole=False).first.weights)
    assert all((raw(rebuilt[name]) == raw(tensor)).all() for name, tensor in model.first.weights.items())


def test_what_the_releases_scripts_fine_tune_predicts_as_there(tmp_path, take, lnsegfm_here):
    """One tile: turned to RAS, (x, y, z), clipped to 0 and 1; through the network of the release; back."""
    weights = unet()
    torch.save({"net": {f"module.{n}": t for n, t in weights.items()}, "epoch": 1}, tmp_path / "best_model.pth")
    stored = take(tmp_path / "best_model.pth", labels=NODE, patch_size=(16, 24, 32), **SAID)
    assert stored.source.form.startswith("U-Net of Models Genesis and SuPreM, 3d_fullres, GenesisUNet, 1 channel")

    scan = np.random.default_rng(0).normal(50, 150, (16, 24, 32)).astype(np.float32)  # z, y, x on LPS axes
    image = sitk.GetImageFromArray(scan)
    image.SetSpacing((1.5, 1.5, 1.5))
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image, str(tmp_path / "in" / "scan_0000.nii.gz"))
    words = ("predict", "it", tmp_path / "in", "--out", tmp_path / "out", "--device", "cpu", "--no-mirroring")
    done = lnsegfm_here(*words)
    assert done.returncode == 0, done.stderr

    seen = ((np.clip(scan, -175, 250) + 175) / 425)[:, ::-1, ::-1].transpose(2, 1, 0)
    with torch.no_grad():
        given = genesis_reference(torch.from_numpy(seen.copy())[None, None], weights).argmax(1)[0].numpy()
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "scan.nii.gz")))
    wanted = given.transpose(2, 1, 0)[:, ::-1, ::-1]
    assert 0.02 < wanted.mean() < 0.98
    assert (mask == wanted).mean() > 0.999


def test_models_genesis_is_a_backbone_whose_output_is_an_image(tmp_path, take):
    names = {f"module.{name}": tensor for name, tensor in unet(outputs=1).items()}
    torch.save({"state_dict": names, "epoch": 1}, tmp_path / "Genesis_Chest_CT.pt")
    with pytest.raises(LnSegFmError, match=r"Give --spacing Z Y X and --window LOW HIGH. SuPreM's models were trained"):
        take(tmp_path / "Genesis_Chest_CT.pt")
    stored = take(tmp_path / "Genesis_Chest_CT.pt", spacing_mm=(1.0, 1.0, 1.0), window_hu=(-1000.0, 1000.0))
    assert stored.source.form.startswith("U-Net without an output layer")
    assert "Not taken, because its output is no label's: out_tr." in stored.notes


def test_a_whole_network_wants_names_for_its_outputs(tmp_path, take):
    torch.save({"net": unet(outputs=3)}, tmp_path / "best_model.pth")
    with pytest.raises(LnSegFmError, match="its weights have 3 outputs, background included, and nothing names them"):
        take(tmp_path / "best_model.pth", **SAID)
    with pytest.raises(LnSegFmError, match="Patch size 20 20 20: the network needs multiples of 8"):
        take(tmp_path / "best_model.pth", labels=LabelMap({"a": 1, "b": 2}), patch_size=(20, 20, 20), **SAID)


def test_a_backbone_is_exported_and_taken_back(tmp_path, take, models):
    take(released("U-Net", tmp_path / "suprem.pth"))
    refused = models("export", "it", "--to", "safetensors", "--out", tmp_path / "out")
    if refused.returncode == 0:
        stored = take(tmp_path / "out", "again")
        assert stored.parts == "backbone"
    again = take(Path(str(read_model(Path("it"), whole=False).folder)), "copied")
    assert again.parts == "backbone"


SEGRESNET: dict[str, Any] = {"init_filters": 8, "blocks_down": (1, 2, 1), "blocks_up": (1, 1)}


def segresnet(file: Path, outputs: int) -> Any:
    """MONAI's own network, saved as the release's scripts save it."""
    torch.manual_seed(0)
    network = MonaiSegResNet(in_channels=1, out_channels=outputs, dropout_prob=0.0, **SEGRESNET).eval()
    torch.save({"net": {f"module.{n}": t for n, t in network.state_dict().items()}, "epoch": 1}, file)
    return network


def test_the_releases_segresnet_is_a_backbone(tmp_path, take):
    network = segresnet(tmp_path / "suprem.pth", outputs=32)
    stored = take(tmp_path / "suprem.pth")
    assert stored.source.form == "SuPreM SegResNet, 3d_fullres, SegResNet, 1 channel, backbone only"
    assert stored.card.spacing_mm == (1.5, 1.5, 1.5)
    assert any("each output of the release's is an organ on its own" in note for note in stored.notes)
    model = read_model(Path("it"), whole=False)
    wanted = {n: t for n, t in network.state_dict().items() if not n.startswith("conv_final.2")}
    assert model.first.weights.keys() == wanted.keys()
    assert model.axes == "RAS"
    organs = LabelMap({f"organ_{k}": k for k in range(1, 32)})
    whole = take(tmp_path / "suprem.pth", "whole", labels=organs, **SAID)
    assert whole.source.form.startswith("MONAI SegResNet, 3d_fullres, SegResNet, 1 channel, labels organ_1=1")


@pytest.mark.parametrize("method", ["dgst", "lora", "full"])
def test_the_releases_segresnet_is_adapted(method, tmp_path, take):
    segresnet(tmp_path / "suprem.pth", outputs=32)
    take(tmp_path / "suprem.pth", patch_size=(16, 16, 16))
    _adapted(method, tmp_path)


def test_a_whole_segresnet_predicts_what_monai_predicts(tmp_path, take, lnsegfm_here):
    network = segresnet(tmp_path / "best_model.pth", outputs=2)
    with pytest.raises(LnSegFmError, match="its weights have 2 outputs, background included, and nothing names them"):
        take(tmp_path / "best_model.pth", **SAID)
    take(tmp_path / "best_model.pth", labels=NODE, patch_size=(16, 24, 32), **SAID)

    scan = np.random.default_rng(0).normal(50, 150, (16, 24, 32)).astype(np.float32)
    image = sitk.GetImageFromArray(scan)
    image.SetSpacing((1.5, 1.5, 1.5))
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image, str(tmp_path / "in" / "scan_0000.nii.gz"))
    words = ("predict", "it", tmp_path / "in", "--out", tmp_path / "out", "--device", "cpu", "--no-mirroring")
    assert lnsegfm_here(*words).returncode == 0
    seen = ((np.clip(scan, -175, 250) + 175) / 425)[:, ::-1, ::-1].transpose(2, 1, 0)
    with torch.no_grad():
        given = network(torch.from_numpy(seen.copy())[None, None]).argmax(1)[0].numpy()
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "scan.nii.gz")))
    wanted = given.transpose(2, 1, 0)[:, ::-1, ::-1]
    assert 0.02 < wanted.mean() < 0.98
    assert (mask == wanted).mean() > 0.999
