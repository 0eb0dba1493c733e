"""What the figures say, in plain words, and what they cannot say."""

from __future__ import annotations

import math

from lnsegfm.evaluation.statistics import FEWEST, FEWEST_FOR_BOOTSTRAP
from lnsegfm.messages import counted
from lnsegfm.report.comparison import ADAPTED, BASE, Comparison, Difference, NodeDifference
from lnsegfm.report.figure_text import dice_text, distance_text, interval_text
from lnsegfm.report.judged_cases import left_out_sentence
from lnsegfm.report.label_verdict import label_sentence, published_sentence

FEW = 10


def verdict(comparison: Comparison) -> str:
    """One sentence on the Dice, one on each label that the base does not know, and one on nodes.

    The rule: when the 95 % interval of the mean difference (over the labels that the base knows, then over cases)
    excludes 0, one of the two is better, unless the difference is smaller than the smallest that matters; otherwise no
    difference is shown. When the base is ahead by as much the sentence says to keep it even if the interval includes 0.
    With fewer than ten subjects it says "with only"; one subject shows nothing. With several labels it names those that
    stand against the mean. A label that the base does not know is not compared: an empty mask is no rival.
    """
    said = [] if comparison.outcome == "learnt from nothing" else [f"{_compared(comparison)}."]
    said += [f"{label_sentence(comparison, label)}." for label in comparison.unknown]
    return " ".join([*said, *(node_sentence(comparison, label) for label in _node_labels(comparison))])


def _compared(comparison: Comparison) -> str:
    """The sentence on the mean over the labels that both models know."""
    difference, outcome = comparison.difference(), comparison.outcome
    base, adapted = comparison.called
    if outcome == "no evidence":
        return (
            f"No evidence: on none of the {len(comparison.cases)} cases is the Dice of both models defined, "
            f"so nothing says whether {adapted} is better than {base}"
        )
    subjects, cases = difference.paired.effect.clusters, _cases(comparison, difference)
    by, detail, keep = distance_text(difference.mean), _detail(comparison, difference), ""
    if outcome == "one subject":
        one = cases[:1].upper() + cases[1:]
        return f"{one} cannot show which model is better on others: one subject gives no interval ({detail})"
    where = f"With only {cases}" if subjects < FEW else f"On {cases}"
    apart = _labels_apart(comparison)
    if comparison.names[0] == BASE:
        keep = ": keep the base"
    if outcome == "adapted better":
        sentence = f"{adapted} is better than {base} by {by} on average ({detail}){apart}"
    elif outcome == "base better":
        sentence = f"{base} is better by {by} on average ({detail}){apart}{keep}"
    elif outcome == "base ahead":
        sentence = f"{base} is ahead by {by} on average (no difference shown: {detail}){apart}{keep}"
    elif outcome == "too small to matter":
        ahead = adapted if difference.mean > 0 else base
        least = f"below {comparison.smallest_difference:g}"
        sentence = f"{ahead} is ahead by {by} on average, a difference too small to matter ({least}; {detail}){apart}"
    elif difference.mean > 0:
        sentence = f"no difference is shown: {adapted} is ahead by {by} on average ({detail}){apart}"
    else:
        sentence = f"no difference is shown ({detail}){apart}"
    return f"{where}, {sentence}"


def node_sentence(comparison: Comparison, label: str) -> str:
    """How many nodes of a label either model finds, and its false positives."""
    nodes = comparison.nodes(label)
    if nodes is None or not nodes.nodes:
        return f"No node of {label} is in the references."
    base, adapted = comparison.called
    cases = len(comparison.cases)
    counts = [
        f"{model} finds {n} of {nodes.nodes} nodes ({n / nodes.nodes:.0%}) "
        f"with {false_positives / cases:.2g} false positives a scan"
        for model, n, false_positives in (
            (base, nodes.base_true_positives, nodes.base_false_positives),
            (adapted, nodes.adapted_true_positives, nodes.adapted_false_positives),
        )
    ]
    if label in comparison.unknown:
        counts = counts[1:]
    name = f"{label}: " if len(comparison.labels) > 1 else ""
    difference = "" if label in comparison.unknown else _node_interval(nodes)
    return f"{name or 'Node by node, '}{', '.join(counts)}{difference}."


def notes(comparison: Comparison) -> tuple[str, ...]:
    """Sentences below the verdict: what is unknown to the base, what is left out, what few cases mean."""
    sentences = []
    base, adapted = comparison.called
    for label in comparison.unknown:
        sentences.append(
            f"{base[:1].upper()}{base[1:]} gives no mask of {label} (it does not know it, or takes other channels): "
            "nothing is compared there, and the mean over labels leaves it out."
        )
    sentences += [line for label in comparison.labels if (line := left_out_sentence(comparison, label)) is not None]
    if failures := {*comparison.base.failures, *comparison.adapted.failures}:
        sentences.append(f"Not every case could be scored: {' '.join(sorted(failures))}")
    sentences += [line for label in comparison.labels if (line := published_sentence(comparison, label)) is not None]
    difference = comparison.difference()
    sentences += limits(difference.paired.effect.clusters)
    compared = comparison.outcome != "learnt from nothing"
    if compared and not math.isnan(difference.paired.detectable) and difference.paired.sd > 1e-6:
        sentences.append(
            f"The differences scatter by {difference.paired.sd:.3f} (SD): with this many subjects a mean difference "
            f"below about {dice_text(difference.paired.detectable)} Dice could not have been distinguished from none."
        )
    for label in _node_labels(comparison):
        nodes = comparison.nodes(label)
        if nodes is not None and label not in comparison.unknown and (behind := _nodes_behind(nodes)):
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


def _detail(comparison: Comparison, difference: Difference) -> str:
    base, adapted = comparison.called
    means = (
        f"mean Dice {dice_text(difference.base_mean)} with {base}, {dice_text(difference.adapted_mean)} with {adapted}"
    )
    if difference.interval is None:
        return f"{means}; no interval can be given"
    p = difference.paired.p
    return (
        f"{means}; 95 % interval of the difference {interval_text(difference.interval)}; "
        f"permutation p {'< 0.001' if p < 0.0005 else f'= {p:.2g}'}"
    )


def _labels_apart(comparison: Comparison) -> str:
    """The labels that the base is better for by a difference that matters, and those against a base that is better."""
    if len(comparison.compared) < 2:
        return ""
    differences = {label: comparison.difference(label) for label in comparison.compared}
    by = {label: difference.mean for label, difference in differences.items() if difference.n}
    against = [label for label, mean in by.items() if mean <= -comparison.smallest_difference and mean < 0]
    model, base_ahead = comparison.called[0], True
    if comparison.outcome in ("base better", "base ahead"):
        against = [label for label, mean in by.items() if mean >= comparison.smallest_difference and mean > 0]
        model, base_ahead = comparison.called[1], False
    if not against:
        return ""
    named = []
    for label in against:
        shown = comparison.outcome_of(label) == ("base better" if base_ahead else "adapted better")
        named.append(f"{label} (by {distance_text(by[label])}{'' if shown else ', no difference shown'})")
    return f"; but {model} is better on average for {', '.join(named)}"


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
