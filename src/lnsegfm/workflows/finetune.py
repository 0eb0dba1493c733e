"""Fine-tuning: from labelled scans to an adapted model, and the evidence of whether it helped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lnsegfm.expected_time import TimePlan
from lnsegfm.models.adapter_files import holds_adapter
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.models.model_layout import CHECKPOINT, member_folder
from lnsegfm.nnunet.environment import choose_device
from lnsegfm.notebook import HtmlTable, notebook_html
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.progress import Progress, Silent
from lnsegfm.recipe import AUTO, PostprocessingMode
from lnsegfm.report.comparison import SMALLEST_DIFFERENCE, require_difference
from lnsegfm.report.notebook_tables import means_table
from lnsegfm.report.run_report import next_steps, write_run_report
from lnsegfm.storage import sha256, write_json
from lnsegfm.training.precision import require_precision
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.training_job import FACTORS
from lnsegfm.weights.adapter import Adapter, size_of
from lnsegfm.weights.checkpoint import Checkpoint
from lnsegfm.weights.factors import read_factors
from lnsegfm.weights.state import aliases, raw
from lnsegfm.workflows.finetune_plan import FinetunePlan
from lnsegfm.workflows.held_out_comparison import HeldOutComparison, base_predicts, compare_held_out
from lnsegfm.workflows.lr_search import LrSearch, choose_lr
from lnsegfm.workflows.member_trainings import train_members
from lnsegfm.workflows.postprocessing_step import RunPostprocessing, members_on_shots, postprocess_run
from lnsegfm.workflows.run_record import finetune_record, versions
from lnsegfm.workflows.run_time import PredictionWork
from lnsegfm.workflows.training_run import ChosenSchedule, RunContext, TrainingRun


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Its folder.
        model: The adapted model's folder, which stock nnU-Net loads.
        record: What ``run.json`` holds.
        evidence: Base against adapted on cases that were not trained on.
    """

    folder: Path
    model: Path
    record: Mapping[str, Any] = field(repr=False)
    evidence: HeldOutComparison = field(repr=False)

    def _repr_html_(self) -> str:
        training, compared = self.record["training"], self.evidence.comparison
        facts = {
            "method": self.record["recipe"]["method"],
            "shots": len(self.record["shots"]),
            "iterations": training["iterations"],
            "model": self.model,
            "report": self.folder / "report.html",
        }
        tables = [HtmlTable.of_facts(facts)]
        if compared is not None:
            tables.insert(0, means_table(compared))
        return notebook_html(f"Run {self.folder.name}: {self.evidence.verdict}", tables)


def finetune(
    planned: FinetunePlan,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    smallest_difference: float = SMALLEST_DIFFERENCE,
) -> Run:
    """Adapt a model; the same call continues a run that was stopped.

    Args:
        planned: What to do.
        out: The run's folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        workers: Processes that make batches; None takes none on a CPU and a few beside a GPU.
        progress: Where progress is reported.
        smallest_difference: A smaller difference of the mean Dice is too small to matter: of the report, not the run.

    Raises:
        RunMismatch: ``out`` holds another run.
        ConfigError: A smallest difference that is none; the method does not train what it declares
            (`lnsegfm.methods.sanity_check`), or the loss is not finite.
        Interrupted: Asked to stop (`Progress.stoppable`); the state is saved. So it is on a `KeyboardInterrupt`.
    """
    progress = progress or Silent()
    require_difference(smallest_difference)
    chosen = choose_device(device)
    require_precision(planned.recipe.precision, chosen)
    context = RunContext(out=out, device=chosen, workers=workers, progress=progress, asked_device=device)
    record, result = FinetuneRun(planned, context, smallest_difference).run()
    return Run(out, context.model, record, result.comparison)


@dataclass(frozen=True)
class FinetuneResult:
    """What is known of an adapted model.

    Args:
        adapter: Bytes and entries of its adapter.
        comparison: Base against adapted.
        further: What ``run.json`` keeps of each further fold.
        postprocessing: The model's, and what it is worth.
    """

    adapter: Mapping[str, int]
    comparison: HeldOutComparison
    further: tuple[Mapping[str, Any], ...] = ()
    postprocessing: RunPostprocessing = RunPostprocessing(PostprocessingMode.NONE)  # noqa: RUF009 - frozen


