"""Files that MONAI's own networks save, and its SwinUNETR in nnU-Net checkpoints of other people's trainers."""

from __future__ import annotations

import copy
import json
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.networks.nets.swin_unetr import SwinTransformer
from monai.networks.nets.swin_unetr import SwinUNETR as MonaiSwinUNETR
from torch import Tensor, nn

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import LnSegFmError
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import affine_of
from lnsegfm.models.importing.swin_plans import DEFAULTS
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.architectures import SWIN
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import find_scans
from lnsegfm.weights.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from lnsegfm.weights.state import load_weights, raw, weights_hash
from tests.models.importing.producers import DATASET_JSON
from tests.scenes import small_plans

TINY: dict[str, Any] = {"feature_size": 12, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 4, 4), "window_size": 3}
NODE = LabelMap({"node": 1})
SAID: dict[str, Any] = {"spacing_mm": (2.0, 1.5, 1.0), "window_hu": (-175.0, 250.0)}


def monai(outputs: int = 2, channels: int = 1, **changes: Any) -> MonaiSwinUNETR:
    torch.manual_seed(0)
    return MonaiSwinUNETR(in_channels=channels, out_channels=outputs, **(TINY | changes)).eval()


def plans_of(name: str = "it") -> dict[str, Any]:
    return dict(read_model(Path(name), whole=False).plans["configurations"]["3d_fullres"])


def same(found: Any, wanted: Any) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(raw(found[n]), raw(wanted[n])) for n in wanted)


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_a_swin_unetr(v2, container, tmp_path, take):
    network = monai(outputs=3, channels=2, use_v2=v2)
    content = network.state_dict()
    torch.save(content if container is None else {container: content, "epoch": 7}, tmp_path / "model.pt")

    stored = take(tmp_path / "model.pt", labels=LabelMap({"liver": 1, "node": 2}), channels=("CT", "PET"), **SAID)

    model = read_model(Path("it"))
    assert same(model.first.weights, content)
    assert stored.source.form == "MONAI SwinUNETR, 3d_fullres, SwinUNETR, 2 channels, labels liver=1 node=2"
    assert stored.card.architecture == ("swinunetr-v2" if v2 else "swinunetr")
    assert stored.card.spacing_mm == (2.0, 1.5, 1.0)
    assert model.network_class == SWIN
    load_weights(build_network(model.first, deep_supervision=True), model.first.weights)
    assert plans_of()["patch_size"] == [96, 96, 96]
    assert plans_of()["normalization_schemes"] == ["CTNormalization", "ZScoreNormalization"]


def test_a_monai_network_sees_here_what_it_saw_there(tmp_path, take):
    """The same scan, turned to RAS by MONAI, in its order of axes and window of intensities, gives MONAI's own mask."""
    network = monai()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    take(tmp_path / "model.pt", labels=NODE, patch_size=(32, 32, 64), **SAID)

    scan = np.random.default_rng(0).normal(50, 150, (32, 32, 64)).astype(np.float32)  # z, y, x: one patch
    image = sitk.GetImageFromArray(scan)
    image.SetSpacing((1.0, 1.5, 2.0))
    (tmp_path / "in").mkdir()
    sitk.WriteImage(image, str(tmp_path / "in" / "scan_0000.nii.gz"))
    done = predict_cases(
        read_model(Path("it")), find_scans(tmp_path / "in", 1).cases, tmp_path / "out", PredictOptions(mirroring=False)
    )
    assert done.failed == ()

    from monai.data.meta_tensor import MetaTensor
    from monai.transforms import Orientation, ScaleIntensityRange

    def in_monai(*axes: int, turned: bool = True) -> np.ndarray:
        affine = torch.as_tensor(affine_of(Grid.from_image(image)))
        orientation = Orientation(axcodes="RAS" if turned else "LPS", labels=None)
        whole = orientation(MetaTensor(torch.as_tensor(scan.transpose(2, 1, 0))[None], affine=affine))
        seen = ScaleIntensityRange(-175, 250, 0.0, 1.0, clip=True)(whole)[0]  # x, y, z
        order = [2 - axis for axis in axes]
        with torch.no_grad():
            voxels = network(torch.as_tensor(np.asarray(seen)).permute(order)[None, None]).argmax(1)[0]
        back = MetaTensor(voxels.permute(*np.argsort(order).tolist())[None].float(), meta=whole.meta)
        back.applied_operations = whole.applied_operations[:1]
        return np.asarray(orientation.inverse(back))[0].transpose(2, 1, 0)

    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "scan.nii.gz")))
    assert 0.05 < mask.mean() < 0.95
    assert (mask == in_monai(2, 1, 0)).mean() > 0.99  # nnU-Net adds its logits up in half precision
    assert (mask == in_monai(0, 1, 2)).mean() < 0.95
    assert (mask == in_monai(2, 1, 0, turned=False)).mean() < 0.95


def older(weights: Any) -> dict[str, Tensor]:
    """Names as MONAI before 1.0 had them."""
    names = {re.sub(r"\.linear([12])\.", r".fc\1.", name): tensor for name, tensor in weights.items()}
    return {name.replace("out.conv.conv.", "out.conv."): tensor for name, tensor in names.items()}


