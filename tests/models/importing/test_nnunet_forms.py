"""Models that nnU-Net itself wrote, in every form in which people pass them on."""

from __future__ import annotations

import copy
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsegfm.errors import ConfigError, LnSegFmError, ModelError
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.registry.stored_model import verify
from lnsegfm.weights.checkpoint import read_checkpoint, save, write_checkpoint
from lnsegfm.weights.state import load_weights, raw, weights_hash
from tests.models.importing.producers import DATASET, exported_by_nnunet, trained_by_nnunet
from tests.scenes import small_plans

MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def is_it(name: str, trained: Any) -> None:
    model = read_model(Path(name))
    assert weights_hash(model.first.weights) == weights_hash(trained.weights)
    assert list(model.first.weights) == list(trained.weights)
    assert (model.configuration, model.first.mirroring_axes) == ("3d_fullres", (0, 1, 2))
    assert str(model.labels) == "node=1"
    assert model.channel_names == ("CT",)
    load_weights(build_network(model.first, deep_supervision=True), model.first.weights)


@pytest.mark.parametrize("above", [0, 1, 2])
def test_a_model_folder_or_one_above_it(above, trained, take, home):
    folder = [trained.folder, trained.folder.parent, trained.results][above]
    stored = take(folder)
    is_it("it", trained)
    assert stored.source.form == "nnU-Net model folder, 3d_fullres, PlainConvUNet, 1 channel, labels node=1"
    assert stored.card.architecture == "nnunet"
    assert stored.card.spacing_mm == (2.0, 1.0, 1.5)
    assert (stored.parts, stored.notes, stored.weights_sha256) == ("all", (), (weights_hash(trained.weights),))
    assert set(stored.files) == {
        *("plans.json", "dataset.json", "fold_0/checkpoint_final.pth", "fold_0/weights.safetensors")
    }
    assert verify(home / "models" / "it") == ()
    assert not list(home.rglob(".partial-*"))


def test_what_is_stored_does_not_depend_on_what_else_a_checkpoint_holds(trained, take, home):
    """Optimizer, logs and times stay behind: the same weights and plans give the same bytes."""
    take(trained.folder, "one")
    take(trained.checkpoint, "two")
    one, two = (home / "models" / name / "fold_0" for name in ("one", "two"))
    for file in ("checkpoint_final.pth", "weights.safetensors"):
        assert (one / file).read_bytes() == (two / file).read_bytes()
    assert "optimizer" not in str(torch.load(one / "checkpoint_final.pth", weights_only=True)["optimizer_state"])


def test_safetensors_hold_each_tensor_once(trained, take, home):
    from safetensors import safe_open

    take(trained.folder)
    with safe_open(home / "models" / "it" / "fold_0" / "weights.safetensors", "pt") as file:
        names = list(file.keys())
        same = json.loads(file.metadata()["lnsegfm"])["aliases"]
        assert sorted([*names, *same]) == sorted(trained.weights)
        for name in trained.weights:
            assert torch.equal(raw(file.get_tensor(same.get(name, name))), raw(trained.weights[name]))
    network = build_network(read_model(Path("it")).first, deep_supervision=True)
    assert sorted(names) == sorted(name for name, _ in network.named_parameters())  # the names that people know


@pytest.mark.parametrize("packed", ["zip", "tar.gz"])
def test_an_export_of_nnunet(packed, trained, take, tmp_path):
    archive = exported_by_nnunet(trained, tmp_path / "export.zip")
    if packed == "tar.gz":
        archive = tmp_path / "export.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(trained.results / DATASET, DATASET)
    stored = take(archive)
    is_it("it", trained)
    assert stored.source.file == archive.name
    assert stored.source.form.startswith("nnU-Net model folder, from an archive, 3d_fullres, ")


def test_a_checkpoint_with_plans_inside(trained, take):
    stored = take(trained.checkpoint)
    is_it("it", trained)
    assert stored.source.form.startswith("nnU-Net checkpoint with plans inside, 3d_fullres, PlainConvUNet")
    assert stored.source.bytes == trained.checkpoint.stat().st_size


def ensemble(trained: Any, place: Path, **files: str) -> Path:
    """A model folder whose folds have checkpoints of these names."""
    for name in ("plans.json", "dataset.json"):
        place.mkdir(exist_ok=True)
        shutil.copy(trained.folder / name, place)
    for fold, file in files.items():
        (place / fold).mkdir()
        shutil.copy(trained.checkpoint, place / fold / file)
    return place


def test_every_fold_is_taken_or_those_that_are_chosen(trained, take, tmp_path, home):
    other = trained_by_nnunet(tmp_path / "other", steps=0, fold=1)
    folder = ensemble(trained, tmp_path / MODEL, fold_0="checkpoint_final.pth", fold_all="checkpoint_final.pth")
    (folder / "fold_1").mkdir()
    shutil.copy(other.checkpoint.parents[1] / "fold_1" / "checkpoint_final.pth", folder / "fold_1")

    stored = take(folder)
    assert stored.source.form.endswith(", 2 folds")
    assert stored.weights_sha256 == (weights_hash(trained.weights), weights_hash(other.weights))
    assert [weights_hash(fold.weights) for fold in read_model(Path("it")).folds] == list(stored.weights_sha256)

    take(folder, "whole", folds=("all",))
    assert [p.name for p in sorted((home / "models" / "whole").glob("fold_*"))] == ["fold_all"]
    take(folder, "second", folds=("1",))
    assert weights_hash(read_model(Path("second")).first.weights) == weights_hash(other.weights)
    with pytest.raises(ConfigError, match=f"--fold 4: {MODEL} has no checkpoint of it. It has: 0, 1, all."):
        take(folder, "fifth", folds=("4",))


