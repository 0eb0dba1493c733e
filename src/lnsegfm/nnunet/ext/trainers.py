"""The trainers that ``nnUNet_extTrainer`` finds here. nnU-Net imports this file anew each time, so it holds no code."""

from lnsegfm.nnunet.trainer import (  # noqa: F401
    nnUNetTrainer_bias,
    nnUNetTrainer_DGST,
    nnUNetTrainer_full,
    nnUNetTrainer_norm,
)
