"""The steps of a run that trains a model, the same for fine-tuning and pretraining.

A folder is claimed, the model is trained, its training domain measured, the held-out cases are predicted, and
``run.json``, which comes last, says that the run is finished. The same call continues a run that was stopped: every
step keeps what an earlier call completed.
"""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.datasets.shots import Split
from lnsegfm.evaluation.doubtful_references import KnownAbsence
from lnsegfm.expected_time import Clock, PredictionsAhead, TimePlan
from lnsegfm.methods.method import Method
from lnsegfm.models.model_folder import CHECKPOINT
from lnsegfm.models.plans import in_image_order
from lnsegfm.models.training_domain import write_training_domain
from lnsegfm.nnunet.plan_axes import axes_of_plans
from lnsegfm.progress import Progress
from lnsegfm.report.asked_options import AskedOptions
from lnsegfm.storage import sha256, write_json
from lnsegfm.training.prepared_files import EXACT
from lnsegfm.training.preprocessed_folder import NnunetFolder
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_model import train_model
from lnsegfm.training.training_job import TrainingJob
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.workflows.run_folder import claim
from lnsegfm.workflows.run_record import versions
from lnsegfm.workflows.run_time import PredictionWork, timed_predictions

Plan = TypeVar("Plan", bound="TrainingPlan")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(ABC):
    """What a run is about to do; made before anything is written.

    Args:
        method: What is trained.
        data: The labelled scans.
        split: Which of them are trained on and which are held out.
        start: Plans, description and network weights that training starts from.
        identity: Hash of all that the result depends on.
        absence: What is known of labels that references lack.
        asked: What was asked for besides.
    """

    method: Method
    data: Dataset
    split: Split
    start: Checkpoint
    identity: str
    absence: KnownAbsence = KnownAbsence()  # noqa: RUF009 - frozen
    asked: AskedOptions = AskedOptions()  # noqa: RUF009 - frozen

    @property
    def shots(self) -> list[Case]:
        """The cases to train on, in the order in which they were drawn."""
        return self._cases(self.split.shots)

    @property
    def held_out(self) -> list[Case]:
        """The cases that are not trained on."""
        return self._cases(self.split.held_out)

    @property
    def sizes(self) -> dict[str, Any]:
        """Spacing, patch size (z, y, x) and batch size of the network."""
        configuration = self.start.plans["configurations"][self.start.configuration]
        return {
            "spacing_mm": in_image_order(self.start.plans, configuration["spacing"]),
            "patch_size": in_image_order(self.start.plans, configuration["patch_size"]),
            "batch_size": configuration["batch_size"],
        }

    @property
    def axes(self) -> str | None:
        """The axis code to which the scans are turned before they are trained on."""
        return axes_of_plans(self.start.plans)[0]

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The resolved recipe with its ``identity``, as ``recipe.json`` keeps it."""

    def _cases(self, names: tuple[str, ...]) -> list[Case]:
        by_name = {case.name: case for case in self.data.cases}
        return [by_name[name] for name in names]


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Where a run writes and computes.

    Args:
        out: The run's folder.
        device: ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; None takes none on a CPU and a few beside a GPU.
        processes: Processes that train together, a GPU each.
        on_disk: Keep the prepared scans in files, not in memory.
        stored: How those files keep intensities (`lnsegfm.training.prepared_files`).
        ready: Scans that nnU-Net preprocessed, in place of preparing any.
        also: Where prepared scans are written for nnU-Net as well.
        progress: Where progress is reported.
        clock: Seconds of a clock that never goes back.
        asked_device: What was asked for; ``device`` is what it came to.
    """

    out: Path
    device: str
    workers: int | None
    progress: Progress
    processes: int = 1
    on_disk: bool = False
    stored: str = EXACT
    ready: NnunetFolder | None = None
    also: NnunetFolder | None = None
    clock: Clock = time.monotonic
    asked_device: str = "auto"

    @property
    def model(self) -> Path:
        """The trained model's folder."""
        return self.out / "model"