def test_an_unfinished_training_is_taken_with_a_note(trained, take, tmp_path):
    folder = ensemble(trained, tmp_path / MODEL, fold_0="checkpoint_best.pth", fold_1="checkpoint_latest.pth")
    stored = take(folder)
    assert [note.partition(":")[0] for note in stored.notes] == [
        "Fold 0 has no checkpoint_final.pth",
        "Fold 1 has no checkpoint_final.pth",
    ]
    is_it("it", trained)


def with_other(trained: Any, place: Path, name: str, change: dict[str, Any]) -> Path:
    """Beside the model, one of another configuration."""
    shutil.copytree(trained.folder, place / MODEL)
    folder = place / f"nnUNetTrainer__nnUNetPlans__{name}"
    shutil.copytree(trained.folder, folder)
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"][name] = copy.deepcopy(plans["configurations"]["3d_fullres"]) | change
    (folder / "plans.json").write_text(json.dumps(plans))
    file = folder / "fold_0" / "checkpoint_final.pth"
    write_checkpoint(file, replace(read_checkpoint(file), configuration=name))
    return folder


def test_of_several_models_one_is_chosen(trained, take, tmp_path):
    with_other(trained, tmp_path, "3d_lowres", {"spacing": [4.0, 2.0, 3.0]})
    with pytest.raises(ConfigError) as refused:
        take(tmp_path)
    assert "it holds 2 models" in str(refused.value)
    assert f"{MODEL}, nnUNetTrainer__nnUNetPlans__3d_lowres. Choose with --configuration" in str(refused.value)
    assert take(tmp_path, configuration="3d_lowres").card.spacing_mm == (4.0, 2.0, 3.0)
    is_it_lowres = read_model(Path("it"))
    assert is_it_lowres.configuration == "3d_lowres"
    with pytest.raises(ConfigError, match=r"--configuration 2d: .* is of 3d_fullres"):
        take(tmp_path / MODEL, "other", configuration="2d")


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("2d", {"patch_size": [16, 16]}, "not nnU-Net plans"),
        ("3d_cascade_fullres", {"previous_stage": "3d_lowres"}, "4x2x3x3x3 is 4x1x3x3x3 in the file"),
    ],
)
def test_slices_and_cascades_need_plans_and_weights_of_such(name, change, said, trained, take, tmp_path):
    with pytest.raises(ModelError, match=said):
        take(with_other(trained, tmp_path, name, change))


WRAPPINGS = {
    "ddp": "module.{}",
    "compiled": "_orig_mod.{}",
    "compiled in ddp": "module._orig_mod.{}",
    "ddp in compiled": "_orig_mod.module.{}",
    "deep": "module._orig_mod.module.{}",
    "framework": "model.network.{}",
}
CONTAINERS = [None, "state_dict", "model", "model_state_dict", "network_weights", "network"]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_state_dict_in_any_wrapping(wrapping, container, trained, tmp_path, take):
    weights = {WRAPPINGS[wrapping].format(name): tensor for name, tensor in trained.weights.items()}
    torch.save(weights if container is None else {"epoch": 3, container: weights}, tmp_path / "net.pt")
    stored = take(
        tmp_path / "net.pt", plans=trained.folder / "plans.json", dataset_json=trained.folder / "dataset.json"
    )
    is_it("it", trained)
    assert stored.source.form.startswith("state dict with a plans file")
    assert stored.notes == ("It does not say along which axes prediction may mirror: all three were taken.",)


def test_what_torch_itself_wraps(trained, tmp_path, take):
    network = build_network(read_checkpoint(trained.checkpoint), deep_supervision=True)
    network.load_state_dict(trained.weights)
    wrapped = torch.compile(torch.nn.DataParallel(network))
    inner = torch.nn.DataParallel(torch.compile(network))
    for name, module in (("one", wrapped), ("two", inner)):
        torch.save({"state_dict": module.state_dict()}, tmp_path / f"{name}.pth")
        take(tmp_path / f"{name}.pth", name, plans=trained.folder / "plans.json", labels=labels("node"))
        is_it(name, trained)


def labels(*names: str) -> Any:
    from lnsegfm.datasets.labels import LabelMap

    return LabelMap({name: value for value, name in enumerate(names, 1)})


