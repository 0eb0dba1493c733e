"""What a mask scores against its reference, and what many cases come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.detection import IOU_CRITERIA
from lnsegfm.evaluation.froc import FrocCounts, FrocPoint, froc_curve
from lnsegfm.evaluation.matching import NodeScore
from lnsegfm.evaluation.metric_table import METRICS, Metric
from lnsegfm.evaluation.node_summary import NodeSummary, summarise_nodes
from lnsegfm.evaluation.statistics import Interval, mean
from lnsegfm.messages import counted
from lnsegfm.notebook import HtmlTable, notebook_html

FORMAT = "lnsegfm.evaluation/3"
MEAN = "mean over labels"


@dataclass(frozen=True)
class LabelScore:
    """One label of one case. NaN where a figure is not defined.

    Args:
        dice: Dice coefficient; NaN where neither mask has the label.
        reference_ml: Volume of the reference.
        prediction_ml: Volume of the prediction.
        volume_difference_ml: Prediction minus reference: positive where too much was segmented.
        nsd: Normalised surface Dice at the evaluation's tolerance; NaN where neither mask has the label.
        hd95_mm: 95th percentile Hausdorff distance; NaN where one of the masks is empty.
        assd_mm: Average symmetric surface distance; NaN where one of the masks is empty.
        known: Whether the model that predicted knows the label; if not, its prediction counts as empty.
        nodes: Its nodes, measured and matched; None where the label is not one of nodes.
        froc: True and false positives at thresholds of the probability, where probabilities were kept.
        plugin_values: Figures of plugins' metrics by key.
    """

    dice: float
    reference_ml: float
    prediction_ml: float
    volume_difference_ml: float
    nsd: float = math.nan
    hd95_mm: float = math.nan
    assd_mm: float = math.nan
    known: bool = True
    nodes: NodeScore | None = None
    froc: FrocCounts | None = None
    plugin_values: Mapping[str, float] = field(default_factory=dict)

    def value(self, metric: str) -> float:
        """A metric by its key; NaN where it is not defined or was not measured."""
        if metric in METRICS:
            return float(getattr(self, metric))
        return self.plugin_values.get(metric, math.nan)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; what is undefined is None."""
        parts = {key: value for key in ("nodes", "froc") if (value := getattr(self, key)) is not None}
        apart = ("nodes", "froc", "plugin_values")
        plain = nan_to_none({key: value for key, value in vars(self).items() if key not in apart})
        plain |= {"plugin_values": nan_to_none(self.plugin_values)} if self.plugin_values else {}
        return plain | {key: value.to_json() for key, value in parts.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> LabelScore:
        """Read what :meth:`to_json` gives."""
        values: dict[str, Any] = _none_to_nan(content)
        if "plugin_values" in values:
            values["plugin_values"] = _none_to_nan(values["plugin_values"])
        if "nodes" in values:
            values["nodes"] = NodeScore.from_json(values["nodes"])
        if "froc" in values:
            values["froc"] = FrocCounts.from_json(values["froc"])
        return cls(**values)


@dataclass(frozen=True)
class CaseFiles:
    """What a case's pictures are drawn from, all on one grid.

    Args:
        image: The scan (HU); None where it is not known.
        prediction: The predicted mask; None where there is none.
        reference: The human mask.
    """

    image: Path | None
    prediction: Path | None
    reference: Path

    def to_json(self, root: Path) -> dict[str, str | None]:
        """The files' places; what lies in ``root`` relative to it, so that the folder can be moved."""
        return {key: None if value is None else _place(value, root) for key, value in vars(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, str | None], root: Path) -> CaseFiles:
        """Read what :meth:`to_json` gives."""
        places = {key: None if value is None else root / value for key, value in content.items()}
        return cls(places["image"], places["prediction"], root / str(content["reference"]))


@dataclass(frozen=True)
class CaseScore:
    """One case: its labels' scores by label name.

    Args:
        case: Its name.
        labels: A score a label.
        subject: The patient, where known: cases of one patient are not independent.
        files: The files that were compared; they play no part in whether two scores are equal.
    """

    case: str
    labels: dict[str, LabelScore]
    subject: str | None = None
    files: CaseFiles | None = field(default=None, compare=False)

    def value(self, metric: str, label: str = MEAN) -> float:
        """A metric of one label, or its mean over the labels for which it is defined; NaN if there is none."""
        if label != MEAN:
            return self.labels[label].value(metric)
        values = [score.value(metric) for score in self.labels.values()]
        defined = [value for value in values if not math.isnan(value)]
        return statistics.fmean(defined) if defined else math.nan

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the labels for which it is defined; NaN if there is none."""
        return self.value("dice")


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
        """The subject of each case; a case of nobody named is its own."""
        return tuple(f"subject {c.subject}" if c.subject is not None else f"case {c.case}" for c in self.cases)

    @property
    def rows(self) -> tuple[str, ...]:
        """What is summed up: each label, and where there are several, last, their mean."""
        names = tuple(self.labels.names)
        return (*names, MEAN) if len(names) > 1 else names

    def case(self, name: str) -> CaseScore:
        """The score of a case."""
        return next(score for score in self.cases if score.case == name)

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
        scores = [case.labels[label].nodes for case in self.cases]
        counted = [score for score in scores if score is not None]
        return summarise_nodes(counted, self.subjects, iou) if len(counted) == len(scores) and scores else None

    def froc(self, label: str, iou: float = 0.0) -> tuple[FrocPoint, ...]:
        """True and false positives as the probability's threshold falls; empty unless every case has probabilities."""
        scores = [case.labels[label].froc for case in self.cases]
        counted = [score for score in scores if score is not None]
        return froc_curve(counted, iou) if len(counted) == len(scores) else ()

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
            root: The folder where it will lie.
        """
        predicted = self.prediction_labels.to_dataset_json() if self.prediction_labels is not None else None
        return {
            "format": FORMAT,
            "labels": self.labels.to_dataset_json(),
            "prediction_labels": predicted,
            "tolerance_mm": self.tolerance_mm,
            "node_labels": list(self.node_labels),
            "cases": [
                {
                    "case": case.case,
                    "subject": case.subject,
                    "files": case.files.to_json(root) if case.files is not None else None,
                    "labels": {name: score.to_json() for name, score in case.labels.items()},
                }
                for case in self.cases
            ],
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
            return cls(
                LabelMap.from_dataset_json(content["labels"]),
                tuple(_case_from_json(case, root) for case in content["cases"]),
                tuple(content.get("failures", ())),
                content["tolerance_mm"],
                tuple(content["node_labels"]),
                LabelMap.from_dataset_json(predicted) if predicted is not None else None,
                tuple(map(Metric.from_json, content.get("plugin_metrics", ()))),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"Evaluation: {error!r} while it was read. Evaluate the masks again.") from None


def nan_to_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """NaN as None, because JSON knows no NaN."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in fields.items()}


def _none_to_nan(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in fields.items()}


def _place(file: Path, root: Path) -> str:
    file, root = file.resolve(), root.resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _case_from_json(case: Mapping[str, Any], root: Path) -> CaseScore:
    labels = {name: LabelScore.from_json(score) for name, score in case["labels"].items()}
    files = CaseFiles.from_json(case["files"], root) if case.get("files") is not None else None
    return CaseScore(case["case"], labels, case.get("subject"), files)
