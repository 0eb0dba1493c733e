"""Structures of a scan that are mirror images of others of the same thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.annotation_masks import Content, annotation_mask, read_content
from lnsegfm.imaging.dicom.drawn_structure import DrawnStructure
from lnsegfm.imaging.dicom.mirrored import Mirror, mirrored_axis
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.spelling import normalise_name

_ALL_AXES, _NOT_SIDES = (0, 1, 2), (0, 1)

Judged = tuple[Annotation, DrawnStructure, str | None, bool]
"""A structure with its file, its label, and whether a person drew it."""


@dataclass(frozen=True)
class Mirrored:
    """What a structure is mirrored against.

    Args:
        mirror: The axis, and how well it fits.
        file: Name of the file that it was compared with.
    """

    mirror: Mirror
    file: str

    def __str__(self) -> str:
        return (
            f"it is {self.mirror} against {self.file}. Export it again with another program, or leave out the wrong one"
        )


def mirrored_structures(judged: Sequence[Judged], series: Series) -> dict[int, Mirrored]:
    """Which of the structures that persons drew are mirrored, by their position.

    They are compared label by label and file by file: with what an algorithm drew for the label, and with structures of
    the same name that persons drew. Where names differ a mirror image from side to side is none: organs come in pairs.
    What cannot be read is compared with nothing: reading it tells.
    """
    contents: dict[Path, Content | None] = {}
    found: dict[int, Mirrored] = {}
    for label in dict.fromkeys(label for _, _, label, _ in judged if label is not None):
        groups = _groups(judged, label)
        masks: dict[int, np.ndarray | None] = {}
        for own, other in permutations(range(len(groups)), 2):
            axes = _axes(judged, groups[own], groups[other])
            if axes is None:
                continue
            for which in (own, other):
                if which not in masks:
                    masks[which] = _voxels([judged[k] for k in groups[which]], series, contents)
            one, two = masks[own], masks[other]
            mirror = mirrored_axis(one, two, axes) if one is not None and two is not None else None
            if mirror is not None:
                against = Mirrored(mirror, judged[groups[other][0]][0].path.name)
                found |= {k: against for k in groups[own] if k not in found}
    return found


def _groups(judged: Sequence[Judged], label: str) -> list[list[int]]:
    """Positions of what is drawn for a label, by file and author."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for k, (annotation, structure, given, person) in enumerate(judged):
        if given == label and structure.drawn:
            groups.setdefault((id(annotation), person), []).append(k)
    return list(groups.values())


def _axes(judged: Sequence[Judged], own: Sequence[int], other: Sequence[int]) -> tuple[int, ...] | None:
    """The axes along which two groups are compared; None where they are not."""
    if not judged[own[0]][3] or judged[own[0]][0] is judged[other[0]][0]:
        return None
    names, others = ({normalise_name(judged[k][1].name) for k in group} for group in (own, other))
    if names == others:
        return _ALL_AXES
    return None if judged[other[0]][3] else _NOT_SIDES


def _voxels(group: Sequence[Judged], series: Series, contents: dict[Path, Content | None]) -> np.ndarray | None:
    """The voxels of what one file draws for a label; None where they cannot be read."""
    annotation = group[0][0]
    try:
        if annotation.path not in contents:
            contents[annotation.path] = None
            contents[annotation.path] = read_content(annotation)
        if (content := contents[annotation.path]) is None:
            return None
        drawn = replace(annotation, structures=tuple(structure for _, structure, _, _ in group))
        return annotation_mask(drawn, series, ["*=any"], {"any": 1}, content=content) > 0
    except DataError:
        return None
