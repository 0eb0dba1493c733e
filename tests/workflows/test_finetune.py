from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from lnsegfm.errors import ConfigError, RunMismatch, TransferError
from lnsegfm.methods.full import Full
from lnsegfm.methods.table import METHODS, load_method
from lnsegfm.models.model_folder import read_model
from lnsegfm.networks.parameter_roles import parameters_of
from lnsegfm.networks.role import Role
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.schedule import Schedule
from lnsegfm.weights.adapter import Adapter
from lnsegfm.weights.checkpoint import read_checkpoint, write_checkpoint
from lnsegfm.weights.state import raw, weights_hash
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.scenes import write_scenes
from tests.training.changes import assert_changed_as_meant


def model_bytes(run_folder: Path) -> bytes:
    return (run_folder / "model" / "fold_0" / "checkpoint_final.pth").read_bytes()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_runs_moves_what_it_says_and_nothing_else(world, name):
    """On phantoms, from the base to a model that predicts, with its sanity check and its adapter."""
    settings = load_method(name, {"passes": "1"} if name == "gps" else {}).settings()
    method = METHODS[name](**settings)
    run = world.run(f"run-{name}", name, settings=settings, iterations=3)
    base, adapted = read_model(world.base).first, read_model(run.folder).first
    assert_changed_as_meant(method, base, run.folder)

    record = json.loads((run.folder / "run.json").read_text())
    trainable, report = record["trainable"], record["sanity_check"]
    assert report["steps"] == (2 if method.learns else 0)
    assert {key: report[key] for key in ("tensors", "parameters", "total")} == {
        key: trainable[key] for key in ("tensors", "parameters", "total")
    }
    assert 0 < report["changed"] <= 2 * trainable["per_step"] or not method.learns
    assert all(".seg_layers." in name for name in report["without_gradient"])
    assert record["result"]["verdict"]
    assert len(list((run.folder / "predictions" / "adapted").glob("*.nii.gz"))) == 2
    rebuilt = Adapter.load(run.folder).apply(base.weights)
    assert set(rebuilt) == set(adapted.weights)
    assert all(torch.equal(raw(rebuilt[key]), raw(adapted.weights[key])) for key in rebuilt)
    if name == "zero-shot":
        assert weights_hash(adapted.weights) == weights_hash(base.weights)
    if name == "scratch":
        parameters = [
            parameter
            for parameter in parameters_of(build_network(adapted, deep_supervision=True))
            if parameter.role is Role.WEIGHT
        ]
        assert parameters
        for parameter in parameters:  # not even the weights that the base, of the same seed, began with
            assert correlation(base.weights[parameter.name], adapted.weights[parameter.name]) < 0.5


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def test_the_run_leaves_what_it_promises(run):
    record = json.loads((run.folder / "run.json").read_text())

    assert record["shots"] == json.loads((run.folder / "splits.json").read_text())["shots"]
    assert len(record["shots"]) == 2
    assert len(record["held_out"]) == 2
    assert len(record["losses"]) == record["training"]["iterations"] == 6
    assert record["result"]["verdict"]
    assert 0 < record["adapter"]["entries"] <= 6 * record["trainable"]["per_step"]  # DGST: six steps
    assert (run.folder / "report.html").read_text().lower().startswith("<!doctype html>")
    assert sorted(p.name for p in (run.folder / "predictions" / "adapted").glob("*.nii.gz")) == [
        f"{case}.nii.gz" for case in record["held_out"]
    ]
    assert not (run.folder / "work").exists()
    assert not list(run.folder.rglob(".partial-*"))


