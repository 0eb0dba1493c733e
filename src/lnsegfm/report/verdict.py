"""What the figures say, in plain words, and what they cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import nan_to_none
from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.statistics import FEWEST, FEWEST_FOR_BOOTSTRAP, Interval
from lnsegfm.messages import counted
from lnsegfm.report.comparison import ADAPTED, BASE, Comparison, Difference, NodeDifference

FEW = 10
_CALLED = {BASE: "the base", ADAPTED: "the adapted model"}


def verdict(comparison: Comparison) -> str:
    """One sentence on the Dice, and one on the nodes where nodes were counted.

    The rule: when the 95 % interval of the mean difference (over labels, then over cases) excludes 0, one of the two is
    better; otherwise no difference is shown. When the base is ahead on average the sentence says to keep it even if the
    interval includes 0. With fewer than ten subjects it says "with only". With several labels it names those where the
    base is ahead although it is not ahead over all.
    """
    difference = comparison.difference()
    base, adapted = called(comparison)
    outcome = difference.outcome
    if outcome == "no evidence":
        return (
            f"No evidence: on none of the {len(comparison.cases)} cases is the Dice of both models defined, "
            f"so nothing says whether {adapted} is better than {base}."
        )
    subjects = difference.paired.effect.clusters
    where = f"With only {_cases(comparison, difference)}" if subjects < FEW else f"On {_cases(comparison, difference)}"
    by = distance_text(difference.mean)
    detail = _detail(comparison, difference)
    keep = ": keep the base" if comparison.names[0] == BASE else ""
    if outcome == "adapted better":
        sentence = f"{adapted} is better than {base} by {by} on average ({detail}){_labels_behind(comparison)}"
    elif outcome == "base better":
        sentence = f"{base} is better by {by} on average ({detail}){keep}"
    elif outcome == "base ahead":
        sentence = f"{base} is better by {by} on average (no difference shown: {detail}){keep}"
    elif difference.mean > 0:
        sentence = (
            f"no difference is shown: {adapted} is ahead by {by} on average ({detail}){_labels_behind(comparison)}"
        )
    else:
        sentence = f"no difference is shown ({detail}){_labels_behind(comparison)}"
    return " ".join(
        [f"{where}, {sentence}.", *(node_sentence(comparison, label) for label in _node_labels(comparison))]
    )


def node_sentence(comparison: Comparison, label: str) -> str:
    """How many nodes of a label either model finds, and its false positives."""
    nodes = comparison.nodes(label)
    if nodes is None or not nodes.nodes:
        return f"No node of {label} is in the references."
    base, adapted = called(comparison)
    cases = len(comparison.cases)
    counts = [
        f"{model} finds {n} of {nodes.nodes} nodes ({n / nodes.nodes:.0%}) "
        f"with {false_positives / cases:.2g} false positives a scan"
        for model, n, false_positives in (
            (base, nodes.base_true_positives, nodes.base_false_positives),
            (adapted, nodes.adapted_true_positives, nodes.adapted_false_positives),
        )
    ]
    name = f"{label}: " if len(comparison.labels) > 1 else ""
    return f"{name or 'Node by node, '}{counts[0]}, {counts[1]}{_node_interval(nodes)}."


def notes(comparison: Comparison) -> tuple[str, ...]:
    """Sentences below the verdict: what is unknown to the base, what is left out, what few cases mean."""
    sentences = []
    base, adapted = called(comparison)
    for label in comparison.unknown:
        sentences.append(
            f"{base[:1].upper()}{base[1:]} gives no mask of {label} (it does not know it, or takes other channels): "
            "its Dice there counts as that of an empty mask, which is a low bar to pass."
        )
    for label in comparison.labels:
        without = len(comparison.cases) - comparison.difference(label).n
        if without:
            number = counted(without, "case")
            sentences.append(f"{label}: {number} not counted, because the Dice of one or both models is not defined.")
    if failures := {*comparison.base.failures, *comparison.adapted.failures}:
        sentences.append(f"Not every case could be scored: {' '.join(sorted(failures))}")
    difference = comparison.difference()
    sentences += limits(difference.paired.effect.clusters)
    if not math.isnan(difference.paired.detectable) and difference.paired.sd > 1e-6:
        sentences.append(
            f"The differences scatter by {difference.paired.sd:.3f} (SD): with this many subjects a mean difference "
            f"below about {dice_text(difference.paired.detectable)} Dice could not have been distinguished from none."
        )
    for label in _node_labels(comparison):
        nodes = comparison.nodes(label)
        if nodes is not None and (behind := _nodes_behind(nodes)):
            sentences.append(f"{label}: {adapted} {behind}.")
    return tuple(sentences)


def forgetting(comparison: Comparison) -> str:
    """One sentence on what the adapted model lost on the source data."""
    difference = comparison.difference()
    where = f"On the {counted(difference.n, 'source case')}"
    if difference.outcome == "no evidence":
        return f"{where}: the Dice of both models is defined on none, so nothing says what was forgotten."
    detail, size = _detail(comparison, difference), distance_text(difference.mean)
    sentence = {
        "base better": f"the adapted model has forgotten: {size} less on average",
        "base ahead": f"no loss is shown, though it is behind by {size} on average",
        "adapted better": f"nothing is forgotten: it is better there, too, by {size} on average",
        "no difference": "no loss is shown",
    }[difference.outcome]
    return f"{where}, {sentence} ({detail})."


def to_json(comparison: Comparison, root: Path = Path()) -> dict[str, Any]:
    """The sentences, the differences by label and over all, and both evaluations, as JSON-able values.

    Args:
        comparison: Two models on the same cases.
        root: The folder that it will be written to.
    """
    corrected = comparison.corrected_p()
    labels = comparison.labels
    return {
        "verdict": verdict(comparison),
        "outcome": comparison.outcome,
        "notes": list(notes(comparison)),
        "names": list(comparison.names),
        "unknown_to_base": list(comparison.unknown),
        "overall": comparison.difference().to_json(),
        "labels": {
            label: comparison.difference(label).to_json() | nan_to_none({"p_corrected": corrected[label]})
            for label in labels
        },
        "metrics": {
            metric: {label: comparison.difference(label, metric).to_json() for label in labels}
            for metric in comparison.adapted.metrics
            if metric != "dice"
        },
        "nodes": {label: nodes.to_json() for label in labels if (nodes := comparison.nodes(label)) is not None},
        "base": comparison.base.to_json(root),
        "adapted": comparison.adapted.to_json(root),
    }


def from_json(content: Mapping[str, Any], root: Path = Path()) -> Comparison:
    """The comparison that :func:`to_json` has written.

    Raises:
        DataError: It is something else, or of another version.
    """
    try:
        base, adapted = (Evaluation.from_json(content[which], root) for which in ("base", "adapted"))
        first, second = content["names"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"Comparison: {error!r} while it was read. Evaluate the masks again.") from None
    return Comparison(base, adapted, (first, second))


def limits(subjects: int) -> tuple[str, ...]:
    """What so many subjects can show and what not."""
    if subjects == 0:
        return ()
    number = counted(subjects, "subject")
    if subjects < FEWEST:
        return (f"{number}: no interval can be given. Figures from so few say what happened there only.",)
    sentences = []
    if subjects < FEWEST_FOR_BOOTSTRAP:
        smallest = 2.0 ** (1 - subjects)
        reach = (
            f"no test without assumptions can give p below {smallest:.2g}, so that none can show a difference at 5 %"
            if smallest > 0.05
            else f"the smallest p that a test without assumptions can give is {smallest:.2g}"
        )
        sentences.append(
            f"{number}: {reach}; the interval supposes that subjects differ as a normal distribution "
            "does. Read it as a hint: where a few cases fail badly, intervals from so few miss the truth about one "
            "time in eight instead of one in twenty."
        )
    elif subjects < 2 * FEW:
        sentences.append(
            f"{number}: enough for a large difference, not for a small one. Where a few cases fail "
            "badly, intervals from so few miss the truth about one time in eight instead of one in twenty."
        )
    return tuple(sentences)


def called(comparison: Comparison) -> tuple[str, str]:
    """What the two models are called in a sentence."""
    base, adapted = (_CALLED.get(name, name) for name in comparison.names)
    return base, adapted


def dice_text(value: float | None, *, signed: bool = False) -> str:
    """A Dice or a difference with three decimals, ``n/a`` where it is not defined."""
    return METRICS["dice"].text(value, signed=signed)


def ml_text(value: float) -> str:
    """A volume with two decimals, ``n/a`` where it was not measured."""
    return METRICS["volume_difference_ml"].text(value)


def interval_text(interval: Interval | None, metric: str = "dice") -> str:
    """An interval of differences, ``n/a`` where there is none."""
    if interval is None:
        return "n/a"
    low, high = (METRICS[metric].text(end, signed=True) for end in (interval.low, interval.high))
    return f"{low} to {high}"


def distance_text(difference: float) -> str:
    """The size of a difference in a sentence: two decimals, three where two would say nothing."""
    size = abs(difference)
    if size < 0.0005:
        return "less than 0.001 Dice"
    return f"{size:.3f} Dice" if size < 0.0095 else f"{size:.2f} Dice"


def _detail(comparison: Comparison, difference: Difference) -> str:
    base, adapted = called(comparison)
    means = (
        f"mean Dice {dice_text(difference.base_mean)} with {base}, {dice_text(difference.adapted_mean)} with {adapted}"
    )
    if difference.interval is None:
        return f"{means}; no interval can be given"
    return (
        f"{means}; 95 % interval of the difference {interval_text(difference.interval)}; "
        f"permutation p = {difference.paired.p:.2g}"
    )


def _labels_behind(comparison: Comparison) -> str:
    behind = [(label, comparison.difference(label).mean) for label in comparison.labels if len(comparison.labels) > 1]
    named = [f"{label} (by {distance_text(mean)})" for label, mean in behind if mean < 0]
    return f"; but {called(comparison)[0]} is better on average for {', '.join(named)}" if named else ""


def _nodes_behind(nodes: NodeDifference) -> str:
    """What the node figures hold against the second model; empty where nothing."""
    worse = []
    if nodes.sensitivity.effect.value < 0:
        worse.append(
            f"finds fewer nodes ({nodes.adapted_true_positives} against {nodes.base_true_positives} of {nodes.nodes})"
        )
    if nodes.false_positives_per_scan.effect.value > 0:
        worse.append(f"has more false positives ({nodes.adapted_false_positives} against {nodes.base_false_positives})")
    return " and ".join(worse)


def _node_interval(nodes: NodeDifference) -> str:
    interval = nodes.sensitivity.effect.interval
    difference = f"; difference in sensitivity {nodes.sensitivity.effect.value:+.2f}"
    return difference + (f", 95 % interval {interval.low:+.2f} to {interval.high:+.2f}" if interval else "")


def _node_labels(comparison: Comparison) -> tuple[str, ...]:
    return tuple(label for label in comparison.labels if label in comparison.adapted.node_labels)


def _cases(comparison: Comparison, difference: Difference) -> str:
    noun = "held-out case" if comparison.names == (BASE, ADAPTED) else "case"
    number = counted(difference.n, noun)
    clusters = difference.paired.effect.clusters
    return number if clusters == difference.n else f"{number} of {counted(clusters, 'subject')}"