def test_a_safetensors_file_of_another_program(trained, tmp_path, take):
    """Which holds one name of each tensor only, as ``safetensors.torch.save_model`` writes."""
    from safetensors.torch import save_model

    network = build_network(read_checkpoint(trained.checkpoint), deep_supervision=True)
    network.load_state_dict(trained.weights)
    save_model(network, str(tmp_path / "net.safetensors"))
    take(tmp_path / "net.safetensors", plans=trained.folder / "plans.json", labels=labels("node"), channels=("CT",))
    is_it("it", trained)


def test_plans_and_description_beside_a_file_are_found(trained, tmp_path, take):
    shutil.copy(trained.folder / "plans.json", tmp_path)
    shutil.copy(trained.folder / "dataset.json", tmp_path)
    (tmp_path / "fold_0").mkdir()
    save(tmp_path / "fold_0" / "weights.pt", dict(trained.weights))
    stored = take(tmp_path / "fold_0" / "weights.pt")
    is_it("it", trained)
    assert "Its plans are those of plans.json beside it." in stored.notes


def test_a_checkpoint_without_plans_keeps_what_it_says_of_itself(trained, tmp_path, take):
    content = torch.load(trained.checkpoint, weights_only=False) | {"inference_allowed_mirroring_axes": (0, 1)}
    del content["init_args"]["plans"]
    torch.save(content, tmp_path / "net.pth")
    stored = take(tmp_path / "net.pth", plans=trained.folder / "plans.json")
    assert stored.notes == ()
    assert read_model(Path("it")).first.mirroring_axes == (0, 1)


def refusal(take: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(LnSegFmError) as refused:
        take(*args, **options)
    return str(refused.value)


def test_weights_that_nothing_explains_say_what_is_missing(trained, tmp_path, take):
    save(tmp_path / "net.pt", dict(trained.weights))
    said = refusal(take, tmp_path / "net.pt")
    assert "state dict with a plans file" in said
    assert f"{len(trained.weights)} tensors and 2 outputs, but no plans: give --plans FILE" in said
    said = refusal(take, tmp_path / "net.pt", plans=trained.folder / "plans.json")
    assert said.endswith(
        "its weights have 2 outputs, background included, and nothing names them. "
        "Give --dataset-json FILE, or --label NAME=VALUE for each of the 1 labels."
    )
    said = refusal(take, tmp_path / "net.pt", plans=trained.folder / "plans.json", labels=labels("a", "b"))
    assert "have 2 outputs, background included, but --label names 2. Name 1." in said


def test_weights_of_another_network_are_refused_with_the_first_differences(trained, tmp_path, take):
    plans = small_plans()
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 10]
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    said = refusal(take, trained.checkpoint, plans=tmp_path / "plans.json")
    assert "tensors differ: " in said
    assert "encoder.stages.2.0.convs.0.conv.weight 10x8x3x3x3 is 8x8x3x3x3 in the file" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w | {"decoder.extra": torch.zeros(2)}, "decoder.extra 2 is none of the network's"),
        (lambda w: dict(list(w.items())[1:]), "is missing"),
        (lambda w: {n: t * float("nan") for n, t in w.items()}, "not finite"),
        (lambda w: {n: t.to(torch.int32) for n, t in w.items()}, "its numbers are torch.int32, not torch.float32"),
        (lambda w: {n: t + i for i, (n, t) in enumerate(w.items())}, "are one tensor in the network, and differ"),
        (lambda w: {n: t.to_sparse() for n, t in w.items()}, "not a plain tensor|cannot be read|not a checkpoint"),
    ],
)
def test_weights_that_cannot_be_are_refused(change, said, trained, tmp_path, take):
    weights = dict(trained.weights)
    if said == "is missing":  # under every name that the tensor has
        first = next(iter(weights))
        weights = {n: t for n, t in weights.items() if t.data_ptr() == -1 or not torch.equal(t, weights[first])}
        change = dict
    torch.save(change(weights), tmp_path / "net.pt")
    text = refusal(take, tmp_path / "net.pt", plans=trained.folder / "plans.json", labels=labels("node"))
    import re

    assert re.search(said, text), text


def test_half_precision_becomes_float32_and_says_so(trained, tmp_path, take):
    halved = {name: tensor.to(torch.bfloat16) for name, tensor in trained.weights.items()}
    torch.save(halved, tmp_path / "net.pt")
    stored = take(tmp_path / "net.pt", plans=trained.folder / "plans.json", labels=labels("node"))
    assert "The weights came as bfloat16 and are taken as float32." in stored.notes
    found = read_model(Path("it")).first.weights
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in halved.items())


def test_options_that_a_form_has_no_use_for_are_refused(trained, take):
    said = refusal(take, trained.folder, spacing_mm=(1.0, 1.0, 1.0))
    assert said.startswith("--spacing: ")
    assert said.endswith("says that itself (nnU-Net model folder). Leave it out.")


def test_another_patch_size_is_kept_or_refused(trained, take):
    take(trained.folder, patch_size=(24, 16, 32))
    assert read_model(Path("it")).plans["configurations"]["3d_fullres"]["patch_size"] == [24, 16, 32]
    said = refusal(take, trained.folder, "other", patch_size=(15, 16, 16))
    assert "the network needs multiples of 4 4 4" in said
    assert said.endswith("Use 16 16 16. Say so with --patch-size.")
