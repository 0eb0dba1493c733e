"""Runs whose labels name sides: all folds, adapters, exports, stops, several runs, processes, merged labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnsegfm.imaging.files import image_files
from lnsegfm.models.adapter_files import apply_adapter
from lnsegfm.models.export_model import export_model
from lnsegfm.models.importing.import_options import ImportOptions
from lnsegfm.models.install import install
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.nnunet.mirroring import SWAP, swap_of_plans
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.progress import Silent
from lnsegfm.recipe import Recipe
from lnsegfm.transforms.mirror_swap import MirrorSwap
from lnsegfm.weights.checkpoint import read_checkpoint, write_checkpoint
from lnsegfm.workflows.finetune import Run, finetune
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.pretrain import pretrain
from lnsegfm.workflows.pretrain_plan import PretrainSettings
from tests.nnunet.test_mirroring import Lines, write_sided
from tests.scenes import small_plans

FINAL = "checkpoint_final.pth"
PAIR = MirrorSwap(2, ((1, 2),))
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data`` with two sides, ``base`` of two folds that was mirrored along all axes, and ``plans.json``."""
    folder = tmp_path_factory.mktemp("sided")
    (folder / "plans.json").write_text(json.dumps(small_plans()))
    write_sided(folder / "data", 3)
    settings = PretrainSettings(plans=folder / "plans.json", iterations=2, mirroring=False, mirror="all")
    made = pretrain(folder / "data", folder / "made", settings, device="cpu")
    shutil.copytree(made.model, folder / "base")
    one = read_checkpoint(folder / "base" / "fold_0" / FINAL)
    other = {name: tensor * 1.01 for name, tensor in one.weights.items()}
    write_checkpoint(folder / "base" / "fold_1" / FINAL, replace(one, weights=other))
    return folder


def adapt(place: Path, out: Path, progress: Silent | None = None, base: Path | None = None, **recipe: Any) -> Run:
    settings = {"shots": 2, "iterations": 3, "mirroring": False, "method": "bias"} | recipe
    planned = plan(place / "data", base or place / "base", Recipe(**settings), progress=progress)
    return finetune(planned, out, device="cpu", workers=0, progress=progress)


def terms(model: Model) -> tuple[Any, ...]:
    """What sides a model's predictions are mirrored along, and its weights."""
    return tuple(fold.mirroring_axes for fold in model.folds), swap_of_plans(model.plans), model.weights_sha256


def test_every_fold_every_adapter_and_every_form_keeps_the_axes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    run = adapt(place, tmp_path / "run", folds="all", mirror="swap")
    trained = terms(read_model(run.model))
    assert trained[:2] == (((0, 1), (0, 1)), PAIR)
    for fold in (0, 1):  # each checkpoint says it, not only the model's plans
        kept = read_checkpoint(run.model / f"fold_{fold}" / FINAL)
        assert (kept.mirroring_axes, kept.plans[SWAP]["outputs"]) == ((0, 1), [[1, 2]])
    apply_adapter(place / "base", run.folder, tmp_path / "applied")
    export_model(run.folder, "nnunet-zip", tmp_path / "model.zip")
    install(tmp_path / "model.zip", "sided", ImportOptions())
    image = [image_files(place / "data" / "imagesTr")[0]]
    mine = Predictor(read_model(run.model))
    expected = mine.run(mine.prepare(image), probabilities=True)
    for where in (tmp_path / "applied", Path("sided")):
        assert terms(read_model(where)) == trained
        other = Predictor(read_model(where))
        np.testing.assert_array_equal(
            other.run(other.prepare(image), probabilities=True).probabilities, expected.probabilities
        )
    plain = Predictor(read_model(run.model))
    plain._swap = None  # as if the plans had lost it
    lost = plain.run(plain.prepare(image), probabilities=True).probabilities
    assert np.abs(lost - expected.probabilities).max() > 1e-4


