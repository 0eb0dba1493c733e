"""Preset benchmark: the time that each preset saves a model and its change in Dice, on the run's held-out cases."""

from __future__ import annotations

import math
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lnsegfm.cores import usable_cores
from lnsegfm.datasets.dataset import Case, Dataset, open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.scoring import Scoring
from lnsegfm.expected_time import Clock, TimedProgress, TimePlan
from lnsegfm.inference.speed_presets import FULL, PRESETS, InferenceSetting
from lnsegfm.messages import counted
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.nnunet.environment import choose_device
from lnsegfm.prediction.ready_predictor import ready
from lnsegfm.prediction.scan_predictor import ScanPredictor
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import locked, read_json, write_json
from lnsegfm.workflows.held_out_comparison import WITH_EMPTY_CASES, score_masks
from lnsegfm.workflows.run_folder import RECIPE

FORMAT, FILE = "lnsegfm.presets/1", "presets.json"


@dataclass(frozen=True)
class HeldOutCases:
    """The cases that a run did not train on, where they lie now.

    Args:
        model: What the run made.
        data: The labelled scans.
        cases: Those held out.
        absent: Labels that the run took as truly absent where references lack them.
    """

    model: Model
    data: Dataset
    cases: tuple[Case, ...]
    absent: tuple[str, ...] = ()


def held_out_cases(run: Path) -> HeldOutCases:
    """Find what a run held out.

    Raises:
        ConfigError: The folder is no finished run's, or nothing was held out.
        DataError: The cases are gone.
    """
    file = run / RECIPE
    recipe = read_json(file) if file.is_file() else {}
    if "held_out" not in recipe or not (run / "model").is_dir():
        raise ConfigError(f"{run}: it is no finished run of `lnsegfm finetune`. Name the folder that its --out named.")
    names, folder = recipe["held_out"], Path(recipe["data"]["folder"])
    if not names:
        raise ConfigError(f"{run}: its run held out no scan, so nothing says what a preset costs. Train with --shots.")
    gone = f"{run}: the scans that it held out are gone from {folder}"
    if not folder.is_dir():
        raise DataError(f"{gone}. Put the dataset back there and run this again.")
    data = open_dataset(folder, LabelMap.from_record(recipe["data"]))
    there = {case.name: case for case in data.labelled if case.images}
    if lost := [name for name in names if name not in there]:
        raise DataError(f"{gone} ({', '.join(lost)}). Put them back there and run this again.")
    absent = tuple(recipe.get("recipe", {}).get("absent", ()))
    return HeldOutCases(read_model(run), data, tuple(there[name] for name in names), absent)


def benchmark_presets(
    run: Path, *, device: str = "auto", progress: Progress | None = None, clock: Clock = time.monotonic
) -> dict[str, Any]:
    """Predict what a run held out under the full setting and under each preset, and keep what that shows.

    Case by case each setting predicts in turn, in an order that rotates, so that whatever else the machine does meets
    all of them. Seconds are those of a scan from its files to its mask.

    Args:
        run: The folder of a finished ``lnsegfm finetune``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: Where progress is reported.
        clock: Seconds of a clock that never goes back, by which the time that is left is measured.

    Returns:
        The content of ``presets.json`` in the model's folder.

    Raises:
        ConfigError: Not such a run, or one that held nothing out.
        DataError: The cases are gone, or cannot be predicted.
        RunMismatch: The same is under way.
    """
    progress, device = progress or Silent(), choose_device(device)
    held = held_out_cases(run)
    work = run / "work" / "presets"
    try:
        with locked(work):
            found = _compared(held, work, device, progress, clock)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if work.parent.is_dir() and not any(work.parent.iterdir()):
            work.parent.rmdir()
    write_json(held.model.folder / FILE, found)
    return found


def preset_summary(model: Model, name: str) -> str:
    """What a preset costs a model, in a line; that it is not known, where nobody has measured it.

    Args:
        model: The model.
        name: Of the preset.
    """
    found = _kept(model)
    if found is None or name not in found["presets"]:
        return f"--fast {name}: its price for this model is not known. `lnsegfm presets RUN` finds it."
    one, full = found["presets"][name], found["presets"][FULL]
    dice = ", ".join(
        f"{label} {_number(mean)} instead of {_number(full['dice'][label]['mean'])} "
        f"(worst {_number(one['dice'][label]['worst'])}, {_number(full['dice'][label]['worst'])})"
        for label, mean in ((label, of["mean"]) for label, of in one["dice"].items())
    )
    return (
        f"--fast {name}: {one['seconds']:.3g} s a scan instead of {full['seconds']:.3g} on {found['device']}, Dice "
        f"{dice}: {counted(found['cases'], 'held-out scan')}."
    )


