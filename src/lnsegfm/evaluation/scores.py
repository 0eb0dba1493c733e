"""Scores of many cases: metrics, summaries over cases and subjects, and their JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import MEAN, CaseScore, nan_to_none
from lnsegfm.evaluation.detection import IOU_CRITERIA
from lnsegfm.evaluation.froc import FrocPoint, froc_curve
from lnsegfm.evaluation.metric_table import METRICS, Metric
from lnsegfm.evaluation.node_summary import NodeSummary, summarise_nodes
from lnsegfm.evaluation.statistics import Interval, mean
from lnsegfm.messages import counted, listed
from lnsegfm.notebook import HtmlTable, notebook_html

FORMAT = "lnsegfm.evaluation/3"


@dataclass(frozen=True)
class Summary:
    """A metric over cases.

    Args:
        n: Cases for which it is defined; the numbers below are over these.
        mean: Arithmetic mean; NaN where n is 0.
        median: Median; NaN where n is 0.
        sd: Sample standard deviation (n - 1); NaN where n is below 2.
        undefined: Cases left out because it is not defined there.
        interval: 95 % interval of the mean; None with fewer than three subjects.
    """

    n: int
    mean: float
    median: float
    sd: float
    undefined: int
    interval: Interval | None = None

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        subjects: Sequence[str] | None = None,
        bounds: tuple[float, float] = (-math.inf, math.inf),
    ) -> Summary:
        """Summarise a metric of some cases, NaN where it is undefined."""
        names = subjects if subjects is not None else [str(i) for i in range(len(values))]
        kept = [(value, name) for value, name in zip(values, names, strict=True) if not math.isnan(value)]
        defined = [value for value, _ in kept]
        return cls(
            n=len(defined),
            mean=statistics.fmean(defined) if defined else math.nan,
            median=statistics.median(defined) if defined else math.nan,
            sd=statistics.stdev(defined) if len(defined) > 1 else math.nan,
            undefined=len(values) - len(defined),
            interval=mean(defined, [name for _, name in kept], bounds=bounds).interval,
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; what is undefined is None."""
        return nan_to_none(asdict(self))


