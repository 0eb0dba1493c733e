"""The command that makes a dataset of scans and masks that lie otherwise, as it is typed."""

from __future__ import annotations

import os
import shlex
from itertools import islice
from pathlib import Path

from lnsegfm.imaging.files import ending

_ENOUGH = 20_000  # names that are looked at before a folder is taken for one without images


def arranging(root: Path, remedy: str) -> str:
    """A remedy, and the command that arranges a folder if there are images anywhere in it; without a full stop.

    Args:
        root: The folder.
        remedy: What else would help, a sentence without its full stop.
    """
    return f"{remedy}, or: {arrange_command(root)}" if holds_images(root) else remedy


def arrange_command(root: Path) -> str:
    """``lnsegfm data arrange ROOT --out ROOT_arranged``, quoted for a shell."""
    out = root.with_name(f"{root.name}_arranged") if root.name else Path("arranged")
    return f"lnsegfm data arrange {shlex.quote(str(root))} --out {shlex.quote(str(out))}"


def holds_images(root: Path) -> bool:
    """Whether a folder has an image file (NIfTI, NRRD, MHA) somewhere in it."""
    names = (name for _, _, files in os.walk(root) for name in files if not name.startswith("."))
    return any(ending(name) for name in islice(names, _ENOUGH))
