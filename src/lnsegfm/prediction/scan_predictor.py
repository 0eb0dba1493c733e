"""What predicts one scan after the other, whatever models it is made of: prepare, run, write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lnsegfm.imaging.files import write_mask
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.results import PredictedMask, RawPrediction
from lnsegfm.storage import atomic_write


class ScanPredictor(ABC):
    """A model, or several that work together, ready to predict.

    Attributes:
        device: Where networks run.
        memory: Bytes that may be held beyond networks, inputs and results; None holds what is fastest.
    """

    device: torch.device
    memory: int | None

    @abstractmethod
    def prepare(self, images: Sequence[Path | Volume]) -> PreprocessedScan:
        """Read and prepare a scan; may run in another thread than the rest.

        Args:
            images: One file, or volume in memory, a channel.

        Raises:
            DataError: The scan cannot be read, or its channels are not the model's.
        """

    @abstractmethod
    def run(self, prepared: PreprocessedScan, *, probabilities: bool = False) -> RawPrediction:
        """Evaluate the network and compute the mask on the scan's own grid, all in memory.

        Args:
            prepared: The scan.
            probabilities: Compute them, too.

        Raises:
            ModelError: Logits that are not finite.
        """

    def write(self, made: RawPrediction, out: Path, *, first: Callable[[PredictedMask], None] | None = None) -> None:
        """Write a mask.

        Args:
            made: The prediction.
            out: The mask's file; its ending chooses the format.
            first: Called before the mask gets its name, so that what it writes is there once the mask is.
        """
        prepared = made.prepared
        with atomic_write(out) as partial:
            write_mask(partial, made.mask, prepared.grid)
            if first is not None:
                first(PredictedMask(partial, prepared.scan, made.mirrored, made.probabilities, prepared.scan_hash))

    def predict(
        self,
        images: Sequence[Path],
        out: Path,
        *,
        probabilities: bool = False,
        first: Callable[[PredictedMask], None] | None = None,
    ) -> None:
        """Predict one scan and write its mask: `prepare`, `run` and `write` in turn.

        Args:
            images: One file a channel.
            out: The mask's file; its ending chooses the format.
            probabilities: Compute them, too, for ``first``.
            first: Called before the mask gets its name, so that what it writes is there once the mask is.

        Raises:
            DataError: The scan cannot be read, or its channels are not the model's.
            ModelError: Logits that are not finite.
        """
        self.write(self.run(self.prepare(images), probabilities=probabilities), out, first=first)
