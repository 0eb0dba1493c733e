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
    from lnsegfm.api import finetune, predict
    from lnsegfm.evaluation.folders import evaluate
    from lnsegfm.workflows.pretrain import PretrainSettings, pretrain

__version__ = "0.1.0"

_LAZY = {
    "evaluate": "lnsegfm.evaluation.folders",
    "finetune": "lnsegfm.api",
    "predict": "lnsegfm.api",
    "pretrain": "lnsegfm.workflows.pretrain",
    "PretrainSettings": "lnsegfm.workflows.pretrain",
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
    "Full",
    "Head",
    "LoRA",
    "PretrainSettings",
    "RandomDynamic",
    "RandomStatic",
    "Recipe",
    "Scratch",
    "SpatialAdapter",
    "ZeroShot",
    "evaluate",
    "finetune",
    "predict",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