class FinetuneRun(TrainingRun[FinetunePlan, FinetuneResult]):
    """A fine-tuning by its steps: the learning rate, training, the adapter, the held-out comparison, the report."""

    def __init__(self, plan: FinetunePlan, context: RunContext, smallest_difference: float) -> None:
        super().__init__(plan, context)
        self.smallest_difference = smallest_difference

    def schedule(self) -> ChosenSchedule:
        """The schedule of the recipe, with the learning rate chosen on the shots where it is ``auto``."""
        plan, recipe = self.plan, self.plan.recipe
        split = plan.split
        write_json(self.context.out / "splits.json", {"shots": split.shots, "held_out": split.held_out})
        schedule = Schedule(
            lr=recipe.rate,
            iterations=recipe.iterations,
            seed=recipe.seed,
            warm_up=recipe.warm_up,
            time_limit_s=recipe.time_limit_s,
            early_stop=recipe.early_stop,
            precision=recipe.precision,
        )
        if recipe.lr != AUTO or not plan.method.learns:
            return ChosenSchedule(schedule)
        choice = self._choose_lr(schedule)
        return ChosenSchedule(replace(schedule, lr=choice["lr"]), choice)

    def _choose_lr(self, schedule: Schedule) -> Mapping[str, Any]:
        plan, context = self.plan, self.context
        search = LrSearch(
            start=plan.start,
            method=plan.method,
            cases=plan.shots,
            labels=plan.data.labels,
            absence=plan.absence,
            schedule=schedule,
            rates=plan.recipe.lr_grid or (),
            mirroring=plan.recipe.mirroring,
            time_plan=self.time_plan,
        )
        return choose_lr(search, context.out, device=context.device, workers=context.workers, progress=context.progress)

    @property
    def time_plan(self) -> TimePlan:
        """Training, its further folds, the trainings of a postprocessing chosen on the shots, and the comparison."""
        plan = self.plan
        return TimePlan(
            further=(plan.recipe.iterations,) * (len(plan.further) + len(members_on_shots(plan))),
            predictions=self.predictions_ahead,
            fewer_steps=("fewer --iterations", "--time-limit SECONDS"),
            fewer_scans=("--held-out N",) if len(plan.held_out) > 1 else (),
        )

    def prediction_work(self) -> PredictionWork | None:
        """The held-out scans, by both models where the base knows a label, and the shots that members leave out."""
        plan = self.plan
        left_out = len(plan.shots) if members_on_shots(plan) else 0
        if not plan.held_out:
            shots = PredictionWork(
                start=plan.start, cases=plan.shots, mirroring=plan.recipe.mirroring, noun="shot left out"
            )
            return shots if left_out else None
        base = base_predicts(plan.base, len(plan.data.channels), plan.data.labels)
        return PredictionWork(
            start=plan.start,
            cases=plan.held_out,
            models=1 + base,
            networks=1 + len(plan.further) + base * len(plan.base.folds),
            mirroring=plan.recipe.mirroring,
            more=left_out,
            folders=[
                self.context.out / "predictions" / name for name in (("adapted", "base") if base else ("adapted",))
            ],
        )

    @property
    def asked(self) -> dict[str, Any]:
        """The smallest difference that matters, too."""
        smallest = self.smallest_difference
        return super().asked | ({"smallest_difference": smallest} if smallest != SMALLEST_DIFFERENCE else {})

    def train_further(self, chosen: ChosenSchedule) -> None:
        """Train the further folds of the base, where all are to be adapted."""
        plan = self.plan
        self._histories = train_members(plan.further, plan.method, plan.shots, chosen.schedule, self.context)

    def base_domain(self) -> dict[str, Any]:
        """The base's training domain comes after this training's."""
        return {"base": self.plan.base, "renamed": self.plan.recipe.label_names}

    def evaluate(self, chosen: ChosenSchedule) -> FinetuneResult:
        """Write the adapter, compare base and adapted model on held-out and source data, choose the postprocessing."""
        plan, context = self.plan, self.context
        adapted = read_model(context.model)
        options = PredictOptions(device=context.device, mirroring=plan.recipe.mirroring, postprocessing=False)
        adapter = _write_adapter(plan, adapted, 0, context.out)
        further = tuple(self._member(adapted, number) for number in range(1, 1 + len(plan.further)))
        comparison = compare_held_out(
            plan.held_out,
            plan.data,
            plan.base,
            adapted,
            context.out,
            source_data=plan.source_data,
            options=options,
            progress=self.timed_progress,
            absence=plan.absence,
        )
        cleaned = postprocess_run(plan, adapted, chosen.schedule, context, options)
        judged = comparison.with_smallest_difference(self.smallest_difference)
        return FinetuneResult(adapter, judged, further, cleaned)

    def _member(self, adapted: Model, number: int) -> dict[str, Any]:
        """Write a further fold's adapter, and give what ``run.json`` keeps of the fold."""
        place, history = member_folder(self.context.out, number), self._histories[number - 1]
        record = {
            "fold": number,
            "base_sha256": self.plan.base.folds[number].weights_sha256,
            "model": {"sha256": sha256(self.context.model / f"fold_{number}" / CHECKPOINT)},
            "seed": self.plan.recipe.seed + number,
            "training": {key: value for key, value in history.items() if key != "losses"},
            "adapter": _write_adapter(self.plan, adapted, number, place),
        }
        shutil.rmtree(place / "work", ignore_errors=True)
        return record

    def record(self, chosen: ChosenSchedule, history: Mapping[str, Any], result: FinetuneResult) -> dict[str, Any]:
        """The content of ``run.json``; the report is drawn from it."""
        record = finetune_record(
            self.context.out,
            self.common_record(history),
            history,
            result.adapter,
            result.comparison,
            lr=chosen.schedule.lr,
            lr_choice=chosen.lr_choice,
            further=result.further,
        )
        record |= {
            "postprocessing": result.postprocessing.to_json(),
            "facts": record["facts"] | dict(result.postprocessing.facts()),
        }
        record |= next_steps(record, result.comparison.comparison, self.context.out)
        self.context.progress.stage("Drawing the report")
        write_run_report(self.context.out, record, self.context.progress)
        return record


