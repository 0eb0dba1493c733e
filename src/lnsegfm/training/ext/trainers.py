"""The trainers that ``nnUNet_extTrainer`` finds here. nnU-Net imports this file anew each time, so it holds no code."""

from lnsegfm.training.named_trainers import (  # noqa: F401
    nnUNetTrainer_bias,
    nnUNetTrainer_decoder,
    nnUNetTrainer_DGST,
    nnUNetTrainer_dgst_bounded,
    nnUNetTrainer_dora,
    nnUNetTrainer_full,
    nnUNetTrainer_gps,
    nnUNetTrainer_head,
    nnUNetTrainer_l2sp,
    nnUNetTrainer_lora,
    nnUNetTrainer_norm,
    nnUNetTrainer_random_dynamic,
    nnUNetTrainer_random_static,
    nnUNetTrainer_scratch,
    nnUNetTrainer_spatial_adapter,
    nnUNetTrainer_ssf,
    nnUNetTrainer_SwinUNETR,
    nnUNetTrainer_SwinUNETRv2,
)
