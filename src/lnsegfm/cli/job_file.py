"""A job file: the options of a command as TOML, so that a run is a file."""

from __future__ import annotations

import difflib
import tomllib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lnsegfm.errors import ConfigError
from lnsegfm.storage import atomic_write

LEFT_OUT = frozenset({"job", "write-job", "dry-run", "json", "help", "prepare-only", "on", "jobs", "part"})
"""Options that say what is done with a job, not what the job is."""


def take_job(context: typer.Context, file: Path | None) -> Path | None:
    """Take from a file whatever the command line does not say; the callback of ``--job``.

    Args:
        context: Of the command that is being read.
        file: TOML with a key for each option, by its name without the dashes, and ``data`` for the argument; lists for
            options that repeat, tables for those of NAME=VALUE.

    Raises:
        ConfigError: No such file, no TOML, a key that the command has no option for, or a value of another kind.
    """
    if file is None or context.resilient_parsing:
        return file
    names, values = _names(context), {}
    for key, value in _read(file).items():
        option = key.replace("_", "-")
        if option not in names:
            near = difflib.get_close_matches(option, names, n=1)
            remedy = f"Write {near[0]}." if near else f"Its keys are the options of lnsegfm {context.info_name}."
            raise ConfigError(f"{file}: {key}: {context.info_name} has no such option. {remedy}")
        values[names[option].name] = _given(value, names[option], f"{file}: {key}")
    context.default_map = {**(context.default_map or {}), **values}
    return file


def write_job(context: typer.Context, file: Path) -> None:
    """Write the options that a command was given as a file for ``--job``, whole or not at all.

    Args:
        context: Of the command.
        file: Where to.
    """
    lines = [f"# lnsegfm {context.info_name} --job {file.name}"]
    tables = []
    for option, parameter in _names(context).items():
        value, source = context.params.get(parameter.name), context.get_parameter_source(parameter.name)
        if value is None or source is None or source.name == "DEFAULT":
            continue
        if _of_pairs(parameter):
            tables += ["", f"[{option}]", *(_assigned(one) for one in value)]
        else:
            lines.append(f"{option} = {_toml(value)}")
    with atomic_write(file) as partial:
        partial.write_text("\n".join([*lines, *tables]) + "\n", encoding="utf-8")


Job = Annotated[
    Path | None,
    typer.Option(
        "--job",
        metavar="FILE.toml",
        is_eager=True,
        callback=take_job,
        help="Take options from a file (see --write-job); what is given here wins.",
    ),
]
WriteJob = Annotated[
    Path | None,
    typer.Option("--write-job", metavar="FILE.toml", help="Write the options of this command to a file for --job."),
]


def _names(context: typer.Context) -> dict[str, Any]:
    """The command's parameters by the names of their options."""
    names = {}
    for parameter in context.command.params:
        long = [option[2:] for option in parameter.opts if option.startswith("--")]
        name = long[0] if long else str(parameter.name)
        if name not in LEFT_OUT:
            names[name] = parameter
    return names


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = file.read_bytes()
        encoding = "utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"  # Windows' Notepad
        return tomllib.loads(content.decode(encoding).replace("\r\n", "\n"))
    except UnicodeDecodeError:
        raise ConfigError(f"--job {file}: its text is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error})"
        raise ConfigError(f"--job {file}: {reason}. Write one with --write-job.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--job {file}: not TOML ({error}).") from None


def _of_pairs(parameter: Any) -> bool:
    return bool(parameter.multiple) and "=" in str(parameter.metavar or "")


def _given(value: Any, parameter: Any, where: str) -> Any:
    """A value as the command line would give it."""
    multiple, flag = bool(getattr(parameter, "multiple", False)), bool(getattr(parameter, "is_flag", False))
    if isinstance(value, Mapping):
        if not multiple:
            raise ConfigError(f"{where}: a table cannot stand there. Write one value.")
        return [f"{name}={each}" for name, each in value.items()]
    if multiple:
        return list(map(str, value)) if isinstance(value, list) else [str(value)]
    if isinstance(value, bool) != flag:
        wanted = "true or false" if flag else "a value"
        raise ConfigError(f"{where}: {value!r} cannot stand there. Write {wanted}.")
    if isinstance(value, list):
        return [str(each) for each in value] if parameter.nargs != 1 else ",".join(map(str, value))
    return value if flag else str(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    text = str(value)
    return "".join(('"', *(_escaped(letter) for letter in text), '"'))


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\u{ord(letter):04x}"


def _assigned(pair: str) -> str:
    name, _, value = pair.partition("=")
    return f"{_toml(name.strip())} = {_toml(value.strip())}"
