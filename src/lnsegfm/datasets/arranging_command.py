"""The command that makes a dataset of scans and masks that lie otherwise, as it is typed."""

from __future__ import annotations

import os
import shlex
from itertools import islice
from pathlib import Path

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.files import ending

_ENOUGH = 20_000  # names that are looked at before a folder is taken for one without images


def arranging(root: Path, remedy: str, labels: LabelMap | None = None) -> str:
    """A remedy, and the command that arranges a folder if there are images anywhere in it; without a full stop.

    Args:
        root: The folder.
        remedy: What else would help, a sentence without its full stop.
        labels: What the user says that the values in the masks mean.
    """
    return f"{remedy}, or: {arrange_command(root, labels)}" if holds_images(root) else remedy


def arrange_command(root: Path, labels: LabelMap | None = None) -> str:
    """``lnsegfm data arrange ROOT --out ROOT_arranged``, with the labels that were named, quoted for a shell."""
    table = labels.to_dataset_json() if labels is not None and not labels.regions else {}
    named = "".join(f" --label {shlex.quote(f'{name}={value}')}" for name, value in table.items() if value)
    out = root.with_name(f"{root.name}_arranged") if root.name else Path("arranged")
    return f"lnsegfm data arrange {shlex.quote(str(root))}{named} --out {shlex.quote(str(out))}"


def holds_images(root: Path) -> bool:
    """Whether a folder has an image file (NIfTI, NRRD, MHA) somewhere in it."""
    names = (name for _, _, files in os.walk(root) for name in files if not name.startswith("."))
    return any(ending(name) for name in islice(names, _ENOUGH))
