"""A prediction in memory, on the scan's own grid, and the files that can be written of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lnsegfm.datasets.labels import LabelMap, nodes_among
from lnsegfm.errors import DataError
from lnsegfm.evaluation.domain_ranges import TrainedAxes, TrainingDomain
from lnsegfm.evaluation.flags import Flag, Overlap, flags_of
from lnsegfm.evaluation.mask_statistics import measure_mask
from lnsegfm.evaluation.nodes import Node, measure_nodes
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions
from lnsegfm.imaging.files import write_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.notebook import HtmlTable, notebook_html
from lnsegfm.prediction.writers.mask_writer import MaskExport, MaskWriter
from lnsegfm.prediction.writers.node_instances import number_nodes
from lnsegfm.prediction.writers.rtstruct_writer import RtstructWriter
from lnsegfm.prediction.writers.seg_writer import SegWriter

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series


@dataclass(frozen=True, eq=False, kw_only=True)
class Prediction:
    """A predicted mask.

    Args:
        array: Label values (z, y, x), 0 is background.
        grid: Where its voxels lie, in mm, LPS: the scan's grid.
        labels: Label name to value.
        regions: Of region-based labels the values that each covers; empty for any others.
        name: What the scan is called.
        probabilities: Of background and labels (1 + labels, z, y, x); None where they were not asked for.
        mirror_agreement: How far plain and mirrored predictions agree, by label and ``FOREGROUND``; None without
            mirroring or flags.
        series: The DICOM series it is the mask of, if it is one's.
        image_hu: The scan's HU (z, y, x), for flags and pictures; None where the model takes no CT.
        model: What files call the model.
        training_domains: What the model was trained on, for flags.
        trained_axes: On which axes it was trained, for flags.
        trained_on: This scan is one of those that trained the model, or its base.
    """

    array: np.ndarray
    grid: Grid
    labels: Mapping[str, int]
    name: str = "scan"
    probabilities: np.ndarray | None = field(default=None, repr=False)
    mirror_agreement: Mapping[str, Overlap] | None = field(default=None, repr=False)
    series: Series | None = field(default=None, repr=False)
    image_hu: np.ndarray | None = field(default=None, repr=False)
    model: str = ""
    training_domains: tuple[TrainingDomain, ...] = field(default=(), repr=False)
    trained_axes: TrainedAxes | None = field(default=None, repr=False)
    trained_on: bool = field(default=False, repr=False)
    regions: tuple[tuple[str, tuple[int, ...]], ...] = field(default=(), repr=False)

    @property
    def label_map(self) -> LabelMap:
        """The labels, and of region-based ones the values that each covers."""
        return LabelMap(self.labels, regions=self.regions)

    @cached_property
    def nodes(self) -> dict[str, tuple[Node, ...]]:
        """The measured nodes of each label of nodes, of every label where none is named so. Measured when asked for."""
        label_map = self.label_map
        return {name: measure_nodes(label_map.voxels(self.array, name), self.grid) for name in nodes_among(self.labels)}

    @cached_property
    def flags(self) -> tuple[Flag, ...]:
        """Reasons to review the mask. Looked for when asked for."""
        trained = self.trained_axes
        axes = trained.codes if trained is not None else None
        measured = measure_mask(self.image_hu, self.array, self.grid, self.label_map.covered, axes=axes)
        domains, mirrored = self.training_domains, self.mirror_agreement
        return flags_of(self.name, measured, domains, mirrored, trained, trained_on=self.trained_on)

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each label in millilitres."""
        counts = {name: int(np.count_nonzero(self.label_map.voxels(self.array, name))) for name in self.labels}
        return {name: count * self.grid.voxel_volume_ml for name, count in counts.items()}

    def to_sitk(self) -> Any:
        """The mask as a ``SimpleITK.Image``."""
        return Volume(self.array, self.grid).to_sitk()

    def to_nibabel(self) -> Any:
        """The mask as a ``nibabel.Nifti1Image``, (x, y, z) in RAS; nibabel has to be installed."""
        return Volume(self.array, self.grid).to_nibabel()

    def save(self, path: str | Path) -> Path:
        """Write the mask, whole or not at all, as ``lnsegfm predict`` does; give the file.

        Args:
            path: ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``.

        Raises:
            ImageError: The name has none of these endings.
        """
        write_mask(Path(path), self.array, self.grid)
        return Path(path)

    def to_rtstruct(
        self,
        path: str | Path,
        series: Series | None = None,
        *,
        per_node: bool = False,
        options: RtstructOptions | None = None,
    ) -> Path:
        """Write a DICOM structure set, read back before it is put in place; give the file.

        Args:
            path: The file.
            series: The scan; a prediction of DICOM knows it.
            per_node: A structure for each node instead of one for each label.
            options: Profile, holes, thinning, names, and a structure set to add to; the defaults unless given.

        Raises:
            DataError: No series, one that the mask is not of, a mask without a voxel, or a file that does not give the
                mask back.
            ConfigError: A label that is no name in DICOM.
        """
        return self._write(RtstructWriter(), Path(path), series, per_node, options)

    def to_dicom_seg(self, path: str | Path, series: Series | None = None, *, per_node: bool = False) -> Path:
        """Write a DICOM segmentation, read back before it is put in place; give the file.

        Args:
            path: The file.
            series: The scan; a prediction of DICOM knows it.
            per_node: A segment for each node instead of one for each label.

        Raises:
            DataError: No series, one that the mask is not of, or a file that does not give the mask back.
            ConfigError: A label that is no name in DICOM.
        """
        return self._write(SegWriter(), Path(path), series, per_node)

    def _write(
        self,
        writer: MaskWriter,
        path: Path,
        series: Series | None,
        per_node: bool,
        options: RtstructOptions | None = None,
    ) -> Path:
        labels = self.label_map
        writer.check_labels(labels, per_node)
        series = series if series is not None else self.series
        instances, names = number_nodes(self.array, labels) if per_node else (None, None)
        export = MaskExport(
            case=self.name,
            mask=self.array,
            grid=self.grid,
            labels=labels,
            series=series,
            instances=instances,
            instance_names=names,
            model=self.model,
            rtstruct=options or RtstructOptions(),
        )
        said = writer.write(export, path)
        if said is not None and said.nothing_found:
            raise DataError(f"{path}: {' '.join(said.notes)} Write a segmentation, which may be empty, or the mask.")
        return path

    def _repr_html_(self) -> str:
        from lnsegfm.report.mask_views import views_of_mask

        rows = [[name, f"{volume:.2f} ml", self._counted(name)] for name, volume in self.volumes_ml.items()]
        size = " x ".join(map(str, self.grid.shape))
        spacing = " x ".join(f"{mm:g}" for mm in self.grid.spacing_mm)
        return notebook_html(
            f"Prediction of {self.name}",
            [HtmlTable(rows), HtmlTable.of_facts({"voxels (z, y, x)": size, "spacing": f"{spacing} mm"})],
            views=views_of_mask(self.image_hu, self.array, self.grid, f"Prediction of {self.name}"),
            notes=[f"Review: {flag.reason}" for flag in self.flags],
        )

    def _counted(self, label: str) -> str:
        if label not in self.nodes:
            return ""
        found = self.nodes[label]
        largest = max((node.short_axis_mm for node in found), default=0.0)
        return f"{len(found)} nodes" + (f", largest short axis {largest:.1f} mm" if found else "")
