"""Which images make a case, and which masks are its: by folders and by names."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from lnsegfm.datasets.arrange.found_files import FoundFile
from lnsegfm.datasets.name_affixes import bare_name, without_part, word_ends, word_starts
from lnsegfm.datasets.nnunet_layout import parse_image_name
from lnsegfm.spelling import normalise_name


@dataclass(frozen=True)
class ScanFiles:
    """The images of one case.

    Args:
        name: What the case is called.
        dirs: The folders that name it.
        stems: What of the files' names may name it, longest first.
        images: A file a channel.
    """

    name: str
    dirs: tuple[str, ...]
    stems: tuple[str, ...]
    images: tuple[FoundFile, ...]


@dataclass(frozen=True)
class MaskFile:
    """A mask that belongs to a case.

    Args:
        file: The file.
        structure: The structure that its name states; None where it states none: a map of all labels.
    """

    file: FoundFile
    structure: str | None

    @property
    def role(self) -> str:
        """The place of the file with ``*`` for the case and ``NAME`` for the structure."""
        if self.structure is None:
            return self.file.role
        folder, _, name = self.file.role.rpartition("/")
        return f"{folder}/{name.replace(self.structure, 'NAME')}".lstrip("/")


@dataclass(frozen=True)
class FolderPairing:
    """The cases of a folder.

    Args:
        scans: Their images, by name.
        masks: Their masks.
        left_over: Files that belong to no case, or to nothing.
    """

    scans: Mapping[str, ScanFiles]
    masks: Mapping[str, tuple[MaskFile, ...]]
    left_over: tuple[FoundFile, ...] = field(default=())


def pair(files: Sequence[FoundFile], source: Path) -> FolderPairing:
    """Pair images and masks.

    Args:
        files: The files (`find_files`).
        source: The folder, after which a case is called that nothing else names.
    """
    images, masks, others = _sorted_by_kind(files)
    scans = _scans(images, source, frozenset(mask.stem for mask in masks))
    found: dict[str, list[MaskFile]] = defaultdict(list)
    left, everyone = list(others), list(scans.values())
    of_folder, index = _by_folder(everyone), _by_name(everyone)
    for file in masks:
        owner = _owner(file, everyone, of_folder, index)
        if owner is None:
            left.append(file)
        else:
            found[owner[0]].append(MaskFile(_with_role(file, scans[owner[0]]), owner[1]))
    return FolderPairing(
        scans, {name: tuple(m) for name, m in found.items()}, tuple(sorted(left, key=lambda f: f.place))
    )


def _sorted_by_kind(files: Sequence[FoundFile]) -> tuple[list[FoundFile], list[FoundFile], list[FoundFile]]:
    """Images, masks and the rest: what nothing names is what is lacking of the two."""
    by_kind: dict[str | None, list[FoundFile]] = defaultdict(list)
    for file in files:
        by_kind[file.kind].append(file)
    images, masks, others, unknown = (by_kind[kind] for kind in ("image", "mask", "other", None))
    if not images and not unknown and others:
        images, others = others, []
    if not images and not masks:
        images = _shortest_names(unknown)
        masks = [file for file in unknown if file not in images]
    elif not images:
        images, masks = unknown, masks
    elif not masks or _name_structures(masks):
        masks = [*masks, *unknown]
    else:
        others = [*others, *unknown]
    return images, masks, others


def _shortest_names(files: Sequence[FoundFile]) -> list[FoundFile]:
    """Of ``P7``, ``P7_Parotid_L``, ``P7_Cord`` the first: the names with which others of their folder begin."""
    names = {(file.dirs, file.stem) for file in files}
    begun = {(file.dirs, part) for file in files for part in word_ends(file.stem)}
    return [
        file
        for file in files
        if (file.dirs, file.stem) in begun and not any((file.dirs, part) in names for part in word_ends(file.stem))
    ]


def _name_structures(masks: Sequence[FoundFile]) -> bool:
    """Whether masks have, in several roles, a name left besides the words for masks: one file a structure."""
    return len({bare_name(mask.stem) for mask in masks if mask.dirs and bare_name(mask.stem)}) > 1


def _scans(images: Sequence[FoundFile], source: Path, mask_stems: frozenset[str]) -> dict[str, ScanFiles]:
    folders: dict[tuple[str, ...], list[FoundFile]] = defaultdict(list)
    for file in images:
        folders[file.dirs].append(file)
    scans = [scan for dirs, group in sorted(folders.items()) for scan in _of_folder(dirs, group, source, mask_stems)]
    if len(scans) > len(folders):  # folders of several scans: the files' own names, where they have any
        scans = [replace(scan, name=scan.stems[-1] or scan.name) for scan in scans]
    for parts in (_with_folders, _with_place):  # the same name twice: folders, then the whole place tell them apart
        counted = Counter(scan.name.casefold() for scan in scans)
        scans = [replace(s, name=parts(s)) if counted[s.name.casefold()] > 1 else s for s in scans]
    named = {scan.name: scan for scan in scans}
    return dict(sorted(named.items()))


def _of_folder(
    dirs: tuple[str, ...], group: Sequence[FoundFile], source: Path, mask_stems: frozenset[str]
) -> list[ScanFiles]:
    """The scans of one folder: its files, those with ``_0000``, ``_0001`` behind one name taken together."""
    channels: dict[str, dict[int, FoundFile]] = defaultdict(dict)
    first = {p.case for file in group if (p := parse_image_name(file.stem)) and p.channel == 0}
    for file in group:
        parsed = parse_image_name(file.stem)
        numbered = parsed is not None and parsed.case in first
        stem = parsed.case if parsed and numbered else file.stem
        number = parsed.channel if parsed and numbered else file.channel
        while number in channels[stem]:  # two formats of one name: both are shown, and the second is refused
            stem += " (2)"
        channels[stem][number] = file
    bare = Counter(bare_name(stem) for stem in channels)
    scans = []
    for stem, files in channels.items():
        core = bare_name(stem) if bare[bare_name(stem)] == 1 and stem not in mask_stems else stem
        if len(channels) == 1:
            name = "_".join(dirs) or core or _folder_name(group[0].path, source)
        else:
            name = core or stem or _folder_name(group[0].path, source)
        stems = tuple(sorted({s for s in (stem, core) if s}, key=len, reverse=True))
        scans.append(ScanFiles(name, dirs, stems or ("",), tuple(files[number] for number in sorted(files))))
    return scans


def _with_folders(scan: ScanFiles) -> str:
    own = [folder for folder in scan.dirs if without_part(scan.name, folder) is None]
    return "_".join((*own, scan.name))


def _with_place(scan: ScanFiles) -> str:
    folders = scan.images[0].place.split("/")[:-1]
    return "_".join(dict.fromkeys((*folders, scan.stems[0] or scan.name)))


def _folder_name(path: Path, source: Path) -> str:
    """What the only case of a folder is called: the last folder that says more than what kind of file is in it."""
    folders = [source.resolve().name, *path.relative_to(source).parts[:-1]]
    return next((name for name in reversed(folders) if bare_name(name)), "case")


def _by_folder(scans: Iterable[ScanFiles]) -> dict[tuple[str, ...], list[ScanFiles]]:
    of_folder: dict[tuple[str, ...], list[ScanFiles]] = defaultdict(list)
    for scan in scans:
        of_folder[scan.dirs].append(scan)
    return dict(of_folder)


def _by_name(scans: Iterable[ScanFiles]) -> dict[str, list[ScanFiles]]:
    """Scans by whatever may name them in the name of a mask or of its folder."""
    index: dict[str, list[ScanFiles]] = defaultdict(list)
    for scan in scans:
        for part in {*scan.stems, scan.name, *scan.dirs[-1:]} - {""}:
            index[part].append(scan)
    return dict(index)


def _called(
    file: FoundFile, scans: Sequence[ScanFiles], index: Mapping[str, Sequence[ScanFiles]]
) -> Iterator[tuple[str, ScanFiles]]:
    """The scans that a mask's name begins or ends with, or one of its folders is called after, and what names them."""
    for part in {file.stem, *word_ends(file.stem), *word_starts(file.stem), *file.dirs}:
        for scan in index.get(part, ()):
            if scan in scans:
                yield part, scan


