"""A conversion in parts: each writes its cases, and the whole conversion then goes over all of them.

Which of two equal scans is the duplicate depends on their order among all cases, so only the whole conversion decides
it; it finds the cases of the parts finished, and writes again what it judges otherwise.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lnsegfm.datasets.convert.conversion_plan import ConversionOptions, ConversionPlan
from lnsegfm.datasets.convert.conversion_record import FORMAT, RECORD
from lnsegfm.datasets.convert.convert_dataset import (
    ConversionResult,
    ConversionRun,
    convert,
    hold_conversion,
    planned_conversion,
)
from lnsegfm.datasets.convert.set_card import SetCard
from lnsegfm.errors import DataError
from lnsegfm.jobs.parts import ListPart, PartsPending
from lnsegfm.progress import Progress
from lnsegfm.storage import content_hash, read_json, write_json

PIECES = "parts"
"""Folder in that of the dataset, of what parts leave for each other; it goes when all are done."""


@dataclass(frozen=True)
class ConversionRequest:
    """What is converted, and where to; as the arguments of `convert`."""

    card: SetCard
    source: Path
    out: Path
    options: ConversionOptions


def convert_part(
    request: ConversionRequest, part: ListPart, *, finishes: bool = True, progress: Progress | None = None
) -> ConversionResult:
    """Convert a part of the cases; the part that finds all others done goes over the whole.

    Args:
        request: What is converted.
        part: These of the cases.
        finishes: Whether it goes over the whole where no part lacks.
        progress: Reported to after each case.

    Raises:
        PartsPending: Other parts are not done.
        ConfigError: As `convert`.
        DataError: As `convert`.
    """
    out = request.out
    identity, plan = planned_conversion(request.card, request.source, out, request.options)
    _begin(out, identity)
    mine = part.take(plan.scans)
    pieces = out / PIECES / _identity_of(identity, plan)
    with hold_conversion(out, f"{part.number}-of-{part.of}"):
        run = ConversionRun(request.card, replace(plan, scans=tuple(mine)), out)
        for done, scan in enumerate(mine, start=1):
            run.take(scan)
            if progress is not None:
                progress.advance(done, len(mine), scan.name)
        write_json(_piece(pieces, part), {"written": [*_written(pieces, part), *run.written]})
    every = [ListPart(number, part.of) for number in range(1, part.of + 1)]
    lacking = [each.number for each in every if not _piece(pieces, each).is_file()]
    if lacking or not finishes:
        raise PartsPending(part, len(mine), lacking)
    return _whole(request, [name for each in every for name in _written(pieces, each)], progress)


def convert_by_others(
    request: ConversionRequest, run: Callable[[Sequence[str]], Mapping[str, str]], progress: Progress | None = None
) -> ConversionResult:
    """Have cases converted by other processes, each by `convert_part`, and go over the whole.

    Args:
        request: What is converted.
        run: Has the cases of these names converted; gives why processes failed. What they leave is converted here.
        progress: Reported to.

    Raises:
        ConfigError: As `convert`.
        DataError: As `convert`.
    """
    identity, plan = planned_conversion(request.card, request.source, request.out, request.options)
    _begin(request.out, identity)
    todo = ConversionRun(request.card, plan, request.out).unfinished()
    if todo:
        run(todo)
    return _whole(request, todo, progress)


def _begin(out: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder this conversion's, unless it is."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / RECORD).is_file():
        write_json(out / RECORD, {"format": FORMAT, "complete": False, "identity": identity})


def _whole(request: ConversionRequest, written: Sequence[str], progress: Progress | None) -> ConversionResult:
    result = convert(request.card, request.source, request.out, request.options, progress=progress)
    shutil.rmtree(request.out / PIECES, ignore_errors=True)
    there = [*result.written, *result.kept]
    new = {*written, *result.written}
    return replace(
        result,
        written=tuple(name for name in there if name in new),
        kept=tuple(name for name in there if name not in new),
    )


def _identity_of(identity: Mapping[str, Any], plan: ConversionPlan) -> str:
    return content_hash([identity, [[scan.name, scan.fingerprint] for scan in plan.scans]])[:16]


def _piece(pieces: Path, part: ListPart) -> Path:
    return pieces / f"{part.number}-of-{part.of}.json"


def _written(pieces: Path, part: ListPart) -> list[str]:
    with suppress(DataError, KeyError, TypeError):
        return list(read_json(_piece(pieces, part))["written"])
    return []