def test_a_base_that_was_never_mirrored_is_not_mirrored_now(world, tmp_path):
    """It may tell left from right; TotalSegmentator's do."""
    base = tmp_path / "base"
    shutil.copytree(world.base / "model", base)
    file = base / "fold_0" / "checkpoint_final.pth"
    write_checkpoint(file, dataclasses.replace(read_checkpoint(file), mirroring_axes=None))
    planned = plan(world.clinic, base, world.recipe())
    with nnunet_environment(tmp_path / "work"):
        trainer = InMemoryTrainer.ready(planned.start, Full(), Schedule(lr=0.1, iterations=1, seed=0), "cpu")
        assert trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[3] is None
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    assert read_model(run.model).first.mirroring_axes is None


def test_base_plus_adapter_is_the_model_bit_for_bit(world, run):
    base, adapted = read_model(world.base).first.weights, read_model(run.folder).first.weights
    adapter = Adapter.load(run.folder)

    rebuilt = adapter.apply(base)
    assert list(rebuilt) == list(adapted)
    assert all(torch.equal(raw(rebuilt[name]), raw(adapted[name])) for name in adapted)
    assert weights_hash(rebuilt) == weights_hash(adapted)


def test_an_adapter_on_another_base_is_refused(run):
    adapted = read_model(run.folder).first.weights
    with pytest.raises(TransferError, match="belongs to a base with hash"):
        Adapter.load(run.folder).apply(adapted)


def test_one_seed_gives_one_model_whatever_the_workers(world, run):
    assert model_bytes(world.run("again").folder) == model_bytes(run.folder)
    assert model_bytes(world.run("with-workers", workers=2).folder) == model_bytes(run.folder)
    assert model_bytes(world.run("other-seed", seed=1).folder) != model_bytes(run.folder)


def test_running_again_does_nothing_again(world, run):
    before = (run.folder / "model" / "fold_0" / "checkpoint_final.pth").stat().st_mtime_ns
    again = world.run("run")
    assert (run.folder / "model" / "fold_0" / "checkpoint_final.pth").stat().st_mtime_ns == before
    assert again.record["result"] == json.loads(json.dumps(again.record["result"]))


def test_another_recipe_in_the_same_folder_is_refused_by_name(world, run):
    with pytest.raises(RunMismatch, match="iterations 6, not 7"):
        world.run("run", iterations=7)


def test_a_folder_with_other_things_is_left_alone(world, tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(RunMismatch, match="not empty"):
        finetune(plan(world.clinic, world.base, world.recipe()), tmp_path, device="cpu")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]


def test_the_foundation_plans_rule(world):
    base, start = read_model(world.base), plan(world.clinic, world.base, world.recipe()).start
    theirs, ours = base.plans["configurations"]["3d_fullres"], start.plans["configurations"]["3d_fullres"]
    for kept in ("spacing", "normalization_schemes", "patch_size", "architecture", "batch_size"):
        assert ours[kept] == theirs[kept]
    assert (
        start.plans["foreground_intensity_properties_per_channel"]
        == base.plans["foreground_intensity_properties_per_channel"]
    )


def test_patch_and_batch_may_be_chosen_and_a_patch_that_cannot_be_is_refused(world):
    start = plan(world.clinic, world.base, world.recipe(patch_size=(8, 16, 24), batch_size=3)).start
    assert start.plans["configurations"]["3d_fullres"]["patch_size"] == [8, 16, 24]
    assert start.plans["configurations"]["3d_fullres"]["batch_size"] == 3
    with pytest.raises(ConfigError, match="Use 8 16 24"):
        plan(world.clinic, world.base, world.recipe(patch_size=(9, 16, 24)))


def test_a_label_the_base_does_not_know_gets_a_fresh_head_and_is_told(world, tmp_path):
    clinic = write_scenes(tmp_path / "larynx", 3, seed=50, label="larynx")
    planned = plan(clinic, world.base, world.recipe(shots=1))
    assert planned.transfer.labels_new == ("larynx",)
    assert planned.transfer.labels_kept == ()

    found = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    assert found.evidence.comparison.unknown == ("larynx",)
    assert {case.labels["larynx"].dice for case in found.evidence.comparison.base.cases} == {0.0}
    assert Adapter.load(found.folder).apply(read_model(world.base).first.weights)


