"""Which of a dataset's cases a run uses, trains on and holds out: so many, or those that are named."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lnsegfm.datasets.shots import Split, draw_shots
from lnsegfm.errors import ConfigError
from lnsegfm.spelling import nearest

Cases = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CaseChoice:
    """The cases of a run.

    Args:
        cases: The only ones that are used; None uses all.
        exclude: Cases that are not used.
        shots: Cases that are trained on: so many, drawn, or these; None takes all that are not held out by name.
        held_out: Cases that are held out: so many of those left, in the order of the draw, or these; None takes all
            that are left.
        draw: Which draw; 0, 1, 2, ...

    Raises:
        ConfigError: A case that is named twice, or trained on and held out.
    """

    cases: Cases | None = None
    exclude: Cases = ()
    shots: int | Cases | None = None
    held_out: int | Cases | None = None
    draw: int = 0

    def __post_init__(self) -> None:
        for option, named in (("--cases", self.cases), ("--shots", self.shots), ("--held-out", self.held_out)):
            if isinstance(named, tuple) and len(set(named)) < len(named):
                twice = next(name for name in named if named.count(name) > 1)
                raise ConfigError(f"{option} {twice}: named twice. Name each case once.")
        named = self.held_out if isinstance(self.held_out, tuple) else ()
        if isinstance(self.shots, tuple) and (both := [name for name in self.shots if name in named]):
            raise ConfigError(f"--held-out {both[0]}: it is among --shots too. A case is trained on or held out.")
        if isinstance(self.shots, int) and self.shots < 1:
            raise ConfigError(f"--shots {self.shots}: one trains on at least one case. Use 1 or more.")
        if isinstance(self.held_out, int) and self.held_out < 0:
            raise ConfigError(f"--held-out {self.held_out}: so many cases cannot be. Use 0 or more.")

    def usable(self, names: Iterable[str], kind: str = "labelled case") -> tuple[str, ...]:
        """The names of the cases that are used, in the order given.

        Args:
            names: Of all cases.
            kind: What they are called in messages.

        Raises:
            ConfigError: A name that no case has, or no case that is left.
        """
        every = tuple(names)
        if (spelt := self.spelt_out(every)) != self:
            return spelt.usable(every, kind)
        for option, named in (
            ("--cases", self.cases),
            ("--exclude", self.exclude),
            ("--shots", self.shots),
            ("--held-out", self.held_out),
        ):
            if isinstance(named, tuple):
                _require_known(option, named, every, kind)
        chosen = set(every if self.cases is None else self.cases) - set(self.exclude)
        for option, named in (("--shots", self.shots), ("--held-out", self.held_out)):
            for name in named if isinstance(named, tuple) else ():
                if name not in chosen:
                    raise ConfigError(f"{option} {name}: --cases or --exclude leaves it out. Name it in one of them.")
        if every and not chosen:
            raise ConfigError("--exclude: no case is left. Exclude fewer.")
        return tuple(name for name in every if name in chosen)

    def spelt_out(self, names: Sequence[str]) -> CaseChoice:
        """The same choice with the names of cases where file names (``a_0000.nii.gz``) or wildcards stand for them.

        Args:
            names: Of all cases.
        """
        return replace(
            self,
            cases=None if self.cases is None else _spelt_out(self.cases, names),
            exclude=_spelt_out(self.exclude, names),
            shots=_spelt_out(self.shots, names) if isinstance(self.shots, tuple) else self.shots,
            held_out=_spelt_out(self.held_out, names) if isinstance(self.held_out, tuple) else self.held_out,
        )

    def split(self, names: Sequence[str], subjects: Mapping[str, str] | None = None) -> Split:
        """The cases to train on and those to hold out.

        Args:
            names: Names of the labelled cases that are used.
            subjects: The patient of each case, where known; other scans of a patient who is trained on are not held
                out, unless they are named.

        Raises:
            ConfigError: Numbers that the cases do not allow.
        """
        if (spelt := self.spelt_out(names)) != self:
            return spelt.split(names, subjects)
        named = self.held_out if isinstance(self.held_out, tuple) else ()
        free = [name for name in names if name not in named]
        if isinstance(self.shots, tuple):
            split = _named_shots(self.shots, free, self.draw, subjects or {})
        else:
            if isinstance(self.shots, int) and self.shots > len(free) and named:
                raise ConfigError(
                    f"shots {self.shots}: {len(free)} labelled cases are not held out by name. Use at most {len(free)}."
                )
            shots = self.shots
            if shots is None and isinstance(self.held_out, int):
                shots = len(free) - self.held_out
                if shots < 1:
                    raise ConfigError(
                        f"--held-out {self.held_out}: there are only {len(free)} labelled cases. Hold out fewer."
                    )
            split = draw_shots(free, shots, self.draw, subjects)
        if named:
            return Split(split.shots, tuple(sorted(named)))
        if isinstance(self.held_out, int):
            return Split(split.shots, _first(split.held_out, self.held_out, free, self.draw))
        return split


def cases_named(text: str, option: str) -> Cases:
    """Names of cases from an option: separated by commas, or a text file, one a line (a header ``case`` is skipped).

    Args:
        text: What was given.
        option: For messages.

    Raises:
        ConfigError: An empty list, or a file that cannot be read.
    """
    file = Path(text)
    if file.is_file():
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{option} {text}: it cannot be read ({error}). Write a name in each line.") from None
        names = [line.partition("#")[0].strip() for line in lines]
        names = names[1:] if len(names) > 1 and names[0].lower() == "case" else names
    else:
        names = [name.strip() for name in text.split(",")]
    found = tuple(name for name in names if name)
    if not found:
        raise ConfigError(
            f"{option} {text}: it names no case. Write case_1,case_2, or a file with a name in each line."
        )
    return found


def named_cases(cases: str | Sequence[str] | None, exclude: str | Sequence[str] | None) -> CaseChoice:
    """What the options ``--cases`` and ``--exclude`` choose: names, or a text that `cases_named` reads.

    Raises:
        ConfigError: As there.
    """
    return CaseChoice(cases=_names(cases, "--cases"), exclude=_names(exclude, "--exclude") or ())


def _names(given: str | Sequence[str] | None, option: str) -> Cases | None:
    if isinstance(given, str):
        return cases_named(given, option)
    return None if given is None else tuple(map(str, given))


def number_or_cases(text: Any, option: str) -> int | Cases | None:
    """A number of cases, or their names as `cases_named` reads them; None stays None.

    Raises:
        ConfigError: As there.
    """
    if text is None or isinstance(text, int):
        return text
    if isinstance(text, str):
        return int(text) if text.strip().isdecimal() else cases_named(text, option)
    return tuple(map(str, text))


def _named_shots(shots: Cases, names: Sequence[str], draw: int, subjects: Mapping[str, str]) -> Split:
    """The named cases, sorted as no order plays a part, and permuted by the draw like any others."""
    order = draw_shots(shots, None, draw).shots
    trained = {subjects[name] for name in shots if name in subjects}
    left = sorted(name for name in names if name not in shots and subjects.get(name) not in trained)
    return Split(order, tuple(left))


def _first(held_out: Collection[str], number: int, names: Sequence[str], draw: int) -> Cases:
    """So many of the held-out cases, in the order of the draw: of fewer each is among those of more."""
    if number > len(held_out):
        raise ConfigError(f"--held-out {number}: {len(held_out)} cases can be held out. Hold out fewer.")
    order = draw_shots(names, None, draw).shots
    return tuple(sorted([name for name in order if name in held_out][:number]))


def _spelt_out(named: Cases, names: Sequence[str]) -> Cases:
    """Each name as it is where a case has it; else the case of a file name, or all cases that a wildcard fits."""
    from lnsegfm.imaging.files import IMAGE_ENDINGS  # loads array libraries, which `--help` does without

    known, found = set(names), []
    for name in named:
        if name in known:
            found.append(name)
            continue
        bare = next((name.removesuffix(e) for e in IMAGE_ENDINGS if name.endswith(e)), name)
        bare = bare if bare in known else re.sub(r"_\d{4}$", "", bare)
        fitting = [each for each in names if fnmatchcase(each, bare)] if set("*?[") & set(name) else []
        found += fitting or [bare if bare in known else name]
    return tuple(dict.fromkeys(found))


def _require_known(option: str, named: Cases, names: Sequence[str], kind: str) -> None:
    for name in named:
        if name not in names:
            raise ConfigError(f"{option} {name}: no {kind} has this name. {nearest(name, names)}")
