"""The trainers that ``nnUNet_extTrainer`` finds here. nnU-Net imports this file anew each time, so it holds no code."""

from lnsegfm.training.named_trainers import __getattr__  # noqa: F401 - gives each trainer by its name
