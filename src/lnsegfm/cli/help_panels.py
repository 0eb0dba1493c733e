"""Which options ``--help`` of the long commands opens with, and how it groups the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FURTHER = "Further options"
"""Panel of the options that no other names."""

_RUN_FILE = ("--job", "--write-job")
_LABELS = ("--label", "--keep-labels", "--merge", "--absent")
_NETWORK_INPUT = ("--patch-size", "--batch-size")

PANELS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "finetune": {
        "Most used": ("--model", "--out", "--shots", "--method", "--iterations", "--device"),
        "Scans": ("--held-out", "--draw", "--cases", "--exclude", "--source-data", "--allow-empty"),
        "Labels": (*_LABELS, "--map"),
        "Training": (
            "--recipe",
            "--set",
            "--lr",
            "--warm-up",
            "--time-limit",
            "--early-stop",
            *_NETWORK_INPUT,
            "--seed",
            "--precision",
            "--workers",
        ),
        "Base and network": ("--configuration", "--folds", "--plans", "--min-transfer", "--model-axes", "--mirror"),
        "Evidence and postprocessing": (
            "--mirroring",
            "--postprocessing",
            "--no-postprocessing",
            "--smallest-difference",
        ),
        "The run as a file": (*_RUN_FILE, "--dry-run", "--json", "--help"),
    },
    "pretrain": {
        "Most used": ("--out", "--architecture", "--preset", "--iterations", "--held-out", "--device"),
        "Scans": ("--cases", "--exclude", "--allow-empty"),
        "Labels": _LABELS,
        "Training": (
            "--lr",
            "--time-limit",
            *_NETWORK_INPUT,
            "--plans",
            "--mirror",
            "--mirroring",
            "--seed",
            "--gpus",
            "--gpu-memory",
            "--checkpointing",
            "--workers",
            "--prepared",
            "--preprocessed",
            "--write-preprocessed",
        ),
        "Scans prepared apart": ("--prepare-only", "--on", "--jobs", "--part"),
        "The run as a file": (*_RUN_FILE, "--json", "--help"),
    },
    "predict": {
        "Most used": ("--out", "--format", "--fast", "--nodes", "--overwrite", "--device"),
        "Scans": ("--cases", "--exclude"),
        "DICOM input": ("--series", "--names", "--straighten", "--resample-uneven"),
        "Structure sets and segmentations": (
            "--per-node",
            "--profile",
            "--holes",
            "--thin",
            "--short-names",
            "--add-to",
        ),
        "Model": ("--configuration", "--fold", "--with", "--previous-stage", "--model-axes"),
        "How it is predicted": (
            "--mirroring",
            "--postprocessing",
            "--step",
            "--exact",
            "--air",
            "--memory",
        ),
        "What is kept": ("--flags", "--probabilities", "--json", "--help"),
        "In parts": ("--jobs", "--on", "--part"),
    },
    "evaluate": {
        "Most used": ("--out", "--against", "--label", "--map", "--node", "--tolerance"),
        "Labels": ("--keep-labels", "--merge", "--absent"),
        "How it is measured": ("--connectivity", "--metric", "--subjects", "--smallest-difference"),
        "Pages and output": ("--images", "--json", "--help"),
        "In parts": ("--jobs", "--on", "--part"),
    },
}


def panels_of(command: str, options: Sequence[Any]) -> dict[str, list[Any]]:
    """The options of a command by panel, in the order in which help shows them.

    Args:
        command: Its name.
        options: Its parameters (click's), each with ``opts``.

    Returns:
        Panels by title; options that no panel names stand under ``FURTHER``, or under "Options" where the command has
        no panels.
    """
    named = PANELS.get(command)
    if named is None:
        return {"Options": list(options)} if options else {}
    by_name = {name: option for option in options for name in option.opts}
    grouped = {title: [by_name[name] for name in names if name in by_name] for title, names in named.items()}
    placed = [id(option) for panel in grouped.values() for option in panel]
    grouped[FURTHER] = [option for option in options if id(option) not in placed]
    return {title: panel for title, panel in grouped.items() if panel}
