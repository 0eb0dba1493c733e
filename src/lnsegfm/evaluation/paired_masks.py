"""Predictions and references of one case by their names, where these differ in words that say what is in a file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from lnsegfm.datasets.name_affixes import bare_name, kind_of_name
from lnsegfm.spelling import normalise_name

File = TypeVar("File")


def paired_names(names: Collection[str], references: Iterable[str]) -> dict[str, str]:
    """For each reference the name of the same case among others, such as those of predictions.

    The same name comes first. Of the rest those are paired whose names without words such as seg, mask, label, gt or ct
    at their ends (``P7_seg`` and ``P7``) are the same, else the same without case, blanks, hyphens and underscores. A
    name that several would pair with is paired with none.

    Returns:
        Name by reference; references without one are left out.
    """
    theirs = list(references)
    pairs = {name: name for name in theirs if name in names}
    for key in (bare_name, lambda name: normalise_name(bare_name(name) or name)):
        free, wanted = defaultdict(list), defaultdict(list)
        for name in names:
            if name not in pairs.values():
                free[key(name)].append(name)
        for name in theirs:
            if name not in pairs:
                wanted[key(name)].append(name)
        for core, (reference, *others) in list(wanted.items()):
            if core and not others and len(free[core]) == 1:
                pairs[reference] = free[core][0]
    return pairs


def by_reference(files: Mapping[str, File], references: Iterable[str]) -> dict[str, File]:
    """What is known by other names, such as scans or predictions, by the names of the references."""
    return {reference: files[name] for reference, name in paired_names(files, references).items()}


def without_images(files: Mapping[str, File]) -> dict[str, File]:
    """Masks without the images that are next to them: ``P7`` is one where ``P7_seg`` is there."""
    masked = {bare_name(name) for name in files if kind_of_name(name) == "mask"}
    return {name: file for name, file in files.items() if kind_of_name(name) == "mask" or bare_name(name) not in masked}
