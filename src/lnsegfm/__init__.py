"""Adapt 3D medical segmentation models to a clinic's own scans from a handful of annotated cases.

The methods work on any ``torch.nn.Module``::

    method = lnsegfm.DGST(gamma=1)
    optimizer = method.optimizer(network, lr=1e-2, head=[network.out])

and the main job is ``lnsegfm.finetune(lnsegfm.plan(data, model, lnsegfm.Recipe(...)), out)``. Torch and nnU-Net load
when a function that needs them is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lnsegfm.methods.dense import Affine, Bias, Full, Head
from lnsegfm.methods.dgst import DGST
from lnsegfm.recipe import Recipe

if TYPE_CHECKING:
    from lnsegfm.nnunet.finetune import finetune, plan
    from lnsegfm.nnunet.predict import predict_cases
    from lnsegfm.nnunet.pretrain import pretrain

__version__ = "0.1.0"

_LAZY = {
    "finetune": "lnsegfm.nnunet.finetune",
    "plan": "lnsegfm.nnunet.finetune",
    "predict_cases": "lnsegfm.nnunet.predict",
    "pretrain": "lnsegfm.nnunet.pretrain",
}

__all__ = [
    "DGST",
    "Affine",
    "Bias",
    "Full",
    "Head",
    "Recipe",
    "finetune",
    "plan",
    "predict_cases",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
