"""Volumes to other volumes: resampling and augmentation. torch, no nnU-Net."""
