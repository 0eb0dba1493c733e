"""Image planes without files: what headers say, for laws over many arrangements of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from lnsegfm.imaging.dicom.headers import DISTINGUISHING_KEYWORDS, ImagePlane
from lnsegfm.imaging.dicom.series_index import Refusal, Series, SeriesOptions
from lnsegfm.imaging.dicom.series_traits import PlaneTraits
from lnsegfm.imaging.dicom.sorting import sorted_series


def plane(
    height: float, k: int = 0, *, pixels: str = "", hints: dict[str, str] | None = None, **more: Any
) -> ImagePlane:
    """A plane at a height; ``pixels`` says what it shows, in its description, and ``hints`` what tells it apart."""
    hints = {"AcquisitionNumber": "1", "ConvolutionKernel": "B30f", "KVP": "120", **(hints or {})}
    made = ImagePlane(
        path=Path(f"{k:04d}.dcm"), frame=None, pixel_bytes=10**6, transfer_syntax=ExplicitVRLittleEndian,
        sop_class_uid=CTImageStorage, sop_instance_uid=f"1.9.{k}", series_uid="1.2.3", study_uid="1.2",
        frame_of_reference_uid="1.7", modality="CT", description=pixels or f"shows {height:.4f}", number=1,
        patient_id="P", image_type=("ORIGINAL", "PRIMARY", "AXIAL"), rows=512, columns=512,
        frames=1, samples=1, bits=16,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), position_mm=(-180.0, -180.0, float(height)),
        pixel_spacing_mm=(0.7, 0.7), distinguishing=tuple(hints.get(k, "") for k in DISTINGUISHING_KEYWORDS),
        traits=PlaneTraits(),
    )  # fmt: skip
    return replace(made, **more)


def stack(heights: Sequence[float], *, start: int = 0, **more: Any) -> list[ImagePlane]:
    return [plane(h, start + k, **more) for k, h in enumerate(heights)]


def sort(planes: Sequence[ImagePlane], **options: bool) -> tuple[list[Series], list[Refusal]]:
    """As from files; the description of a plane stands for its pixels."""
    return sorted_series(planes, lambda several: [p.description for p in several], SeriesOptions(**options))


def heights_of(series: Series) -> list[float]:
    return [s.position_mm[2] for s in series.slices]


def uids(series: Series) -> list[str]:
    return [s.sop_instance_uid for s in series.slices]


def counted(series: Sequence[Series], refused: Sequence[Refusal]) -> int:
    """How many planes are in series, in their notes and in refusals."""
    repeats = [int(n.split()[0]) for s in series for n in s.notes if "occur twice" in n]
    return sum(len(s.slices) for s in series) + sum(repeats) + sum(r.images for r in refused)


def noisy(planes: Sequence[ImagePlane], seed: int, cosine: float, spacing: float, mm: float) -> list[ImagePlane]:
    """With orientation, spacing and position a little off in each."""
    rng = np.random.default_rng(seed)
    return [
        replace(
            p,
            orientation=tuple(np.array(p.orientation) + rng.uniform(-cosine, cosine, 6)),
            pixel_spacing_mm=tuple(np.array(p.pixel_spacing_mm) * (1 + rng.uniform(-spacing, spacing))),
            position_mm=tuple(np.array(p.position_mm) + np.array([0, 0, rng.uniform(-mm, mm)])),
        )
        for p in planes
    ]
