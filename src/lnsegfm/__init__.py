"""Adapt 3D medical segmentation models to a clinic's own scans from a handful of annotated cases."""

__version__ = "0.1.0"
