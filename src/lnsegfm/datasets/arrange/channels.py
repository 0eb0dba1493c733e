"""How many channels the cases of a folder have, and what they are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.datasets.arrange.arrange_options import ArrangeOptions
from lnsegfm.datasets.arrange.case_pairing import ScanFiles
from lnsegfm.datasets.name_affixes import OTHER_WORDS
from lnsegfm.datasets.nnunet_layout import channel_names
from lnsegfm.errors import DataError
from lnsegfm.imaging.nifti_header import read_nifti_header


def volumes_in(path: Path) -> int:
    """How many volumes an image file holds: the length of a NIfTI's fourth axis, 1 for all else."""
    try:
        header = read_nifti_header(path)
    except (OSError, DataError):
        return 1  # whoever reads the voxels says what is wrong
    return header.size[3] if header is not None and len(header.size) == 4 else 1


def channels_of(
    source: Path, scans: Mapping[str, ScanFiles], options: ArrangeOptions, description: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Names of the channels, and a line for each case that has another number of them.

    Raises:
        DataError: Several channels that nothing names.
    """
    counts = {
        name: volumes_in(scan.images[0].path) if len(scan.images) == 1 else len(scan.images)
        for name, scan in scans.items()
    }
    wanted = len(options.images) if len(options.images) > 1 else Counter(counts.values()).most_common(1)[0][0]
    failed = {
        name: f"Case {name}: {count} of {wanted} channels, as other cases have them. Complete it, or take it out."
        for name, count in counts.items()
        if count != wanted
    }
    names = options.channels or channel_names(description) or _by_words(scans, options, wanted)
    if len(names) == wanted:
        return names, failed
    four_d = any(len(scan.images) == 1 and counts[name] == wanted for name, scan in scans.items())
    what = "volumes in each image" if four_d else "images in each case"
    named = f"{len(names)} names ({', '.join(names)})" if names else "nothing says what they are"
    raise DataError(
        f"{source}: {wanted} {what}, and {named}. Name the channels in their order: --channels "
        f"{','.join(['CT', 'PET', *(f'NAME{k}' for k in range(3, wanted + 1))][:wanted])}."
    )


def _by_words(scans: Mapping[str, ScanFiles], options: ArrangeOptions, wanted: int) -> tuple[str, ...]:
    """Names that patterns or files say: ``PT``, ``T1``; CT where nothing says another modality."""
    images = [image for scan in scans.values() for image in scan.images]
    if wanted == 1:
        if any(image.kind != "other" for image in images):
            said = _words_of(options.images[0]) if options.images else []
            return (said[0].upper(),) if said else ("CT",)
        return (next(iter(_words_of(images[0].role)), "image").upper(),)
    said = [next(iter(_words_of(pattern)), "ct" if "ct" in pattern.lower() else "") for pattern in options.images]
    return tuple(word.upper() for word in said) if len(set(said)) == wanted and all(said) else ()


def _words_of(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.lower()) if word in OTHER_WORDS]
