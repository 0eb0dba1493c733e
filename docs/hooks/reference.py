"""Pages of the reference that are made from the code: the commands, the Python interface, the errors.

Nothing here loads torch: commands are read from the program's own description of them, docstrings without running what
they describe.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from typer.main import get_command

import lnsegfm
import lnsegfm.testing
from lnsegfm.cli.main import app

# Modules and classes that extensions build with, beside what the package itself exports.
BUILDING_BLOCKS = {
    "For methods": ("lnsegfm.methods.method", "lnsegfm.methods.dense", "lnsegfm.networks.role"),
    "For networks": ("lnsegfm.networks.cards.NetworkCard",),
    "For metrics": ("lnsegfm.evaluation.metric_table.Metric",),
    "For readers and writers": ("lnsegfm.imaging.readers.Reader", "lnsegfm.prediction.writers.mask_writer"),
    "For datasets": ("lnsegfm.datasets.convert.set_card.SetCard",),
    "Checks of what an extension brings": tuple(f"lnsegfm.testing.{name}" for name in lnsegfm.testing.__all__),
}


def leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The commands that do something, each with its full name."""
    if not hasattr(command, "commands"):
        yield name, command
        return
    for inner, child in command.commands.items():
        yield from leaves(child, f"{name} {inner}")


def cell(text: str) -> str:
    """Text for one cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def default(option: Any) -> str:
    """The default of an option as a reader types it."""
    value = option.default
    if option.required:
        return "required"
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None or value == () or value == [] or callable(value):
        return ""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def kind(parameter: Any) -> str:
    """What a parameter takes, by the annotation of the function behind the command."""
    if parameter.metavar or getattr(parameter, "is_flag", False):
        return parameter.metavar or ""
    annotation = parameter.type_descriptor.annotation
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(str(choice.value) for choice in annotation)
    inner = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) is Literal:
        return ", ".join(map(str, inner))
    return {str: "text", int: "integer", float: "number", Path: "path"}.get(inner[0] if inner else annotation, "")


def command_section(name: str, command: Any) -> Iterator[str]:
    """A command's description, arguments and options as Markdown."""
    yield f"## {name}\n"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    words = [(p.metavar or p.name).upper().strip("[]") for p in arguments]
    shown = [w if p.required else f"[{w}]" for p, w in zip(arguments, words, strict=True)]
    yield "    " + " ".join([name, *shown, "[OPTIONS]"]) + "\n"
    yield re.sub(r"^ +", "", (command.help or "").replace("\b", ""), flags=re.MULTILINE).strip() + "\n"
    if arguments:
        yield "| argument | takes | meaning |\n|---|---|---|"
        for argument, word in zip(arguments, words, strict=True):
            yield f"| `{word}` | {kind(argument)} | {cell(getattr(argument, 'help', '') or '')} |"
        yield ""
    if options:
        yield "| option | takes | default | meaning |\n|---|---|---|---|"
        for option in options:
            names = ", ".join(f"`{n}`" for n in (*option.opts, *option.secondary_opts))
            yield f"| {names} | {cell(kind(option))} | {cell(default(option))} | {cell(option.help or '')} |"
        yield ""


def commands_page() -> str:
    """Every command with every argument and option, as ``--help`` tells them."""
    commands = list(leaves(get_command(app), "lnsegfm"))
    lines = ["# Commands\n", "Made from the program itself; `lnsegfm COMMAND --help` shows the same.\n"]
    lines += ["| command | does |\n|---|---|"]
    for name, command in commands:
        anchor = re.sub(r"[^\w\- ]", "", name).replace(" ", "-")
        first = (command.help or "").strip().split("\n\n")[0]
        lines.append(f"| [`{name}`](#{anchor}) | {cell(first)} |")
    lines.append("")
    for name, command in commands:
        lines += command_section(name, command)
    return "\n".join(lines)


def api_page() -> str:
    """The names that the package exports, and the modules that others build with."""
    names = sorted(lnsegfm.__all__, key=lambda name: (not name.islower(), name.lower()))  # functions first
    methods = [n for n in names if n not in _LAZY and hasattr(getattr(lnsegfm, n), "trains")]
    jobs = [n for n in names if n not in methods]
    lines = ["# Python\n", "What `import lnsegfm` gives, then the modules that extensions build with.\n"]
    lines += ["## Jobs and their values\n", *(f"::: lnsegfm.{name}\n" for name in jobs)]
    lines += ["## Methods of adaptation\n", *(f"::: lnsegfm.{name}\n" for name in methods)]
    for title, places in BUILDING_BLOCKS.items():
        lines += [f"## {title}\n", *(f"::: {name}\n" for name in places)]
    return "\n".join(lines)


def errors_page() -> str:
    """Exit codes and the classes of errors."""
    return """# Errors and exit codes

| exit code | means |
|---|---|
| 0 | done |
| 1 | some cases failed, the others are done |
| 2 | the request or its input is wrong: one line for each mistake says what, which, and what to do |
| 130 | interrupted; the same command goes on |

From Python the same mistakes are raised. Each class derives from `LnSegFmError` and from the built-in that it refines.

::: lnsegfm.errors
    options:
      show_root_heading: false
      show_root_toc_entry: false
"""


_LAZY = set(lnsegfm._LAZY)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name, text in (("commands", commands_page()), ("api", api_page()), ("errors", errors_page())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files