def test_older_names_and_wrappings(tmp_path, take):
    network = monai()
    torch.save({"state_dict": {f"module.{n}": t for n, t in older(network.state_dict()).items()}}, tmp_path / "a.pt")
    take(tmp_path / "a.pt", labels=NODE, **SAID)
    assert same(read_model(Path("it")).first.weights, network.state_dict())


def refusal(take: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(LnSegFmError) as refused:
        take(*args, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_a_monai_file_does_not_say_has_to_be_said(tmp_path, take):
    torch.save(monai(outputs=14).state_dict(), tmp_path / "model.pt")
    names = LabelMap({f"organ_{value}": value for value in range(1, 14)})
    said = refusal(take, tmp_path / "model.pt")
    assert "its weights have 14 outputs, background included, and nothing names them" in said
    assert "--label NAME=VALUE for each of the 13 labels" in said
    assert "Name 13." in refusal(take, tmp_path / "model.pt", labels=NODE, **SAID)
    said = refusal(take, tmp_path / "model.pt", labels=names)
    assert "Give --spacing Z Y X and --window LOW HIGH. MONAI's models for abdominal CT used" in said
    assert "--spacing 2.0 1.5 1.5 --window -175 250" in said
    assert "Give --window LOW HIGH." in refusal(take, tmp_path / "model.pt", labels=names, spacing_mm=(1.0, 1.0, 1.0))
    said = refusal(take, tmp_path / "model.pt", labels=names, patch_size=(90, 96, 96), **SAID)
    assert "needs multiples of 32 32 32" in said
    assert "--window: only CT" in refusal(take, tmp_path / "model.pt", labels=names, channels=("MR",), **SAID)
    take(tmp_path / "model.pt", labels=names, channels=("MR",), spacing_mm=(1.0, 1.0, 1.0))
    assert plans_of()["normalization_schemes"] == ["ZScoreNormalization"]


def test_several_channels_need_names(tmp_path, take):
    torch.save(monai(channels=4).state_dict(), tmp_path / "model.pt")
    said = refusal(take, tmp_path / "model.pt", labels=NODE, **SAID)
    assert "its weights take 4 channels, but none are named. Give --channel once for each, in order." in said


class Pretraining(nn.Module):
    """MONAI's transformer with the heads of its self-supervised tasks, as its research code trained them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        three = (TINY["window_size"],) * 3
        settings = {key: TINY[key] for key in ("depths", "num_heads")}
        transformer = SwinTransformer(1, TINY["feature_size"], three, (2, 2, 2), use_v2=False, **settings)
        for name, module in transformer.named_children():
            self.add_module(name, module)
        self.norm = nn.LayerNorm(192)
        self.rotation_head = nn.Linear(192, 4)
        self.contrastive_head = nn.Linear(192, 512)
        self.convTrans3d = nn.ConvTranspose3d(192, 1, 32, 32)


@pytest.mark.parametrize("prefix", ["module.", "module.swinViT."])
def test_the_encoder_of_self_supervised_pretraining(prefix, tmp_path, take):
    pretraining = Pretraining()
    named = nn.DataParallel(pretraining).state_dict()
    heads = ("module.norm", "module.rotation", "module.contrastive", "module.convTrans")
    content = {
        older({name: 0}).popitem()[0]
        if name.startswith(heads)
        else older({name.replace("module.", prefix): 0}).popitem()[0]: t
        for name, t in named.items()
    }
    torch.save({"state_dict": OrderedDict(content)}, tmp_path / "model_swinvit.pt")

    stored = take(tmp_path / "model_swinvit.pt", **SAID)

    assert stored.parts == "encoder"
    assert stored.covers == ("swinViT.",)
    assert stored.card.labels is None
    assert stored.source.form == (
        "MONAI SwinViT, self-supervised encoder, 3d_fullres, SwinUNETR, 1 channel, encoder only"
    )
    assert any("contrastive_head, convTrans3d, norm, rotation_head" in note for note in stored.notes)
    model = read_model(Path("it"), whole=False)
    assert model.covers == ("swinViT.",)
    assert model.dataset_json["labels"] == {"background": 0}
    assert all(name.startswith("swinViT.") for name in model.first.weights)

    if prefix == "module.":  # MONAI's own way of loading such a file is the reference
        network = monai()
        network.load_from({"state_dict": content})
        encoder = {n: t for n, t in network.state_dict().items() if n.startswith("swinViT.")}
        assert same(model.first.weights, encoder)


def test_an_encoder_that_is_not_whole_is_refused(tmp_path, take):
    weights = {n: t for n, t in Pretraining().state_dict().items() if "layers3.0.blocks.0.norm1" not in n}
    torch.save(weights, tmp_path / "model_swinvit.pt")
    said = refusal(take, tmp_path / "model_swinvit.pt", **SAID)
    assert "swinViT.layers3.0.blocks.0.norm1.weight 48 is missing" in said


def in_nnunet(tmp_path: Path, patch: list[int], **changes: Any) -> tuple[Path, dict[str, Tensor]]:
    """As the SwinUNETR trainers of the LN-Seg-FM release leave it: a U-Net in the plans, another network trained."""
    plans = small_plans()
    plans["configurations"]["3d_fullres"]["patch_size"] = patch
    weights = monai(**changes).state_dict()
    start = Checkpoint(weights, "3d_fullres", plans, DATASET_JSON, "nnUNetTrainer_SwinUNETR", (0, 1, 2))
    write_checkpoint(tmp_path / "checkpoint_final.pth", start)
    return tmp_path / "checkpoint_final.pth", weights


@pytest.mark.parametrize("v2", [False, True])
def test_plans_that_say_a_unet_where_the_weights_are_a_swin_unetr(v2, tmp_path, take):
    file, weights = in_nnunet(tmp_path, [64, 128, 192], use_v2=v2)
    stored = take(file)
    model = read_model(Path("it"))
    assert same(model.first.weights, weights)
    assert model.first.trainer_name == "nnUNetTrainer"
    assert model.network_class == SWIN
    assert plans_of()["patch_size"] == [64, 128, 192]
    assert plans_of()["architecture"]["arch_kwargs"]["use_v2"] is v2
    assert stored.card.architecture == ("swinunetr-v2" if v2 else "swinunetr")
    assert stored.notes == ("Its plans name another network, but its weights are a SwinUNETR's: the plans now say so.",)


@pytest.mark.parametrize("trainer", ["nnUNetTrainer_SwinUNETR", "nnUNetTrainer"])
def test_a_folder_of_such_a_model_is_read_in_place(trainer, tmp_path):
    file, weights = in_nnunet(tmp_path, [64, 64, 64])
    there = read_checkpoint(file)
    folder = tmp_path / "model"
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", replace(there, trainer_name=trainer))
    (folder / "plans.json").write_text(json.dumps(there.plans))
    (folder / "dataset.json").write_text(json.dumps(there.dataset_json))
    model = read_model(folder)
    assert same(model.first.weights, weights)
    assert model.network_class == SWIN
    assert any("its weights are a SwinUNETR's: the plans now say so" in note for note in model.notes)


@pytest.mark.parametrize(
    ("arguments", "noted"),
    [
        ({"use_checkpoint": True, **TINY}, False),
        (
            {
                "window_size": [3, 3, 3],
                "strides": DEFAULTS["strides"],
                **{k: v for k, v in TINY.items() if k[0] != "w"},
            },
            False,
        ),
        ({}, True),
        ({**TINY, "feature_size": 12 * 2**16}, True),
        ({**TINY, "depths": [10**6] * 4}, True),
        ({**TINY, "use_hyena": True}, True),
    ],
    ids=[
        "without strides",
        "window by axis",
        "defaults",
        "larger than the memory",
        "deeper than the memory",
        "unknown",
    ],
)
def test_what_plans_say_of_a_swin_unetr_is_kept_where_its_weights_agree(arguments, noted, tmp_path, take):
    file, weights = in_nnunet(tmp_path, [32, 32, 64])
    checkpoint = read_checkpoint(file)
    plans = copy.deepcopy(dict(checkpoint.plans))
    named = {"network_class_name": SWIN, "arch_kwargs": arguments, "_kw_requires_import": []}
    plans["configurations"]["3d_fullres"]["architecture"] = named
    write_checkpoint(file, replace(checkpoint, plans=plans, trainer_name="nnUNetTrainer"))
    stored = take(file)
    assert [note.partition(":")[0] for note in stored.notes] == [
        "Its plans' arguments of the SwinUNETR are not those of its weights"
    ] * noted
    kept = plans_of()["architecture"]["arch_kwargs"]
    assert noted or kept == {key: list(v) if isinstance(v, tuple) else v for key, v in arguments.items()}
    load_weights(build_network(read_model(Path("it")).first, deep_supervision=True), weights)


def test_a_patch_that_a_swin_unetr_cannot_take_becomes_the_nearest(tmp_path, take):
    file, _ = in_nnunet(tmp_path, [80, 112, 214])
    stored = take(file)
    assert plans_of()["patch_size"] == [64, 128, 224]
    assert stored.notes[1].endswith("patch size 80 112 214 became 64 128 224.")


def test_plans_that_say_a_swin_unetr_where_the_weights_are_none(tmp_path, take, trained):
    file, _ = in_nnunet(tmp_path, [32, 32, 64])
    take(file)
    model = read_model(Path("it"))
    write_checkpoint(file, replace(model.first, weights=trained.weights))
    said = refusal(take, file, "other")
    assert "its plans are for a SwinUNETR, and its weights are not" in said


def test_a_stored_swin_unetr_is_imported_again_unchanged(tmp_path, take, home):
    file, weights = in_nnunet(tmp_path, [32, 32, 64])
    take(file)
    stored = take(home / "models" / "it", "again")
    assert stored.notes == ()
    assert stored.weights_sha256 == (weights_hash(weights),)
    first, second = (home / "models" / name / "fold_0" / "checkpoint_final.pth" for name in ("it", "again"))
    assert first.read_bytes() == second.read_bytes()
