"""What the figures say of each label, in plain words, and the title over them."""

from __future__ import annotations

import math
import statistics

from lnsegfm.evaluation.case_scores import LabelScore
from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.messages import counted
from lnsegfm.report.comparison import BASE, Comparison
from lnsegfm.report.figure_text import dice_text, interval_text
from lnsegfm.report.judged_cases import judged_text
from lnsegfm.report.published_figures import published_dice

USABLE_DICE = 0.5
"""Below it less than a third of the union of both masks is common to them: such masks are drawn anew, not corrected."""
CLEAR_RATIO = 1.5
"""Predicted to reference volume from which a mask is called too large, and below whose inverse too small."""
MOST_NAMED = 3
MOST_P = 0.05


def title(comparison: Comparison) -> str:
    """The verdict in a few words: the mean over labels, and the labels that stand against it."""
    base, adapted = (name[:1].upper() + name[1:] for name in comparison.called)
    outcome, mean = comparison.outcome, comparison.difference().mean
    several = len(comparison.compared) > 1
    on_average = " on average" if several else ""
    keep = comparison.names[0] == BASE
    ahead = adapted if mean > 0 else base
    words = {
        "adapted better": f"{adapted} is better{on_average} ({dice_text(mean, signed=True)}){_of_few(comparison)}",
        "base better": (f"Keep the base: it is better{on_average}" if keep else f"{base} is better{on_average}")
        + _of_few(comparison),
        "base ahead": f"Keep the base: it is ahead{on_average}, no difference shown" if keep else "No difference shown",
        "too small to matter": f"{ahead} is ahead by {abs(mean):.3f}: too small to matter",
        "no difference": "No difference shown",
        "one subject": "One scan shows nothing of others"
        if len(comparison.cases) == 1
        else "One subject shows nothing of others",
        "no evidence": "No evidence",
        "learnt from nothing": _learnt_title(comparison),
    }[outcome]
    if outcome in ("no evidence", "one subject", "learnt from nothing"):
        return words
    parts = [words, *_against(comparison, several)]
    if comparison.unknown:
        learnt = [name for name in comparison.unknown if not unusable(comparison, name)]
        bad = [name for name in comparison.unknown if unusable(comparison, name)]
        parts += [f"{_names(bad)} not usable"] if bad else []
        parts += [f"{_names(learnt)} learnt from nothing"] if learnt else []
    return ", ".join(parts)


def _of_few(comparison: Comparison) -> str:
    """Of how few subjects the title speaks, where no test without assumptions could show a difference at 5 %."""
    paired = comparison.difference().paired
    return f" in only {counted(paired.effect.clusters, 'subject')}" if paired.smallest_p > MOST_P else ""


def labels_apart(comparison: Comparison) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels in which the second model is worse, and better, by a difference that is shown and matters.

    Labels that only one of the two knows are in neither.
    """
    outcomes = {label: comparison.outcome_of(label) for label in comparison.compared}
    return tuple(n for n, o in outcomes.items() if o == "base better"), tuple(
        n for n, o in outcomes.items() if o == "adapted better"
    )


def label_sentence(comparison: Comparison, label: str) -> str:
    """One line on a label: the comparison where there is one, then what the masks are worth as they are."""
    if label in comparison.unknown:
        return f"{label}: {_unknown(comparison, label)}"
    difference, outcome = comparison.difference(label), comparison.outcome_of(label)
    change = dice_text(difference.mean, signed=True) if difference.n else ""
    words = {
        "adapted better": f"better ({change})",
        "base better": f"worse ({change})",
        "base ahead": f"behind ({change}), no difference shown",
        "too small to matter": f"a difference too small to matter ({change})",
        "no difference": f"no difference shown ({change})",
        "one subject": f"one subject shows nothing ({change})",
        "no evidence": "no evidence: in no case is the Dice of both defined",
    }[outcome]
    if not difference.n:
        return f"{label}: {words}"
    dice = f"Dice {dice_text(difference.base_mean)} to {dice_text(difference.adapted_mean)}"
    if difference.interval is not None and outcome != "one subject":
        dice += f", 95 % interval of the difference {interval_text(difference.interval)}"
    return "; ".join([f"{label}: {words}", f"{dice}, {judged_text(comparison, label)}", *_absolute(comparison, label)])


def short_line(comparison: Comparison, label: str) -> str:
    """A label in a line of the terminal: verdict, Dice of both, cases."""
    if label in comparison.unknown:
        return label_sentence(comparison, label)
    difference = comparison.difference(label)
    first = label_sentence(comparison, label).split("; ")[0]
    if not difference.n:
        return first
    dice = f"Dice {dice_text(difference.base_mean)} to {dice_text(difference.adapted_mean)}"
    poor = ["not usable as it is"] if unusable(comparison, label) else []
    return "; ".join([first, f"{dice}, {judged_text(comparison, label)}", *poor])


def published_sentence(comparison: Comparison, label: str) -> str | None:
    """The adapted model's Dice beside what is published for such a structure; None where nothing is known."""
    published = published_dice(label, node=label in comparison.adapted.node_labels)
    dice = mean_dice(comparison, label)
    if published is None or math.isnan(dice):
        return None
    place = "below" if dice < published.low else "above" if dice > published.high else "within"
    return (
        f"{label}: Dice {dice:.2f} is {place} what is published for {published.structure}, {published.low:.2f} to "
        f"{published.high:.2f} ({published.statistic}; {published.source}). Other scans, other references: no more "
        "than a hint."
    )


