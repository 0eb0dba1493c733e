"""A folder of masks that several processes write to at once, each case by one of them.

Who predicts into a folder is a member of it as long as it does. ``masks.json`` says by which model and settings its
masks are made: the first member writes it, and members of another model or other settings are refused. A case is done
under a lock of its own, which goes with the process (`lnsegfm.storage.try_lock`): what a killed process had begun is
free at once. The short pieces of work that concern the whole folder (joining, leaving, deriving what tells of many
cases) are done under one lock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lnsegfm.errors import RunMismatch
from lnsegfm.messages import differences
from lnsegfm.storage import LOCK, PARTIAL, HeldLock, clear_partials, read_json, try_lock, write_json

CARD = "masks.json"
_PATIENCE_S = 600
"""Seconds to wait for another member to join, leave or derive; each of these takes far less."""


@contextmanager
def joined(out: Path, made_by: Mapping[str, Any], *, overwrite: bool, leaving: Callable[[], None]) -> Iterator[int]:
    """Be a member of a folder while the block lasts.

    A member that overwrites begins a new generation of masks, unless another member that overwrites is at work: then it
    joins that one's, so that each case is made anew once.

    Args:
        out: The folder; it is made.
        made_by: Model and settings of the masks that this member makes.
        overwrite: Whether masks that are there are made anew, also those of another model or other settings.
        leaving: Called at the end, however the block ends, while no other member joins or leaves.

    Yields:
        The folder's generation: how many times it was overwritten.

    Raises:
        RunMismatch: Its masks come from another model or other settings, or a member that makes such masks is at work.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _whole_folder(out) as held:
        others = _members(out)
        generation = _agree(out, dict(made_by), overwrite, others)
        if not others and held.exclusive:
            _sweep(out)
        kind = "overwrite" if overwrite else "predict"
        mine = try_lock(out / f"{PARTIAL}member-{kind}-{secrets.token_hex(8)}{LOCK}")
    try:
        yield generation
    finally:
        with _whole_folder(out) as held:
            leaving()
            if mine is not None:
                mine.release()
            if not _members(out) and held.exclusive:
                _sweep(out)


def take_case(out: Path, case: str) -> HeldLock | None:
    """The lock of a case; None while another process has it."""
    return try_lock(out / f"{PARTIAL}case-{case}{LOCK}")


def _agree(out: Path, made_by: dict[str, Any], overwrite: bool, others: set[str]) -> int:
    """Settle model, settings and generation with what is there."""
    card = out / CARD
    earlier: dict[str, Any] = read_json(card) if card.is_file() else {}
    generation = int(earlier.get("generation", 0))
    differs = bool(earlier) and {key: value for key, value in earlier.items() if key != "generation"} != made_by
    if differs and not overwrite:
        raise RunMismatch(
            f"{out}: its masks come from {_other(earlier, made_by)}. Choose another --out, or --overwrite."
        )
    if differs and others:
        raise RunMismatch(
            f"{out}: another run with {_other(earlier, made_by)} writes there now. Wait for its end, or name another "
            "--out."
        )
    if overwrite and "overwrite" not in others:
        generation += 1
    content = made_by | ({"generation": generation} if generation else {})
    if content != earlier:
        write_json(card, content)
    return generation


def _other(earlier: Mapping[str, Any], made_by: Mapping[str, Any]) -> str:
    """How masks that are there were made differently, in words."""
    models = ("model", "previous_stage", "averaged_with")
    if any(earlier.get(key) != made_by.get(key) for key in models):
        return "another model"
    keys = {"postprocessing": "postprocessing", "coarse": "--fast coarse-first", "exact": "--exact"}
    one_sided = [
        f"{name} {'there' if key in earlier else 'here'} alone"
        for key, name in keys.items()
        if key in earlier.keys() ^ made_by.keys()
    ]
    changed = [*differences(earlier, made_by), *one_sided]
    return f"other settings ({'; '.join(changed)})" if changed else "other settings"


@contextmanager
def _whole_folder(out: Path) -> Iterator[HeldLock]:
    held = try_lock(out / f"{PARTIAL}folder{LOCK}", wait_s=_PATIENCE_S)
    if held is None:
        raise RunMismatch(
            f"{out}: another run has not let go of it for {_PATIENCE_S // 60} minutes. End it, or name another --out."
        )
    with held:
        yield held


def _members(out: Path) -> set[str]:
    """The kinds of members that are at work: ``predict``, ``overwrite``; what dead ones left is removed."""
    kinds = set()
    for place in out.glob(f"{PARTIAL}member-*{LOCK}"):
        held = try_lock(place)
        if held is None:
            kinds.add(place.name.removeprefix(f"{PARTIAL}member-").split("-")[0])
        else:
            held.release()
    return kinds


def _sweep(out: Path) -> None:
    """Remove what killed processes left, while no other member is at work."""
    clear_partials(out)
    for place in out.glob(f"{PARTIAL}case-*{LOCK}"):
        place.unlink(missing_ok=True)
