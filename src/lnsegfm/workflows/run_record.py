"""The content of a run's ``run.json``, for programs, and its facts, for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lnsegfm.messages import counted
from lnsegfm.methods.sanity_check import SanityReport
from lnsegfm.models.model_folder import CHECKPOINT
from lnsegfm.report.comparison_json import to_json
from lnsegfm.report.run_report import FORMAT
from lnsegfm.report.verdict import forgetting
from lnsegfm.training.loss_history import divergence_warning
from lnsegfm.workflows.held_out_comparison import HeldOutComparison
from lnsegfm.workflows.lr_search import lr_choice_text


def versions() -> dict[str, str]:
    """Versions of what computes the result."""
    return {name: version(name) for name in ("lnsegfm", "nnunetv2", "torch", "numpy", "SimpleITK")} | {
        "python": platform.python_version()
    }


def finetune_record(
    out: Path,
    common: Mapping[str, Any],
    history: Mapping[str, Any],
    adapter: Mapping[str, int],
    comparison: HeldOutComparison,
    *,
    lr: float,
    lr_choice: Mapping[str, Any] | None,
    further: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The content of a fine-tuning's ``run.json``, but for its postprocessing and what follows from all of it.

    Args:
        out: The run's folder.
        common: What every kind of run records (`lnsegfm.workflows.training_run`).
        history: The content of ``loss_history.json``.
        adapter: Bytes and entries of the adapter.
        comparison: Base against adapted.
        lr: The learning rate.
        lr_choice: The figures by which it was chosen; None where it was given.
        further: What is known of the model's further folds; ``training``, ``adapter`` and losses are of its first.
    """
    record = {
        **common,
        "format": FORMAT,
        "training": {
            "lr": lr,
            **{key: value for key, value in history.items() if key not in ("losses", "sanity_check")},
        },
        "sanity_check": history.get("sanity_check"),
        "lr_choice": lr_choice,
        "adapter": {**adapter, "checkpoint_bytes": (out / "model" / "fold_0" / CHECKPOINT).stat().st_size},
        "result": to_json(comparison.comparison, out) if comparison.comparison else None,
        "source_data": to_json(comparison.source_data, out) if comparison.source_data else None,
        "flags": {case: [flag.to_json() for flag in flags] for case, flags in comparison.flags.items()},
        **({"further_folds": list(further)} if further else {}),
    }
    return record | {"facts": _facts(record) | _source_data(comparison)}


def _source_data(comparison: HeldOutComparison) -> dict[str, str]:
    return {"Source data": forgetting(comparison.source_data)} if comparison.source_data else {}


def megabytes(number: float) -> str:
    """Bytes for a person."""
    return f"{number / 1e6:.2f} MB" if number >= 1e4 else f"{number / 1e3:.1f} kB"


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    trainable, training, adapter = record["trainable"], record["training"], record["adapter"]
    settings = ", ".join(f"{k}={v}" for k, v in record["recipe"]["settings"].items() if v is not None)
    return {
        "Base model": ", ".join(filter(None, (record["base"].get("name"), str(record["base"]["folder"])))),
        "Data": str(record["data"]["folder"]),
        "Method": f"{record['recipe']['method']}" + (f" ({settings})" if settings else ""),
        "Trained on": f"{counted(len(record['shots']), 'scan')}: {', '.join(record['shots'])}",
        "Held out": counted(len(record["held_out"]), "scan"),
        **record["known_to_base"]["facts"],
        "Training": f"{training['iterations']} iterations in {training['seconds']:.0f} s on {record['device']}, "
        f"stopped by {training['stopped_by']}",
        **_limit_facts(training),
        **_training_facts(record),
        **_folds_facts(record),
        "Trainable": f"{trainable['parameters']:,} of {trainable['total']:,} parameters "
        f"in {trainable['tensors']} tensors",
        "One step changes": f"at most {trainable['per_step']:,} ({trainable['per_step'] / trainable['total']:.3%})",
        "Changed in the end": f"{adapter['entries']:,} entries"
        if adapter["entries"] != trainable["total"]
        else "all entries",
        "Adapter": f"{megabytes(adapter['bytes'])}; the full checkpoint has {megabytes(adapter['checkpoint_bytes'])}",
        "Heads": f"kept {', '.join(record['transfer']['labels_kept']) or 'none'}; "
        f"new {', '.join(record['transfer']['labels_new']) or 'none'}",
        **_taken_over(record["transfer"]),
        **_terms(record["base"]),
    }


def _limit_facts(training: Mapping[str, Any]) -> dict[str, str]:
    """What a time limit cut, and that it makes a run that cannot be repeated."""
    limit = training.get("time_limit")
    return {"Time limit": f"{limit['seconds']:g} s; {limit['ended']}. {limit['note']}"} if limit else {}


def _training_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Learning rate, the result of the sanity check, and a warning if there is one."""
    if not record["training"]["iterations"]:
        return {}
    warm_up, choice, report = record["recipe"]["warm_up"], record["lr_choice"], record["sanity_check"]
    rise = f", after a rise over {warm_up} iterations" if warm_up else ""
    facts = {"Learning rate": (lr_choice_text(choice) if choice else f"{record['training']['lr']:g}") + rise}
    divergence = divergence_warning(record["training"]["divergence"])
    if divergence is not None:
        facts["Warning"] = divergence
    if report is not None:
        facts["Sanity check"] = SanityReport.from_json(report).line()
    return facts


def _folds_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """That all folds of the base were adapted, and what came of the further ones, where that is so."""
    further = record.get("further_folds", ())
    if not further:
        return {}
    ends = [
        f"fold {one['fold']}: {one['training']['iterations']} iterations, {one['adapter']['entries']:,} entries changed"
        for one in further
    ]
    facts = {"Folds": f"all {1 + len(further)} of the base, predictions averaged; fold 0 below, {'; '.join(ends)}"}
    warnings = [divergence_warning(one["training"].get("divergence")) for one in further]
    lines = [f"Fold {one['fold']}: {line}" for one, line in zip(further, warnings, strict=True) if line is not None]
    return facts | ({"Warning of a further fold": " ".join(lines)} if lines else {})


def _taken_over(transfer: Mapping[str, Any]) -> dict[str, str]:
    """What became of the base's weights, a line for each module group."""
    if not (transfer["adapted"] or transfer["fresh"] or transfer["unused"]):
        return {"Taken from the base": "everything, as it is"}
    facts = {}
    for group in transfer["groups"]:
        number = group["parameters"]
        fates = [f"{number[fate]:,} {fate}" for fate in ("matched", "adapted", "fresh") if number[fate]]
        text = f"{', '.join(fates) or '0'} parameters"
        facts[f"From the base: {group['name']}"] = "; ".join([text, *group["notes"]])
    if transfer["unused"]:
        facts["From the base: unused"] = f"{len(transfer['unused'])} tensors"
    return facts


def _terms(base: Mapping[str, Any]) -> dict[str, str]:
    return {f"Base's {key}": base[key] for key in ("licence", "citation") if base.get(key)}
