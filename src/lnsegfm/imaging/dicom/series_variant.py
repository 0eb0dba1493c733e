"""What variant of a scan a series is: a projection, a reformat, thicker slices, a second kernel."""

from __future__ import annotations

from collections.abc import Callable

from lnsegfm.imaging.dicom.same_acquisition import surely_same_acquisition
from lnsegfm.imaging.dicom.series_extent import extent_mm, is_targeted, normal_axis
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.series_kinds import is_average, is_reformat, projection, quantity
from lnsegfm.imaging.dicom.series_words import differ, thickness_words


def variant_of(series: Series, taken: Series, targeted: bool) -> tuple[str, str] | None:
    """What a series is of one that is taken of the same acquisition.

    Args:
        series: The series.
        taken: One of the same acquisition.
        targeted: ``series`` shows a narrow part of the field of view of another one.

    Returns:
        Its kind and what it is in words, such as ("reformat", "coronal reformat"); None where no difference is known
        that would make it another picture of what ``taken`` shows.
    """
    rules: tuple[tuple[str, Callable[[], str]], ...] = (
        ("projection", lambda: projection(series) if projection(series) != projection(taken) else ""),
        ("quantity", lambda: quantity(series) if quantity(series) != quantity(taken) else ""),
        ("reformat", lambda: _other_plane(series, taken)),
        ("derived", lambda: _derivation(series, taken)),
        ("field-of-view", lambda: "part of the field of view" if targeted and is_targeted(series, taken) else ""),
        ("uneven", lambda: "uneven slices" if series.uneven and not taken.uneven else ""),
        ("thickness", lambda: _thicker(series, taken)),
        ("kernel", lambda: _second_kernel(series, taken)),
        ("field-of-view", lambda: "another field of view" if _other_pixels(series, taken) else ""),
    )
    foreign = quantity(taken) not in ("", quantity(series)) or projection(taken) not in ("", projection(series))
    if foreign or is_targeted(taken, series):
        return None  # what is taken does not show what this one does
    return next(((kind, what) for kind, rule in rules if (what := rule())), None)


def _other_plane(series: Series, taken: Series) -> str:
    if series.traits.plane == taken.traits.plane:
        return ""
    return f"{series.traits.plane} {'reformat' if series.traits.derived or is_reformat(series) else 'images'}"


def _derivation(series: Series, taken: Series) -> str:
    if not series.traits.derived or taken.traits.derived:
        return ""
    thicker = _thicker(series, taken)
    if is_average(series) and not thicker and not is_reformat(series):
        return ""  # the average over the phases of a 4D scan: a scan of its own
    return f"{thicker or 'reformat'}, derived," if is_reformat(series) or thicker else "derived images"


def _thicker(series: Series, taken: Series) -> str:
    own, other = series.traits, taken.traits
    if differ(own.resolution_mm, other.resolution_mm) or differ(own.step_mm, other.step_mm):
        return f"{thickness_words(series)} instead of {thickness_words(taken)}"
    return ""


def _second_kernel(series: Series, taken: Series) -> str:
    own, other = series.traits.kernel, taken.traits.kernel
    return f"second kernel {' '.join(own) or 'without a name'}" if own != other and (own or other) else ""


def _other_pixels(series: Series, taken: Series) -> bool:
    """Whether pixels or the place of the field of view differ, and not for being another scan of the same region."""
    if not surely_same_acquisition(series, taken):
        return False
    axis = normal_axis(taken)
    own, other = extent_mm(series), extent_mm(taken)
    moved = any(
        abs(own[a][end] - other[a][end]) > max(series.grid.spacing_mm[1], taken.grid.spacing_mm[1])
        for a in range(3) if a != axis for end in (0, 1)
    )  # fmt: skip
    return moved or any(
        differ(a, b) for a, b in zip(series.grid.spacing_mm[1:], taken.grid.spacing_mm[1:], strict=True)
    )
