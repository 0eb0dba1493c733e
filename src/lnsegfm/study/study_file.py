"""A study as a file: TOML with data, bases, methods, shots and draws, checked before anything runs."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.recipe import Recipe
from lnsegfm.study.study_arms import Arm, arms_of
from lnsegfm.study.study_keys import TomlPart

BASE = "base"
"""What the untouched base is called among the methods."""
SETTLED = frozenset({"method", "settings", "shots", "held_out", "cases", "exclude", "draw", "lr_default", "plans"})
"""Fields of a `Recipe` that the study itself settles."""
TRAINING = frozenset(each.name for each in dataclasses.fields(Recipe)) - SETTLED
"""Keys of a table ``training``."""
STUDY_KEYS = ("title", "reference", "shots", "draws", "rate_choice", "keep_models")
DATA_KEYS = ("folder", "title", "held_out", "held_out_data", "source_data", "exclude", "bases", "training")


@dataclass(frozen=True, kw_only=True)
class StudyData:
    """One set of scans that bases are adapted to.

    Args:
        name: What it is called.
        title: The same in a line.
        folder: Labelled scans that shots are drawn from.
        held_out: Scans of it that every run is scored on: so many, chosen once for all draws, or these.
        held_out_data: A further folder of scans to score on; instead of ``held_out``.
        source_data: Scans of the base's own task, on which forgetting is measured.
        exclude: Scans that are not used.
        bases: Names of the bases that are adapted to it.
        training: Settings of its runs.
    """

    name: str
    folder: Path
    bases: tuple[str, ...]
    title: str = ""
    held_out: int | tuple[str, ...] = ()
    held_out_data: Path | None = None
    source_data: Path | None = None
    exclude: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is compared on what.

    Args:
        file: Where it was read from; places in it are relative to its folder.
        title: A line for the report.
        data: The sets of scans.
        bases: Folder or name of each base, by what the study calls it.
        arms: The methods with their settings.
        shots: Numbers of scans trained on.
        draws: Which draws of them.
        training: Settings of all runs; those of data, then of methods, come before them.
        reference: The method that others are compared with; None: only the base.
        rate_choice: Shots and draw on which ``lr = "auto"`` chooses once for all runs of a method; None: each run
            chooses on its own shots.
        keep_models: Keep the adapted models.
    """

    file: Path
    title: str
    data: tuple[StudyData, ...]
    bases: Mapping[str, str]
    arms: tuple[Arm, ...]
    shots: tuple[int, ...]
    draws: tuple[int, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    rate_choice: tuple[int, int] | None = None
    keep_models: bool = False

    def of_data(self, name: str) -> StudyData:
        """The set of scans of a name."""
        return next(data for data in self.data if data.name == name)

    def arm(self, name: str) -> Arm:
        """The method of a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def base_place(self, name: str) -> Path:
        """Where a base lies, relative to the study's file where there is such a folder; else its name."""
        there = self.file.parent / self.bases[name]
        return there if there.exists() else Path(self.bases[name])


def read_study(file: Path) -> Study:
    """Read a study.

    Raises:
        ConfigError: No such file, no TOML, a key that is not known or a value that cannot be; file and key are named.
        UnknownName: A method that there is not.
    """
    top = TomlPart(_parsed(file), str(file), "study")
    top.only((*STUDY_KEYS, "training", "data", "bases", "methods"))
    training = top.table("training")
    training.only(TRAINING)
    bases = {name: str(value) for name, value in top.table("bases", needed=True).texts().items()}
    data = tuple(
        _data(name, part, file.parent, tuple(bases)) for name, part in top.table("data", needed=True).tables().items()
    )
    arms = arms_of(top.table("methods", needed=True), TRAINING, BASE)
    reference = top.text("reference", default="") or None
    if reference is not None:
        top.known("reference", reference, [arm.name for arm in arms])
    shots, draws = top.numbers("shots", least=1), _draws(top)
    choice = top.table("rate_choice")
    choice.only(("shots", "draw"))
    return Study(
        file=file,
        title=top.text("title", default=file.stem),
        data=data,
        bases=bases,
        arms=arms,
        shots=shots,
        draws=draws,
        training=training.content,
        reference=reference,
        rate_choice=(choice.number("shots", least=1), choice.number("draw", least=0, default=0)) if choice else None,
        keep_models=top.flag("keep_models"),
    )


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error})"
        raise ConfigError(f"{file}: {reason}. Name a study's file (docs/study.md has one).") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML ({error}). Correct that line.") from None


def _draws(top: TomlPart) -> tuple[int, ...]:
    if isinstance(top.content.get("draws"), list):
        return top.numbers("draws", least=0)
    return tuple(range(top.number("draws", least=1)))


def _data(name: str, part: TomlPart, folder: Path, bases: tuple[str, ...]) -> StudyData:
    part.only(DATA_KEYS)
    training = part.table("training")
    training.only(TRAINING)
    used = part.words("bases") or bases
    for base in used:
        part.known("bases", base, bases)
    further, held_out = part.text("held_out_data", default=""), part.cases("held_out")
    if bool(further) == bool(held_out):
        both = "both are there" if further else "neither is there"
        raise ConfigError(
            f"{part.where}: held_out and held_out_data: {both}. Write held_out = 10 (scans of the folder itself), or "
            "held_out_data with another folder."
        )
    source = part.text("source_data", default="")
    return StudyData(
        name=name,
        folder=folder / part.text("folder"),
        bases=used,
        title=part.text("title", default=""),
        held_out=held_out,
        held_out_data=folder / further if further else None,
        source_data=folder / source if source else None,
        exclude=part.words("exclude"),
        training=training.content,
    )
