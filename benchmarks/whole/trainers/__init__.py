"""The folder that ``nnUNet_extTrainer`` names for the stock arms."""
