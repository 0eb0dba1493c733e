"""Checkpoints read safely, weights transferred, adapters. Ring 1: torch, no nnU-Net."""
