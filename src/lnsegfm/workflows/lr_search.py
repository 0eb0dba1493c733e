"""A learning rate chosen on the shots alone, in the same way for every method.

The last half of the shots, in the order in which they were drawn, is left out; each rate trains on the others for the
run's own number of iterations, and predicts those left out as whole scans. The rate with the highest mean Dice is
taken, the smaller one of two that tie. No held-out case plays a part.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import Diverged
from lnsegfm.evaluation.doubtful_references import KnownAbsence
from lnsegfm.evaluation.scoring import Scoring
from lnsegfm.expected_time import TimePlan
from lnsegfm.methods.method import Method
from lnsegfm.models.model_folder import read_model
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.progress import Progress
from lnsegfm.storage import read_json, write_json
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_model import train_model
from lnsegfm.training.training_job import TrainingJob
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.workflows.held_out_comparison import WITH_EMPTY_CASES, predict_masks, score_masks

CHOICE = "lr_choice.json"
TRIED = "work/lr"


@dataclass(frozen=True, kw_only=True)
class LrSearch:
    """The training for which a learning rate is searched.

    Args:
        start: Plans, description and weights that the run starts from.
        method: What is trained.
        cases: The shots, in the order in which they were drawn.
        labels: What their masks' numbers mean.
        schedule: Of the run; its rate is the one taken where a single shot leaves nothing to choose by.
        rates: The candidates.
        mirroring: Mirror patches at prediction.
        time_plan: What is known of the time that the run takes; None says nothing.
        absence: What is known of labels that references lack.
    """

    start: Checkpoint
    method: Method
    cases: Sequence[Case]
    labels: LabelMap
    schedule: Schedule
    rates: Sequence[float]
    mirroring: bool
    time_plan: TimePlan | None = None
    absence: KnownAbsence = WITH_EMPTY_CASES

    @property
    def left_out(self) -> Sequence[Case]:
        """The shots that the rates are compared on: the last half, at least one; none of a single shot."""
        number = len(self.cases)
        return self.cases[number - max(1, number // 2) :] if number > 1 else ()

    def whole_plan(self, rate: float) -> TimePlan | None:
        """The time plan of a rate's training: the other rates' trainings and the run's own come later."""
        plan = self.time_plan
        if plan is None:
            return None
        later = len(self.rates) - sorted(self.rates).index(rate)
        return replace(plan, further=(self.schedule.iterations,) * later + plan.further)

    @property
    def trained_on(self) -> Sequence[Case]:
        """The others."""
        return self.cases[: len(self.cases) - len(self.left_out)]


def choose_lr(
    search: LrSearch, out: Path, *, device: str, workers: int | None, progress: Progress
) -> Mapping[str, Any]:
    """Choose a learning rate; give it, under ``lr``, with the figures of the choice.

    Args:
        search: What it is chosen for.
        out: The run's folder; what was tried before a stop is not tried again.
        device: ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches.
        progress: Where progress is reported.

    Raises:
        Diverged: No rate gave a training whose loss stayed a number.
        Interrupted: Asked to stop (`Progress.stoppable`); the state is saved. So it is on a `KeyboardInterrupt`.
    """
    file = out / CHOICE
    if file.is_file():
        found: dict[str, Any] = read_json(file)
        return found
    names = {key: [case.name for case in getattr(search, key)] for key in ("trained_on", "left_out")}
    choice: dict[str, Any] = {"lr": search.schedule.lr, **names, "dice": {}}
    if search.left_out:
        for number, rate in enumerate(sorted(search.rates), 1):
            progress.stage(f"Learning rate {rate:g} ({number} of {len(search.rates)}), without {names['left_out']}")
            choice["dice"][str(rate)] = _try(search, rate, out, device=device, workers=workers, progress=progress)
            search = replace(search, time_plan=None)  # said once
        choice["lr"] = best_rate(choice["dice"])
    progress.stage(lr_choice_text(choice))
    write_json(file, choice)
    return choice


def best_rate(dice: Mapping[str, float | None]) -> float:
    """The rate with the highest Dice, the smaller one of two that tie; None counts as no result.

    Raises:
        Diverged: There is no result.
    """
    found = {float(rate): value for rate, value in dice.items() if value is not None}
    if not found:
        raise Diverged(
            f"Learning rates {', '.join(dice)}: with each of them the loss became no number. "
            "Give a smaller --lr, or check the images' intensities."
        )
    return min(found, key=lambda rate: (-found[rate], rate))


def lr_choice_text(choice: Mapping[str, Any]) -> str:
    """The choice in a line."""
    if not choice["left_out"]:
        return f"Learning rate {choice['lr']:g}: one shot leaves nothing to choose by, so the recipe's is taken"
    figures = ", ".join(
        f"{rate}: {'diverged' if value is None else format(value, '.3f')}" for rate, value in choice["dice"].items()
    )
    shots = len(choice["left_out"]) + len(choice["trained_on"])
    return (
        f"Learning rate {choice['lr']:g}, chosen by Dice on {len(choice['left_out'])} of the {shots} shots ({figures})"
    )


def _try(
    search: LrSearch, rate: float, out: Path, *, device: str, workers: int | None, progress: Progress
) -> float | None:
    """Mean Dice on the shots left out of what a rate trains; None where the loss became no number."""
    folder = out / TRIED / str(rate)
    file = folder.with_name(f"{rate}.json")
    if not file.is_file():
        try:
            job = TrainingJob(
                start=search.start,
                method=search.method,
                cases=search.trained_on,
                schedule=replace(search.schedule, lr=rate),
                out=folder,
                device=device,
                workers=workers,
                time_plan=search.whole_plan(rate),
            )
            train_model(job, progress)
            write_json(file, {"dice": _dice(search, folder, device, progress)})
        except Diverged as error:
            progress.stage(str(error))
            write_json(file, {"dice": None})
        shutil.rmtree(folder, ignore_errors=True)
    found: float | None = read_json(file)["dice"]
    return found


def _dice(search: LrSearch, folder: Path, device: str, progress: Progress) -> float:
    """Mean over cases of the mean over labels; 1 for a case where neither mask holds any, which is as it should be."""
    model, masks = read_model(folder / "model"), folder / "predictions"
    options = PredictOptions(device=device, mirroring=search.mirroring, flags=False)
    files = predict_masks(model, "model", search.left_out, masks, options=options, progress=progress)
    scores = score_masks(
        search.left_out, files, search.labels, model, scoring=Scoring(surfaces=False), absence=search.absence
    ).cases
    return statistics.fmean(1.0 if math.isnan(case.mean_dice) else case.mean_dice for case in scores)
