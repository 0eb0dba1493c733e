"""Words in names of files and folders that say whether an image or a mask is in it, and the name without them.

``P7_CT_seg.nii.gz`` is a mask, of ``P7``. A name is split into words at whatever is neither a letter nor a digit, and
where a capital follows a small letter; case does not count.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Literal

from lnsegfm.imaging.files import stem

Kind = Literal["image", "mask", "other"]
MASK_WORDS = frozenset({
    "mask", "masks", "seg", "segs", "segm", "segmentation", "segmentations", "label", "labels", "labelmap",
    "labelmaps", "labelstr", "labelsts", "gt", "gts", "truth", "groundtruth", "annotation", "annotations", "annot",
    "contour", "contours", "roi", "rois", "delineation", "delineations", "manual", "reference", "structures", "pred",
    "preds", "prediction", "predictions",
})  # fmt: skip
"""Of these one is enough to make a file or folder one of masks."""
IMAGE_WORDS = frozenset({
    "image", "images", "img", "imgs", "imagestr", "imagests", "ct", "cts", "cect", "ncct", "cta", "scan", "scans",
    "volume", "volumes", "vol", "vols", "data", "orig", "original", "raw", "input", "inputs",
})  # fmt: skip
OTHER_WORDS = frozenset({
    "pt", "pet", "suv", "mr", "mri", "mrt", "t1", "t1c", "t1ce", "t1gd", "t1w", "t2", "t2w", "flair", "adc", "dwi",
    "dose", "doses", "rtdose", "dosemap", "planning", "cbct",
})  # fmt: skip
"""Images of another modality or kind than the scan that is segmented: taken where there is nothing else."""
_NEUTRAL = frozenset({"tr", "ts", "full", "all"})
"""Taken off a name's end only together with a word for a kind that is further in: ``P7_labels_all``, not ``P7_TR``."""


def kind_of_name(name: str) -> Kind | None:
    """What a name's words say: a mask before another modality, that before an image; None where they say nothing."""
    words = set(_words(name))
    if words & MASK_WORDS:
        return "mask"
    if words & OTHER_WORDS:
        return "other"
    return "image" if words & IMAGE_WORDS else None


def kind_of_folder(name: str) -> Kind | None:
    """As `kind_of_name`; a folder with a digit in its name is a case's, whatever its words."""
    return None if any(letter.isdigit() for letter in name) else kind_of_name(name)


@lru_cache(maxsize=1 << 16)
def bare_name(stem: str) -> str:
    """A name without the words for masks, images and modalities at its ends: ``mask-P7_ct`` is ``P7``; may be empty."""
    parts = _without_kinds(_parts(stem))
    return "".join(reversed(_without_kinds(parts[::-1])))


def _without_kinds(parts: list[str]) -> list[str]:
    """Parts without those at the start that say a kind, and without what separates them from the rest."""
    run = list(takewhile(lambda part: _says_kind(part) or _separates(part) or part.lower() in _NEUTRAL, parts))
    while run and not _says_kind(run[-1]):
        run.pop()
    return list(dropwhile(_separates, parts[len(run) :]))


def masks_beside_images(files: Sequence[Path]) -> tuple[Path, ...]:
    """Those of a folder's files that by their names are masks of others: ``P7_seg`` beside ``P7`` or ``P7_ct``."""
    images = {bare_name(name) for file in files if kind_of_name(name := _stem_of_case(file)) != "mask"} - {""}
    return tuple(
        file for file in files if kind_of_name(name := _stem_of_case(file)) == "mask" and bare_name(name) in images
    )


def _stem_of_case(file: Path) -> str:
    return re.sub(r"_0000$", "", stem(file))


def without_part(text: str, part: str) -> str | None:
    """What is left of a name that begins or ends with another one, at the end of a word; None where it does not.

    ``P7_Parotid_L`` without ``P7`` is ``Parotid_L``; ``P70_seg`` has no ``P7``.
    """
    if text == part:
        return "" if part else None
    if not part or part not in text:
        return None
    if text.startswith(part) and not text[len(part)].isalnum():
        return re.sub(r"^[\W_]+", "", text[len(part) :]) or None
    if text.endswith(part) and not text[-len(part) - 1].isalnum():
        return re.sub(r"[\W_]+$", "", text[: -len(part)]) or None
    return None


def word_ends(name: str) -> list[str]:
    """What a name begins with, up to the end of each of its words but the last: ``P7_Parotid_L``: P7, P7_Parotid."""
    return [name[: match.start()] for match in re.finditer(r"(?<=[^\W_])[\W_]+(?=[^\W_])", name)]


def word_starts(name: str) -> list[str]:
    """What a name ends with, from the start of each of its words but the first: ``seg_P7``: P7."""
    return [name[match.end() :] for match in re.finditer(r"(?<=[^\W_])[\W_]+(?=[^\W_])", name)]


def _parts(name: str) -> list[str]:
    """A name's words and what is between them; ``label0001`` is a word for masks and a number."""
    parts = []
    for part in re.findall(r"[^\W_]+|[\W_]+", name):
        match = re.fullmatch(r"([^\W\d_]+)(\d+)", part)
        numbered = match is not None and match[1].lower() in MASK_WORDS | IMAGE_WORDS
        parts += list(match.groups()) if match is not None and numbered else [part]
    return parts


def _words(name: str) -> list[str]:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    words = [*_parts(name.lower()), *re.split(r"[\W_]+", parted.lower())]
    return [word for word in words if word.strip(" _-.") and not re.fullmatch(r"[\W_]+", word)]


def _says_kind(part: str) -> bool:
    words = _words(part)
    known = MASK_WORDS | IMAGE_WORDS | OTHER_WORDS | {"ground"}
    if part.lower() in known:
        return True
    return any(word in known for word in words) and all(word in known | _NEUTRAL for word in words[1:] or words)


def _separates(part: str) -> bool:
    return not _words(part)
