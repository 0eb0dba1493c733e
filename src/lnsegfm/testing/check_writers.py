"""The laws of a writer of masks."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.files import ending, read_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.writers.mask_writer import MaskExport, MaskWriter
from lnsegfm.prediction.writers.writer_table import WRITERS, writer_problem
from lnsegfm.testing.law import require

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series

GRID = Grid((5, 8, 7), (3.0, 0.8, 1.1), (3.0, -7.0, 11.0))
LABELS = LabelMap({"lymph_node": 1, "tumour": 2})


def check_writer(writer: MaskWriter, series: Series | None = None) -> None:
    """Check that a writer of masks keeps the laws of all writers.

    Its name is one that ``--format`` takes; file names belong to the case and to no other writer; a mask, an empty one
    included, becomes one file, and nothing else is left in the folder; the mask is not changed; writing again takes the
    place of the file; a file of an ending that is read here gives the mask back.

    Args:
        writer: An instance.
        series: A DICOM series for a writer that needs one; its grid is the masks'.

    Raises:
        AssertionError: A law is broken; the text says which.
    """
    problem = writer_problem(writer)
    require(problem is None, f"writer {writer!r}: {problem}")
    name = writer.name
    plain = isinstance(name, str) and name == name.lower().strip() and name and not set(name) & set(", /\\")
    require(plain, f"writer {name!r}: a name is of small letters, without comma and blank")
    _check_file_names(writer)
    writer.check_labels(LABELS, per_node=False)
    require(
        not writer.needs_series or series is not None, f"writer {name}: it needs a DICOM series; give one to check it"
    )
    grid = series.grid if series is not None else GRID
    full = np.zeros(grid.shape, np.uint8)
    full[1:-1, 2:5, 2:4] = 1
    full[2:, -3:, -2:] = 2
    with TemporaryDirectory(prefix="lnsegfm-") as folder:
        for case, mask in (("full", full), ("empty", np.zeros_like(full)), ("full", np.flip(full, 1).copy())):
            _check_written(
                writer, MaskExport(case=case, mask=mask, grid=grid, labels=LABELS, series=series), Path(folder)
            )


def _check_file_names(writer: MaskWriter) -> None:
    for case in ("case", "case.1", "a b"):
        name = writer.file_name(case)
        own = name.startswith(f"{case}.") and Path(name).name == name
        require(own, f"writer {writer.name}: the file of case {case!r} is {name!r}, which does not begin with 'CASE.'")
        for known in WRITERS.builtin.values():
            same = known.name != writer.name and known.file_name(case) == name
            require(not same, f"writer {writer.name}: {name} is the file of the format {known.name}")


def _check_written(writer: MaskWriter, export: MaskExport, folder: Path) -> None:
    destination, before = folder / writer.file_name(export.case), export.mask.copy()
    others = {path for path in folder.iterdir() if path != destination}
    writer.write(export, destination)
    require(destination.is_file(), f"writer {writer.name}: it wrote no file {destination.name}")
    left = {path for path in folder.iterdir() if path != destination} - others
    require(not left, f"writer {writer.name}: it left {sorted(path.name for path in left)} beside its file")
    require(np.array_equal(export.mask, before), f"writer {writer.name}: it changed the mask")
    if ending(destination) is not None:
        mask, grid = read_mask(destination)
        difference = grid.difference(export.grid)
        require(difference is None, f"writer {writer.name}: the file's grid is not the mask's: {difference}")
        require(np.array_equal(mask, export.mask), f"writer {writer.name}: the file does not give the mask back")