@dataclass(frozen=True)
class DoubtfulLabel:
    """Cases of a label that were scored apart: it is predicted there, and the reference lacks it though most hold it.

    Args:
        label: The label.
        cases: These cases.
        of: Cases in which the label counts as annotated, these included.
        n: Cases over which its Dice is defined.
        total: Sum of their Dice.
    """

    label: str
    cases: tuple[str, ...]
    of: int
    n: int
    total: float

    @property
    def dice(self) -> float:
        """Mean Dice without these cases; NaN where none is left."""
        return self.total / self.n if self.n else math.nan

    @property
    def dice_if_absent(self) -> float:
        """Mean Dice if the label is truly absent there, so that they count as 0."""
        return self.total / (self.n + len(self.cases))

    def __str__(self) -> str:
        return (
            f"{self.label}: the reference of {len(self.cases)} of {counted(self.of, 'case')} has none, and it is "
            f"predicted there ({listed(self.cases)}): Dice {self.dice:.2f} over {counted(self.n, 'case')}, "
            f"{self.dice_if_absent:.2f} if they count as absent. List them in unlabelled.csv if nobody annotated it "
            f"there; --absent {self.label} counts them."
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        figures = {"n": self.n, "dice": self.dice, "dice_if_absent": self.dice_if_absent}
        return {"cases": list(self.cases), "of": self.of, **nan_to_none(figures)}


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of many cases.

    Args:
        labels: The labels that were scored, with their values in the references.
        cases: One score a case, by name.
        failures: One line for each case that could not be scored.
        tolerance_mm: Of the NSD.
        node_labels: Labels whose components are counted as nodes.
        prediction_labels: Values of the labels in the predictions, where they are others.
        plugin_metrics: Metrics of plugins that were measured.
    """

    labels: LabelMap
    cases: tuple[CaseScore, ...]
    failures: tuple[str, ...] = ()
    tolerance_mm: float = 1.0
    node_labels: tuple[str, ...] = ()
    prediction_labels: LabelMap | None = None
    plugin_metrics: tuple[Metric, ...] = ()

    @property
    def metrics(self) -> dict[str, Metric]:
        """All metrics that were measured, by key: the built-in ones first."""
        return METRICS | {metric.key: metric for metric in self.plugin_metrics}

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subject of each case; a case without a subject is its own."""
        return tuple(f"subject {c.subject}" if c.subject is not None else f"case {c.case}" for c in self.cases)

    @property
    def rows(self) -> tuple[str, ...]:
        """What is summed up: each label, and where there are several, last, their mean."""
        names = tuple(self.labels.names)
        return (*names, MEAN) if len(names) > 1 else names

    def case(self, name: str) -> CaseScore:
        """The score of a case."""
        return next(score for score in self.cases if score.case == name)

    def doubtful(self) -> dict[str, DoubtfulLabel]:
        """By label, the cases that were scored apart because the reference lacks what most others hold."""
        found = {}
        for label in self.labels.names:
            scores = {case.case: case.labels[label] for case in self.cases}
            apart = tuple(name for name, score in scores.items() if score.doubtful)
            if apart:
                dice = [score.dice for score in scores.values() if not math.isnan(score.dice)]
                found[label] = DoubtfulLabel(
                    label, apart, sum(s.annotated for s in scores.values()), len(dice), sum(dice)
                )
        return found

    def worst_first(self) -> tuple[str, ...]:
        """The cases by mean Dice over their labels, undefined ones last."""
        ranked = sorted(self.cases, key=lambda score: (math.isnan(score.mean_dice), score.mean_dice))
        return tuple(score.case for score in ranked)

    def summary(self) -> dict[str, dict[str, Summary]]:
        """Each metric over cases for each label, and last, under ``MEAN``, of each case's mean over its labels."""
        return {
            label: {
                key: Summary.of([c.value(key, label) for c in self.cases], self.subjects, metric.bounds)
                for key, metric in self.metrics.items()
            }
            for label in (*self.labels.names, MEAN)
        }

    def nodes(self, label: str, iou: float = 0.0) -> NodeSummary | None:
        """True and false positives of a label's nodes over all cases; None where it is not one of nodes.

        Args:
            label: The label.
            iou: Least overlap of a match; 0: any.
        """
        judged = [k for k, case in enumerate(self.cases) if case.labels[label].annotated]
        counted = [score for k in judged if (score := self.cases[k].labels[label].nodes) is not None]
        subjects = [self.subjects[k] for k in judged]
        return summarise_nodes(counted, subjects, iou) if len(counted) == len(judged) and judged else None

    def froc(self, label: str, iou: float = 0.0) -> tuple[FrocPoint, ...]:
        """True and false positives as the probability's threshold falls; empty unless every case has probabilities."""
        scores = [case.labels[label].froc for case in self.cases if case.labels[label].annotated]
        counted = [score for score in scores if score is not None]
        return froc_curve(counted, iou) if len(counted) == len(scores) and scores else ()

    def __repr__(self) -> str:
        """Cases and mean Dice by label, in a line: the scores are many pages."""
        by_label = {label: [c.value("dice", label) for c in self.cases] for label in self.rows}
        defined = {label: [dice for dice in found if not math.isnan(dice)] for label, found in by_label.items()}
        means = {label: f"Dice {statistics.fmean(of):.3f}" if of else "no Dice" for label, of in defined.items()}
        dice = ", ".join(f"{label} {mean}" for label, mean in list(means.items())[:3])
        dice += f", ... ({len(means)} rows)" if len(means) > 3 else ""
        failed = f", {counted(len(self.failures), 'failure')}" if self.failures else ""
        return f"Evaluation({counted(len(self.cases), 'case')}{failed}: {dice})"

    def _repr_html_(self) -> str:
        summary, several = self.summary(), len(self.labels.names) > 1
        rows = [
            [label, *(m.text(found[m.key].mean, signed=m.better == "zero") for m in self.metrics.values())]
            for label, found in summary.items()
            if several or label != MEAN
        ]
        title = f"Evaluation of {counted(len(self.cases), 'case')}"
        return notebook_html(
            title, [HtmlTable(rows, ["mean", *(m.title for m in self.metrics.values())])], notes=self.failures
        )

    def to_json(self, root: Path = Path()) -> dict[str, Any]:
        """The evaluation as JSON holds it; what is undefined is null.

        Args:
            root: The folder that it will be written to.
        """
        found = self.doubtful()
        predicted = self.prediction_labels.to_record() if self.prediction_labels is not None else None
        return {
            "format": FORMAT,
            **self.labels.to_record(),
            "prediction_labels": predicted["labels"] if predicted else None,
            **({"prediction_label_map": predicted} if predicted and len(predicted) > 1 else {}),
            "tolerance_mm": self.tolerance_mm,
            "node_labels": list(self.node_labels),
            "cases": [case.to_json(root) for case in self.cases],
            "summary": {
                label: {key: summary.to_json() for key, summary in by_metric.items()}
                for label, by_metric in self.summary().items()
            },
            "nodes": {
                label: [nodes.to_json() for iou in IOU_CRITERIA if (nodes := self.nodes(label, iou)) is not None]
                for label in self.node_labels
            },
            "froc": {
                label: [point.to_json() for iou in IOU_CRITERIA for point in self.froc(label, iou)]
                for label in self.node_labels
            },
            **({"doubtful": {label: each.to_json() for label, each in found.items()}} if found else {}),
            "failures": list(self.failures),
            **({"plugin_metrics": [metric.to_json() for metric in self.plugin_metrics]} if self.plugin_metrics else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], root: Path = Path()) -> Evaluation:
        """Read what :meth:`to_json` gives.

        Args:
            content: It.
            root: The folder where it lay.

        Raises:
            DataError: Not an evaluation, or one of another format.
        """
        stated = content.get("format") if isinstance(content, Mapping) else None
        if stated != FORMAT:
            raise DataError(f"Evaluation format {stated!r}: not {FORMAT}. Evaluate the masks again.")
        try:
            predicted = content["prediction_labels"]
            known = content.get("prediction_label_map", {"labels": predicted})
            return cls(
                LabelMap.from_record(content),
                tuple(CaseScore.from_json(case, root) for case in content["cases"]),
                tuple(content.get("failures", ())),
                content["tolerance_mm"],
                tuple(content["node_labels"]),
                LabelMap.from_record(known) if predicted is not None else None,
                tuple(map(Metric.from_json, content.get("plugin_metrics", ()))),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"Evaluation: {error!r} while it was read. Evaluate the masks again.") from None
