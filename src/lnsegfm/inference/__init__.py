"""A volume's mask from a network: sliding window, logits, mask. torch, no nnU-Net."""
