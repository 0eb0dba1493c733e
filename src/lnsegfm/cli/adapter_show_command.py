"""``lnsegfm adapter show``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnsegfm.cli.fact_lines import fact_lines
from lnsegfm.cli.shared_options import AsJson, print_json
from lnsegfm.messages import printable

if TYPE_CHECKING:
    from rich.table import Table

FORMS = (("whole", "whole"), ("entries", "entries"), ("factors", "by factors"))


def show_adapter(
    adapter: Annotated[Path, typer.Argument(help="The folder of a run or of an adapter's two files, or one of these.")],
    base: Annotated[
        Path | None,
        typer.Option(help="A base, by folder or name: does the adapter fit it, and how much did each group change?"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what an adapter is: method, base and its terms, labels, what it holds of each module group."""
    from lnsegfm.cli.console import console
    from lnsegfm.models.adapter_files import describe_adapter

    with console() as progress:
        described = describe_adapter(adapter, base, progress=progress)
    if as_json:
        print_json(described)
        return
    from rich.console import Console

    terminal = Console()
    for line in fact_lines(list(_facts(described)), terminal.width):
        print(line)
    for table in _module_groups(described["module_groups"]):
        terminal.print(table)
    print("Not for clinical use.")


def _facts(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    settings = ", ".join(f"{name}={value}" for name, value in described["settings"].items() if value is not None)
    base = described["base"]
    yield "adapter", described["adapter"]
    yield "method", f"{described['method']} ({settings})" if settings else described["method"]
    yield "base", ", ".join(filter(None, (base.get("name"), f"hash {base['sha256'][:12]}")))
    yield "base's licence", base.get("licence", "not known")
    yield "base's citation", base.get("citation", "not known")
    if "given_base" in described:
        given = described["given_base"]
        answer = "it fits" if given["fits"] else "it does not fit"
        yield "compared with", f"{given['base']}, hash {given['sha256'][:12]}: {answer}"
    yield "labels", ", ".join(f"{name}={value}" for name, value in described["labels"].items())
    yield "channels", ", ".join(described["channels"])
    yield "orientation", described["axes"] or "not known"
    yield "spacing mm (z, y, x)", " x ".join(f"{axis:.4g}" for axis in described["spacing_mm"])
    yield "patch (z, y, x)", " x ".join(map(str, described["patch_size"]))
    yield "network", described["architecture"]
    yield "size", ", ".join(f"{name} {size:,} bytes" for name, size in described["bytes"].items())
    yield "versions", ", ".join(f"{name} {number}" for name, number in described["versions"].items()) or "not known"


def _module_groups(groups: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """What is stored of each group, and below it, where a base is given, what changed: 80 columns hold either."""
    names = [group["name"] for group in groups]
    stored = [", ".join(f"{g['stored'][form]} {word}" for form, word in FORMS if g["stored"][form]) for g in groups]
    rows = [
        [str(group["tensors"]), kept or "unchanged", f"{group['values']:,}", f"{group['bytes']:,}"]
        for group, kept in zip(groups, stored, strict=True)
    ]
    yield _table(["module group", "tensors", "stored", "new values", "bytes"], names, rows)
    if all(group["change"] for group in groups):
        changes = [_change(group["change"]) for group in groups]
        yield _table(["module group", "entries", "changed", "relative change"], names, changes)


def _table(columns: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.columns[0].no_wrap = max(map(len, names), default=0) <= 24
    table.columns[0].overflow = "fold"
    for column in table.columns[1:]:
        column.justify = "left" if column.header == "stored" else "right"
    for name, row in zip(names, rows, strict=True):
        table.add_row(Text(printable(name)), *row)
    return table


def _change(group: Mapping[str, Any]) -> list[str]:
    change = "" if group["relative_change"] is None else f"{group['relative_change']:.2g}"
    if group["new"]:
        change = f"{change} and {group['new']:,} new".removeprefix(" and ")
    return [f"{group['entries']:,}", f"{group['changed']:,}", change]
