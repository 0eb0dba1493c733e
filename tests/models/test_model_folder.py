"""Model folders as people have them: what nnU-Net, training frameworks and other programs leave is read in place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.errors import ConfigError, ModelError, UnsafeFile
from lnsegfm.models.install import ImportOptions, install
from lnsegfm.models.model_folder import ModelChoice, read_model
from lnsegfm.weights.checkpoint import read_checkpoint, save
from lnsegfm.weights.state_dict_names import plain_names, state_dict_in
from tests.cli.machines import write_machine

FINAL = "fold_0/checkpoint_final.pth"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_machine(tmp_path_factory.mktemp("made") / "machine")


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "own"))


def content_of(model: Path) -> dict[str, Any]:
    return dict(torch.load(model / FINAL, weights_only=False))


def rewrite(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Let the checkpoint hold something else."""

    def spoil(model: Path) -> None:
        torch.save(change(content_of(model)), model / FINAL)

    return spoil


def prefixed(prefix: str) -> Callable[[Path], None]:
    return rewrite(
        lambda c: c | {"network_weights": {f"{prefix}{name}": t for name, t in c["network_weights"].items()}}
    )


def described(**changes: Any) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        file = model / "dataset.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


def renamed_to(name: str) -> Callable[[Path], None]:
    return lambda model: (model / FINAL).rename(model / "fold_0" / name) and None


def in_container(name: str | None) -> Callable[[Path], None]:
    return rewrite(lambda c: {name: c["network_weights"], "epoch": 3} if name else c["network_weights"])


