"""Names of structures, and the labels that patterns give them.

Everybody spells names in a way of their own (``LN 1``, ``ln_1``, ``LN-1``). Names and patterns are compared in the
manner of TG-263 (Mayo et al., Int J Radiat Oncol Biol Phys 2018): case does not count, and blanks, hyphens and
underscores are one separator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.spelling import normalise_name

_SHOWN = 40  # names that a message lists

NO_VOXEL = "has no voxel: "
"""In a line about a structure or segment without voxels, what stands before the reason."""

NoteCallback = Callable[[str], None]
"""Is given one line about each thing that a user should know."""


@dataclass(frozen=True)
class RoiMatch:
    """The labels that structures were given by their names.

    Args:
        names: Names of the structures, as given.
        labels: The label of each; None for those that no pattern matches.
        pattern_labels: The label of each pattern, in their order.
        unused: Patterns that match no name.
        contested: Names that patterns of several labels match equally well, with these labels; the first has it.
    """

    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    pattern_labels: tuple[str, ...]
    unused: tuple[str, ...] = ()
    contested: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def unmatched(self) -> tuple[str, ...]:
        """Names that no pattern matches."""
        return tuple(name for name, label in zip(self.names, self.labels, strict=True) if label is None)

    def named(self, label: str) -> tuple[str, ...]:
        """Names that got this label."""
        return tuple(name for name, given in zip(self.names, self.labels, strict=True) if given == label)

    def listing(self) -> list[str]:
        """One line a label with its structures, and one for what is left."""
        lines = [f"{label}: {', '.join(self.named(label)) or 'none'}" for label in dict.fromkeys(self.pattern_labels)]
        return [*lines, f"not matched: {', '.join(self.unmatched) or 'none'}"]


def match_rois(names: Sequence[str], patterns: Sequence[str], *, strict: bool = True) -> RoiMatch:
    """Give each structure a label by its name.

    A pattern without wildcards that spells a name, to the letter or else normalised, goes before wildcards; among
    wildcards (``*``, ``?``, ``[ab]``) the first pattern that fits has the name.

    Args:
        names: Names of the structures.
        patterns: ``PATTERN=LABEL``, such as ``LN*=lymph_node``. Several may give one label.
        strict: Refuse a pattern that matches no name. In a cohort, where not every patient has every structure, a
            caller may pass False and look at ``unused``.

    Raises:
        DataError: No pattern at all, one that is not ``PATTERN=LABEL``, or one that matches nothing.
    """
    pairs = [_pair(pattern) for pattern in patterns]
    if not pairs:
        raise DataError("No pattern for structures: nothing would be read. Give at least one, such as LN*=lymph_node.")
    fits = [_fits(name, pairs) for name in names]
    labels, contested = [], []
    for name, ranked in zip(names, fits, strict=True):
        best = [pairs[number][1] for rank, number in ranked if rank == ranked[0][0]]
        labels.append(best[0] if best else None)
        if len(set(best)) > 1:
            contested.append((name, tuple(dict.fromkeys(best))))
    used = {number for ranked in fits for _, number in ranked}
    unused = tuple(pattern for number, pattern in enumerate(patterns) if number not in used)
    if unused and strict:
        raise DataError(*(f"Pattern {p}: no structure has such a name. {_there_are(names)}" for p in unused))
    return RoiMatch(tuple(names), tuple(labels), tuple(label for _, label in pairs), unused, tuple(contested))


def _pair(pattern: str) -> tuple[str, str]:
    wanted, equals, label = pattern.rpartition("=")
    wanted, label = wanted.strip(), label.strip()
    if not (equals and wanted and label):
        raise DataError(f"Pattern {pattern}: it does not say which label it gives. Write it as LN*=lymph_node.")
    return wanted, label


def _fits(name: str, pairs: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
    """(rank, number) of the patterns that fit a name, best first."""
    ranks = ((_rank(name, wanted), number) for number, (wanted, _) in enumerate(pairs))
    return sorted((rank, number) for rank, number in ranks if rank is not None)


def _rank(name: str, wanted: str) -> int | None:
    """How well a pattern fits a name, 0 best; None if it does not."""
    if name == wanted:
        return 0
    if normalise_name(name) == normalise_name(wanted):
        return 1
    return 2 if fnmatchcase(normalise_name(name), _normalised_pattern(wanted)) else None


def _normalised_pattern(wanted: str) -> str:
    # within brackets a hyphen makes a range and a blank is a choice
    parts = re.split(r"(\[[^\]]*\])", wanted.strip())
    return "".join(
        part.casefold() if part.startswith("[") else re.sub(r"[\s_-]+", "_", part.casefold()) for part in parts
    )


def _there_are(names: Sequence[str]) -> str:
    shown = ", ".join(sorted(set(names), key=str.casefold)[:_SHOWN])
    more = f" and {len(set(names)) - _SHOWN} more" if len(set(names)) > _SHOWN else ""
    return f"There are: {shown}{more}." if names else "The structure set is empty."


def overlap_notes(overlaps: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """A line for each pair of labels that overlap, by the number of voxels that are in both."""
    for (first, second), count in overlaps.items():
        yield f"{count} voxels are in {first} and in {second}: given to {first}."


def labels_by_priority(matched: RoiMatch, labels: Mapping[str, int], priority: Sequence[str] | None) -> list[str]:
    """The labels that patterns give, in the order in which they take a voxel: ``priority`` first, then the patterns'.

    Raises:
        DicomError: A label without a value from 1 to 255, or a priority for one that is not there.
    """
    used = list(dict.fromkeys(matched.pattern_labels))
    for label in used:
        if not 1 <= labels.get(label, 0) <= 255:
            have = ", ".join(f"{name} {value}" for name, value in labels.items()) or "none"
            raise DicomError(
                f"Label {label}: it has no value from 1 to 255 (labels: {have}). Name it among the labels."
            )
    if unknown := [label for label in priority or () if label not in labels]:
        raise DicomError(f"Priority {', '.join(unknown)}: no label has this name. Use {', '.join(labels)}.")
    return [label for label in dict.fromkeys([*(priority or ()), *used]) if label in used]
