"""Adapt 3D medical segmentation models to a clinic's own scans from a handful of annotated cases.

The methods work on any ``torch.nn.Module``::

    method = lnsegfm.DGST(gamma=1)
    optimizer = method.optimizer(network, lr=1e-2, head=[network.out])

and the main job is ``lnsegfm.finetune("clinic/", "base/", "run/", method=method, shots=5)``. Torch and nnU-Net load
when a function that needs them is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lnsegfm.methods.affine import Affine
from lnsegfm.methods.bias import Bias
from lnsegfm.methods.bounded_dgst import BoundedDGST
from lnsegfm.methods.decoder import Decoder
from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.dora import DoRA
from lnsegfm.methods.full import Full
from lnsegfm.methods.gps import GPS
from lnsegfm.methods.head import Head
from lnsegfm.methods.l2_sp import L2SP
from lnsegfm.methods.lora import LoRA
from lnsegfm.methods.random_dynamic import RandomDynamic
from lnsegfm.methods.random_static import RandomStatic
from lnsegfm.methods.scratch import Scratch
from lnsegfm.methods.spatial_adapter_method import SpatialAdapter
from lnsegfm.methods.ssf import SSF
from lnsegfm.methods.zero_shot import ZeroShot
from lnsegfm.recipe import Recipe

if TYPE_CHECKING:
    from lnsegfm.api import finetune, predict, pretrain
    from lnsegfm.evaluation.folders import evaluate
    from lnsegfm.evaluation.scores import Evaluation
    from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions, Thinning
    from lnsegfm.imaging.dicom.series import series_of
    from lnsegfm.imaging.grid import Grid
    from lnsegfm.models.model_layout import ModelChoice
    from lnsegfm.prediction.predict_options import PredictOptions, SessionOptions
    from lnsegfm.prediction.predicted_scan import Prediction
    from lnsegfm.prediction.session import Session, load
    from lnsegfm.progress import Progress
    from lnsegfm.workflows.finetune import Run
    from lnsegfm.workflows.pretrain import PretrainRun
    from lnsegfm.workflows.pretrain_plan import PretrainSettings

__version__ = "0.1.0"

_LAZY = {
    "PretrainRun": "lnsegfm.workflows.pretrain",
    "Evaluation": "lnsegfm.evaluation.scores",
    "Grid": "lnsegfm.imaging.grid",
    "ModelChoice": "lnsegfm.models.model_layout",
    "PredictOptions": "lnsegfm.prediction.predict_options",
    "Prediction": "lnsegfm.prediction.predicted_scan",
    "Progress": "lnsegfm.progress",
    "RtstructOptions": "lnsegfm.imaging.dicom.rtstruct_options",
    "Run": "lnsegfm.workflows.finetune",
    "Session": "lnsegfm.prediction.session",
    "SessionOptions": "lnsegfm.prediction.predict_options",
    "PretrainSettings": "lnsegfm.workflows.pretrain_plan",
    "Thinning": "lnsegfm.imaging.dicom.rtstruct_options",
    "evaluate": "lnsegfm.evaluation.folders",
    "finetune": "lnsegfm.api",
    "load": "lnsegfm.prediction.session",
    "predict": "lnsegfm.api",
    "pretrain": "lnsegfm.api",
    "series_of": "lnsegfm.imaging.dicom.series",
}

__all__ = [
    "DGST",
    "GPS",
    "L2SP",
    "SSF",
    "Affine",
    "Bias",
    "BoundedDGST",
    "Decoder",
    "DoRA",
    "Evaluation",
    "Full",
    "Grid",
    "Head",
    "LoRA",
    "ModelChoice",
    "PredictOptions",
    "Prediction",
    "PretrainRun",
    "PretrainSettings",
    "Progress",
    "RandomDynamic",
    "RandomStatic",
    "Recipe",
    "RtstructOptions",
    "Run",
    "Scratch",
    "Session",
    "SessionOptions",
    "SpatialAdapter",
    "Thinning",
    "ZeroShot",
    "evaluate",
    "finetune",
    "load",
    "predict",
    "pretrain",
    "series_of",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *__all__]