PREFIX_NOTE = "Its weights' names have prefixes of training frameworks"
AXES_NOTE = "It does not say along which axes prediction may mirror"
FORMS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "best": (renamed_to("checkpoint_best.pth"), "Fold 0 has no checkpoint_final.pth: checkpoint_best.pth was taken"),
    "latest": (renamed_to("checkpoint_latest.pth"), "checkpoint_latest.pth was taken, of a training not ended"),
    "custom trainer": (
        rewrite(lambda c: c | {"trainer_name": "nnUNetTrainerMyClinic"}),
        "Its trainer nnUNetTrainerMyClinic is none of nnU-Net's",
    ),
    "ddp": (prefixed("module."), PREFIX_NOTE),
    "compiled": (prefixed("module._orig_mod."), PREFIX_NOTE),
    "backbone": (prefixed("module.backbone."), PREFIX_NOTE),
    "backwards": (prefixed("backbone._orig_mod.module."), PREFIX_NOTE),
    "net": (in_container("net"), AXES_NOTE),
    "state_dict": (in_container("state_dict"), AXES_NOTE),
    "model": (in_container("model"), AXES_NOTE),
    "network": (in_container("network"), AXES_NOTE),
    "model_state_dict": (in_container("model_state_dict"), AXES_NOTE),
    "bare": (in_container(None), AXES_NOTE),
    "half precision": (
        rewrite(lambda c: c | {"network_weights": {n: t.half() for n, t in c["network_weights"].items()}}),
        "The weights came as float16 and are taken as float32.",
    ),
    "table in a table": (rewrite(lambda c: c | {"network_weights": {"state_dict": c["network_weights"]}}), None),
    "no trainer": (rewrite(lambda c: {key: c[key] for key in c if key != "trainer_name"}), None),
    "of Lightning": (
        rewrite(
            lambda c: {
                "state_dict": {f"model.net.{n}": t for n, t in c["network_weights"].items()},
                "pytorch-lightning_version": "2.4.0",
                "hyper_parameters": {"lr": 0.01},
            }
        ),
        AXES_NOTE,
    ),
    "channels as a list": (described(channel_names=["CT"]), None),
    "labels as text": (described(labels={"background": "0", "node": "1"}), None),
    "labels in lists": (described(labels={"background": 0, "node": [1]}), None),
    "no background": (described(labels={"node": 1}), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_the_same_model_told_and_imported_alike(form, made, own, tmp_path, monkeypatch):
    spoil, note = FORMS[form]
    spoil(own)
    expected, found = read_model(made), read_model(own)
    if form != "half precision":
        assert found.first.weights_sha256 == expected.first.weights_sha256
    assert found.first.mirroring_axes == ((0, 1, 2) if note == AXES_NOTE else expected.first.mirroring_axes)
    assert (found.configuration, found.first.trainer_name) == ("3d_fullres", "nnUNetTrainer")
    assert found.dataset_json == expected.dataset_json
    assert dict(found.labels.names) == {"node": 1}
    assert found.channel_names == ("CT",)
    if note is None:
        assert found.notes == ()
    else:
        assert any(note in line for line in found.notes), found.notes
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    stored = install(own, "it", ImportOptions())
    imported = read_model(Path("it"))
    assert imported.first.weights_sha256 == found.first.weights_sha256
    assert imported.dataset_json == expected.dataset_json
    assert imported.notes == ()
    assert note is None or PREFIX_NOTE in note or any(note in line for line in stored.notes)


@given(st.lists(st.sampled_from(["module", "_orig_mod", "backbone", "net", "model", "network"]), max_size=5))
@settings(deadline=None)
def test_prefixes_come_off_in_any_order_and_number(prefixes):
    names = ("encoder.stages.0.weight", "decoder.seg_layers.0.bias", "encoder.stages.0.convs.1.all_modules.0.weight")
    weights = {".".join([*prefixes, name]): torch.zeros(1) for name in names}
    assert tuple(plain_names(weights)) == names
    for container in ("net", "state_dict", "network_weights"):
        assert tuple(state_dict_in({container: weights, "epoch": 1}) or ()) == names


def test_what_lies_beside_a_backbone_stays():
    weights = {"module.backbone.a.weight": torch.zeros(1), "module.organ_embedding": torch.zeros(2)}
    assert set(plain_names(weights)) == {"a.weight", "organ_embedding"}
    with pytest.raises(ModelError, match="two tensors have one name"):
        plain_names({"backbone.a": torch.zeros(1), "a": torch.zeros(1)})


def results(made: Path, root: Path, *configurations: str) -> Path:
    """nnU-Net's results: one model a configuration, each of its own."""
    for number, name in enumerate(configurations):
        folder = root / "Dataset001_Scenes" / f"nnUNetTrainer__nnUNetPlans__{name}"
        shutil.copytree(made, folder)
        plans = json.loads((folder / "plans.json").read_text())
        plans["configurations"] |= dict.fromkeys(configurations, plans["configurations"]["3d_fullres"])
        (folder / "plans.json").write_text(json.dumps(plans))
        content = content_of(folder)
        content["init_args"] = {**content["init_args"], "configuration": name}
        content["network_weights"] = {n: t + number for n, t in content["network_weights"].items()}
        save(folder / FINAL, content)
    return root


def test_the_only_model_below_a_folder_is_the_one_meant(made, tmp_path):
    root = results(made, tmp_path / "results", "3d_fullres")
    folder = root / "Dataset001_Scenes" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    for place in (root, folder.parent):
        found = read_model(place)
        assert found.folder == folder
        assert found.notes == (f"The model used is {folder.relative_to(place)} in {place}.",)
    assert read_model(folder).notes == ()
    assert read_model(folder / "fold_0").notes == ("Fold 0 alone is used, not the others of its model.",)
    assert read_model(folder / FINAL).notes == ("Fold 0 alone is used, from checkpoint_final.pth.",)


def test_of_several_the_configuration_chooses(made, tmp_path):
    root = results(made, tmp_path / "results", "3d_fullres", "3d_lowres")
    data = root / "Dataset001_Scenes"
    with pytest.raises(ConfigError) as refused:
        read_model(data)
    assert str(refused.value) == (
        f"Model {data}: it holds 2 models: nnUNetTrainer__nnUNetPlans__3d_fullres, "
        "nnUNetTrainer__nnUNetPlans__3d_lowres. Choose with --configuration, or give one of them."
    )
    for name in ("3d_fullres", "3d_lowres"):
        found = read_model(data, choice=ModelChoice(configuration=name))
        assert found.configuration == name
        assert found.folder.name.endswith(name)
    with pytest.raises(ConfigError, match=r"--configuration 2d: .* has none of it. It holds"):
        read_model(data, choice=ModelChoice(configuration="2d"))
    one = data / "nnUNetTrainer__nnUNetPlans__3d_lowres"
    with pytest.raises(ConfigError, match=r"--configuration 3d_fullres: .* is of 3d_lowres. Leave it out, or give"):
        read_model(one, choice=ModelChoice(configuration="3d_fullres"))


def test_a_bare_state_dict_is_of_what_its_folder_says_or_is_asked(made, tmp_path):
    data = results(made, tmp_path / "results", "3d_fullres", "3d_lowres") / "Dataset001_Scenes"
    folder = data / "nnUNetTrainer__nnUNetPlans__3d_lowres"
    in_container("net")(folder)
    assert read_model(folder).configuration == "3d_lowres"
    unnamed = folder.rename(data / "mine")
    with pytest.raises(ConfigError, match=r"Choose with --configuration: 3d_fullres, 3d_lowres\."):
        read_model(unnamed)
    assert read_model(unnamed, choice=ModelChoice(configuration="3d_lowres")).configuration == "3d_lowres"


def test_folds_are_all_or_those_asked_for(made, own):
    for fold in ("1", "10", "all"):
        shutil.copytree(own / "fold_0", own / f"fold_{fold}")
    content = content_of(own)
    content["network_weights"] = {name: tensor + 1 for name, tensor in content["network_weights"].items()}
    save(own / "fold_10" / "checkpoint_final.pth", content)
    assert read_model(own).fold_names == ("0", "1", "10")
    chosen = read_model(own, choice=ModelChoice(folds=("10",)))
    assert chosen.fold_names == ("10",)
    assert chosen.first.weights_sha256 != read_model(made).first.weights_sha256
    assert read_model(own, choice=ModelChoice(folds=("all",))).fold_names == ("all",)
    with pytest.raises(ConfigError, match=r"--fold 7: own has no checkpoint of it. It has: 0, 1, 10, all"):
        read_model(own, choice=ModelChoice(folds=("7",)))
    for fold in ("0", "1", "10"):
        shutil.rmtree(own / f"fold_{fold}")
    assert read_model(own).fold_names == ("all",)


def test_a_network_whose_own_names_look_like_a_wrapper_keeps_them(own, monkeypatch):
    """Another package's network may call its parts so: its plans say which names it has."""
    from lnsegfm.models import fold_reader as module

    prefixed("net.")(own)
    names = read_checkpoint(own / FINAL).weights

    class Named:
        def state_dict(self) -> dict[str, torch.Tensor]:
            return dict(names)

    monkeypatch.setattr(module, "empty_network", lambda *_, **__: Named())
    found = read_model(own)
    assert list(found.first.weights) == list(names)
    assert found.notes == ()


def lone(name: str) -> Callable[[Path], Path]:
    """The weights lie beside the plans, in no fold."""

    def spoil(model: Path) -> Path:
        (model / FINAL).rename(model / name)
        return model / name

    return spoil


def without(name: str) -> Callable[[Path], Path]:
    def spoil(model: Path) -> Path:
        (model / name).unlink()
        return model / FINAL

    return spoil


@pytest.mark.parametrize(
    "spoil", [lone("model.pth"), lone("checkpoint_final.pth"), without("plans.json"), without("dataset.json")]
)
def test_what_cannot_be_read_in_place_names_an_import_that_works(spoil, own, made, tmp_path, monkeypatch):
    file = spoil(own)
    with pytest.raises(ModelError) as refused:
        read_model(own)
    (command,) = str(refused.value).splitlines()
    assert command.endswith(f"Run: lnsegfm models import {file} --as NAME")
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    install(file, "name", ImportOptions())
    assert read_model(Path("name")).first.weights_sha256 == read_model(made).first.weights_sha256


def test_a_file_is_imported_first(own, tmp_path):
    shutil.make_archive(str(tmp_path / "packed"), "zip", own)
    with pytest.raises(ModelError, match=r"packed.zip: it is a file. Run: lnsegfm models import .*packed.zip --as"):
        read_model(tmp_path / "packed.zip")


def test_what_explains_nothing_is_refused_with_its_cause(own):
    torch.save({"epoch": 3, "optimizer": {}}, own / FINAL)
    with pytest.raises(ModelError, match=r"it holds no state dict, .* in none of its entries \(epoch, optimizer\)"):
        read_model(own)


def test_weights_of_nnunet_1_are_named_as_such(own):
    torch.save({"state_dict": {"conv_blocks_context.0.blocks.0.conv.weight": torch.zeros(4, 1, 3, 3, 3)}}, own / FINAL)
    with pytest.raises(ModelError, match=r"its weights are those of nnU-Net version 1. Import it first"):
        read_model(own)


def test_a_configuration_that_the_plans_have_not_is_named(own):
    rewrite(lambda c: c | {"init_args": {**c["init_args"], "configuration": "3d_highres"}})(own)
    with pytest.raises(ModelError, match=r"it is of configuration 3d_highres, and plans.json beside it has 3d_fullres"):
        read_model(own)


def test_nothing_of_a_strange_container_is_executed(own):
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("run",)

    torch.save({"net": content_of(own)["network_weights"], "scheduler": Call()}, own / FINAL)
    with pytest.raises(UnsafeFile, match="it asks to run"):
        read_model(own)