@dataclass(frozen=True)
class ChosenSchedule:
    """The schedule of a run, and how its learning rate was chosen.

    Args:
        schedule: How long and how fast to train.
        lr_choice: The figures of the choice (`lnsegfm.workflows.lr_search`); None where the rate was given.
    """

    schedule: Schedule
    lr_choice: Mapping[str, Any] | None = None


class TrainingRun(ABC, Generic[Plan, Result]):
    """A run by its steps; kinds of training differ in the schedule, in the evaluation and in the record.

    Args:
        plan: What to do.
        context: Where.
    """

    def __init__(self, plan: Plan, context: RunContext) -> None:
        self.plan, self.context = plan, context

    def run(self) -> tuple[dict[str, Any], Result]:
        """Take all steps; gives the content of ``run.json`` and the result of the evaluation.

        Raises:
            RunMismatch: The folder holds another run.
            ConfigError: The method does not train what it declares, or the loss is not finite.
            Interrupted: Asked to stop; the state is saved.
        """
        plan, context = self.plan, self.context
        claim(context.out, plan.to_json())
        chosen = self.schedule()
        job = TrainingJob(
            start=plan.start,
            method=plan.method,
            cases=plan.shots,
            schedule=chosen.schedule,
            out=context.out,
            device=context.device,
            workers=context.workers,
            on_disk=context.on_disk,
            stored=context.stored,
            ready=context.ready,
            also=context.also,
            time_plan=self.time_plan,
            clock=context.clock,
        )
        history = train_model(job, context.progress, processes=context.processes)
        self.train_further(chosen)
        write_training_domain(
            plan.start,
            plan.shots if plan.method.learns else [],
            plan.data.labels,
            context.model,
            context.progress,
            **self.base_domain(),
        )
        result = self.evaluate(chosen)
        record = self.record(chosen, history, result)
        write_json(context.out / "run.json", record)
        shutil.rmtree(context.out / "work", ignore_errors=True)
        return record, result

    @cached_property
    def predictions_ahead(self) -> PredictionsAhead | None:
        """About how long the predictions after the training take; None where it is over, or that is not known."""
        work, context = self.prediction_work(), self.context
        if work is None or not self.plan.method.learns or (context.model / "fold_0" / CHECKPOINT).is_file():
            return None
        return work.measured(context.device, context.clock)

    @property
    def time_plan(self) -> TimePlan:
        """What is known of the time of training and predictions; without what would make it shorter by default."""
        return TimePlan(predictions=self.predictions_ahead)

    @property
    def timed_progress(self) -> Progress:
        """Where the predictions are reported: what was said of their time is corrected where it was wrong."""
        told = self.__dict__.get("predictions_ahead")
        context = self.context
        return timed_predictions(context.progress, self.prediction_work(), told, context.device, context.clock)

    def prediction_work(self) -> PredictionWork | None:
        """The predictions that come after the training; none by default."""
        return None

    @abstractmethod
    def schedule(self) -> ChosenSchedule:
        """How long and how fast to train."""

    def train_further(self, chosen: ChosenSchedule) -> None:
        """Train what comes after the model's first fold; nothing by default.

        Args:
            chosen: The schedule of the first fold.
        """

    def base_domain(self) -> dict[str, Any]:
        """Whose training domain comes before this training's: arguments of `write_training_domain`; none by default."""
        return {}

    @abstractmethod
    def evaluate(self, chosen: ChosenSchedule) -> Result:
        """Predict the held-out cases with the trained model, and score them.

        Args:
            chosen: The schedule it was trained by.
        """

    @abstractmethod
    def record(self, chosen: ChosenSchedule, history: Mapping[str, Any], result: Result) -> dict[str, Any]:
        """The content of ``run.json``."""

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for besides the recipe, for the command line of the run."""
        context = self.context
        return replace(self.plan.asked, device=context.asked_device, workers=context.workers).to_json()

    def common_record(self, history: Mapping[str, Any]) -> dict[str, Any]:
        """What every ``run.json`` holds: the resolved recipe, versions, the model's hash and the losses."""
        return {
            **self.plan.to_json(),
            "asked": self.asked,
            "versions": versions(),
            "device": self.context.device,
            "model": {"sha256": sha256(self.context.model / "fold_0" / CHECKPOINT)},
            "losses": history["losses"],
        }
