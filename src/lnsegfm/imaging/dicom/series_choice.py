"""Which of the series of a study are taken, and why.

A study holds a scan several times: as thin and thick slices, with a soft and a sharp kernel, as coronal and sagittal
reformats, as projections. One of them is taken of each scan, by a fixed order; every other acquisition is a scan of its
own. A series is passed over only where its difference from one that is taken is known (`variant_of`): what nothing
explains is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.kernels import SHARP, SOFT
from lnsegfm.imaging.dicom.same_acquisition import same_acquisition
from lnsegfm.imaging.dicom.series_extent import is_targeted, missing_mm
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.series_kinds import projection, quantity
from lnsegfm.imaging.dicom.series_selector import PLANES, SeriesSelector, parse_selector, sharpness_of
from lnsegfm.imaging.dicom.series_variant import variant_of
from lnsegfm.imaging.dicom.series_words import describe, listing, short_name

_SHOWN = 12  # series that a message lists


@dataclass(frozen=True)
class PassedOver:
    """A series that is not taken, and no fault.

    Args:
        series: The series.
        kind: ``projection``, ``quantity``, ``reformat``, ``derived``, ``field-of-view``, ``thickness``, ``kernel``,
            ``uneven`` or ``not-selected``.
        what: What it is of the other, such as "coronal reformat".
        instead: The one that is taken of its scan; None where none has to be.
    """

    series: Series
    kind: str
    what: str
    instead: Series | None = None

    @property
    def reason(self) -> str:
        """Why, by UIDs."""
        return f"{self.what} of series {self.instead.name}" if self.instead is not None else self.what

    @property
    def short_reason(self) -> str:
        """Why, by number and description."""
        return f"{self.what} of series {short_name(self.instead)}" if self.instead is not None else self.what


@dataclass(frozen=True)
class Taken:
    """A series that is taken.

    Args:
        series: The series.
        why: What decided, in a few words.
        alternatives: How many others of its scan were passed over for it.
    """

    series: Series
    why: str
    alternatives: int = 0


@dataclass(frozen=True)
class SeriesChoice:
    """What is taken of the series of a tree.

    Args:
        taken: Series that are taken, in the order in which they were found.
        passed_over: All others, in the same order.
        unmatched: Selectors that fit no series.
    """

    taken: tuple[Taken, ...] = ()
    passed_over: tuple[PassedOver, ...] = ()
    unmatched: tuple[str, ...] = ()

    @property
    def series(self) -> tuple[Series, ...]:
        """Those that are taken."""
        return tuple(each.series for each in self.taken)

    def takes(self, series: Series) -> bool:
        """Whether a series, one of those that were chosen among, is taken."""
        return any(each.series is series for each in self.taken)

    def why(self, series: Series) -> str:
        """What decided about a series, in a few words: ``taken: ...`` or ``passed over: ...``."""
        for taken in self.taken:
            if taken.series is series:
                return f"taken: {taken.why}"
        left = next(each for each in self.passed_over if each.series is series)
        return f"passed over: {left.short_reason}"


def choose_series(
    series: Sequence[Series],
    selectors: Sequence[str] = (),
    *,
    annotated: Collection[int] = (),
) -> SeriesChoice:
    """Choose among the series of a tree; neither their order nor that of their files makes a difference.

    Series show one scan where `same_acquisition` says so. Of each scan the first in this order is taken: one with
    structures, no projection, axial, conventional CT before other quantities, original before derived, even before
    resampled, whole before targeted field of view, thinnest, soft kernel before sharp, lowest number, UID.

    Args:
        series: All of them.
        selectors: As `parse_selector` reads them; one may be given as a text. Each chooses on its own, by the same
            order, among those that it fits; what any of them takes is taken. ``all`` takes everything.
        annotated: Positions of series with structures of their own. Without selectors they are always taken.

    Raises:
        ConfigError: A selector that cannot be read.
    """
    chosen = [parse_selector(text) for text in ([selectors] if isinstance(selectors, str) else selectors)]
    marked = frozenset(annotated)
    if not chosen:
        taken, aside = _one_of_each_scan(series, range(len(series)), marked, by_default=True)
        return _choice(series, taken, aside, ())
    taken, aside, unmatched = {}, {}, []
    for selector in chosen:
        fitting = [k for k, each in enumerate(series) if selector.fits(each)]
        if not fitting:
            unmatched.append(selector.text)
        if selector.everything:
            own, others = {k: Taken(series[k], "all are asked for") for k in fitting}, dict[int, PassedOver]()
        else:
            own, others = _one_of_each_scan(series, fitting, marked, by_default=False)
        taken |= {k: _selected(each, selector) for k, each in own.items() if k not in taken}
        aside |= {k: each for k, each in others.items() if k not in aside}
    return _choice(series, taken, aside, tuple(unmatched))


def require_choice(series: Sequence[Series], choice: SeriesChoice) -> None:
    """Refuse a choice that a selector has no part in, or that takes none of the series that there are.

    Raises:
        DataError: A selector fits no series (the line lists what there is), or no series is a scan.
    """
    if not series:
        return
    if choice.unmatched:
        raise DataError(*unmatched_lines(series, choice.unmatched))
    if choice.taken:
        return
    why = "; ".join(f"{short_name(each.series)}: {each.what}" for each in choice.passed_over[:_SHOWN])
    raise DataError(f"None of its {len(series)} series is a scan ({why}). Take them all the same: --series all.")


def unmatched_lines(series: Sequence[Series], unmatched: Sequence[str]) -> list[str]:
    """A line for each selector that fits no series, with those that there are."""
    return [f"--series {text}: no series fits it. There are: {listing(series)}." for text in unmatched]


def with_reason(taken: Taken) -> Series:
    """The series, with a note about why it was taken where others of its scan were not."""
    if not taken.alternatives:
        return taken.series
    return replace(taken.series, notes=(*taken.series.notes, f"taken: {taken.why} ({describe(taken.series)})"))


def _selected(taken: Taken, selector: SeriesSelector) -> Taken:
    others = f", {taken.why}" if taken.alternatives else ""
    return Taken(taken.series, f"selected by --series {selector.text}{others}", taken.alternatives)


def _choice(
    series: Sequence[Series], taken: dict[int, Taken], aside: dict[int, PassedOver], unmatched: tuple[str, ...]
) -> SeriesChoice:
    left = [k for k in range(len(series)) if k not in taken]
    over = (aside.get(k) or PassedOver(series[k], "not-selected", "not selected by --series") for k in left)
    return SeriesChoice(tuple(taken[k] for k in sorted(taken)), tuple(over), unmatched)


def _one_of_each_scan(
    series: Sequence[Series], candidates: Sequence[int], annotated: frozenset[int], *, by_default: bool
) -> tuple[dict[int, Taken], dict[int, PassedOver]]:
    """Those of ``candidates`` that are taken and those that are not, by their positions."""
    relatives = _relatives(series, candidates)
    targeted = {
        k
        for k in candidates
        if any(not projection(series[j]) and is_targeted(series[k], series[j]) for j in relatives[k])
    }
    ranked = sorted(candidates, key=lambda k: _rank(series[k], k in annotated, k in targeted))
    taken: dict[int, str] = {}
    aside: dict[int, PassedOver] = {}
    for k in ranked:
        one = series[k]
        if k in annotated and by_default:
            taken[k] = "it has structures"
            continue
        leaders = [(j, why) for j in taken if j in relatives[k] and (why := variant_of(one, series[j], k in targeted))]
        if not leaders:
            if by_default and projection(one):
                aside[k] = PassedOver(one, "projection", f"{projection(one)}, which is no scan")
                continue
            taken[k] = ""
        elif missing := missing_mm(one, [series[j] for j, _ in leaders]):
            taken[k] = f"it shows {missing:.0f} mm more than {short_name(series[leaders[0][0]])}"
        else:
            (first, (kind, what)), *_ = leaders
            aside[k] = PassedOver(one, kind, what, series[first])
    return {k: _reasoned(series, k, why, aside) for k, why in taken.items()}, aside


def _reasoned(series: Sequence[Series], k: int, why: str, aside: dict[int, PassedOver]) -> Taken:
    others = [each for each in aside.values() if each.instead is series[k]]
    if not why:
        why = f"first of the {len(others) + 1} series of its scan" if others else "a scan"
    if sharpness_of(series[k]) == SHARP and any(_is_softer(each.series, series[k]) for each in others):
        why += "; a softer kernel is there in thicker slices: --series kernel=soft"
    return Taken(series[k], why, len(others))


def _is_softer(other: Series, taken: Series) -> bool:
    return sharpness_of(other) == SOFT and other.traits.plane == taken.traits.plane and not projection(other)


def _relatives(series: Sequence[Series], candidates: Sequence[int]) -> dict[int, set[int]]:
    """For each candidate the others that show the same acquisition."""
    relatives: dict[int, set[int]] = {k: set() for k in candidates}
    studies: dict[tuple[str, str], list[int]] = {}
    for k in candidates:
        studies.setdefault((series[k].patient_id, series[k].study_uid), []).append(k)
    for study in studies.values():
        for place, k in enumerate(study):
            for j in study[:place]:
                if same_acquisition(series[j], series[k]):
                    relatives[k].add(j)
                    relatives[j].add(k)
    return relatives


def _rank(series: Series, annotated: bool, targeted: bool) -> tuple[Any, ...]:
    traits = series.traits
    return (
        not annotated,
        bool(projection(series)),
        PLANES.index(traits.plane),
        bool(quantity(series)),
        traits.derived,
        series.uneven,
        targeted,
        round(traits.resolution_mm, 2),
        round(traits.step_mm, 2),
        {SOFT: 0, SHARP: 2}.get(sharpness_of(series), 1),
        series.number if series.number is not None else 1 << 32,
        series.uid,
        series.part,
        series.slices[0].sop_instance_uid,
    )
