"""DICOM in and out. Ring 0: no torch."""
