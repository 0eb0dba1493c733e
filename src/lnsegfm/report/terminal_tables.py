"""Evaluations and comparisons as tables for the terminal.

Names of cases come from strangers' files: what does not print, and what the terminal would take for markup or an escape
sequence, is shown as text.
"""

from __future__ import annotations

import math

from rich.table import Table
from rich.text import Text

from lnsegfm.evaluation.case_scores import MEAN
from lnsegfm.evaluation.detection import IOU_CRITERIA
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.messages import printable
from lnsegfm.report.comparison import Comparison, Difference
from lnsegfm.report.figure_text import dice_text, interval_text, ml_text
from lnsegfm.report.verdict import notes


def case_table(evaluation: Evaluation) -> Table:
    """A row a case and label."""
    several, nodes = len(evaluation.labels.names) > 1, bool(evaluation.node_labels)
    table = Table(title="Case by case", padding=(0, 0, 0, 1))
    table.add_column("Case", overflow="fold")
    if several:
        table.add_column("Label", overflow="fold")
    more = (metric.title.replace(" ", "\n") for metric in evaluation.plugin_metrics)
    for heading in ("Dice", "NSD", "HD95\nmm", "ASSD\nmm", "Volume\n+/- ml", *more, "Reference\nml"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("True\npos.", "False\npos.") if nodes else ():
        table.add_column(heading, justify="right", no_wrap=True)
    for case in evaluation.cases:
        for label, score in case.labels.items():
            cells = [metric.text(score.value(key)) for key, metric in evaluation.metrics.items()]
            cells.append(ml_text(score.reference_ml))
            if nodes and score.nodes is not None:
                cells.append(f"{len(score.nodes.matched())} of {len(score.nodes.reference)}")
                cells.append(str(len(score.nodes.false_positives())))
            named = label if score.known else f"{label} (not known)"
            named = named if score.judged == "yes" else f"{named} ({score.judged})"
            table.add_row(_plain(case.case), *([_plain(named)] if several or not score.known else []), *cells)
    return table


def summary_table(evaluation: Evaluation) -> Table:
    """Each metric over cases, for each label and for their mean."""
    summary, several = evaluation.summary(), len(evaluation.labels.names) > 1
    left_out = any(figures_of.undefined for by_metric in summary.values() for figures_of in by_metric.values())
    table = Table(title="Over cases", padding=(0, 0, 0, 1))
    if several:
        table.add_column("Label", overflow="fold", min_width=min(18, max(map(len, evaluation.labels.names))))
    table.add_column("Metric")
    for name in ("Cases", "Mean", "95 % interval", "Median", "SD", *(["Left out"] if left_out else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for label in evaluation.rows:
        for key, metric in evaluation.metrics.items():
            figures_of = summary[label][key]
            interval = figures_of.interval
            ends = f"{metric.text(interval.low)} to {metric.text(interval.high)}" if interval else "n/a"
            figures = [metric.text(figures_of.mean), ends, metric.text(figures_of.median), metric.text(figures_of.sd)]
            figures += [str(figures_of.undefined)] if left_out else []
            table.add_row(*([_plain(label)] if several else []), metric.title, str(figures_of.n), *figures)
        table.add_section()
    return table


def node_table(evaluation: Evaluation, label: str) -> Table:
    """Nodes of a label by short axis, found at any overlap and at the stricter criterion."""
    loose, strict = (evaluation.nodes(label, iou) for iou in IOU_CRITERIA)
    table = Table(title=Text(f"Nodes of {label}", style="italic"), padding=(0, 0, 0, 1))
    table.add_column("Short axis", no_wrap=True)
    for name in ("Nodes", "True\npos.", "Sensi-\ntivity", "Preci-\nsion", "F1", "False pos.\na scan"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"True pos.\nIoU {IOU_CRITERIA[1]:g}", justify="right", no_wrap=True)
    if loose is None or strict is None:
        return table
    for figures, stricter in zip((loose.all_sizes, *loose.by_size), (strict.all_sizes, *strict.by_size), strict=True):
        pooled = figures.detection
        if pooled.nodes or pooled.predicted:
            shares = [_share(value) for value in (pooled.sensitivity, pooled.precision, pooled.f1)]
            false = f"{pooled.false_positives_per_scan:.1f}"
            strictly = str(stricter.detection.true_positives)
            table.add_row(pooled.sizes, str(pooled.nodes), str(pooled.true_positives), *shares, false, strictly)
        if figures is loose.all_sizes:
            table.add_section()
    over = loose.all_sizes
    table.caption = Text(
        f"At any overlap. Sensitivity {over.sensitivity.text(2)}; false positives per scan "
        f"{over.false_positives_per_scan.text(1)}. {over.detection.merged} nodes share a predicted node with "
        f"another one, {over.detection.split} are split.",
        justify="left",
    )
    return table


def comparison_table(comparison: Comparison) -> Table:
    """A row per case and label, and the means over the cases compared with the interval of their difference.

    A ``*`` marks a Dice of the base for a label it cannot know.
    """
    several = len(comparison.labels) > 1
    base_name, adapted_name = comparison.names
    caption = "\n".join([*_intervals(comparison), *notes(comparison)])
    title = Text(f"{base_name.capitalize()} against {adapted_name} on cases that were not trained on", style="italic")
    table = Table(title=title, caption=Text(caption, justify="left"))
    table.add_column("Case", overflow="fold")
    if several:
        table.add_column("Label", overflow="fold")
    headings = ("Dice\n{0}", "Dice\n{1}", "Change", "Reference\nml", "{0}\nml", "{1}\nml")
    for heading in headings:
        name = (
            heading.format(base_name, adapted_name)
            if heading[0] == "D"
            else heading.format(base_name.capitalize(), adapted_name.capitalize())
        )
        table.add_column(name, justify="right", no_wrap=True)

    def add(name: str, label: str, *cells: str, style: str | None = None) -> None:
        table.add_row(_plain(name), *([_plain(label)] if several else []), *cells, style=style)

    for case in comparison.cases:
        for label in comparison.labels:
            base, adapted = comparison.base_score(case, label), comparison.adapted_score(case, label)
            add(
                case,
                label,
                dice_text(base.dice) + ("*" if label in comparison.unknown else ""),
                dice_text(adapted.dice),
                dice_text(adapted.dice - base.dice, signed=True),
                ml_text(adapted.reference_ml),
                ml_text(base.prediction_ml),
                ml_text(adapted.prediction_ml),
            )
        if several:
            table.add_section()
    table.add_section()
    for label in comparison.labels:
        add(*_mean_cells(label, comparison.difference(label)), style="bold")
    if several:
        add(*_mean_cells(MEAN, comparison.difference()), style="bold")
    return table


def _mean_cells(label: str, difference: Difference) -> tuple[str, ...]:
    return (
        f"mean of {difference.n}",
        label,
        dice_text(difference.base_mean),
        dice_text(difference.adapted_mean),
        dice_text(difference.mean, signed=True),
    )


def _intervals(comparison: Comparison) -> list[str]:
    differences = {label: comparison.difference(label) for label in comparison.labels}
    if len(differences) > 1:
        differences[MEAN] = comparison.difference()
    return [
        f"{label}: 95 % interval of the difference [{interval_text(difference.interval)}]"
        for label, difference in differences.items()
        if difference.interval is not None
    ]


def _share(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"


def _plain(name: str) -> Text:
    return Text(printable(name))
