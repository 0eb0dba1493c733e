"""From a file of somebody else to an adapted model, by the name it was imported under."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsegfm.errors import TransferError
from lnsegfm.models.importing.forms import nnssl_encoder as nnssl
from lnsegfm.models.model_folder import read_model
from lnsegfm.recipe import Recipe
from lnsegfm.weights.adapter import Adapter
from lnsegfm.weights.state import raw
from lnsegfm.workflows.finetune_plan import plan as plan_run
from tests.models.importing.test_nnssl_form import CITATIONS, FEATURES, network, plan, write
from tests.scenes import write_scenes

PATCH = (32, 32, 64)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "clinic", 3)


@pytest.fixture
def encoder(tmp_path: Path, take: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """An nnssl checkpoint, imported as ``it``; its weights."""
    monkeypatch.setattr(nnssl, "FEATURES", FEATURES)
    trained = network()
    file = write(tmp_path / "checkpoint_final.pth", trained.state_dict(), plan(), citations=CITATIONS)
    take(file, spacing_mm=(2.0, 1.0, 1.5), patch_size=PATCH, licence="CC-BY-4.0")
    return {name: tensor.clone() for name, tensor in trained.state_dict().items()}


def test_a_pretrained_encoder_gets_a_decoder(encoder: Any, clinic: Path, tmp_path: Path, lnsegfm_here: Any) -> None:
    out, image = tmp_path / "run", clinic / "imagesTr" / "case_0_0000.nii.gz"
    refused = lnsegfm_here("predict", "it", image, "--out", tmp_path / "masks", "--device", "cpu")
    assert refused.returncode == 2
    assert "it is a pretrained encoder without a decoder" in refused.stderr

    words = ("finetune", clinic, "--model", "it", "--method", "full", "--shots", 2, "--out", out, "--device", "cpu")
    done = lnsegfm_here(*words, "--iterations", 1, "--no-mirroring")
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    groups = {group["name"]: group["parameters"] for group in record["transfer"]["groups"]}
    assert groups["encoder.stages"]["fresh"] == groups["encoder.stem"]["fresh"] == 0
    assert groups["decoder.stages"]["matched"] == 0 < groups["decoder.stages"]["fresh"]
    assert record["transfer"]["share"] == 1
    assert record["result"]["unknown_to_base"] == ["node"]
    assert record["base"]["name"] == "it"
    assert record["base"]["licence"] == "CC-BY-4.0"
    assert "OpenMind" in record["base"]["citation"]
    page = (out / "report.html").read_text()
    assert "CC-BY-4.0" in page
    assert "OpenMind" in page

    base, model = read_model(Path("it"), whole=False), read_model(out)
    rebuilt = Adapter.load(out).apply(base.first.weights)
    assert all((raw(rebuilt[name]) == raw(tensor)).all() for name, tensor in model.first.weights.items())
    once_more = plan_run(clinic, out, Recipe(method="head"))
    assert once_more.to_json()["base"]["licence"] == "CC-BY-4.0"  # of what it was adapted from
    again = lnsegfm_here("predict", out, image, "--out", tmp_path / "masks", "--device", "cpu", "--no-mirroring")
    assert again.returncode == 0, again.stderr


def test_training_starts_from_the_encoder_as_it_was_pretrained(encoder: Any, clinic: Path) -> None:
    planned = plan_run(clinic, Path("it"), Recipe(method="full", settings={"rule": "sgd"}))
    start = planned.start.weights
    assert all(torch.equal(start[name], tensor) for name, tensor in encoder.items() if name.startswith("encoder."))
    assert planned.transfer.labels_kept == ()


def test_an_encoder_is_held_to_all_of_itself(encoder: Any, clinic: Path, home: Path) -> None:
    """Half of its stages renamed: what it should have does not come from it."""
    from lnsegfm.weights.checkpoint import read_checkpoint, save

    file = home / "models" / "it" / "fold_0" / "checkpoint_final.pth"
    there = read_checkpoint(file)
    weights = {name.replace("stages.5", "steps.5"): tensor for name, tensor in there.weights.items()}
    content = torch.load(file, weights_only=True)
    save(file, content | {"network_weights": weights})
    with pytest.raises(TransferError, match=r"% of the parameters"):
        plan_run(clinic, Path("it"), Recipe(method="full", settings={"rule": "sgd"}))
