"""Predictions against references. Ring 0: no torch."""
