"""What the prediction of one case scores against its reference, label by label."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lnsegfm.evaluation.froc import FrocCounts
from lnsegfm.evaluation.matching import NodeScore
from lnsegfm.evaluation.metric_table import METRICS

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
        annotated: Whether the label was annotated in this case; if not, nothing is measured and every figure is NaN.
        doubtful: Whether the label is predicted where the reference lacks it and most others have it: perhaps nobody
            annotated it there. Then nothing but the volumes is defined.
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
    annotated: bool = True
    doubtful: bool = False
    nodes: NodeScore | None = None
    froc: FrocCounts | None = None
    plugin_values: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def unlabelled(cls, *, known: bool = True) -> LabelScore:
        """The score of a label that nobody annotated in the case."""
        return cls(math.nan, math.nan, math.nan, math.nan, known=known, annotated=False)

    def as_doubtful(self) -> LabelScore:
        """The same where the reference is in doubt: volumes alone."""
        return LabelScore(math.nan, self.reference_ml, self.prediction_ml, math.nan, known=self.known, doubtful=True)

    @property
    def judged(self) -> str:
        """Whether the reference says something of the label: ``yes``, ``not annotated`` or ``doubtful``."""
        return "not annotated" if not self.annotated else "doubtful" if self.doubtful else "yes"

    def value(self, metric: str) -> float:
        """A metric by its key; NaN where it is not defined or was not measured."""
        if metric in METRICS:
            return float(getattr(self, metric))
        return self.plugin_values.get(metric, math.nan)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; what is undefined is None."""
        parts = {key: value for key in ("nodes", "froc") if (value := getattr(self, key)) is not None}
        apart = ("nodes", "froc", "plugin_values", *(("annotated",) if self.annotated else ()))
        apart = (*apart, *(() if self.doubtful else ("doubtful",)))
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
    """The files of a case, all on one grid, from which its pictures are drawn.

    Args:
        image: The scan (HU); None where it is not known.
        prediction: The predicted mask; None where there is none.
        reference: The human mask.
    """

    image: Path | None
    prediction: Path | None
    reference: Path

    def to_json(self, root: Path) -> dict[str, str | None]:
        """The paths; those in ``root`` are relative to it, so that the folder can be moved."""
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

    def to_json(self, root: Path) -> dict[str, Any]:
        """As JSON-able values; what is undefined is None.

        Args:
            root: The folder where it will be written: files in it are named relative to it.
        """
        return {
            "case": self.case,
            "subject": self.subject,
            "files": self.files.to_json(root) if self.files is not None else None,
            "labels": {name: score.to_json() for name, score in self.labels.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], root: Path) -> CaseScore:
        """Read what :meth:`to_json` gives."""
        labels = {name: LabelScore.from_json(score) for name, score in content["labels"].items()}
        files = CaseFiles.from_json(content["files"], root) if content.get("files") is not None else None
        return cls(content["case"], labels, content.get("subject"), files)


def _none_to_nan(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in fields.items()}


def nan_to_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """NaN as None, because JSON knows no NaN."""
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in fields.items()}


def _place(file: Path, root: Path) -> str:
    file, root = file.resolve(), root.resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
