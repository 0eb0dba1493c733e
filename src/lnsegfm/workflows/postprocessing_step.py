"""A run's postprocessing: chosen on predictions of scans that did not train the model, stored with it, and reported.

On the held-out scans the figures are cross-fitted: each patient's are those of rules that the other patients chose. On
the shots the rules come from further trainings that each leave patients out and predict them
(`lnsegfm.workflows.left_out_members`), and the held-out scans play no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.dataset import Case
from lnsegfm.evaluation.judged_masks import JudgedLabels, doubtful_apart
from lnsegfm.evaluation.postprocessing import Postprocessing
from lnsegfm.evaluation.postprocessing_choice import (
    FEWEST,
    JudgedCase,
    PostprocessedScores,
    choose_postprocessing,
    gains_of_largest,
    score_postprocessing,
)
from lnsegfm.models.adapter_files import keep_postprocessing
from lnsegfm.models.model_folder import Model
from lnsegfm.models.postprocessing_files import listed_rules, write_postprocessing
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.recipe import PostprocessingMode
from lnsegfm.storage import read_json, write_json
from lnsegfm.training.schedule import Schedule
from lnsegfm.workflows.finetune_plan import FinetunePlan
from lnsegfm.workflows.left_out_members import Member, MemberTraining, members, predict_left_out
from lnsegfm.workflows.training_run import RunContext

CHOICE = "postprocessing_choice.json"
LEFT_OUT = "work/left_out"


@dataclass(frozen=True)
class RunPostprocessing:
    """What a run decided, and what it is worth.

    Args:
        mode: What it was chosen on.
        chosen: The rules.
        lines: Each in words.
        scores: Dice before and after on the held-out scans; None where none was judged.
        cases: How many scans it was chosen on.
        reason: Why nothing was chosen by; empty where there was enough.
        largest: Mean Dice of each label on the held-out scans before and after its largest component alone is kept,
            and the number of scans; of labels whose largest component is no rule.
    """

    mode: PostprocessingMode
    chosen: Postprocessing = Postprocessing()  # noqa: RUF009 - frozen
    lines: tuple[str, ...] = ()
    scores: PostprocessedScores | None = None
    cases: int = 0
    reason: str = ""
    largest: Mapping[str, tuple[float, float, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What ``run.json`` keeps, and ``postprocessing.json`` less the rules."""
        means = self.scores.means() if self.scores is not None else {}
        return {
            "chosen_on": self.mode.value,
            "scans": self.cases,
            "rules": self.chosen.to_json(),
            "lines": list(self.lines),
            "crossfitted": self.scores is not None and self.scores.crossfitted,
            "dice": {name: {"before": a, "after": b, "cases": n} for name, (a, b, n) in means.items()},
            "largest": {name: {"before": a, "after": b, "cases": n} for name, (a, b, n) in self.largest.items()},
            "reason": self.reason,
        }

    def facts(self) -> Iterator[tuple[str, str]]:
        """The lines of a report."""
        if self.mode is PostprocessingMode.NONE:
            return
        on = f"{'held-out scans' if self.mode is PostprocessingMode.HELD_OUT else 'shots'}"
        none = f"none: {self.reason}" if self.reason else f"none: no rule helps on the {self.cases} {on}"
        yield "Postprocessing", f"{'; '.join(self.lines)} (chosen on {self.cases} {on})" if self.lines else none
        if self.scores is None or not self.chosen:
            return
        how = ", each patient under rules that the others chose" if self.scores.crossfitted else ""
        for name, (before, after, cases) in self.scores.means().items():
            yield f"Postprocessing, {name}", f"Dice {before:.3f} before, {after:.3f} after ({cases} held out{how})"


