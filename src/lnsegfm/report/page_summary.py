"""What the page says of all cases together: the rows of its tables, the plots, and a headline with its limits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from lnsegfm.evaluation.case_scores import MEAN
from lnsegfm.evaluation.detection import IOU_CRITERIA
from lnsegfm.evaluation.metric_table import Metric
from lnsegfm.evaluation.node_summary import NodeFigures
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.statistics import Estimate, Interval, mean
from lnsegfm.messages import counted
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.picture_selection import ScoredModel
from lnsegfm.report.plot_style import Plot
from lnsegfm.report.plots import Curve, plot_cases, plot_froc, plot_pairs, plot_sensitivity, plot_volumes
from lnsegfm.report.verdict import limits as limits_of

Row = Mapping[str, object]


def metric_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Every metric over cases: one row a label and metric, with ``label`` on its first row only."""
    summaries = evaluation.summary()
    for label in evaluation.rows:
        known = label == MEAN or all(case.labels[label].known for case in evaluation.cases)
        for i, (key, metric) in enumerate(evaluation.metrics.items()):
            summary = summaries[label][key]
            yield {
                "label": label if i == 0 else "",
                "span": len(evaluation.metrics),
                "known": known,
                "metric": _title(key, evaluation),
                "n": f"{summary.n}" + (f" ({summary.undefined} left out)" if summary.undefined else ""),
                "mean": metric.text(summary.mean),
                "median": metric.text(summary.median),
                "sd": metric.text(summary.sd),
                "interval": _interval(summary.interval, metric, summary.n),
            }


def paired_rows(comparison: Comparison) -> Iterator[Row]:
    """Every metric of two models, paired by case: one row a label and metric, ``label`` on its first row only."""
    for label in comparison.adapted.rows:
        for i, (key, metric) in enumerate(comparison.adapted.metrics.items()):
            difference = comparison.difference(label, key)
            title = _title(key, comparison.adapted)
            sides = (difference.base, difference.base_mean), (difference.adapted, difference.adapted_mean)
            p = difference.paired.p
            yield {
                "label": label if i == 0 else "",
                "span": len(comparison.adapted.metrics),
                "unknown": label in comparison.unknown,
                "metric": f"{title}, without sign" if metric.better == "zero" else title,
                "n": difference.n,
                "means": [(metric.text(value), metric.text(_median(list(cases.values())))) for cases, value in sides],
                "difference": metric.text(difference.mean, signed=True),
                "interval": _interval(difference.interval, metric, difference.n, signed=True),
                "p": "n/a" if math.isnan(p) else f"{p:.3f}" if p >= 0.0005 else "< 0.001",
            }


def node_rows(models: Sequence[ScoredModel]) -> Iterator[Row]:
    """Nodes over all cases: one row a label of nodes, criterion and model."""
    for label in models[-1].evaluation.node_labels:
        for iou in IOU_CRITERIA:
            for model in models:
                if (summary := model.nodes(label, iou)) is None:
                    continue
                figures = summary.all_sizes
                counts = figures.detection
                yield {
                    "label": label,
                    "criterion": criterion(iou),
                    "model": model.name,
                    "counts": counts,
                    "sensitivity": _with_interval(figures.sensitivity),
                    "precision": _with_interval(figures.precision),
                    "f1": _with_interval(figures.f1),
                    "false_positives": _with_interval(figures.false_positives_per_scan),
                    "volume_error": _text(counts.volume_error_percent, 0, signed=True),
                    "axis_error": _text(counts.short_axis_error_mm, 1, signed=True),
                }


def size_rows(models: Sequence[ScoredModel]) -> Iterator[Row]:
    """One row a label of nodes and bin of short axes: true positives by criterion, false positives, by model."""
    for label in models[-1].evaluation.node_labels:
        bins = [_bins(m, label, iou) for iou in IOU_CRITERIA for m in models]
        for figures in zip(*bins, strict=True) if all(bins) else ():
            yield {
                "label": label,
                "sizes": figures[0].detection.sizes,
                "true_positives": [_of(figure) for figure in figures],
                "false_positives": [figure.detection.false_positives for figure in figures[: len(models)]],
            }


def criterion(iou: float) -> str:
    """An IoU threshold in words."""
    return f"IoU ≥ {iou:g}" if iou else "any overlap"


def plots_of(models: Sequence[ScoredModel]) -> Iterator[Plot]:
    """The plots that these evaluations have the numbers for."""
    judged = models[-1].evaluation
    if len(models) == 2:
        dice = [[m.evaluation.case(c.case).mean_dice for c in judged.cases] for m in models]
        both = [i for i, pair in enumerate(zip(*dice, strict=True)) if not any(map(math.isnan, pair))]
        subjects = [judged.subjects[i] for i in both]
        means = [mean([values[i] for i in both], subjects, bounds=(0.0, 1.0)) for values in dice]
        if both:
            yield plot_pairs(dice[0], dice[1], (models[0].name, models[1].name), means)
    else:
        values = {row: [case.value("dice", row) for case in judged.cases] for row in judged.rows}
        yield plot_cases(values, {row: _mean_dice(judged, row) for row in judged.rows})
    for label in judged.node_labels:
        yield from _node_plots(models, label)
    yield from _volume_plots(models)


