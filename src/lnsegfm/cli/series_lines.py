"""Which DICOM series were taken and which not, in short lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lnsegfm.messages import printable

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_choice import PassedOver
    from lnsegfm.imaging.dicom.series_index import Series

_SHOWN = 12  # series of one kind
_WIDTH = 80


Key = tuple[str, int, str]


def print_choice(taken: Mapping[str, Series], passed_over: Sequence[PassedOver]) -> None:
    """Print which series was passed over for which, and what each case is; nothing where no choice was to make.

    Args:
        taken: The series of each case, by its name.
        passed_over: Those that were not taken.
    """
    unusual = {case: series for case, series in taken.items() if not _is_usual(series)}
    if not passed_over and not unusual:
        return
    every = [*taken.values(), *(each.series for each in passed_over)]
    names = _distinct_names(every)
    shown = taken if passed_over else unusual
    _print_some(f"{case} is series {names[_key(series)]}: {_described(series)}" for case, series in shown.items())
    if passed_over:
        print(f"{len(passed_over)} series passed over (--series takes others):")
        _print_some(f"{names[_key(each.series)]}: {each.what}{_of(each, names)}" for each in passed_over)


def print_series_notes(taken: Mapping[str, Series]) -> None:
    """Print what was noted on the series of each case: how it was put together, and what was made of its slices."""
    lines = [printable(f"{case}: {note}") for case, series in taken.items() for note in series.notes]
    for line in lines[:_SHOWN]:
        print(line)
    if len(lines) > _SHOWN:
        print(f"{len(lines) - _SHOWN} more notes on series: in the records of their cases")


def _key(series: Series) -> Key:
    return series.uid, series.part, series.slices[0].sop_instance_uid


def _is_usual(series: Series) -> bool:
    return not series.part and series.traits.plane == "axial" and series.traits.patient_position in ("", "HFS")


def _described(series: Series) -> str:
    from lnsegfm.imaging.dicom.series_words import describe

    return describe(series)


def _of(passed_over: PassedOver, names: Mapping[Key, str]) -> str:
    from lnsegfm.imaging.dicom.series_words import short_name

    instead = passed_over.instead
    return f" of {names.get(_key(instead)) or short_name(instead)}" if instead is not None else ""


def _distinct_names(series: Iterable[Series]) -> dict[Key, str]:
    """Short names; with the end of the UID where two series have one name."""
    from lnsegfm.imaging.dicom.series_words import short_name

    every = {_key(each): each for each in series}
    names = {key: short_name(each) for key, each in every.items()}
    uids: dict[str, set[str]] = {}
    for key, name in names.items():
        uids.setdefault(name, set()).add(every[key].uid)
    return {key: f"{name} ...{every[key].uid[-6:]}" if len(uids[name]) > 1 else name for key, name in names.items()}


def _print_some(lines: Iterable[str]) -> None:
    every = [printable(f"  {line}") for line in lines]
    for line in every[:_SHOWN]:
        print(line if len(line) <= _WIDTH else f"{line[: _WIDTH - 3]}...")
    if len(every) > _SHOWN:
        print(f"  {len(every) - _SHOWN} more: --json")
