"""What cannot be understood of a folder, and the options that make it clear."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from lnsegfm.datasets.arrange.arrange_options import ArrangeOptions
from lnsegfm.datasets.arrange.case_pairing import FolderPairing
from lnsegfm.datasets.arrange.found_files import FoundFile
from lnsegfm.errors import ConfigError, DataError

_SHOWN = 6  # files or patterns that a message names


def require_found(source: Path, files: Sequence[FoundFile], pairing: FolderPairing, options: ArrangeOptions) -> None:
    """Refuse a folder without images, or without masks, and patterns that fit nothing.

    Raises:
        DataError: Nothing in it, or nothing that pairs.
        ConfigError: A pattern that no file fits.
    """
    if not files:
        raise DataError(
            f"{source}: it holds no image files (NIfTI, NRRD, MHA). Give the folder that holds them; of DICOM: "
            f"lnsegfm data convert dicom {shlex.quote(str(source))} --list."
        )
    shown = ", ".join(file.place for file in files[:3])
    for option, patterns, kind in (("--images", options.images, "image"), ("--labels", options.labels, "mask")):
        for number, pattern in enumerate(patterns):
            fits = any(f.kind == kind and (kind == "mask" or f.channel == number) for f in files)
            if not fits and len(patterns) > number:
                raise ConfigError(f"{option} {pattern}: no file in {source} fits it. There are {shown} and others.")
    masked = any(pairing.masks.values())
    if not pairing.scans or not (masked or options.unlabelled):
        lacking = "images" if not pairing.scans else "masks"
        hint = "" if pairing.masks or not pairing.scans else " (--unlabelled takes images alone)"
        raise DataError(
            f"{source}: which of its {len(files)} files ({shown}, ...) are {lacking} is not clear from their names"
            f"{hint}. Say it: --images '*/CT.nii.gz' --labels '*/mask.nii.gz', with * for what names the case."
        )


def require_clear(pairing: FolderPairing) -> None:
    """Refuse cases with several maps of all labels, or several images of which any may be the mask's.

    Raises:
        DataError: There are some; the line names the options.
    """
    for name, masks in pairing.masks.items():
        whole = sorted({mask.role for mask in masks if mask.structure is None})
        named = sorted({mask.role for mask in masks if mask.structure is not None})
        if len(whole) > 1 or (whole and named):
            raise DataError(
                f"Case {name}: several masks ({', '.join(m.file.place for m in masks[:_SHOWN])}). Say which to take: "
                f"{_either('--labels', [*whole, *named])}."
            )
    of_folder: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, scan in pairing.scans.items():
        if scan.dirs:
            of_folder[scan.dirs].append(name)
    lost = {file.dirs for file in pairing.left_over if file.kind != "other"}
    for dirs, names in of_folder.items():
        without = [name for name in names if not pairing.masks.get(name)]
        if len(names) > 1 and without and dirs in lost:
            roles = sorted({image.role for name in names for image in pairing.scans[name].images})
            raise DataError(
                f"Folder {'/'.join(dirs)}: {len(names)} images, and whose its mask is is not clear. Say which to take: "
                f"{_either('--images', roles)} (both, for two channels)."
            )


def _either(option: str, roles: Sequence[str]) -> str:
    patterns = [f"{option} {shlex.quote(role.replace('NAME', '*'))}" for role in roles[:_SHOWN]]
    return " or ".join(dict.fromkeys(patterns))
