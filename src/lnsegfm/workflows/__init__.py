"""Whole jobs: fine-tuning, pretraining, the comparison on held-out cases, and their run folders."""
