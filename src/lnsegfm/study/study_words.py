"""Figures of a study as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from lnsegfm.evaluation.crossed_statistics import CrossedMean
from lnsegfm.messages import counted
from lnsegfm.report.figure_text import dice_text
from lnsegfm.study.study_figures import AGAINST_BASE, AGAINST_REFERENCE, ALPHA, KEPT, RankFigures, StudyDifference
from lnsegfm.study.study_scores import Setting, StudyScores
from lnsegfm.study.study_table import DONE, FAILED


def mean_text(found: CrossedMean, *, signed: bool = False, ends: bool = True) -> str:
    """A mean, and its interval: ``+0.031 [-0.010 to +0.072]``; empty where there is none."""
    if math.isnan(found.value):
        return ""
    value, reach = dice_text(found.value, signed=signed), ends_text(found, signed=signed)
    return f"{value} [{reach}]" if ends and reach else value


def ends_text(found: CrossedMean, *, signed: bool = False) -> str:
    """The ends of a 95 % interval: ``0.654 to 0.769``; empty where there is none."""
    return " to ".join(dice_text(end, signed=signed) for end in found.interval) if found.interval is not None else ""


def p_text(p: float) -> str:
    """A p value: three decimals, ``<0.001`` below; empty where there is none."""
    return "" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def finding(one: StudyDifference) -> str:
    """What a comparison shows; where it shows nothing, what it could have shown."""
    difference = one.difference
    if math.isnan(difference.error):
        return "too few draws and cases for an interval"
    if one.shown:
        if one.question == KEPT:
            return "forgets" if difference.value < 0 else "gains there"
        return "better" if difference.value > 0 else "worse"
    return f"no difference shown; {dice_text(one.detectable)} would be"


def setting_title(scores: StudyScores, setting: Setting) -> str:
    """A setting in a line, without what is the same in the whole study."""
    data = scores.declared.get("data", {}).get(setting.data, setting.data)
    parts = [data if data == setting.data else f"{setting.data}: {data}", counted(setting.shots, "shot")]
    if len(scores.declared.get("bases", ())) > 1:
        parts.insert(1, f"base {setting.base}")
    return ", ".join(parts)


def headline(scores: StudyScores) -> str:
    """The study in a line: how much of it is done."""
    done = sum(record.state == DONE for record in scores.runs.values())
    failed = sum(record.state == FAILED for record in scores.runs.values())
    methods = {method for setting in scores.settings for method in scores.methods(setting)}
    text = f"{counted(len(methods), 'method')}, {counted(len(scores.settings), 'setting')}, {counted(done, 'run')}"
    return f"{text}; {failed} failed" if failed else text


def sentences(differences: Sequence[StudyDifference]) -> Iterator[str]:
    """What the comparisons show, question by question."""
    asked_of = {
        AGAINST_BASE: ("better than the base", "worse than the base"),
        AGAINST_REFERENCE: ("better than the reference", "worse than the reference"),
        KEPT: ("better on the base's own task", "forgetting"),
    }
    for question, (above, below) in asked_of.items():
        asked = [one for one in differences if one.question == question]
        if not asked:
            continue
        shown = [one for one in asked if one.shown]
        up, down = (sum((one.difference.value > 0) is sign for one in shown) for sign in (True, False))
        nothing = len(asked) - len(shown)
        parts = [f"{number} shown {words}" for number, words in ((up, above), (down, below)) if number]
        parts += [f"{nothing} with no difference shown"] if nothing else []
        yield f"{counted(len(asked), 'comparison')} {question}: {', '.join(parts)}."


def limits(scores: StudyScores, differences: Sequence[StudyDifference]) -> Iterator[str]:
    """What the figures rest on, and what they cannot say."""
    yield (
        "Intervals (95 %) and p treat draws of the shots and cases as random; p is corrected for all "
        f"{counted(len(differences), 'comparison')} of this study (Holm): below {ALPHA:g} a difference counts as shown."
    )
    if any(one.difference.over_cases_alone for one in differences):
        yield "Where there is one draw, interval and p are over cases alone: another draw may turn them round."
    yield (
        "Beside every comparison that shows nothing stands the difference that 80 % of such studies would have shown, "
        "with the same correction. A smaller one may well be there."
    )
    yield "Draws come from one pool of scans, and the bases are these: other clinics and other bases are not covered."
    for record in scores.runs.values():
        if known := record.facts.get("known_source"):
            where = f"{counted(len(known), 'scan')} of the source data of {record.run.data}"
            yield f"{where} trained base {record.run.base}: what it knows of them by heart counts as forgotten."
        if record.state == FAILED:
            yield f"Failed: {record.run.name}: {record.reason}"


def rank_sentence(found: RankFigures) -> str:
    """How often the best in the mean is the best in a draw, and how far the order holds."""
    best, ranks = next(iter(found.ranks.items()))
    first = sum(rank == 1 for rank in ranks)
    agreement = (
        "" if math.isnan(found.concordance) else f" Kendall's W {found.concordance:.2f} (1: always the same order)."
    )
    return f"{best} has the highest mean, and is first in {first} of {counted(len(ranks), 'draw')}.{agreement}"
