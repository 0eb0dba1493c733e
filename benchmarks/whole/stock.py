"""The job by nnU-Net's own commands.

Fingerprint and plans are made, because its training asks for their files, though the plans are then replaced by the
base's (``--no_pp``: what they would prepare would be thrown away). Replacing is a copied file and not counted; by
nnU-Net's command for it, ``nnUNetv2_move_plans_between_datasets``, it would cost another start of Python.
"""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.whole.setting import Prepared, Setting, bare
from benchmarks.whole.watch import Watched, watched

NAME = "Dataset001_Whole"
PLANS = "basePlans"
TRAINER = "WholeJobTrainer"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What a user of nnU-Net may set.

    Args:
        processes: ``-npfp`` and ``-np``; None leaves them.
        validation_share: Iterations of validation in training, of the iterations of an epoch; at least one is taken.
        environment: Variables of all commands.
        training: Variables of the training command.
    """

    processes: int | None = None
    validation_share: float = 50 / 250
    environment: Mapping[str, str] = field(default_factory=dict)
    training: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As results hold it."""
        return {
            "-np and -npfp": self.processes,
            "validation iterations per training iteration": self.validation_share,
            "environment": dict(self.environment),
            "environment of nnUNetv2_train": dict(self.training),
        }


def run(setting: Setting, prepared: Prepared, flags: Flags, place: Path) -> tuple[dict[str, Any], Path]:
    """Plan, preprocess, train and validate; gives the figures and the folder of masks."""
    world = {**lay_out(prepared, place), **flags.environment}
    plan_words, preprocess_words = (
        ([], [])
        if flags.processes is None
        else (
            ["-npfp", flags.processes],
            ["-np", flags.processes],
        )
    )
    planned = command(place, "plan_and_preprocess", ["-d", 1, "--no_pp", *plan_words], world)
    plans = prepared.plans | {"dataset_name": NAME, "plans_name": PLANS}
    (place / "preprocessed" / NAME / f"{PLANS}.json").write_text(json.dumps(plans))
    words = ["-d", 1, "-plans_name", PLANS, "-c", "3d_fullres", *preprocess_words]
    preprocessed = command(place, "preprocess", words, world)
    words = [1, "3d_fullres", 0, "-tr", TRAINER, "-p", PLANS, "-device", "cpu"]
    job = {**lengths(setting, prepared, flags), **flags.training}
    trained = command(place, "train", [*words, "-pretrained_weights", prepared.weights], world | job)
    masks = place / "results" / NAME / f"{TRAINER}__{PLANS}__3d_fullres" / "fold_0" / "validation"
    return figures(planned, preprocessed, trained), masks


def lay_out(prepared: Prepared, place: Path) -> dict[str, str]:
    """The folders of nnU-Net with scans and split; gives its variables."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(prepared.data, place / "raw" / NAME)
    (place / "preprocessed" / NAME).mkdir(parents=True)
    (place / "results").mkdir()
    split = {"train": list(prepared.split.shots), "val": list(prepared.split.held_out)}
    (place / "preprocessed" / NAME / "splits_final.json").write_text(json.dumps([split]))
    world = {f"nnUNet_{part}": str(place / part) for part in ("raw", "preprocessed", "results")}
    return world | {"nnUNet_extTrainer": str(Path(__file__).parent / "trainers")}


def lengths(setting: Setting, prepared: Prepared, flags: Flags) -> dict[str, str]:
    """What the trainer reads."""
    per_epoch = setting.iterations // setting.epochs
    return {
        "WHOLE_EPOCHS": str(setting.epochs),
        "WHOLE_ITERATIONS": str(per_epoch),
        "WHOLE_VALIDATION": str(max(1, round(per_epoch * flags.validation_share))),
        "WHOLE_LR": str(setting.lr),
        "WHOLE_BASE": str(prepared.weights),
        "WHOLE_MIRRORING": str(int(setting.mirroring)),
    }


def command(place: Path, name: str, words: list[Any], world: Mapping[str, str]) -> Watched:
    """One of nnU-Net's console scripts."""
    script = Path(sysconfig.get_path("scripts")) / f"nnUNetv2_{name}"
    return watched([script, *words], bare(world), place / "logs" / f"{name}.txt")


def figures(planned: Watched, preprocessed: Watched, trained: Watched) -> dict[str, Any]:
    """Seconds of each stage; the training command's are separated by the lines of its log."""
    first, validation = spoken(trained, "Epoch 0"), spoken(trained, "predicting ")
    return {
        "seconds": planned.seconds + preprocessed.seconds + trained.seconds,
        "stages": {
            "plan": planned.seconds,
            "preprocess": preprocessed.seconds,
            "start of training": first,
            "training": validation - first,
            "held-out evaluation": trained.seconds - validation,
        },
        "peak_mib": max(each.peak_mib for each in (planned, preprocessed, trained)),
        "peak_mib_by_stage": {
            "plan": planned.peak_mib,
            "preprocess": preprocessed.peak_mib,
            "training": trained.peak_mib,
        },
        "processes": max(each.processes for each in (planned, preprocessed, trained)),
    }


def spoken(of: Watched, words: str) -> float:
    """The second at which its log said so first; lines of the log begin with date and time."""
    for second, line in of.lines:
        if line.partition(": ")[2].startswith(words):
            return second
    raise RuntimeError(f"nnU-Net's log: no line says {words!r}. Is it another version?")