def postprocess_run(
    plan: FinetunePlan, model: Model, schedule: Schedule, context: RunContext, options: PredictOptions
) -> RunPostprocessing:
    """Choose the postprocessing of a run's model, and store it in its folder and its adapter.

    Args:
        plan: The run.
        model: Its model.
        schedule: Of its training.
        context: Where; the held-out scans are predicted already.
        options: How they were predicted: without postprocessing.

    Raises:
        DataError: A mask that cannot be read.
        Interrupted: Asked to stop; the state is saved.
    """
    judged = JudgedLabels(model.mask_labels, plan.data.labels)
    held_out = _without_doubtful(
        _judged(judged, plan, plan.held_out, model, context.out / "predictions" / "adapted"), judged, plan
    )
    decided = _decided(plan, model, judged, held_out, schedule, context, options)
    decided = replace(decided, largest=gains_of_largest(held_out, judged.labels, decided.chosen))
    if decided.mode is PostprocessingMode.NONE:
        return decided
    figures = {key: value for key, value in decided.to_json().items() if key not in ("rules", "reason", "largest")}
    write_postprocessing(context.model, decided.chosen, figures)
    keep_postprocessing(context.out, decided.chosen)
    for what, text in decided.facts():
        context.progress.stage(f"{what}: {text}")
    return decided


def _decided(
    plan: FinetunePlan,
    model: Model,
    judged: JudgedLabels,
    held_out: Sequence[JudgedCase],
    schedule: Schedule,
    context: RunContext,
    options: PredictOptions,
) -> RunPostprocessing:
    mode = plan.recipe.postprocessing or PostprocessingMode.HELD_OUT
    if mode is PostprocessingMode.NONE:
        return RunPostprocessing(mode)
    covered = model.labels.covered
    if mode is PostprocessingMode.HELD_OUT:
        choice = choose_postprocessing(held_out, judged.labels, crossfit=True)
        scores = choice.scores if held_out else None
        return RunPostprocessing(
            mode, choice.chosen, choice.chosen.lines(covered), scores, len(held_out), choice.reason
        )
    kept = _chosen_on_shots(plan, judged, schedule, context, options)
    rules = listed_rules(kept["rules"], context.out / CHOICE)
    scores = score_postprocessing(held_out, judged.labels, rules) if held_out else None
    return RunPostprocessing(mode, rules, rules.lines(covered), scores, kept["scans"], kept["reason"])


def _without_doubtful(cases: Sequence[JudgedCase], judged: JudgedLabels, plan: FinetunePlan) -> tuple[JudgedCase, ...]:
    return doubtful_apart(cases, judged.labels, plan.absence)


def _judged(
    judged: JudgedLabels, plan: FinetunePlan, cases: Sequence[Case], model: Model, folder: Path
) -> list[JudgedCase]:
    masks, subjects = model.mask_files(folder, (case.name for case in cases)), plan.data.subjects
    return [
        judged.case(
            case.name, masks[case.name], case.label, subject=subjects.get(case.name, ""), unlabelled=case.unlabelled
        )
        for case in cases
        if case.label is not None
    ]


def _chosen_on_shots(
    plan: FinetunePlan, judged: JudgedLabels, schedule: Schedule, context: RunContext, options: PredictOptions
) -> Mapping[str, Any]:
    """Rules chosen on predictions of shots by members that left them out; kept, so that they are trained once."""
    file = context.out / CHOICE
    if file.is_file():
        found: dict[str, Any] = read_json(file)
        return found
    training = MemberTraining(
        start=plan.start,
        method=plan.method,
        schedule=schedule,
        before=plan.before,
        scan_hashes=plan.scan_hashes,
        subjects=plan.data.subjects,
        folder=context.out / LEFT_OUT,
    )
    cases: list[JudgedCase] = []
    for one in predict_left_out(members_on_shots(plan), training, context, options, "Postprocessing"):
        cases += _judged(judged, plan, one.member.left_out, one.model, one.masks)
    choice = choose_postprocessing(_without_doubtful(cases, judged, plan), judged.labels)
    kept = {"rules": choice.chosen.to_json(), "scans": len(cases), "reason": choice.reason}
    write_json(file, kept)
    return kept


def members_on_shots(plan: FinetunePlan) -> tuple[Member, ...]:
    """The further trainings of a run whose postprocessing is chosen on its shots; none where nothing can be chosen."""
    if plan.recipe.postprocessing is not PostprocessingMode.SHOTS:
        return ()
    some = members(plan.shots, plan.data.subjects)
    return some if len(some) >= FEWEST else ()
