"""What the predictor gives: the mask in memory, and what is known when it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lnsegfm.evaluation.flags import Overlap
from lnsegfm.nnunet.preprocessing import PreprocessedScan


@dataclass(frozen=True, eq=False)
class RawPrediction:
    """A prediction in memory, on the scan's own grid.

    Args:
        prepared: The preprocessed scan.
        mask: (z, y, x), on the axes with which the scan is stored.
        mirrored: As in `PredictedMask`.
        probabilities: As in `PredictedMask`.
    """

    prepared: PreprocessedScan
    mask: np.ndarray
    mirrored: Mapping[str, Overlap] | None
    probabilities: np.ndarray | None


@dataclass(frozen=True, eq=False)
class PredictedMask:
    """What a prediction gives besides its mask.

    Args:
        mask: The file that will be the mask; it has not got its name yet.
        scan: The scan's HU (z, y, x); None where the model takes no CT.
        mirrored: How far plain and mirrored predictions agree, by label and ``FOREGROUND``; None without mirroring.
        probabilities: Of background and labels (1 + labels, z, y, x); None where they were not asked for.
        scan_hash: Hash of the scan's first channel; None where the model does not record what it was trained on.
    """

    mask: Path
    scan: np.ndarray | None
    mirrored: Mapping[str, Overlap] | None
    probabilities: np.ndarray | None
    scan_hash: str | None = None