def _owner(
    file: FoundFile,
    scans: Sequence[ScanFiles],
    of_folder: Mapping[tuple[str, ...], Sequence[ScanFiles]],
    index: Mapping[str, Sequence[ScanFiles]],
) -> tuple[str, str | None] | None:
    """The case that a mask belongs to, and the structure that its name states; None where no name or folder tells."""
    deepest = next((n for n in range(len(file.dirs), 0, -1) if file.dirs[:n] in of_folder), 0)
    inside = of_folder[file.dirs[:deepest]] if deepest else []
    if len(inside) == 1:
        return inside[0].name, _structure(file, inside[0], deepest)
    if not inside and len(scans) == 1 and not file.dirs and not scans[0].dirs:
        return scans[0].name, _structure(file, scans[0], 0)
    matched: list[tuple[int, ScanFiles, str]] = []
    for part, scan in _called(file, inside or scans, index):
        rest = without_part(file.stem, part)
        if rest is not None and not rest[:1].isdigit():
            matched.append((len(part), scan, rest))
        elif part in file.dirs:
            matched.append((len(part), scan, file.stem))
    if matched:
        longest = max(length for length, _, _ in matched)
        best = {scan.name: (scan, rest) for length, scan, rest in matched if length == longest}
        if len(best) == 1:
            ((scan, rest),) = best.values()
            extra = [name for name in file.dirs if name not in (*scan.dirs, scan.name, *scan.stems)]
            return scan.name, _joined([*extra, bare_name(rest)])
    return _by_spelling(file, inside or scans)


def _by_spelling(file: FoundFile, scans: Sequence[ScanFiles]) -> tuple[str, str | None] | None:
    """``CHUM_001_seg`` is of ``CHUM-001``, where only one case is spelt alike."""
    own = _spelling(bare_name(file.stem) or (file.dirs[-1] if file.dirs else ""))
    alike = [scan for scan in scans if own and own in {_spelling(bare_name(s) or s) for s in (*scan.stems, scan.name)}]
    return (alike[0].name, None) if len(alike) == 1 else None


_spelling = lru_cache(maxsize=1 << 16)(normalise_name)


def _structure(file: FoundFile, scan: ScanFiles, depth: int) -> str | None:
    rest = file.stem
    for part in sorted({*scan.dirs, scan.name, *scan.stems} - {""}, key=len, reverse=True):
        left = without_part(rest, part)
        if left is not None and (left != "" or rest == part):
            rest = left
            break
    return _joined([*file.dirs[depth:], bare_name(rest)])


def _joined(parts: Iterable[str]) -> str | None:
    return "_".join(part for part in parts if part) or None


def _with_role(file: FoundFile, scan: ScanFiles) -> FoundFile:
    """The file with the case's name in its place replaced by ``*``."""
    folder, _, name = file.role.rpartition("/")
    if "*" in name:
        name = file.place.rpartition("/")[2]
    for part in sorted({*scan.stems, scan.name, *scan.dirs} - {""}, key=len, reverse=True):
        if part in name:
            name = name.replace(part, "*", 1)
            break
    return replace(file, role="/".join(("*" if p in scan.stems else p) for p in (*folder.split("/"), name) if p))