def _write_adapter(planned: FinetunePlan, adapted: Model, number: int, out: Path) -> dict[str, int]:
    """Write the adapter of a fold; an existing one stays, because the factors of its weights may be gone."""
    base, fold = planned.base.folds[number], adapted.folds[number]
    entries = _moved_entries((planned.start, *planned.further)[number], fold)
    if holds_adapter(out, base, fold):
        return {"bytes": size_of(out), "entries": entries}
    terms = {key: value for key, value in planned.base_terms().items() if key != "folder"}
    card = {
        "method": planned.recipe.method,
        "settings": planned.method.settings(),
        "base": {**terms, "sha256": base.weights_sha256},
        "configuration": adapted.configuration,
        "trainer_name": adapted.first.trainer_name,
        "mirroring_axes": adapted.first.mirroring_axes,
        "plans": adapted.plans,
        "dataset_json": adapted.dataset_json,
        "versions": versions(),
    }
    file = out / FACTORS
    factors = read_factors(file) if file.is_file() else {}
    adapter = Adapter.between(base.weights, fold.weights, card, factors)
    return {"bytes": adapter.save(out), "entries": entries}


def _moved_entries(start: Checkpoint, adapted: Checkpoint) -> int:
    """Entries in which a fold differs from what training started from, each tensor counted once, new ones whole."""
    before, after = start.weights, adapted.weights
    names = sorted(set(aliases(after).values()))
    return sum(
        int((raw(before[name]) != raw(after[name])).any(dim=1).sum()) if name in before else after[name].numel()
        for name in names
    )
