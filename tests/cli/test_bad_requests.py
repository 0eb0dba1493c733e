"""Settings, models and places that cannot be, through the real command: one line, and nothing is written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsegfm.methods.table import METHODS
from lnsegfm.models.model_folder import CHECKPOINT
from lnsegfm.weights.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

WANTED = "Give a folder with plans.json, dataset.json and fold_0/."


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Path:
    """A copy of the model to spoil."""
    return Path(shutil.copytree(model, tmp_path / "own"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--method", "lorra"],
            f"Method lorra: not known. The methods: {', '.join(METHODS)}.",
        ),
        (
            ["--set", "gama=2"],
            "Setting gama: method dgst has no such setting. Its settings: gamma, mode, weight_lr.",
        ),
        (["--set", "gamma=two"], "Setting gamma=two: method dgst needs a whole number there."),
        (["--set", "gamma"], "--set gamma: not NAME=VALUE, or a name given twice. Write --set gamma=2."),
        (
            ["--set", "gamma=1", "--set", "gamma=2"],
            "--set gamma=2: not NAME=VALUE, or a name given twice. Write --set gamma=2.",
        ),
        (
            ["--shots", "9"],
            "shots 9: there are only 3 labelled cases. Use at most 2, which leaves some to hold out, or 3, "
            "which holds out none.",
        ),
        (
            ["--patch-size", "16", "18", "16"],
            "Patch size 16 18 16: the network needs multiples of 4 4 4, and twice that on one side at least. "
            "Use 16 16 16.",
        ),
        (["--lr", "0"], "lr 0.0: a step needs a length above 0. Use for example 0.01."),
        (["--lr", "nan"], "lr nan: a step needs a length above 0. Use for example 0.01."),
        (
            ["--smallest-difference", "2"],
            "--smallest-difference 2: a difference of Dice is at least 0 and below 1. Use for example 0.02.",
        ),
        (["--time-limit", "0"], "time limit 0.0 s: training needs some time. Leave it out for no limit."),
        (["--device", "tpu"], "Device tpu: not known. Use auto, cpu, cuda or mps."),
        (["--label", "node"], "Label option 'node': not NAME=VALUE. Write --label lymph_node=1."),
        (["--label", "node=one"], "Label option 'node=one': not NAME=VALUE. Write --label lymph_node=1."),
        (["--label", "=1"], "Label option '=1': not NAME=VALUE. Write --label lymph_node=1."),
        (
            ["--label", "node=1", "--label", "vessel=1"],
            "Label option 'vessel=1': its name or value is already taken. Give each label once.",
        ),
        (["--label", "node=70000"], "Label values [70000]: 70000 is not from 1 to 65535. Renumber the masks."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_that_cannot_be(refused, model, clinic, out, words, said):
    assert refused("finetune", clinic, "--model", model, "--out", out, *words) == [said]


def test_gamma_0_is_refused(refused, model, clinic, out):
    (said,) = refused("finetune", clinic, "--model", model, "--out", out, "--set", "gamma=0")
    assert said.startswith("gamma 0: ")
    assert "gamma >= 1" in said


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_this_machine_lacks(refused, model, clinic, out, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    said = [f"Device {device}: this machine has none that torch can use. Use --device cpu."]
    assert refused("finetune", clinic, "--model", model, "--out", out, "--device", device) == said
    assert refused("finetune", clinic, "--model", model, "--out", out, "--device", device, "--dry-run") == said
    assert refused("predict", model, clinic / "imagesTr", "--out", out, "--device", device) == said
    assert refused("pretrain", clinic, "--out", out, "--device", device) == said
    assert refused("demo", "--out", out, "--device", device) == said


def test_a_folder_that_holds_something_else(refused, model, clinic, out):
    out.mkdir()
    (out / "thesis.doc").write_text("years of work")
    said = [f"{out}: it is not empty and holds no run. Choose another --out."]
    assert refused("finetune", clinic, "--model", model, "--out", out, "--device", "cpu") == said


def test_a_folder_that_holds_another_run(refused, model, clinic, out):
    out.mkdir()
    (out / "recipe.json").write_text(json.dumps({"identity": "other", "recipe": {"iterations": 5}, "base": {}}))
    (said,) = refused("finetune", clinic, "--model", model, "--out", out, "--device", "cpu")
    assert said.startswith(f"{out}: it holds another run (")
    assert "iterations 5, not 1000" in said
    assert said.endswith("Choose another --out.")


def test_a_file_where_a_folder_should_be(refused, model, clinic, out):
    out.write_text("years of work")
    said = [f"--out {out}: it is a file. Name a folder."]
    assert refused("finetune", clinic, "--model", model, "--out", out) == said
    assert refused("predict", model, clinic / "imagesTr", "--out", out) == said
    assert refused("evaluate", clinic / "labelsTr", clinic / "labelsTr", "--out", out) == said
    assert refused("demo", "--out", out) == said


def test_a_path_that_leads_through_a_file(refused, model, clinic, out):
    out.write_text("years of work")
    said = [f"{out / 'run'}: Not a directory. Check the path, its permissions and the space left."]
    assert refused("finetune", clinic, "--model", model, "--out", out / "run", "--device", "cpu") == said


def missing(model: Path) -> str:
    shutil.rmtree(model)
    return f"Model {model}: no such folder. {WANTED[:-1]}, or a name that `lnsegfm models list` shows."


def no_plans(model: Path) -> str:
    (model / "plans.json").unlink()
    checkpoint = model / "fold_0" / CHECKPOINT
    return f"Model {model}: plans.json is missing. Run: lnsegfm models import {checkpoint} --as NAME"


def no_checkpoint(model: Path) -> str:
    (model / "fold_0" / CHECKPOINT).unlink()
    return f"Model {model}: it has no fold_X/{CHECKPOINT}. Finish its training, or copy the whole folder."


def half_a_checkpoint(model: Path) -> str:
    file = model / "fold_0" / CHECKPOINT
    file.write_bytes(file.read_bytes()[:3000])
    return f"{file}: not a checkpoint, or one that is cut short or damaged. Copy it again."


def hostile_checkpoint(model: Path) -> str:
    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {model.parent / 'canary'}",)

    file = model / "fold_0" / CHECKPOINT
    file.write_bytes(pickle.dumps(Call()))
    return (
        f"{file}: it asks to run {os.name}.system while it is read. Weights need no such thing: "
        "do not open this file with other programs, ask its author for plain weights."
    )


def network_of(model: Path, path: str, /, **arguments: object) -> str:
    """Let the plans name something else as the network."""
    plans = json.loads((model / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = path
    if arguments:
        architecture["arch_kwargs"], architecture["_kw_requires_import"] = arguments, []
    (model / "plans.json").write_text(json.dumps(plans))
    return (
        f"{model / 'plans.json'}: it wants {path} called, which is no network or layer of "
        "dynamic_network_architectures, lnsegfm.networks. "
        "Do not use this model unless you trust its source."
    )


def hostile_plans(model: Path) -> str:
    return network_of(model, "os.system", command=f"touch {model.parent / 'canary'}")


def hub(model: Path) -> dict[str, str]:
    """``torch.hub.load`` takes any further arguments and runs a file of the folder it is given."""
    folder = model / "hub"
    folder.mkdir()
    (folder / "hubconf.py").write_text(f"open({str(model.parent / 'canary')!r}, 'w').close()")
    return {"repo_or_dir": str(folder), "model": "network", "source": "local"}


def hostile_plans_through_a_module_of_a_network(model: Path) -> str:
    return network_of(model, "dynamic_network_architectures.architectures.unet.torch.hub.load", **hub(model))


def hostile_plans_through_a_layer(model: Path) -> str:
    plans = json.loads((model / "plans.json").read_text())
    arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arguments["norm_op"], arguments["norm_op_kwargs"] = "torch.nn.modules.module.torch.hub.load", hub(model)
    (model / "plans.json").write_text(json.dumps(plans))
    return (
        f"{model / 'plans.json'}: it wants torch.nn.modules.module.torch.hub.load called, which is no network or layer "
        "of torch.nn, dynamic_network_architectures. Do not use this model unless you trust its source."
    )


def hostile_plans_by_inheritance(model: Path) -> str:
    said = network_of(model, "torch.hub.load", **hub(model))
    plans = json.loads((model / "plans.json").read_text())
    parent = plans["configurations"].pop("3d_fullres")
    plans["configurations"] = {"3d_fullres": {"inherits_from": "parent"}, "parent": parent}
    (model / "plans.json").write_text(json.dumps(plans))
    return said


def a_mask_outside_its_folder(model: Path) -> str:
    described = json.loads((model / "dataset.json").read_text()) | {"file_ending": "/../../escaped.nii.gz"}
    (model / "dataset.json").write_text(json.dumps(described))
    return f"{model / 'dataset.json'}: file_ending '/../../escaped.nii.gz' is none. Write .nii.gz."


def a_trainer_of_another_network(model: Path) -> str:
    """Its name leads to a module and to no trainer; nothing of that module is called."""
    file = model / "fold_0" / CHECKPOINT
    there = read_checkpoint(file)
    other = {**there.weights, "other": torch.zeros(2)}
    write_checkpoint(file, Checkpoint(other, there.configuration, there.plans, there.dataset_json, "os", None))
    return (
        f"{file}: its trainer os is none of nnU-Net's, and nnU-Net's own builds another network from these plans, "
        "1 tensor differs: other 2 is none of the network's. Ask who trained it for plans that describe the network, "
        "or use its folder in place with that of the trainer named in nnUNet_extTrainer."
    )


def other_plans(model: Path) -> str:
    (model / "plans.json").write_text("[]")
    return (
        f"Model {model}: plans.json and dataset.json are not nnU-Net's (not tables of entries). Copy the folder again."
    )


def plans_without_a_bottom(model: Path) -> str:
    (model / "plans.json").write_text("[" * 200_000)
    return f"{model / 'plans.json'}: not a JSON file that anyone would write (tables nested without end)."


SPOILED: list[Callable[[Path], str]] = [
    missing,
    no_plans,
    no_checkpoint,
    half_a_checkpoint,
    hostile_checkpoint,
    hostile_plans,
    hostile_plans_through_a_module_of_a_network,
    hostile_plans_through_a_layer,
    hostile_plans_by_inheritance,
    a_mask_outside_its_folder,
    a_trainer_of_another_network,
    other_plans,
    plans_without_a_bottom,
]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("command", ["finetune", "predict"])
def test_a_model_that_cannot_be_used_and_nothing_in_it_runs(refused, own, clinic, out, spoil, command, tmp_path):
    said = spoil(own)
    if command == "finetune":
        found = refused("finetune", clinic, "--model", own, "--out", out, "--device", "cpu")
    else:
        found = refused("predict", own, clinic / "imagesTr", "--out", out, "--device", "cpu")
    assert found == [said]
    assert not (tmp_path / "canary").exists()


def test_plans_inside_a_checkpoint_count_for_nothing(lnsegfm_here, own, clinic, out, tmp_path):
    """As in stock nnU-Net; those of the folder are checked, these are not."""
    file = own / "fold_0" / CHECKPOINT
    there = read_checkpoint(file)
    plans = json.loads(json.dumps(there.plans))
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture |= {"network_class_name": "torch.hub.load", "arch_kwargs": hub(own), "_kw_requires_import": []}
    write_checkpoint(
        file, Checkpoint(there.weights, there.configuration, plans, there.dataset_json, there.trainer_name, None)
    )
    done = lnsegfm_here("predict", own, clinic / "imagesTr" / "case_0_0000.nii.gz", "--out", out, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "canary").exists()


def test_weights_of_another_network(refused, own, clinic, out):
    file = own / "fold_0" / CHECKPOINT
    there = read_checkpoint(file)
    weights = {name: tensor[:1] for name, tensor in there.weights.items()}
    write_checkpoint(
        file, Checkpoint(weights, there.configuration, there.plans, there.dataset_json, there.trainer_name, None)
    )
    (said,) = refused("finetune", clinic, "--model", own, "--out", out, "--device", "cpu")
    assert said.startswith(f"Model {own}: its weights do not fit its own plans (size mismatch for encoder.stages.0")
    assert said.endswith("). Use the plans.json that it was trained with.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--preset", "huge"],
            "Preset huge: not known. The presets: tiny, small, default (nnU-Net's planner), release (the paper's).",
        ),
        (["--held-out", "3"], "held-out 3: there are only 3 cases. Hold out fewer."),
        (["--prepared", "float64"], "--prepared float64: not known. Use half, or float32 to lose nothing."),
        (["--lr", "-1"], "lr -1.0: a step needs a length above 0. Use for example 0.002."),
        (["--plans", "none.json"], "none.json: no such file. Check the path."),
        (["--label", "node"], "Label option 'node': not NAME=VALUE. Write --label lymph_node=1."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_pretrain_refuses(refused, clinic, out, words, said):
    assert refused("pretrain", clinic, "--out", out, "--device", "cpu", *words) == [said]


def test_a_dry_run_prints_json_and_writes_nothing(lnsegfm_here, model, clinic, out, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    words = ["--shots", 2, "--set", "gamma=2", "--patch-size", 8, 16, 16, "--device", "cpu"]
    done = lnsegfm_here("finetune", clinic, "--model", model, "--out", out, "--dry-run", *words)

    assert done.returncode == 0, done.stderr
    resolved = json.loads(done.stdout)
    assert resolved["recipe"]["settings"]["gamma"] == 2
    assert resolved["patch_size"] == [8, 16, 16]
    assert (len(resolved["shots"]), len(resolved["held_out"])) == (2, 1)
    assert resolved["transfer"]["labels_kept"] == ["node"]
    assert done.stderr.splitlines() == ["Checking 3 cases"]
    assert sorted(tmp_path.rglob("*")) == before