def _node_plots(models: Sequence[ScoredModel], label: str) -> Iterator[Plot]:
    bins = {m.name: _bins(m, label, 0.0) for m in models}
    detections = [figures.detection for figures in bins[models[-1].name]]
    if all(bins.values()) and any(detection.nodes for detection in detections):
        names = [detection.sizes.removesuffix(" mm").replace(" to < ", "–") for detection in detections]
        shares = {name: [figures.sensitivity for figures in detection] for name, detection in bins.items()}
        plot = plot_sensitivity(names, shares, [detection.nodes for detection in detections])
        yield _named(plot, label, models[-1].evaluation)
    curves = {}
    for model in models:
        points = model.evaluation.froc(label)
        if points and points[0].nodes:
            rates = [point.false_positives_per_scan for point in points]
            shown = [point.sensitivity for point in points]
            curves[model.name] = Curve([point.threshold for point in points], rates, shown)
    if curves:
        yield _named(plot_froc(curves), label, models[-1].evaluation)


def _volume_plots(models: Sequence[ScoredModel]) -> Iterator[Plot]:
    """For one model a plot of all labels; for two a plot a label."""
    labels = list(models[-1].evaluation.labels.names)
    groups = [[(m.name, m, label) for m in models] for label in labels]
    if len(models) == 1:
        groups = [[(label, models[0], label) for label in labels]]
    for group in groups:
        scores = {
            name: [score for case in m.evaluation.cases if (score := case.labels[label]).annotated]
            for name, m, label in group
        }
        reference = {name: [score.reference_ml for score in column] for name, column in scores.items()}
        prediction = {name: [score.prediction_ml for score in column] for name, column in scores.items()}
        if any(s.reference_ml > 0 and s.prediction_ml > 0 for column in scores.values() for s in column):
            plot = plot_volumes(reference, prediction)
            yield _named(plot, group[0][2], models[-1].evaluation) if len(models) == 2 else plot


def headline(model: ScoredModel) -> str:
    """One model's figures in a line: mean Dice with its interval, and its true and false positives."""
    evaluation = model.evaluation
    row = evaluation.rows[-1]
    dice = _mean_dice(evaluation, row)
    mean_of = ", mean over labels," if row == MEAN else ""
    parts = [f"Dice {dice.text(3)}{mean_of} over {counted(dice.n, 'case')}" if dice.n else "No case has a Dice"]
    for label in evaluation.node_labels:
        if (summary := model.nodes(label, 0.0)) is not None:
            counts = summary.all_sizes.detection
            named = f"{label}: " if len(evaluation.labels.names) > 1 else ""
            parts.append(
                f"{named}{counts.true_positives} of {counted(counts.nodes, 'node')} found, "
                f"{counted(counts.false_positives, 'false positive')}"
            )
    return "; ".join(parts) + "."


def limits(evaluation: Evaluation) -> list[str]:
    """What one model's figures can and cannot show."""
    sentences = [
        "These figures hold for scans like the ones below: another scanner, protocol or group of patients can differ "
        "by more than any interval here.",
        *limits_of(len(set(evaluation.subjects))),
        "A mean hides cases: look at the worst ones before any figure is believed.",
    ]
    if evaluation.node_labels:
        sentences.append("A node that the model found and the human overlooked counts as a false positive.")
    for label in evaluation.labels.names:
        if without := sum(not case.labels[label].known for case in evaluation.cases):
            sentences.append(
                f"{label}: the model does not know it ({counted(without, 'case')}): its mask counts as empty."
            )
        if left_out := sum(not case.labels[label].annotated for case in evaluation.cases):
            sentences.append(f"{label}: not annotated in {counted(left_out, 'case')}, which say nothing of it.")
    sentences += map(str, evaluation.doubtful().values())
    if evaluation.failures:
        sentences.append(f"Not every case could be scored: {' '.join(evaluation.failures)}")
    return sentences


def _title(key: str, evaluation: Evaluation) -> str:
    title = evaluation.metrics[key].title
    return f"{title} at {evaluation.tolerance_mm:g} mm" if key == "nsd" else title


def _interval(interval: Interval | None, metric: Metric, n: int, *, signed: bool = False) -> str:
    if interval is None:
        return "too few cases" if n else "n/a"
    return " to ".join(metric.text(end, signed=signed) for end in (interval.low, interval.high))


def _bins(model: ScoredModel, label: str, iou: float) -> tuple[NodeFigures, ...]:
    summary = model.nodes(label, iou)
    return summary.by_size if summary is not None else ()


def _named(plot: Plot, label: str, evaluation: Evaluation) -> Plot:
    if len(evaluation.labels.names) == 1:
        return plot
    return Plot(plot.uri, f"{plot.title}: {label}", f"{label}. {plot.alt}", plot.note)


def _mean_dice(evaluation: Evaluation, row: str) -> Estimate:
    values = [case.value("dice", row) for case in evaluation.cases]
    kept = [(v, s) for v, s in zip(values, evaluation.subjects, strict=True) if not math.isnan(v)]
    return mean([v for v, _ in kept], [s for _, s in kept], bounds=(0.0, 1.0))


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else math.nan


def _with_interval(estimate: Estimate) -> tuple[str, str]:
    """A figure and its interval."""
    if estimate.interval is None:
        return _text(estimate.value, 2), "too few cases" if estimate.n else ""
    return _text(estimate.value, 2), f"{estimate.interval.low:.2f} to {estimate.interval.high:.2f}"


def _of(figures: NodeFigures) -> tuple[str, str]:
    """How many of how many, and the share with its interval."""
    counts = figures.detection
    if not counts.nodes:
        return "–", ""
    value, interval = _with_interval(figures.sensitivity)
    return f"{counts.true_positives} of {counts.nodes}", f"{value} ({interval})"


def _text(value: float, decimals: int, *, signed: bool = False) -> str:
    if math.isnan(value):
        return "n/a"
    return f"{round(value, decimals) + 0.0:{'+' if signed else ''}.{decimals}f}"
