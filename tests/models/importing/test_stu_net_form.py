"""STU-Net: checkpoints of its trainers under nnU-Net 2, its published form, weights alone.

Its trainers cannot be installed here: their files are imitated key by key, from the names and shapes that their code
gives the tensors and from what nnU-Net's own trainer saves.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import LnSegFmError
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.architectures import STU_NET
from lnsegfm.networks.stu_net import STUNet
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.recipe import Recipe
from lnsegfm.weights.checkpoint import Checkpoint, save, write_checkpoint
from lnsegfm.weights.state import load_weights, weights_hash
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.models.importing import version_1
from tests.models.importing.producers import DATASET_JSON
from tests.nnunet.stock import stock_predict_here
from tests.scenes import small_plans, write_scenes

NODE = LabelMap({"node": 1})
DIMS = (4, 6, 8, 8, 8, 8)


def network(strides: Any, blocks: int = 1, outputs: int = 2) -> STUNet:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_blocks_per_stage": (blocks,) * 6, "kernel_sizes": ((3, 3, 3),) * 6}
    return STUNet(1, outputs, features_per_stage=DIMS, strides=((1, 1, 1), *strides), **sizes).eval()


def checkpoint(trainer: str = "STUNetTrainer_base_ft", blocks: int = 1) -> Checkpoint:
    """Under plans of three stages: its trainers take their two strides, and 1 for the other three."""
    made = network(((2, 2, 2),) * 2 + ((1, 1, 1),) * 3, blocks)
    return Checkpoint(made.state_dict(), "3d_fullres", small_plans(), DATASET_JSON, trainer, (0, 1, 2))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("trainer", "blocks"), [("STUNetTrainer_base_ft", 1), ("STUNetTrainer_huge", 3)])
def test_a_checkpoint_of_its_trainers(trainer, blocks, wrapped, tmp_path, take):
    made = checkpoint(trainer, blocks)
    stages = len(made.plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["strides"])
    names = {f"_orig_mod.{name}" if wrapped else name: tensor for name, tensor in made.weights.items()}
    write_checkpoint(tmp_path / "a.pth", replace(made, weights=names))
    stored = take(tmp_path / "a.pth")
    model = read_model(Path("it"))
    assert model.network_class == STU_NET
    assert model.first.trainer_name == "nnUNetTrainer"
    assert weights_hash(model.first.weights) == weights_hash(made.weights)
    assert stored.notes[0] == "Its plans name another network, but its weights are a STU-Net's: the plans now say so."
    assert stored.notes[1].startswith(f"Its plans have {stages} stages and its weights 6")
    built = build_network(model.first, deep_supervision=False).eval()
    load_weights(built, model.first.weights)
    image = torch.randn(1, 1, 16, 16, 16)
    own = network(((2, 2, 2),) * (stages - 1) + ((1, 1, 1),) * (6 - stages), blocks)
    with torch.no_grad():
        assert torch.equal(built(image), own(image))


def test_a_folder_of_its_trainers_is_read_in_place_and_predicts_as_stock_nnunet_does(tmp_path, lnsegfm_here):
    made = checkpoint()
    folder = tmp_path / "STUNetTrainer_base_ft__nnUNetPlans__3d_fullres"
    write_checkpoint(folder / "fold_0" / "checkpoint_final.pth", made)
    (folder / "plans.json").write_text(json.dumps(made.plans))
    (folder / "dataset.json").write_text(json.dumps(made.dataset_json))
    images = write_scenes(tmp_path / "scenes", 1) / "imagesTr"
    words = ("predict", folder, images, "--out", tmp_path / "ours", "--device", "cpu", "--no-mirroring", "--exact")
    done = lnsegfm_here(*words)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "exported"
    assert lnsegfm_here("models", "export", folder, "--to", "folder", "--out", out).returncode == 0
    stock_predict_here(out, images, tmp_path / "stock", mirroring=False)
    ours, theirs = (next((tmp_path / place).glob("*.nii.gz")).read_bytes() for place in ("ours", "stock"))
    assert ours == theirs


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``base_ep4k.model`` lies in version 1's folder, plans as JSON beside it."""
    folder = tmp_path_factory.mktemp("published")
    strides, kernels = ((2, 2, 2),) * 5, ((3, 3, 3),) * 6
    version_1.save(folder / "base_ep4k.model", network(strides).state_dict())
    plans = version_1.plans(strides, kernels, (64, 64, 64), (1.5, 1.5, 1.5))
    (folder / "plans_of_1.json").write_text(json.dumps(plans, default=lambda v: v.tolist()))
    return folder


def test_its_published_form(published, tmp_path, take):
    stored = take(published / "base_ep4k.model", labels=NODE, plans=published / "plans_of_1.json")
    model = read_model(Path("it"))
    assert stored.source.form.startswith("nnU-Net version 1 model, 3d_fullres, STUNet, 1 channel, labels node=1")
    settings = model.plans["configurations"]["3d_fullres"]
    assert settings["architecture"]["arch_kwargs"]["strides"] == [[1, 1, 1]] + [[2, 2, 2]] * 5
    assert (settings["patch_size"], settings["spacing"]) == ([64, 64, 64], [1.5, 1.5, 1.5])
    load_weights(build_network(model.first, deep_supervision=True), network(((2, 2, 2),) * 5).state_dict())


def test_weights_alone_want_what_they_do_not_say(published, take):
    file = published / "base_ep4k.model"
    stored = take(file, labels=NODE, spacing_mm=(1.5, 1.5, 1.5), window_hu=(-200.0, 300.0), patch_size=(64, 64, 64))
    assert stored.source.form.startswith("STU-Net weights, 3d_fullres, STUNet, 1 channel, labels node=1")
    assert stored.notes == (
        "Its strides leave no mark in its weights: each axis is halved at each stage, as in the published models.",
    )
    for options, said in (
        ({}, "2 outputs, background included, and nothing names them"),
        ({"labels": NODE}, "Give --spacing Z Y X. The published models"),
        ({"labels": NODE, "spacing_mm": (1.5, 1.5, 1.5)}, "it does not say which intensities it saw. Give --window"),
        ({"labels": NODE, "patch_size": (48, 48, 48)}, "Patch size 48 48 48: the network needs multiples of 32"),
    ):
        with pytest.raises(LnSegFmError, match=said.replace("(", r"\(")) as refused:
            take(file, "other", **options)
        assert "\n" not in str(refused.value)


def test_weights_alone_with_plans_of_version_2(tmp_path, take):
    made = checkpoint()
    save(tmp_path / "weights.pth", {"state_dict": {f"module.{n}": t for n, t in made.weights.items()}})
    (tmp_path / "p.json").write_text(json.dumps(copy.deepcopy(dict(made.plans))))
    take(tmp_path / "weights.pth", plans=tmp_path / "p.json", labels=NODE)
    assert read_model(Path("it")).network_class == STU_NET


@pytest.mark.parametrize("method", ["dgst", "lora", "full"])
def test_it_is_adapted(method, tmp_path, take):
    write_checkpoint(tmp_path / "a.pth", checkpoint())
    take(tmp_path / "a.pth")
    clinic = write_scenes(tmp_path / "clinic", 3)
    run = plan(clinic, Path("it"), Recipe(method=method, iterations=1, mirroring=False))
    assert run.transfer.share == 1
    done = finetune(run, tmp_path / "run", device="cpu", workers=0)
    assert read_model(done.model).network_class == STU_NET
