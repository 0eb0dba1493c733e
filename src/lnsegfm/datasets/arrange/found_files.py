"""The image files below a folder: which are images and which masks, and what of their paths names a case."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lnsegfm.datasets.name_affixes import Kind, bare_name, kind_of_folder, kind_of_name, without_part
from lnsegfm.imaging.files import ending, stem


@dataclass(frozen=True)
class FoundFile:
    """One image file below the source.

    Args:
        path: The file.
        place: Its path below the source, with ``/``.
        dirs: The folders in it that may name a case: those without words for images or masks.
        stem: What of its name may name a case or a structure.
        kind: Image, mask, image of another modality; None where nothing says it.
        role: Its place with ``*`` for what names the case: files of one role are the same thing of different cases.
        channel: Which pattern of ``--images`` it fits; 0 where it was guessed.
    """

    path: Path
    place: str
    dirs: tuple[str, ...]
    stem: str
    kind: Kind | None
    role: str
    channel: int = 0


def find_files(source: Path, images: Sequence[str] = (), labels: Sequence[str] = ()) -> list[FoundFile]:
    """Every image file below a folder, by place.

    Args:
        source: The folder.
        images: Patterns of the images: if given, nothing else is one.
        labels: Patterns of the masks, likewise.
    """
    places = sorted(_places(source))
    shared = _shared_folders([place.split("/")[:-1] for place in places])
    guessed = _guessed(source, places, shared)
    found: list[FoundFile] = []
    for file in _without_constant_folders(guessed):
        of_image = next((n for n, p in enumerate(images) if _captures(p, file.place) is not None), None)
        of_label = next((p for p in labels if _captures(p, file.place) is not None), None)
        if of_image is not None:
            found.append(_by_pattern(file, images[of_image], "image", of_image))
        elif of_label is not None:
            found.append(_by_pattern(file, of_label, "mask"))
        elif (images and file.kind != "mask") or (labels and file.kind == "mask"):
            found.append(replace(file, kind="other" if images else None))
        else:
            found.append(file)
    return found


def pattern_of(text: str) -> str:
    """A pattern as it is compared: a folder stands for what lies directly in it."""
    text = unicodedata.normalize("NFC", text.strip().removeprefix("./").strip("/"))
    return text if ending(text) or "*" in text.rpartition("/")[2] else f"{text}/*"


def _places(source: Path) -> Iterator[str]:
    for folder, names, files in os.walk(source):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and ending(name):
                yield (Path(folder) / name).relative_to(source).as_posix()


def _shared_folders(folders: Sequence[Sequence[str]]) -> int:
    """How many leading folders all files have in common: they name no case."""
    if len(set(map(tuple, folders))) < 2:  # one folder: it may be the case's, if its name says nothing else
        return max((len(f) for f in folders), default=0)
    depth = 0
    while len({f[depth] if depth < len(f) else None for f in folders}) == 1:
        depth += 1
    return depth


def _guessed(source: Path, places: Sequence[str], shared: int) -> list[FoundFile]:
    siblings: dict[str, list[Kind | None]] = defaultdict(list)
    for place in places:
        siblings[place.rpartition("/")[0]].append(kind_of_name(stem(place)))
    found = []
    for place in places:
        *folders, _ = unicodedata.normalize("NFC", place).split("/")
        own = folders[shared:]
        dirs = tuple(name for name in own if kind_of_folder(name) is None)
        kind = _kind(own, stem(place), siblings[place.rpartition("/")[0]])
        found.append(
            FoundFile(source / place, place, dirs, stem(place), kind, _role(place, folders[:shared], own, dirs))
        )
    return found


def _without_constant_folders(files: Sequence[FoundFile]) -> list[FoundFile]:
    """The files without folders that all of their kind lie in, such as the ``NIFTI`` of ``P7/NIFTI/CT.nii.gz``."""
    constant: dict[Kind | None, set[str]] = {}
    for kind in {file.kind for file in files}:
        folders = [file.dirs for file in files if file.kind == kind]
        constant[kind] = set.intersection(*map(set, folders)) if len(set(folders)) > 1 else set()
    return [replace(file, dirs=tuple(d for d in file.dirs if d not in constant[file.kind])) for file in files]


def _kind(folders: Sequence[str], name: str, siblings: Sequence[Kind | None]) -> Kind | None:
    """The kind of a file: by its folder, its own name, or the nearest folder above that says one.

    In a folder of images a name with a word for masks is a mask, unless all of its files have one (``seg_001`` is then
    a case).
    """
    parent = kind_of_folder(folders[-1]) if folders else None
    own = kind_of_name(name)
    if parent == "mask" or (parent is not None and (own is None or all(kind == own for kind in siblings))):
        return parent
    if own is not None:
        return parent if parent is not None and own == "image" else own
    return next((kind for folder in reversed(folders) if (kind := kind_of_folder(folder)) is not None), None)


def _role(place: str, shared: Sequence[str], own: Sequence[str], dirs: Sequence[str]) -> str:
    name, kind = stem(place), ending(place) or ""
    for folder in reversed(dirs):
        if (rest := without_part(name, folder)) is not None:
            name = "*" if not rest else name.replace(folder, "*", 1)
            break
    else:
        bare = bare_name(name)
        if bare and not dirs:
            name = name.replace(bare, "*", 1)
    folders = [*shared, *("*" if folder in dirs else folder for folder in own)]
    return "/".join((*folders, f"{name}{kind}"))


def _captures(pattern: str, place: str) -> list[str] | None:
    """What stands for each component of a pattern that has a wildcard; None where a path does not fit it."""
    parts = pattern_of(pattern).split("/")
    regex = "/".join(
        "(.+)" if part == "**" else f"({_component(part)})" if "*" in part or "?" in part else re.escape(part)
        for part in parts
    )
    match = re.fullmatch(regex, unicodedata.normalize("NFC", place))
    return list(match.groups()) if match else None


def _component(part: str) -> str:
    return "".join("[^/]*" if c == "*" else "[^/]" if c == "?" else re.escape(c) for c in part)


def _by_pattern(file: FoundFile, pattern: str, kind: Kind, channel: int = 0) -> FoundFile:
    """A file that fits a pattern: what the wildcards stand for names its case."""
    captured, last = _captures(pattern, file.place) or [], pattern_of(pattern).split("/")[-1]
    name = ""
    if "*" in last or "?" in last:
        name = _between(last, captured.pop())
    dirs = tuple(folder for text in captured for folder in text.split("/"))
    return FoundFile(file.path, file.place, dirs, name, kind, pattern_of(pattern), channel)


def _between(part: str, text: str) -> str:
    """What of a file's name its pattern's wildcards stand for, without an ending."""
    before, after = part.split("*", 1)[0], part.rsplit("*", 1)[-1]
    inner = text[len(before) : len(text) - len(after)] if after else text[len(before) :]
    return stem(inner) if not after else inner