def unusable(comparison: Comparison, label: str) -> bool:
    """Whether the second model's masks of a label would be drawn anew: its mean Dice is below `USABLE_DICE`."""
    return mean_dice(comparison, label) < USABLE_DICE


def mean_dice(comparison: Comparison, label: str) -> float:
    """Mean Dice of the second model over all cases where it is defined; NaN without any."""
    values = [score.dice for score in _scores(comparison, label) if not math.isnan(score.dice)]
    return statistics.fmean(values) if values else math.nan


def volume_ratios(comparison: Comparison, label: str) -> list[float]:
    """Predicted over reference volume of each case that has a reference volume, ascending."""
    return sorted(s.prediction_ml / s.reference_ml for s in _scores(comparison, label) if s.reference_ml > 0)


def volume_words(ratios: list[float]) -> str | None:
    """That masks are too large, too small or missing, in words; None where they are about right or unknown.

    The median decides; the range over the cases is given where all of them are beyond it.
    """
    if not ratios:
        return None
    middle, low, high = statistics.median(ratios), ratios[0], ratios[-1]
    if high == 0:
        return "no mask at all"
    if middle >= CLEAR_RATIO:
        if low < CLEAR_RATIO or _times(low) == _times(high):
            return f"masks typically {_times(middle)} times too large"
        return f"masks {_times(low)} to {_times(high)} times too large"
    if middle <= 1 / CLEAR_RATIO:
        return f"masks typically hold {middle:.0%} of the volume"
    return None


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 5 else f"{ratio:.1f}"


def _unknown(comparison: Comparison, label: str) -> str:
    base, adapted = comparison.called
    if all(not score.known for score in _scores(comparison, label)):
        return f"neither {base} nor {adapted} knows it"
    ours = comparison.names[0] == BASE
    start = "learnt from nothing" if ours else f"{base} has no mask of it, so nothing to compare"
    dice = mean_dice(comparison, label)
    if math.isnan(dice):
        return f"{start}: in no case is a Dice defined"
    judged = judged_text(comparison, label)
    over = f" over {judged}" if " of " in judged else ""
    return "; ".join([f"{start}: Dice {dice:.2f}{over}", *_absolute(comparison, label)])


def _absolute(comparison: Comparison, label: str) -> list[str]:
    """Distances, volumes and usability of the second model's masks, where there is something to say."""
    parts, measured = [], 0
    scores = _scores(comparison, label)
    for key in ("hd95_mm", "assd_mm"):
        values = [v for s in scores if not math.isnan(v := s.value(key))]
        if values:
            parts.append(f"{METRICS[key].title.removesuffix(' mm')} {statistics.fmean(values):.1f} mm")
            measured = len(values)
    judged = sum(not math.isnan(s.dice) for s in scores)
    if parts and measured < judged:  # an empty mask has no surface
        parts[-1] += f" over the {measured} of {counted(judged, 'case')} with a mask"
    volumes = volume_words(volume_ratios(comparison, label))
    return [
        *([", ".join(parts)] if parts else []),
        *([volumes] if volumes else []),
        *(["not usable as it is"] if unusable(comparison, label) else []),
    ]


def _against(comparison: Comparison, several: bool) -> list[str]:
    if not several:
        return []
    worse, better = labels_apart(comparison)
    outcome = comparison.outcome
    told = [f"worse for {_with_change(comparison, worse)}"] if worse and outcome != "base better" else []
    if better and outcome != "adapted better":
        told.append(f"better for {_with_change(comparison, better)}")
    behind = tuple(n for n in comparison.compared if comparison.outcome_of(n) == "base ahead")
    if behind and outcome == "adapted better":
        told.append(f"behind for {_with_change(comparison, behind)}")
    return told


def _with_change(comparison: Comparison, labels: tuple[str, ...]) -> str:
    ranked = sorted(labels, key=lambda name: -abs(comparison.difference(name).mean))
    return _names([f"{n} ({dice_text(comparison.difference(n).mean, signed=True)})" for n in ranked])


def _names(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    shown = names if more <= 1 else names[:MOST_NAMED]
    return ", ".join(shown) if more <= 1 else f"{', '.join(shown)} and {more} others"


def _learnt_title(comparison: Comparison) -> str:
    known = "Learnt from nothing" if comparison.names[0] == BASE else "Nothing to compare"
    if any(unusable(comparison, name) for name in comparison.labels):
        bad = [name for name in comparison.labels if unusable(comparison, name)]
        which = "" if len(bad) == len(comparison.labels) else f"{_names(bad)} "
        return f"{known}: {which}not usable as it is"
    dice = statistics.fmean([mean_dice(comparison, name) for name in comparison.labels])
    return f"{known}: Dice {dice:.2f}" if not math.isnan(dice) else known


def _scores(comparison: Comparison, label: str) -> list[LabelScore]:
    return [comparison.adapted_score(case, label) for case in comparison.cases]
