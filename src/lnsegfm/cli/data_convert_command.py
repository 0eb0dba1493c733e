"""``lnsegfm data convert``: DICOM trees and public sets as datasets."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnsegfm.cli.job_options import OF_A_LIST, Jobs, On, Sharing
from lnsegfm.cli.shared_options import (
    AcceptAutomatic,
    AsJson,
    FillBetween,
    PairByGeometry,
    ResampleUneven,
    SeriesSelectors,
    Straighten,
    print_json,
)
from lnsegfm.cli.work_in_parts import print_pending, run_parts
from lnsegfm.errors import ConfigError
from lnsegfm.jobs.parts import PartsPending
from lnsegfm.messages import printable

if TYPE_CHECKING:
    from lnsegfm.datasets.convert import ConversionResult, SetCard

_SHOWN = 40  # lines of one kind that the terminal gets


class Channels(StrEnum):
    """Which of two registered scans become channels."""

    contrast = "contrast"
    plain = "plain"
    both = "both"


def convert(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="`dicom`, or a public set; without it the sets are listed.", show_default=False)
    ] = None,
    source: Annotated[
        Path | None,
        typer.Argument(help="Folder that holds the set (`dicom`: or a zip); without it the set is described."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Folder for the dataset; the same command goes on with it.")
    ] = None,
    roi: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=LABEL", help="Structures by name, such as 'LN*=lymph_node'; repeat for more."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder with masks that are published apart from the scans.")
    ] = None,
    channels: Annotated[Channels, typer.Option(help="Which of two registered scans to take.")] = Channels.contrast,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            metavar="NAME|I/N",
            help="Only this part of the set, as a dataset of its own. I/N: do the I-th of N parts of the work alone, "
            "for a scheduler of your own; all share one --out.",
        ),
    ] = None,
    shell: Annotated[
        float, typer.Option(help="Background around nodes where the rest is unknown (`ignore`), mm.", metavar="MM")
    ] = 3.0,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Scans without structures go to imagesTs.")] = False,
    keep_names: Annotated[
        bool, typer.Option("--keep-names", help="Name cases by PatientID instead of by pseudonym.")
    ] = False,
    key: Annotated[
        Path | None, typer.Option(help="File with the secret of the pseudonyms, made where there is none.")
    ] = None,
    straighten: Straighten = False,
    accept_automatic: AcceptAutomatic = False,
    pair_by_geometry: PairByGeometry = False,
    resample_uneven: ResampleUneven = False,
    fill_between: FillBetween = False,
    series: SeriesSelectors = None,
    listing: Annotated[
        bool, typer.Option("--list", help="Print what a DICOM tree holds and which ROI match; write nothing.")
    ] = False,
    on: On = "local",
    jobs: Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Convert a DICOM tree or a public set to a dataset; without arguments, list the sets."""
    from lnsegfm.datasets.convert import SETS, ConversionOptions, card_of, list_tree, require_meaning
    from lnsegfm.datasets.convert import convert as convert_set
    from lnsegfm.datasets.convert.convert_parts import ConversionRequest, convert_by_others, convert_part

    if name is None:
        cards, problems = SETS.usable()
        _list_sets(cards.values(), as_json)
        for line in problems:
            print(f"lnsegfm: {printable(line)}", file=sys.stderr)
        return
    card = card_of(name)
    set_parts, work = _parts(parts or ())
    sharing = Sharing.of(on, jobs, work)
    options = ConversionOptions(
        roi=tuple(roi or ()),
        masks=masks,
        channels=channels.value,
        part=set_parts[0] if set_parts else None,
        shell_mm=shell,
        unlabelled=unlabelled,
        keep_names=keep_names,
        key=key,
        straighten=straighten,
        accept_automatic=accept_automatic,
        pair_by_geometry=pair_by_geometry,
        resample_uneven=resample_uneven,
        fill_between=fill_between,
        series=tuple(series or ()),
    )
    require_meaning(card, options)
    if source is None:
        _describe(card, as_json)
        return
    if listing:
        if card.public:
            raise ConfigError(
                f"--list: it looks through DICOM trees, not {name}. Say `data convert dicom SOURCE --list`."
            )
        tree = list_tree(
            source,
            options.roi,
            straighten=straighten,
            resample_uneven=resample_uneven,
            options=options.pairing,
            selectors=options.series,
        )
        print_json(tree) if as_json else _print_tree(tree)
        return
    if out is None:
        raise ConfigError("--out: where the dataset goes is not said. Say --out DATASET.")
    from lnsegfm.cli.console import console

    with console() as progress:
        progress.stage(f"Looking through {source}")
        request = ConversionRequest(card, source, out, options)
        try:
            if sharing.part is not None:
                result = convert_part(request, sharing.part, finishes=not OF_A_LIST.get(), progress=progress)
            elif sharing.in_jobs:
                run = partial(run_parts, context, sharing, out, progress, changed={"parts": set_parts})
                result = convert_by_others(request, run, progress)
            else:
                result = convert_set(card, source, out, options, progress=progress)
        except PartsPending as pending:
            print_pending(pending, "done", as_json)
            return
    print_json(_facts(card, result)) if as_json else _print_result(card, result)
    if result.failed:
        raise typer.Exit(1 if result.written or result.kept else 2)


def _parts(given: Sequence[str]) -> tuple[list[str], str | None]:
    """What ``--part`` names: parts of the set, and the part of the work.

    Raises:
        ConfigError: More than one of either.
    """
    work = [text for text in given if re.fullmatch(r"\s*\d+\s*/\s*\d+\s*", text)]
    of_set = [text for text in given if text not in work]
    if len(work) > 1 or len(of_set) > 1:
        raise ConfigError(f"--part {', '.join(given)}: one at a time. Give one NAME, and one I/N.")
    return of_set, work[0] if work else None


