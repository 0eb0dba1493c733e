"""One run of a study as a job: trained, predicted and scored by what ``lnsegfm finetune`` trains and scores with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.datasets.dataset import Case, Dataset
from lnsegfm.evaluation.case_scores import nan_to_none
from lnsegfm.evaluation.detection import counts
from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.tables import node_rows
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.nnunet.environment import choose_device
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.progress import Progress
from lnsegfm.recipe import Recipe
from lnsegfm.storage import read_json
from lnsegfm.study.study_content import open_for
from lnsegfm.study.study_runs import study_recipe
from lnsegfm.study.study_table import HELD_OUT, SOURCE
from lnsegfm.training.schedule import Schedule
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import FinetunePlan, plan
from lnsegfm.workflows.held_out_comparison import base_predicts, open_source_data, predict_masks, score_masks
from lnsegfm.workflows.lr_search import LrSearch, choose_lr
from lnsegfm.workflows.run_record import versions

if TYPE_CHECKING:
    from lnsegfm.jobs.attempt import Attempt

OPTIONS = "options.json"
"""Beside the jobs: the device and the workers of whoever does them, which no result depends on."""


def do_study_run(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> dict[str, Any]:
    """Train and score a method on some shots; the model goes, unless it is to be kept.

    Args:
        inputs: ``data`` (folders and names of scans), ``base``, ``recipe`` (`study_recipe`), ``keep_model``.
        attempt: Where; a training that was stopped goes on.
        progress: Where progress is reported.
    """
    progress.stage(f"Run {attempt.job.name}")
    planned, how = _planned(inputs, progress), _how(attempt)
    run = finetune(planned, attempt.files / "run", progress=progress, **how)
    model = read_model(run.model)
    record = run.record
    training, trainable = record["training"], record["trainable"]
    facts = {
        "lr": training["lr"],
        "lr_choice": (record["lr_choice"] or {}).get("dice"),
        "iterations": training["iterations"],
        "seconds": training.get("seconds"),
        "diverged": bool(training.get("divergence")),
        "trained_on": list(record["shots"]),
        "parameters": trainable["parameters"],
        "per_step": trainable["per_step"],
        "total": trainable["total"],
        "moved": record["adapter"]["entries"],
    }
    scored = _scored(inputs, planned, model, "adapted model", attempt.files, how["device"], progress)
    if inputs["keep_model"]:
        _keep_model_alone(attempt.files)
    else:
        _clear(attempt.files)
    return {"facts": {**facts, "device": how["device"], "versions": versions()}, **scored}


def do_base_run(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> dict[str, Any]:
    """Score the untouched base.

    Args:
        inputs: As of `do_study_run`.
        attempt: Where.
        progress: Where progress is reported.
    """
    planned, how = _planned(inputs, progress), _how(attempt)
    scored = _scored(inputs, planned, planned.base, "base", attempt.files, how["device"], progress)
    _clear(attempt.files)
    facts = {"device": how["device"], "versions": versions(), "known_source": list(scored["known_source"])}
    return {"facts": facts, **scored}


def do_rate_choice(inputs: Mapping[str, Any], attempt: Attempt, progress: Progress) -> dict[str, Any]:
    """Choose a learning rate on the shots of one draw.

    Args:
        inputs: As of `do_study_run`.
        attempt: Where; rates that were tried before a stop are not tried again.
        progress: Where progress is reported.
    """
    planned, how = _planned(inputs, progress), _how(attempt)
    recipe = planned.recipe
    search = LrSearch(
        start=planned.start,
        method=planned.method,
        cases=planned.shots,
        labels=planned.data.labels,
        schedule=Schedule(
            lr=recipe.rate,
            iterations=recipe.iterations,
            seed=recipe.seed,
            warm_up=recipe.warm_up,
            precision=recipe.precision,
        ),
        rates=recipe.lr_grid or (),
        mirroring=recipe.mirroring,
    )
    choice = choose_lr(search, attempt.files, progress=progress, **how)
    _clear(attempt.files)
    return {"lr": choice["lr"], "dice": choice["dice"]}


def _how(attempt: Attempt) -> dict[str, Any]:
    options = read_json(attempt.folder.place / OPTIONS)
    return {"device": choose_device(options["device"]), "workers": options["workers"]}


def _planned(inputs: Mapping[str, Any], progress: Progress) -> FinetunePlan:
    data = inputs["data"]
    recipe: Recipe = study_recipe(
        {key: tuple(value) if isinstance(value, list) else value for key, value in inputs["recipe"].items()}, "Study"
    )
    return plan(Path(data["folder"]), Path(inputs["base"]), recipe, progress=progress)


def _scored(
    inputs: Mapping[str, Any],
    planned: FinetunePlan,
    model: Model,
    name: str,
    files: Path,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    """Rows of the scores of a model on held-out and source scans, and of their nodes."""
    data, recipe = inputs["data"], planned.recipe
    options = PredictOptions(
        device=device, mirroring=recipe.mirroring, postprocessing=bool(recipe.postprocessing is None)
    )
    there = open_for(Path(data["held_out_data"] or data["folder"]), planned.base)
    parts = {HELD_OUT: recipe.label_choice.on(there).with_cases(data["held_out"])}
    known: tuple[str, ...] = ()
    if data["source_data"]:
        parts[SOURCE], hashes = open_source_data(Path(data["source_data"]), planned.base, progress)
        known = tuple(sorted(planned.base.trained_scans.among(hashes, parts[SOURCE].subjects).cases))
    scores: list[dict[str, Any]] = []
    nodes: list[list[Any]] = []
    for part, scans in parts.items():
        if not base_predicts(model, len(scans.channels), scans.labels):
            continue  # it knows none of these labels: there is nothing to compare
        evaluation = _evaluated(model, name, scans.labelled, scans, files / part, options, progress)
        scores += [{"part": part, **row} for row in score_rows_of(evaluation)]
        nodes += [[part, *row] for row in node_rows(evaluation)]
    return {"scores": scores, "nodes": nodes, "known_source": known}


def _evaluated(
    model: Model,
    name: str,
    cases: Sequence[Case],
    scans: Dataset,
    folder: Path,
    options: PredictOptions,
    progress: Progress,
) -> Evaluation:
    masks = predict_masks(model, name, cases, folder, options=options, progress=progress)
    return score_masks(cases, masks, scans.labels, model, subjects=scans.subjects)


def score_rows_of(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A row a case and label: metrics, volumes and, of a label of nodes, their counts; undefined ones are None."""
    rows = []
    for case in evaluation.cases:
        for label, score in case.labels.items():
            row: dict[str, Any] = {"case_name": case.case, "subject": case.subject, "label": label}
            row |= nan_to_none({metric: score.value(metric) for metric in METRICS})
            row |= nan_to_none({"reference_ml": score.reference_ml, "prediction_ml": score.prediction_ml})
            row |= {"known": int(score.known), "judged": score.judged}
            found = counts(score.nodes) if score.nodes is not None else None
            row |= {
                "nodes": found.nodes if found else None,
                "nodes_found": found.true_positives if found else None,
                "false_positives": found.false_positives if found else None,
            }
            rows.append(row)
    return rows


def _clear(files: Path) -> None:
    for entry in files.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _keep_model_alone(files: Path) -> None:
    """Leave the adapted model and its adapter, without predictions."""
    for entry in files.iterdir():
        if entry.name != "run":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
