"""A command whose work is done in parts: what its parts are called with, and how what they leave is gathered."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import typer

from lnsegfm.cli.job_options import OF_A_LIST, Sharing
from lnsegfm.cli.shared_options import print_json
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.jobs.job import Job
from lnsegfm.jobs.parts import ListPart, PartsPending
from lnsegfm.jobs.pieces import DoneByOthers, ItemWork, Pieces, WorkSharer, do_here
from lnsegfm.jobs.run_jobs import run_jobs
from lnsegfm.messages import counted, listed
from lnsegfm.progress import Progress
from lnsegfm.storage import LOCK, PARTIAL, content_hash, try_lock

T = TypeVar("T")
_WAIT_S = 1.0
NOT_OF_A_PART = frozenset({"on", "jobs", "part", "as_json"})
"""Parameters that say how a command is done in parts, not what it does."""
PIECES, LISTS = "parts", ".jobs"
"""Folders in that of the command: what parts leave for each other, and lists of jobs; they go when all is done."""


def words_of(context: typer.Context, changed: Mapping[str, Any] | None = None) -> list[str]:
    """The options and arguments that a command was given, as its command line has them.

    Args:
        context: Of the command.
        changed: Parameters that get another value.
    """
    changed = changed or {}
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name in NOT_OF_A_PART or (name not in changed and (source is None or source.name == "DEFAULT")):
            continue
        value = changed.get(name, context.params.get(name))
        if value is None:
            continue
        if parameter.param_type_name == "argument":
            arguments.append(_text(value))
        elif getattr(parameter, "is_flag", False):
            options += [max((parameter.opts if value else parameter.secondary_opts), key=len)]
        else:
            option = max(parameter.opts, key=len)
            several = value if isinstance(value, list | tuple) else [value]
            options += [word for each in several for word in (option, _text(each))]
    return [*options, "--", *arguments]


def run_parts(
    context: typer.Context,
    sharing: Sharing,
    place: Path,
    progress: Progress,
    items: Collection[str],
    changed: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Have a command done in parts; what a part does is in the command's own files.

    A second call does the parts that lacked, of the same items.

    Args:
        context: Of the command.
        sharing: Where.
        place: A folder that all machines see; the list of jobs lies in it while it is not done.
        progress: Reported to.
        items: What is shared out, by names.
        changed: Parameters that the parts get with another value.

    Returns:
        Why parts failed, by their names.
    """
    number = sharing.parts(len(items))
    command, words = _command(context), words_of(context, changed)
    shared = {"command": command, "folder": str(Path.cwd())}
    jobs = [
        Job(f"part-{k}-of-{number}", "command", {**shared, "words": ["--part", f"{k}/{number}", *words]})
        for k in range(1, number + 1)
    ]
    key = content_hash([command, words, number, sorted(items)])[:12]
    with _alone(place, f"list-{key}", progress):
        progress.stage(f"In {number} parts")
        found = run_jobs(jobs, place / LISTS / key, on=sharing.engine, progress=progress)
        if found.complete:
            shutil.rmtree(place / LISTS / key, ignore_errors=True)
            with suppress(OSError):  # another list is there
                (place / LISTS).rmdir()
    return {name: f"{name}: {why}" for name, why in found.failed.items()}


@contextmanager
def _alone(place: Path, name: str, progress: Progress) -> Iterator[None]:
    """Wait until no other call of the same command is at it."""
    lock = place / f"{PARTIAL}{name}{LOCK}"
    held = try_lock(lock)
    if held is None:
        progress.stage("Waiting for the same command, which runs already")
    while held is None:
        held = try_lock(lock, wait_s=_WAIT_S)
    with held:
        yield


@contextmanager
def shared_place(sharing: Sharing, out: Path | None, option: str = "--out") -> Iterator[Path]:
    """A folder for what parts leave for each other.

    Args:
        sharing: How the command is shared out.
        out: The command's folder, if it has one.
        option: What names it.

    Raises:
        ConfigError: Other machines or calls need one, and none is named.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        yield out
    elif sharing.part is not None or sharing.elsewhere:
        raise ConfigError(f"{option}: parts meet in a folder that all of them see. Name one with {option}.")
    else:
        with tempfile.TemporaryDirectory(prefix="lnsegfm-") as folder:
            yield Path(folder)


def require_done(failures: Mapping[str, str]) -> None:
    """Refuse to go on where parts failed.

    Raises:
        DataError: With a line for each; the same command does those alone.
    """
    if failures:
        raise DataError(*(f"{why.rstrip('.')}. The same command does it again." for why in failures.values()))


def print_pending(pending: PartsPending, done: str, as_json: bool) -> None:
    """Say that a part is done, and which others are not.

    Args:
        pending: The parts.
        done: What was done with its cases, in a word.
        as_json: For a program.
    """
    if as_json:
        print_json(pending.to_json())
        return
    print(f"Part {pending.part}: {counted(pending.items, 'case')} {pending.what or done}.")
    if pending.lacking:
        print(f"Lacking  {listed([f'{number}/{pending.part.of}' for number in pending.lacking])}")


def _command(context: typer.Context) -> list[str]:
    names: list[str] = []
    here: Any = context
    while here.parent is not None:
        names.insert(0, str(here.info_name))
        here = here.parent
    return names


def _text(value: Any) -> str:
    return str(value.value) if isinstance(value, Enum) else str(value)


@contextmanager
def shared_work(
    context: typer.Context, sharing: Sharing, out: Path | None, progress: Progress, option: str = "--out"
) -> Iterator[WorkSharer]:
    """What does a command's work on its items.

    Args:
        context: Of the command.
        sharing: How it is shared out.
        out: The folder of its results, if it has one.
        progress: Reported to.
        option: What names that folder.

    Raises:
        ConfigError: Parts have no folder where they meet.
    """
    if not sharing.in_jobs and sharing.part is None:
        yield do_here
        return
    with shared_place(sharing, out, option) as place:
        pieces = Pieces(place / PIECES, gathers=not OF_A_LIST.get())
        if sharing.part is not None:
            yield _OnePart(sharing.part, pieces)
        else:
            changed = {option.removeprefix("--"): place}

            def run(names: Sequence[str]) -> int:
                require_done(run_parts(context, sharing, place, progress, names, changed))
                return sharing.parts(len(names))

            with _alone(place, "gather", progress):
                yield DoneByOthers(pieces, run)
                if pieces.complete:
                    shutil.rmtree(place / PIECES, ignore_errors=True)
            return
        if pieces.complete:
            shutil.rmtree(place / PIECES, ignore_errors=True)


@dataclass(frozen=True)
class _OnePart:
    """Does a part here."""

    part: ListPart
    pieces: Pieces

    def __call__(self, work: ItemWork[T], progress: Progress | None) -> list[T]:
        return self.pieces.do_part(self.part, work, progress)
