"""Labelled scans: reading, checking, splitting, and phantoms. Ring 0: no torch."""
