"""Pretraining: a base model from labelled scans, evaluated on the scans held out."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, LnSegFmError
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.expected_time import TimePlan
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.environment import choose_device
from lnsegfm.notebook import HtmlTable, notebook_html
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.progress import Progress, Silent
from lnsegfm.report.run_command import pretrain_command
from lnsegfm.training.distributed import require_processes
from lnsegfm.training.launched import LaunchedProcess, others_waiting
from lnsegfm.training.preprocessed_folder import NnunetFolder
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_process import preparing_processes
from lnsegfm.weights.state import aliases
from lnsegfm.workflows.held_out_comparison import predict_masks, score_masks
from lnsegfm.workflows.pretrain_plan import PretrainPlan, PretrainSettings, plan_pretrain
from lnsegfm.workflows.run_folder import require_claimable
from lnsegfm.workflows.run_time import PredictionWork
from lnsegfm.workflows.scan_preparation import claim_prepared, folder_for_nnunet, readings_folder
from lnsegfm.workflows.training_run import ChosenSchedule, RunContext, TrainingRun

KEPT_AFTER_S = 60.0
"""What took so long to read is kept also where the request is refused: when that is put right, it is not read again."""


@dataclass(frozen=True)
class PretrainRun:
    """A trained base model.

    Args:
        folder: The run's folder.
        model: The model's folder, which stock nnU-Net loads.
        record: What ``run.json`` holds.
        evaluation: On the held-out scans; None where none was held out.
    """

    folder: Path
    model: Path
    record: Mapping[str, Any] = field(repr=False)
    evaluation: Evaluation | None = field(repr=False)

    def _repr_html_(self) -> str:
        facts = {
            "parameters": f"{self.record['parameters']:,}",
            "iterations": self.record["training"]["iterations"],
            "model": self.model,
        }
        shown = self.evaluation._repr_html_() if self.evaluation is not None else ""
        return notebook_html(f"Base model {self.folder.name}", [HtmlTable.of_facts(facts)]) + shown


@dataclass(frozen=True)
class Afterwards:
    """Work on scans of the same size that the caller does with a base as soon as it is trained.

    Args:
        iterations: Training steps of an adaptation.
        scans: Predictions, each model's counted.
        shorter: Options that make all of it shorter.
    """

    iterations: int
    scans: int
    shorter: tuple[str, ...] = ()


def pretrain(
    data: Path,
    out: Path,
    training: PretrainSettings,
    *,
    labels: LabelMap | None = None,
    allow_empty: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    then: Afterwards | None = None,
    write_preprocessed: Path | None = None,
) -> PretrainRun:
    """Train a base model; the same call continues one that was stopped.

    Args:
        data: Labelled scans: an nnU-Net raw dataset, or a folder with ``images/`` and ``labels/``.
        out: The run's folder.
        training: The settings.
        labels: What the masks' numbers mean, where the data do not say it themselves.
        allow_empty: Keep scans whose label is empty: they hold nothing.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches, none on a CPU and a few beside a GPU unless given, and at most so many
            that read and prepare scans, a core each unless given.
        progress: Where progress is reported.
        then: Work that comes after it, which the time that is said counts as well.
        write_preprocessed: A folder such as ``nnUNet_preprocessed``, to which the scans are written for nnU-Net too.

    Raises:
        DataError: Cases that cannot be used; all of them are listed.
        ModelError: A plans file that cannot be used.
        RunMismatch: ``out`` holds another run.
        ProcessLost: One of the processes that torchrun or srun started is gone; the same call continues.
        Interrupted: Asked to stop (`Progress.stoppable`); the state is saved. So it is on a `KeyboardInterrupt`.
    """
    launched = LaunchedProcess.of_environment()
    if launched is not None:
        training = _of_all(training, launched)
    with others_waiting(launched):
        return _pretrain(
            data,
            out,
            training,
            labels=labels,
            allow_empty=allow_empty,
            device=device,
            workers=workers,
            progress=progress or Silent(),
            then=then,
            write_preprocessed=write_preprocessed,
            here=None if launched is None else launched.local_processes,
        )


def _of_all(training: PretrainSettings, launched: LaunchedProcess) -> PretrainSettings:
    """The settings with the processes that torchrun or srun started, which are waited for.

    Raises:
        ConfigError: Another number was asked for, or this is not the first of them.
    """
    if training.gpus not in (1, launched.processes):
        raise ConfigError(
            f"--gpus {training.gpus}: {launched.processes} processes were started. Leave --gpus out; all of them train."
        )
    if launched.rank:
        raise ConfigError(
            f"Process {launched.rank} of {launched.processes}: in Python the first one alone trains a base. "
            "Start them with torchrun -m lnsegfm pretrain."
        )
    _ = launched.store
    return training.with_fields(gpus=launched.processes)


def _pretrain(
    data: Path,
    out: Path,
    training: PretrainSettings,
    *,
    labels: LabelMap | None,
    allow_empty: bool,
    device: str,
    workers: int | None,
    progress: Progress,
    then: Afterwards | None,
    write_preprocessed: Path | None,
    here: int | None,
) -> PretrainRun:
    asked_device, device = device, choose_device(device)
    readings = readings_folder(out)
    with _kept_for_going_on(readings):
        planned = plan_pretrain(
            data,
            training,
            out.with_name(f".{out.name}-plans"),
            labels=labels,
            allow_empty=allow_empty,
            progress=progress,
            readings=readings,
            processes=preparing_processes(workers),
        )
        require_processes(training.gpus, planned.sizes["batch_size"], device, here=here)
        claim_prepared(out, planned)
        require_claimable(out, planned.to_json())
    start, also, ready = planned.start, folder_for_nnunet(write_preprocessed, planned), None
    if training.preprocessed is not None:
        ready = NnunetFolder.of(training.preprocessed, start.plans, start.configuration)
    context = RunContext(
        out=out,
        device=device,
        workers=workers,
        progress=progress,
        processes=training.gpus,
        on_disk=True,
        stored=training.prepared,
        ready=ready,
        also=also,
        asked_device=asked_device,
    )
    record, evaluation = BaseTrainingRun(planned, context, then).run()
    shutil.rmtree(readings, ignore_errors=True)
    return PretrainRun(out, context.model, record, evaluation)


@contextmanager
def _kept_for_going_on(readings: Path) -> Iterator[None]:
    """Remove what was found in the scans where the request is refused, unless it took long to read them."""
    start, there = time.monotonic(), readings.is_dir()
    try:
        yield
    except LnSegFmError:
        if not there and time.monotonic() - start < KEPT_AFTER_S:
            shutil.rmtree(readings, ignore_errors=True)
        raise


class BaseTrainingRun(TrainingRun[PretrainPlan, Evaluation | None]):
    """A pretraining by its steps: training and the evaluation of what was held out."""

    def __init__(self, plan: PretrainPlan, context: RunContext, then: Afterwards | None = None) -> None:
        super().__init__(plan, context)
        self.then = then

    def schedule(self) -> ChosenSchedule:
        """The schedule of the settings."""
        plan = self.plan
        settings = plan.settings
        return ChosenSchedule(
            Schedule(lr=plan.lr, iterations=plan.iterations, seed=settings.seed, time_limit_s=settings.time_limit_s)
        )

    def base_domain(self) -> dict[str, Any]:
        """What was measured of the scans as they were read for the plans."""
        return {"looks": self.plan.looks}

    @property
    def asked(self) -> dict[str, Any]:
        """All settings that were given."""
        return super().asked | self.plan.settings.said()

    @property
    def time_plan(self) -> TimePlan:
        """Training, what comes after it, and the predictions of the held-out scans."""
        settings, then = self.plan.settings, self.then
        smaller = ("--preset tiny",) if settings.plans is None and settings.preset != "tiny" else ()
        return TimePlan(
            further=(then.iterations,) if then is not None else (),
            predictions=self.predictions_ahead,
            fewer_steps=("fewer --iterations", "--time-limit SECONDS", *smaller) if then is None else then.shorter,
            fewer_scans=("--held-out N",) if len(self.plan.held_out) > 1 and then is None else (),
        )

    def prediction_work(self) -> PredictionWork | None:
        """The held-out scans, and what else is predicted afterwards."""
        plan = self.plan
        if not plan.held_out:
            return None
        more = self.then.scans if self.then is not None else 0
        return PredictionWork(
            start=plan.start,
            cases=plan.held_out,
            mirroring=plan.settings.mirroring,
            folders=[self.context.out / "predictions"],
            more=more,
        )

    def evaluate(self, chosen: ChosenSchedule) -> Evaluation | None:  # noqa: ARG002 - nothing of it is trained again
        """Predict and score the held-out cases; None where none was held out."""
        plan, context = self.plan, self.context
        if not plan.held_out:
            return None
        base = read_model(context.model)
        masks = predict_masks(
            base,
            "base",
            plan.held_out,
            context.out / "predictions",
            options=PredictOptions(device=context.device, mirroring=plan.settings.mirroring, postprocessing=False),
            progress=self.timed_progress,
        )
        return score_masks(
            plan.held_out, masks, plan.data.labels, base, subjects=plan.data.subjects, absence=plan.absence
        )

    def record(
        self,
        chosen: ChosenSchedule,  # noqa: ARG002 - the settings hold it already
        history: Mapping[str, Any],
        result: Evaluation | None,
    ) -> dict[str, Any]:
        """The content of ``run.json``."""
        start = self.plan.start
        common = self.common_record(history)
        return {
            **common,
            "command": pretrain_command(common, str(self.context.out)),
            **self.plan.sizes,
            "network": start.plans["configurations"][start.configuration]["architecture"],
            "parameters": sum(start.weights[name].numel() for name in set(aliases(start.weights).values())),
            "training": {key: value for key, value in history.items() if key != "losses"},
            "result": result.to_json(self.context.out) if result else None,
        }