def _facts(card: SetCard, result: ConversionResult) -> dict[str, Any]:
    return {
        "format": "lnsegfm.converted/1",
        "set": card.name,
        "out": str(result.out),
        "written": list(result.written),
        "kept": list(result.kept),
        "duplicates": dict(result.duplicates),
        "failed": list(result.failed),
        "left_out": list(result.left_out),
        "missing": list(result.missing),
        "notes": list(result.notes),
    }


def _print_result(card: SetCard, result: ConversionResult) -> None:
    for title, lines in (
        ("left out", [*result.left_out, *(f"Case {a}: the same scan as {b}." for a, b in result.duplicates.items())]),
        ("missing", result.missing),
        ("note", result.notes),
        ("failed", result.failed),
    ):
        for line in lines[:_SHOWN]:
            print(f"lnsegfm: {title}: {line}", file=sys.stderr)
        if len(lines) > _SHOWN:
            print(f"lnsegfm: {title}: {len(lines) - _SHOWN} more (--json tells all).", file=sys.stderr)
    there = f", {len(result.kept)} were there" if result.kept else ""
    cases = "1 case" if len(result.written) == 1 else f"{len(result.written)} cases"
    print(f"{cases} of {card.name} written to {result.out}{there}, {len(result.failed)} failed.")
    if card.public:
        print(f"Licence: {card.licence}.\nCite: {card.citation}.")


def _list_sets(cards: Iterable[SetCard], as_json: bool) -> None:
    if as_json:
        print_json({"sets": [card.as_json() for card in cards]})
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("name", "what", "licence")
    table.columns[0].no_wrap = True
    table.columns[1].overflow = "fold"  # an address that is cut short is none
    for card in cards:
        table.add_row(card.name, escape(card.title), escape(card.licence))
    Console().print(table)
    print("All of a set, and where and how to get it: lnsegfm data convert NAME.")
    print("No converter has been run on the real set yet.")


def _describe(card: SetCard, as_json: bool) -> None:
    if as_json:
        print_json(card.as_json())
        return
    lines = [card.title]
    for title, text in (
        ("where", card.url),
        ("licence", card.licence),
        ("cite", card.citation),
        ("get it", card.download),
        ("layout", card.layout),
        ("counts", ", ".join(f"{what.replace('_', ' ')} {n}" for what, n in card.expected.items())),
        ("options", ", ".join(f"--{o.removesuffix('_mm').replace('_', '-')}" for o in sorted(card.options))),
    ):
        if text:
            lines.append(f"{title}: {text}")
    for title, several in (("checked", card.checks), ("open", card.open_points), ("source", card.sources)):
        lines += [f"{title}: {each}" for each in several]
    pattern = "" if card.public else " --roi 'LN*=lymph_node'"
    lines.append(f"Then: lnsegfm data convert {card.name} FOLDER{pattern} --out DATASET")
    width = max(shutil.get_terminal_size().columns, 40)
    for line in lines:
        print(textwrap.fill(line, width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))


def _print_tree(tree: dict[str, Any]) -> None:
    for series in tree["series"]:
        shape, spacing = ("x".join(f"{v:.4g}" for v in series[key]) for key in ("shape", "spacing_mm"))
        described = f" ({series['description']})" if series["description"] else ""
        print(f"CT series {series['series'] or 'without UID'}{described}: {shape} voxels, {spacing} mm")
        _print_wrapped(f"  {series['what']}; {series['choice']}")
        for structures in series["structures"]:
            _print_file(structures)
        for each in series["refused"] if series["without_reference"] else ():
            _print_wrapped(f"  {each['kind']} {each['file']}: {each['name']} is not taken: {each['why']}")
        for line in series["remarks"]:
            _print_wrapped(f"  note: {line}")
        if not series["structures"]:
            print("  no structures")
        elif series["without_reference"]:
            _print_wrapped(f"  no reference: {series['without_reference']}")
    for each in tree["without_series"]:
        _print_wrapped(f"{each['kind']} {each['file']}: {each['why']}; {', '.join(each['rois']) or 'no structure'}")
    for line in tree["refused"]:
        print(f"refused: {line}")
    for modality, count in tree["other_images"].items():
        print(f"passed over: {count} images of modality {modality}")


def _print_file(structures: dict[str, Any]) -> None:
    about = (structures["date"], structures["approval"].lower(), "taken" if structures["taken"] else "")
    described = ", ".join(part for part in about if part)
    _print_wrapped(f"  {structures['kind']} {structures['file']}" + (f" ({described})" if described else ""))
    for roi in structures["rois"]:
        label = f" -> {roi['label']}" if roi["label"] else ""
        author = "a person" if roi["person"] else "an algorithm"
        drawn = "" if roi["drawn"] else ", nothing drawn"
        verdict = "taken" if roi["taken"] else f"not taken: {roi['why']}"
        by = f" ({roi['author']})" if roi["taken"] or roi["person"] else ""
        _print_wrapped(f"    {roi['name']}{label}: {verdict}; by {author}{by}{drawn}; paired by {roi['paired_by']}")


def _print_wrapped(line: str) -> None:
    indent = len(line) - len(line.lstrip())
    width = max(shutil.get_terminal_size().columns, 40)
    more = " " * (indent + 4)
    print(textwrap.fill(printable(line.strip()), width, initial_indent=" " * indent, subsequent_indent=more,
                        break_long_words=False, break_on_hyphens=False))  # fmt: skip
