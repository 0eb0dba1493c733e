"""The runs of a study: what each is called, its recipe, and the terms under which its result holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.recipe import AUTO, PostprocessingMode, Recipe
from lnsegfm.storage import content_hash
from lnsegfm.study.study_file import BASE, Study, StudyData

NO_POSTPROCESSING = {"postprocessing": PostprocessingMode.NONE}
"""Networks are compared, not rules that clean masks, unless a study says otherwise."""


@dataclass(frozen=True, order=True)
class StudyRun:
    """One run: a method on some shots, or the untouched base.

    Args:
        data: Name of the data.
        base: Name of the base.
        method: Name of the method, or `BASE`.
        shots: Scans trained on; 0 of the base.
        draw: Which draw of them; 0 of the base.
    """

    data: str
    base: str
    method: str = BASE
    shots: int = 0
    draw: int = 0

    @property
    def name(self) -> str:
        """The run in a table: unique in a study."""
        place = f"{self.data}/{self.base}/{self.method}"
        return place if self.method == BASE else f"{place}/{self.shots} shots/draw {self.draw}"

    def job_name(self, terms: Mapping[str, Any], kind: str = "run") -> str:
        """Name of its job: another one under other terms."""
        words = (kind, self.data, self.base, self.method, f"s{self.shots}", f"d{self.draw}")
        readable = re.sub(r"[^A-Za-z0-9._=+-]+", "-", "_".join(words))
        return f"{readable[:90]}-{content_hash(terms)[:10]}"


def planned_study_runs(study: Study) -> tuple[StudyRun, ...]:
    """All runs, draw by draw, so that a study that is stopped has whole draws; the bases come first."""
    places = [(data, base) for data in study.data for base in data.bases]
    runs = [StudyRun(data.name, base) for data, base in places]
    runs += [
        StudyRun(data.name, base, arm.name, shots, draw)
        for draw in study.draws
        for shots in study.shots
        for data, base in places
        for arm in study.arms
    ]
    return tuple(runs)


def recipe_fields(study: Study, data: StudyData, method: str) -> dict[str, Any]:
    """What a run's recipe says beside its cases: the method and its settings, and how it is trained.

    Settings of the method come before those of the data, and these before the study's.
    """
    fields: dict[str, Any] = {**NO_POSTPROCESSING, **study.training, **data.training}
    if method != BASE:
        arm = study.arm(method)
        fields |= {**arm.training, "method": arm.method, "settings": dict(arm.settings)}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}


def study_recipe(fields: Mapping[str, Any], where: str) -> Recipe:
    """A recipe of plain values.

    Raises:
        ConfigError: A value that cannot be.
    """
    try:
        return Recipe(**fields)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: a setting is of the wrong kind ({error}). See docs/study.md.") from None


def require_recipes(study: Study) -> None:
    """Refuse settings that no run could have, before anything is read or written.

    Raises:
        ConfigError: There are some; data and method are named.
    """
    for data in study.data:
        for arm in study.arms:
            study_recipe(recipe_fields(study, data, arm.name), f"{study.file}: {arm.name} on {data.name}")


def rate_owner(study: Study, run: StudyRun) -> StudyRun | None:
    """The run on whose shots the learning rate of a run is chosen for all draws; None where it is not so chosen."""
    if run.method == BASE or study.rate_choice is None:
        return None
    if recipe_fields(study, study.of_data(run.data), run.method).get("lr") != AUTO:
        return None
    shots, draw = study.rate_choice
    return StudyRun(run.data, run.base, study.arm(run.method).rates_of or run.method, shots, draw)
