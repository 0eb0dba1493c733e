"""What the masks of a folder are made by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.domain_ranges import TrainedAxes, TrainingDomain
from lnsegfm.models.model_folder import Model
from lnsegfm.models.trained_scans import TrainedScans
from lnsegfm.models.training_domain import ct_channel, training_domains
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.storage import content_hash


@dataclass(frozen=True, kw_only=True)
class MaskOrigin:
    """What a folder's masks are made by, as far as what is written of them depends on it.

    Args:
        labels: What the masks hold.
        title: What files call the model.
        made_by: Hashes of the weights, and the settings that masks depend on.
        mask_ending: Of the masks' files.
        ct: Channel that is CT; None where none is.
        domains: What the model was trained on, with which scans are compared.
        trained: On which axes that was.
        trained_scans: Which scans these were, as far as it is recorded.
    """

    labels: LabelMap
    title: str = ""
    made_by: Mapping[str, Any] = field(default_factory=dict)
    mask_ending: str = ".nii.gz"
    ct: int | None = None
    domains: tuple[TrainingDomain, ...] = ()
    trained: TrainedAxes = TrainedAxes()  # noqa: RUF009 - frozen
    trained_scans: TrainedScans = TrainedScans()  # noqa: RUF009 - frozen

    @classmethod
    def of(cls, model: Model, options: PredictOptions) -> MaskOrigin:
        """That of a model's masks.

        Raises:
            DataError: The model's description of its training is damaged.
        """
        stated = {"model_axes": options.model_axes} if options.model_axes is not None else {}
        return cls(
            labels=model.mask_labels,
            title=model_title(model),
            made_by=model.identity | options.setting.to_json() | stated,
            mask_ending=str(model.dataset_json.get("file_ending", ".nii.gz")),
            ct=ct_channel(model.plans, model.configuration),
            domains=tuple(training_domains(model)) if options.flags else (),
            trained=model.trained_axes,
            trained_scans=model.trained_scans if options.flags else TrainedScans(),
        )


def model_title(model: Model) -> str:
    """What files that a model made call it: the hash of its weights, and its name where it has one."""
    identity = model.without_postprocessing().identity
    alone, hashes = len(identity) == 1, list(model.weights_sha256)
    weights = content_hash(hashes if alone else identity)
    weights = hashes[0] if alone and len(hashes) == 1 else weights
    named = f" ({model.stored.card.name})" if model.stored is not None else ""
    return f"weights {weights[:12]}{named}"
