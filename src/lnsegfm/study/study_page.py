"""The report of a study as one HTML file that needs no server, no network and no other file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.report.plot_style import Plot
from lnsegfm.report.templates import render_page
from lnsegfm.storage import write_text
from lnsegfm.study.study_curves import plot_learning_curves
from lnsegfm.study.study_figures import MethodFigures, StudyDifference, method_figures, rank_figures
from lnsegfm.study.study_scores import Setting, StudyScores
from lnsegfm.study.study_tables import comparison_table, label_table, method_table, rank_table
from lnsegfm.study.study_words import headline, limits, rank_sentence, sentences, setting_title


def write_study_page(path: Path, scores: StudyScores, differences: Sequence[StudyDifference]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: The HTML file.
        scores: The results.
        differences: All comparisons (`lnsegfm.study.study_figures.all_differences`).
    """
    figures = {setting: method_figures(scores, setting) for setting in scores.settings}
    page = render_page(
        "study.html.j2",
        title=f"Study: {scores.declared.get('title', '')}",
        headline=headline(scores),
        sentences=list(sentences(differences)),
        notes=list(limits(scores, differences)),
        plots=list(_plots(scores, figures)),
        settings=[_setting(scores, setting, figures[setting], differences) for setting in scores.settings],
        comparisons=comparison_table(scores, differences) if differences else None,
        declared=[(key, _declared(value)) for key, value in scores.declared.items() if key != "title"],
    )
    write_text(path, page)


def _plots(scores: StudyScores, figures: Mapping[Setting, Sequence[MethodFigures]]) -> Iterator[Plot]:
    """Learning curves of each data set and base: on the held-out scans, then on the base's own task."""
    for data, base in dict.fromkeys((setting.data, setting.base) for setting in figures):
        mine = {s.shots: found for s, found in figures.items() if (s.data, s.base) == (data, base)}
        where = data if len(scores.declared.get("bases", ())) < 2 else f"{data}, base {base}"
        for part, title in (("dice", f"{where}: held-out scans"), ("source", f"{where}: the base's own task")):
            curves: dict[str, dict[int, Any]] = {}
            untouched = None
            for shots, methods in mine.items():
                for one in methods:
                    mean = getattr(one, part)
                    if mean is None or math.isnan(mean.value):
                        continue
                    if one.is_base:
                        untouched = mean
                    else:
                        curves.setdefault(one.method, {})[shots] = mean
            if curves:
                yield plot_learning_curves(title, curves, untouched)


def _setting(
    scores: StudyScores, setting: Setting, methods: Sequence[MethodFigures], differences: Sequence[StudyDifference]
) -> dict[str, Any]:
    ranks, labels = rank_figures(scores, setting), scores.labels(setting)
    return {
        "title": setting_title(scores, setting),
        "methods": method_table(methods, [one for one in differences if one.setting == setting]),
        "labels": label_table(methods, labels) if len(labels) > 1 else None,
        "rank_sentence": rank_sentence(ranks) if ranks is not None else "",
        "ranks": rank_table(ranks) if ranks is not None else None,
    }


def _declared(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
