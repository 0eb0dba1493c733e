"""Resampling of images, labels and logits, one matrix an axis."""
