"""The folder that ``lnsegfm env`` names in ``nnUNet_extTrainer``."""