def test_without_held_out_cases_there_is_a_model_and_no_evidence(world):
    found = world.run("all", shots=None)
    assert found.evidence.comparison is None
    assert found.record["result"] is None
    assert "no evidence" in (found.folder / "report.html").read_text().lower()


def test_a_plateau_and_a_time_limit_end_training(world):
    stopped = world.run("plateau", iterations=60, lr=1e-12, early_stop=3)
    assert stopped.record["training"]["stopped_by"] == "plateau"
    assert stopped.record["training"]["iterations"] < 60
    stopped = world.run("hurried", iterations=10_000, time_limit_s=1.0)
    assert stopped.record["training"]["stopped_by"] == "time limit"
    assert stopped.record["training"]["iterations"] < 10_000


def test_the_verdict_compares_masks_with_references(run):
    """The reported Dice, recomputed by SimpleITK from the files the run left."""
    comparison = run.evidence.comparison
    for case in comparison.adapted.cases:
        reference = sitk.ReadImage(str(case.files.reference))
        mask = sitk.Cast(sitk.ReadImage(str(case.files.prediction)), reference.GetPixelID())
        measure = sitk.LabelOverlapMeasuresImageFilter()
        measure.Execute(reference, mask)
        assert case.labels["node"].dice == pytest.approx(measure.GetDiceCoefficient(1))
        assert np.array_equal(mask.GetSize(), reference.GetSize())


def command(world, out: Path, iterations: int) -> list[str]:
    words = ["finetune", world.clinic, "--model", world.base, "--out", out, "--shots", 2, "--iterations", iterations]
    return [sys.executable, "-m", "lnsegfm", *map(str, words), "--no-mirroring", "--device", "cpu"]


def start_and_stop(world, out: Path, iterations: int, after: float, how: int) -> int:
    """Start the command, send a signal some time after training began, and give the exit code."""
    words = command(world, out, iterations)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Training"):
            break
    time.sleep(after)
    process.send_signal(how)
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_signal_saves_and_the_same_command_continues_to_the_same_bytes(world, tmp_path, how, lnsegfm_here):
    iterations = 120  # seconds, also on a machine with nothing else to do
    undisturbed = world.run("undisturbed", iterations=iterations)
    out = tmp_path / "run"
    assert start_and_stop(world, out, iterations, 0.2, how) == 130
    assert (out / "work" / "training.pt").is_file()
    assert not (out / "run.json").exists()

    finished = lnsegfm_here(*command(world, out, iterations)[3:])
    assert finished.returncode == 0, finished.stderr
    assert "continued at" in finished.stderr
    assert model_bytes(out) == model_bytes(undisturbed.folder)
    assert (out / "adapter.safetensors").read_bytes() == (undisturbed.folder / "adapter.safetensors").read_bytes()


@pytest.mark.long
def test_ten_sudden_deaths_leave_the_same_bytes(world, tmp_path):
    """SIGKILL at ten moments spread over the whole command, start-up and evaluation included."""
    iterations = 200
    undisturbed = world.run("two-hundred", iterations=iterations)
    out = tmp_path / "run"
    random = np.random.default_rng(0)
    deaths = 0
    while deaths < 10:
        words = command(world, out, iterations)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=float(random.uniform(3, 16)))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            deaths += 1
        for file in out.rglob("*.json"):
            json.loads(file.read_text())  # whole, or a name that nobody takes for a result
        if (out / "run.json").is_file():  # finished early: die some more, later in the same command
            for name in ("run.json", "report.html", "adapter.json", "loss_history.json"):
                (out / name).unlink(missing_ok=True)
    finished = subprocess.run(command(world, out, iterations), capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert model_bytes(out) == model_bytes(undisturbed.folder)
    assert not list(out.rglob(".partial-*"))
    assert (out / "adapter.safetensors").read_bytes() == (undisturbed.folder / "adapter.safetensors").read_bytes()