class StopsAt(Silent):
    """Interrupts at a training step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        if total == 6 and done == self.step:
            raise KeyboardInterrupt


def test_a_stopped_training_ends_in_the_same_bytes(place: Path, tmp_path: Path) -> None:
    whole = adapt(place, tmp_path / "whole", mirror="swap", iterations=6)
    with pytest.raises(KeyboardInterrupt):
        adapt(place, tmp_path / "stopped", StopsAt(3), mirror="swap", iterations=6)
    assert not (tmp_path / "stopped" / "model" / "fold_0" / FINAL).exists()
    again = adapt(place, tmp_path / "stopped", mirror="swap", iterations=6)
    for file in ("model/fold_0/" + FINAL, "model/plans.json", "adapter.safetensors"):
        assert (again.folder / file).read_bytes() == (whole.folder / file).read_bytes()
    without = adapt(place, tmp_path / "without", mirror="auto", iterations=6)
    assert terms(read_model(without.model))[2] != terms(read_model(again.model))[2]  # training did exchange them


def test_several_methods_and_draws_are_each_mirrored_so(place: Path, lnsegfm_here: Any) -> None:
    words = ("finetune", place / "data", "--model", place / "base", "--shots", 2, "--dry-run")
    done = lnsegfm_here(*words, "--method", "bias,dgst", "--draw", "0,1", "--mirror", "swap")
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [run["recipe"]["mirror"] for run in runs] == ["swap"] * 4
    assert len({run["identity"] for run in runs}) == 4


def test_merged_to_one_label_and_back_is_said(place: Path, tmp_path: Path) -> None:
    exchanged = adapt(place, tmp_path / "sides", mirror="swap")
    lines, both = Lines(), {"Parotid": ("Parotid_L", "Parotid_R")}
    merged = adapt(place, tmp_path / "merged", lines, exchanged.folder, merge=both)
    model = read_model(merged.model)
    assert terms(model)[:2] == (((0, 1),), None)
    planned = plan(place / "data", exchanged.folder, Recipe(shots=2, merge=both, mirroring=False))
    assert "stays so though the labels name no sides" in planned.mirror
    fresh = [line for line in planned.transfer.lines() if "Parotid" in line]
    assert fresh, planned.transfer.lines()
    again = plan(place / "data", exchanged.folder, Recipe(shots=2, merge=both, mirror="x,y,z", mirroring=False))
    assert again.start.mirroring_axes == (0, 1, 2)
    assert SWAP not in again.start.plans

    back = plan(place / "data", merged.folder, Recipe(shots=2, mirroring=False))
    assert back.start.mirroring_axes == (0, 1)
    assert any("Parotid_L" in line for line in back.transfer.lines())
    whole = plan(place / "data", place / "base", Recipe(shots=2, merge=both, mirroring=False))
    assert whole.start.mirroring_axes == (0, 1, 2)  # mirrored as the base was: one label has no sides
    assert whole.mirror == ""


def only_left(data: Path, out: Path) -> Path:
    """The same scans with the left gland alone annotated."""
    from lnsegfm.imaging.files import read_mask, write_mask

    shutil.copytree(data, out)
    for file in sorted((out / "labelsTr").glob("*.nii.gz")):
        mask, grid = read_mask(file)
        write_mask(file, np.where(mask == 1, 1, 0).astype(np.uint8), grid)
    described: Mapping[str, Any] = json.loads((out / "dataset.json").read_text())
    (out / "dataset.json").write_text(json.dumps({**described, "labels": {"background": 0, "LeftParotid": 1}}))
    return out


def test_one_side_alone_is_not_mirrored(place: Path, tmp_path: Path) -> None:
    data = only_left(place / "data", tmp_path / "left")
    planned = plan(data, place / "base", Recipe(shots=2, mirroring=False))
    assert planned.start.mirroring_axes == (0, 1)
    assert "labels name sides (LeftParotid)" in planned.mirror


@pytest.mark.long
@pytest.mark.parametrize("mirror", ["auto", "swap"])
def test_two_processes_train_alike(place: Path, tmp_path: Path, mirror: str) -> None:
    found = []
    for name in ("one", "other"):
        settings = PretrainSettings(
            plans=place / "plans.json", iterations=3, mirroring=False, mirror=mirror, gpus=2, batch_size=2
        )
        base = pretrain(place / "data", tmp_path / name, settings, device="cpu")
        found.append(terms(read_model(base.model)))
    assert found[0] == found[1]
    assert found[0][:2] == (((0, 1),), PAIR if mirror == "swap" else None)
