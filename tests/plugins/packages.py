"""Packages outside the tree: written from docs/extend.md or by hand, and found as pip would have installed them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "extend.md"


def page_files() -> dict[str, str]:
    """The files of the page's package, by path."""
    blocks = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return {**dict(blocks), "ln_extras/__init__.py": ""}


def write_files(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def describe(folder: Path, name: str, entry_points: Mapping[str, Mapping[str, str]], summary: str = "") -> None:
    """Write the metadata that pip leaves of a package with these entry points."""
    info = folder / f"{name.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 0.1.0", *([f"Summary: {summary}"] if summary else [])]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in entry_points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups))


def install_page(folder: Path) -> Path:
    """The page's package in a folder that is to be put on the path."""
    project = tomllib.loads(write_files(folder, page_files()).joinpath("pyproject.toml").read_text())["project"]
    describe(folder, project["name"], project["entry-points"], project["description"])
    return folder
