"""The site: every page has a place in it, links lead where they led, the reference holds what the program holds."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

import lnsegfm
from lnsegfm.cli.main import app

pytest.importorskip("mkdocs")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
CONFIGURATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PARTS = ["Tutorials", "How to", "Reference", "Explanation"]


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hook_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def repository() -> ModuleType:
    return hook("repository")


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return hook("reference")


def pages(entry: Any) -> Iterator[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from pages(inner)


def test_every_page_has_one_place_in_the_four_parts() -> None:
    parts = {name: list(pages(part)) for entry in CONFIGURATION["nav"] for name, part in entry.items()}
    placed = [page for page in pages(CONFIGURATION["nav"]) if "/" not in page]

    assert sorted(placed) == sorted(file.name for file in (ROOT / "docs").glob("*.md"))
    assert [name for name in parts if name not in ("Home", "Project")] == PARTS
    assert all(parts[name] for name in PARTS)


def test_no_page_asks_another_server() -> None:
    assert CONFIGURATION["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & set(CONFIGURATION)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("demo.md", "[a](finetune.md#b)", "[a](finetune.md#b)"),
        ("demo.md", "[a](#b)", "[a](#b)"),
        ("demo.md", "[a](https://doi.org/x)", "[a](https://doi.org/x)"),
        ("demo.md", "[a](../README.md#b)", "[a](project/overview.md#b)"),
        ("demo.md", "[`a`](../results/step_cpu.json).", "[`a`](results/step_cpu.json)."),
        ("demo.md", "[a](../results) b", "a b"),
        ("demo.md", "![a](report.png)", "![a](report.png)"),
        ("project/overview.md", "![a](docs/report.png)", "![a](../report.png)"),
        ("project/overview.md", "[a](docs/demo.md), [b](CONTRIBUTING.md)", "[a](../demo.md), [b](contributing.md)"),
        ("project/benchmarks.md", "[a](../docs/speed.md#b)", "[a](../speed.md#b)"),
        ("project/overview.md", "[a](LICENSE)", "a"),
        ("demo.md", "```\n[a](../results)\n```\n", "```\n[a](../results)\n```\n"),
    ],
)
def test_links_lead_where_they_led(repository: ModuleType, page: str, link: str, expected: str) -> None:
    assert repository.moved(link, page) == expected


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield name, command
    for inner, child in getattr(command, "commands", {}).items():
        yield from leaves(child, f"{name} {inner}")


def test_the_reference_has_every_command_and_option(reference: ModuleType) -> None:
    page = reference.commands_page()
    for name, command in leaves(get_command(app), "lnsegfm"):
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            argument = (parameter.metavar or parameter.name).upper().strip("[]")
            shown = parameter.opts if parameter.param_type_name == "option" else [argument]
            assert all(f"`{word}`" in section for word in shown), (name, shown)


def test_the_reference_has_every_public_name(reference: ModuleType) -> None:
    page = reference.api_page()

    assert [name for name in lnsegfm.__all__ if f"::: lnsegfm.{name}\n" not in page] == []


def test_the_reference_is_made_without_torch() -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); sys.exit('torch' in sys.modules)"
    words = [sys.executable, "-c", code, str(ROOT / "docs" / "hooks" / "reference.py")]
    assert subprocess.run(words, check=False).returncode == 0


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reference" / "api.html").read_text().count("doc-heading") > 20