def _compared(held: HeldOutCases, work: Path, device: str, progress: Progress, clock: Clock) -> dict[str, Any]:
    settings: dict[str, InferenceSetting] = {FULL: InferenceSetting(), **PRESETS}
    predictors: dict[str, ScanPredictor] = {}
    for name, setting in settings.items():
        try:
            predictors[name] = ready(held.model, setting, device=device)
        except ConfigError as error:  # a preset that is not for this kind of model
            progress.stage(str(error))
    progress.stage(f"Predicting {counted(len(held.cases), 'held-out case')} in {len(predictors)} ways")
    seconds = _timed(held, predictors, work, progress, clock)
    presets = {
        name: {
            "setting": settings[name].to_json(),
            "seconds": fmean(seconds[name]),
            "dice": _dice(_scored(held, work / name)),
        }
        for name in predictors
    }
    weights = [fold.weights_sha256 for fold in held.model.folds]
    machine = _machine(device)
    head = {"format": FORMAT, "notice": "Not for clinical use.", "model": weights, "cases": len(held.cases)}
    return head | {"device": device, "machine": machine, "presets": presets}


def _scored(held: HeldOutCases, masks: Path) -> Evaluation:
    absence = replace(WITH_EMPTY_CASES, absent=held.absent)
    plain = Scoring(surfaces=False)
    return score_masks(held.cases, _masks(held, masks), held.data.labels, held.model, scoring=plain, absence=absence)


def _timed(
    held: HeldOutCases, predictors: Mapping[str, ScanPredictor], work: Path, progress: Progress, clock: Clock
) -> dict[str, list[float]]:
    names, seconds = list(predictors), {name: list[float]() for name in predictors}
    for name in names:
        (work / name).mkdir(parents=True, exist_ok=True)
    predictors[names[-1]].predict(held.cases[0].images, _masks(held, work)[held.cases[0].name])  # what is loaded late
    progress = TimedProgress(progress, TimePlan(unit="prediction", sample=len(names), skip=0), clock)
    for number, case in enumerate(held.cases):
        first = number % len(names)
        for turn, name in enumerate(names[first:] + names[:first], 1):
            start = time.perf_counter()
            predictors[name].predict(case.images, _masks(held, work / name)[case.name])
            seconds[name].append(time.perf_counter() - start)
            progress.advance(number * len(names) + turn, len(held.cases) * len(names), f"{case.name}, {name}")
    return seconds


def _masks(held: HeldOutCases, folder: Path) -> dict[str, Path]:
    return held.model.mask_files(folder, (case.name for case in held.cases))


def _dice(evaluation: Evaluation) -> dict[str, dict[str, float | None]]:
    """Mean and worst by label; None where no case has the label."""
    found: dict[str, dict[str, float | None]] = {}
    for label in evaluation.labels.names:
        values = [v for case in evaluation.cases if not math.isnan(v := case.labels[label].dice)]
        found[label] = {"mean": fmean(values) if values else None, "worst": min(values, default=None)}
    return found


def _kept(model: Model) -> dict[str, Any] | None:
    """What was measured of this model; None where nothing was, or the file is another's or damaged."""
    try:
        content = read_json(model.folder / FILE)
        if content["format"] != FORMAT or content["model"] != [fold.weights_sha256 for fold in model.folds]:
            return None
        full = content["presets"][FULL]
        whole = all(
            isinstance(one["seconds"], float | int) and set(one["dice"]) == set(full["dice"])
            for one in content["presets"].values()
        )
        return dict(content) if whole and isinstance(content["cases"], int) else None
    except (DataError, KeyError, TypeError, AttributeError):
        return None


def _machine(device: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    return described | ({"gpu": torch.cuda.get_device_name(device)} if device.startswith("cuda") else {})


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def preset_table(found: Mapping[str, Any]) -> Sequence[tuple[str, ...]]:
    """The table for a person: preset, seconds a scan, and for each label the mean and the worst Dice."""
    labels = list(found["presets"][FULL]["dice"])
    header = ("setting", "s a scan", *(f"{label}: Dice{what}" for label in labels for what in ("", ", worst")))
    body = [
        (
            name,
            f"{one['seconds']:.3g}",
            *(_number(one["dice"][label][key]) for label in labels for key in ("mean", "worst")),
        )
        for name, one in found["presets"].items()
    ]
    return [header, *body]
