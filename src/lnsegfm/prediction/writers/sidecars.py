"""What is written beside a mask: its flags, its measured nodes, its probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import nodes_among
from lnsegfm.errors import DataError
from lnsegfm.evaluation.flags import flags_of, read_flags, write_flags
from lnsegfm.evaluation.mask_statistics import measure_mask
from lnsegfm.evaluation.nodes import measure_nodes, nodes_csv, nodes_json
from lnsegfm.evaluation.probabilities import ENDING, write_probabilities
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.models.model_folder import Model
from lnsegfm.models.training_domain import ct_channel, training_domains
from lnsegfm.prediction.results import PredictedMask
from lnsegfm.storage import write_json, write_text


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to lie beside each mask.

    Args:
        flags: Reasons to look at it, in ``flags.json``.
        nodes: ``CASE.nodes.csv`` and ``CASE.nodes.json``.
        probabilities: ``CASE.npz``.
    """

    flags: bool = True
    nodes: bool = False
    probabilities: bool = False


class Beside:
    """Writes beside the masks of one folder.

    Args:
        model: The model that predicts.
        out: The folder.
        wanted: What to write.

    Raises:
        DataError: The model's ``training_domain.json``, or the folder's ``flags.json``, is damaged.
    """

    def __init__(self, model: Model, out: Path, wanted: Wanted) -> None:
        self.labels, self.out, self.wanted = model.labels, out, wanted
        self._ct = ct_channel(model.plans, model.configuration)
        self._seen = training_domains(model) if wanted.flags else ()
        self._looked_at = set(read_flags(out))

    def needs_network(self, case: Case) -> bool:
        """Whether something wanted is missing that only a prediction gives."""
        return self.wanted.probabilities and not self._file(case, ENDING).is_file()

    def lacks(self, case: Case) -> bool:
        """Whether something wanted is missing that a mask and its scan give."""
        return self._lacks_flags(case) or self._lacks_nodes(case)

    def write(self, case: Case, found: PredictedMask) -> None:
        """Write everything for a mask that is about to appear; what an earlier one left beside it goes."""
        for file in (self._file(case, ending) for ending in (".nodes.json", ".nodes.csv", ENDING)):
            file.unlink(missing_ok=True)
        mask, grid = read_mask(found.mask)
        if found.probabilities is not None:
            if not np.array_equal(found.probabilities.argmax(0), mask):
                raise DataError(
                    f"Case {case.name}: its probabilities lie on other axes than its mask, for the model's reader "
                    "turns scans. Predict without --probabilities."
                )
            write_probabilities(self._file(case, ENDING), found.probabilities)
        if self.wanted.flags:
            measured = measure_mask(found.scan, mask, grid, self.labels.names)
            write_flags(self.out, {case.name: flags_of(case.name, measured, self._seen, found.mirrored)})
        elif case.name in self._looked_at:
            write_flags(self.out, {case.name: None})
        if self.wanted.nodes:
            self._write_nodes(case, mask, grid)

    def complete(self, case: Case, file: Path) -> None:
        """Add what a mask that is there lacks; how mirrored predictions agreed is not known any more."""
        mask, grid = read_mask(file)
        if self._lacks_flags(case):
            scan = None if self._ct is None else read_volume(case.images[self._ct])[0]
            measured = measure_mask(scan, mask, grid, self.labels.names)
            write_flags(self.out, {case.name: flags_of(case.name, measured, self._seen)})
        if self._lacks_nodes(case):
            self._write_nodes(case, mask, grid)

    def forget_nodes(self, case: Case) -> None:
        """Remove the measured nodes of a mask that somebody changed."""
        for ending in (".nodes.json", ".nodes.csv"):
            self._file(case, ending).unlink(missing_ok=True)

    def _lacks_flags(self, case: Case) -> bool:
        return self.wanted.flags and case.name not in self._looked_at

    def _lacks_nodes(self, case: Case) -> bool:
        return self.wanted.nodes and not self._file(case, ".nodes.json").is_file()

    def _write_nodes(self, case: Case, mask: np.ndarray, grid: Grid) -> None:
        nodes = {name: measure_nodes(mask == self.labels.names[name], grid) for name in nodes_among(self.labels.names)}
        write_text(self._file(case, ".nodes.csv"), nodes_csv(nodes))
        write_json(self._file(case, ".nodes.json"), nodes_json(nodes))  # last: with it both are there

    def _file(self, case: Case, ending: str) -> Path:
        return self.out / f"{case.name}{ending}"
