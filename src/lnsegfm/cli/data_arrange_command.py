"""``lnsegfm data arrange``: scans and masks that lie otherwise, as a dataset."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnsegfm.cli.shared_options import AsJson, Labels, print_json
from lnsegfm.errors import ConfigError
from lnsegfm.messages import counted, printable

if TYPE_CHECKING:
    from lnsegfm.datasets.arrange import Arrangement, ArrangeResult

_CASES, _LINES = 6, 40  # cases, and lines of one kind, that the terminal gets


def arrange(
    source: Annotated[Path, typer.Argument(help="Folder with images and masks, in whatever folders and by any names.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DATASET", help="Folder for the dataset; the same command goes on with it.")
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="The images, such as '*/CT.nii.gz' or a folder; repeat for channels."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--labels", metavar="PATTERN", help="The masks, such as '*/mask.nii.gz' or a folder; repeatable."),
    ] = None,
    label: Labels = None,
    label_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File that names the values: JSON, CSV, ITK-SNAP, 3D Slicer.")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Names of the channels, in their order.")
    ] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Images without a mask go to imagesTs.")] = False,
    link: Annotated[bool, typer.Option("--link", help="Link files instead of copying them, where possible.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is understood; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Arrange images and masks as a dataset: shows what it understood, then writes it."""
    from lnsegfm.datasets.arrange import ArrangeOptions, plan_arrangement
    from lnsegfm.datasets.arrange import arrange as arrange_files
    from lnsegfm.datasets.labels import LabelMap

    if out is None and not dry_run:
        raise ConfigError("--out: where the dataset goes is not said. Say --out DATASET, or --dry-run to look first.")
    options = ArrangeOptions(
        images=tuple(images or ()),
        labels=tuple(labels or ()),
        names=LabelMap.from_options(label or ()),
        label_file=label_file,
        channels=tuple(name.strip() for name in channels.split(",")) if channels else (),
        unlabelled=unlabelled,
        link=link,
    )
    plan = plan_arrangement(source, options)
    if not as_json:
        _show(plan)
    if dry_run or out is None:
        _finish_dry_run(plan, as_json)
        return
    from lnsegfm.cli.console import console

    with console() as progress:
        progress.stage(f"Writing {out}")
        result = arrange_files(source, out, options, plan=plan, progress=progress)
    print_json(_facts(plan, result)) if as_json else _print_result(result)
    if result.failed:
        raise typer.Exit(1 if result.written or result.kept else 2)


def _show(plan: Arrangement) -> None:
    print(f"{counted(len(plan.cases), 'case')} in {plan.source}")
    for what, roles in (("images", plan.images), ("masks", plan.masks)):
        for role, number in sorted(roles.items()):
            _wrapped(f"{what}: {role} ({number})")
    if plan.labels is not None:
        _wrapped(f"labels ({plan.labels_from}): {plan.labels}")
    _wrapped(f"channels: {', '.join(plan.channels)}")
    for case in plan.cases[:_CASES]:
        files = [*dict.fromkeys(case.images), *dict.fromkeys(part.path for part in case.parts)]
        shown = [
            str(file.relative_to(plan.source)) if file.is_relative_to(plan.source) else str(file) for file in files
        ]
        more = f" and {len(shown) - 4} more files" if len(shown) > 4 else ""
        _wrapped(f"  {case.name}: {', '.join(shown[:4])}{more}")
    if len(plan.cases) > _CASES:
        print(f"  {len(plan.cases) - _CASES} more cases (--json tells all)")
    if plan.left_over:
        _wrapped(f"not taken: {counted(len(plan.left_over), 'file')}: {_first(plan.left_over)}")
    for title, lines in (("left out", plan.left_out), ("note", plan.notes)):
        _tell(title, lines)


def _finish_dry_run(plan: Arrangement, as_json: bool) -> None:
    if as_json:
        print_json(_facts(plan, None))
    else:
        _tell("failed", plan.failed)
        print("Nothing was written (--dry-run).")
    if plan.failed or not plan.cases:
        raise typer.Exit(1 if plan.cases else 2)


def _print_result(result: ArrangeResult) -> None:
    _tell("note", result.notes[len(result.plan.notes) :])
    _tell("failed", result.failed)
    there = f", {len(result.kept)} were there" if result.kept else ""
    cases = counted(len(result.written), "case")
    _wrapped(f"{cases} written to {result.out}{there}, {len(result.failed)} failed.")
    _wrapped(f"Next: lnsegfm data check {result.out}")


def _tell(title: str, lines: tuple[str, ...]) -> None:
    for line in lines[:_LINES]:
        print(f"lnsegfm: {title}: {printable(line)}", file=sys.stderr)
    if len(lines) > _LINES:
        print(f"lnsegfm: {title}: {len(lines) - _LINES} more (--json tells all).", file=sys.stderr)


def _facts(plan: Arrangement, result: ArrangeResult | None) -> dict[str, Any]:
    return {
        "format": "lnsegfm.arranged/1",
        "source": str(plan.source),
        "out": str(result.out) if result else None,
        "labels": plan.labels.to_dataset_json() if plan.labels else None,
        "labels_from": plan.labels_from,
        "channels": list(plan.channels),
        "images": dict(plan.images),
        "masks": dict(plan.masks),
        "cases": [
            {
                "case": case.name,
                "images": [str(image) for image in case.images],
                "masks": [{"file": str(p.path), "label": p.label, "value": p.value} for p in case.parts],
                "unlabelled": list(case.unlabelled),
            }
            for case in plan.cases
        ],
        "written": list(result.written) if result else [],
        "kept": list(result.kept) if result else [],
        "left_over": list(plan.left_over),
        "left_out": list(plan.left_out),
        "failed": list(result.failed if result else plan.failed),
        "notes": list(result.notes if result else plan.notes),
    }


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _wrapped(line: str) -> None:
    indent = len(line) - len(line.lstrip())
    width = max(shutil.get_terminal_size().columns, 40)
    print(textwrap.fill(printable(line.strip()), width, initial_indent=" " * indent,
                        subsequent_indent=" " * (indent + 4), break_long_words=False,
                        break_on_hyphens=False))  # fmt: skip
