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

from lnsegfm.methods.dense import Affine, Bias, Full, Head
from lnsegfm.methods.dgst import DGST
from lnsegfm.recipe import Recipe

if TYPE_CHECKING:
    from lnsegfm.api import finetune, predict
    from lnsegfm.nnunet.pretrain import Training, pretrain

__version__ = "0.1.0"

_LAZY = {
    "finetune": "lnsegfm.api",
    "predict": "lnsegfm.api",
    "pretrain": "lnsegfm.nnunet.pretrain",
    "Training": "lnsegfm.nnunet.pretrain",
}

__all__ = [
    "DGST",
    "Affine",
    "Bias",
    "Full",
    "Head",
    "Recipe",
    "Training",
    "finetune",
    "predict",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
