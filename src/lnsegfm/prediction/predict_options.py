"""The settings of a prediction, each described once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Self

from lnsegfm.datasets.case_choice import CaseChoice, Cases, named_cases
from lnsegfm.errors import ConfigError
from lnsegfm.imaging.axis_code import require_axes
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions
from lnsegfm.inference.speed_presets import InferenceSetting, choose_setting

GB = 10**9


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How a loaded model predicts.

    Args:
        device: ``auto`` (CUDA where there is one, else the CPU), ``cpu``, ``cuda`` or ``mps``.
        mirroring: Average over mirrored copies, as nnU-Net does.
        step: Distance of tiles as a share of the patch, in (0, 1].
        fast: ``no-mirroring``, ``wide-steps`` or ``coarse-first``, which settle mirroring and step; ``lnsegfm presets``
            measures what that costs a model.
        exact: Round as nnU-Net does, for its very masks; slower.
        air: Evaluate all tiles of nothing but air as one; the masks are the same.
        memory: GB (10^9 bytes) to keep to, about; None holds what is fastest. The masks are the same.
        flags: Look for reasons to review a mask; compares plain and mirrored predictions for it.
        straighten: Resample sheared series (gantry tilt) instead of refusing them.
        series: Which DICOM series of a study to take, such as ``("plane=axial",)``; of each scan one unless given.
        resample_uneven: Interpolate series of uneven slice distances onto a grid of one distance, likewise.
        model_axes: The axis code of the arrays that the model was trained on (``RAS``, ``LPS``), for a model that does
            not know it; scans are turned to it and masks back.
        postprocessing: Apply the rules that the model has (`lnsegfm.evaluation.postprocessing`).

    Raises:
        UnknownName: There is no such preset.
        ConfigError: A step, an amount of memory or a selector of series that cannot be, or a preset and settings of
            one's own.
    """

    device: str = "auto"
    mirroring: bool = True
    step: float = 0.5
    fast: str | None = None
    exact: bool = False
    air: bool = True
    memory: float | None = None
    flags: bool = True
    straighten: bool = False
    series: tuple[str, ...] = ()
    resample_uneven: bool = False
    model_axes: str | None = None
    postprocessing: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "series", (self.series,) if isinstance(self.series, str) else tuple(self.series))
        if self.series:
            from lnsegfm.imaging.dicom.series_selector import parse_selector

            for text in self.series:
                parse_selector(text)
        if not 0 < self.step <= 1:
            raise ConfigError(f"--step {self.step}: windows must touch or overlap. Use a share above 0, at most 1.")
        _ = self.setting, self.memory_bytes
        if self.model_axes is not None:
            object.__setattr__(self, "model_axes", require_axes(self.model_axes, "--model-axes"))

    @property
    def setting(self) -> InferenceSetting:
        """What the masks depend on besides the model."""
        return choose_setting(self.fast, mirroring=self.mirroring, step=self.step, exact=self.exact)

    @property
    def memory_bytes(self) -> int | None:
        """The bound of memory in bytes; None where there is none."""
        if self.memory is None:
            return None
        if not 0 < self.memory < math.inf:
            raise ConfigError(f"--memory {self.memory:g}: it is a number of GB above 0. Use 8, or leave it out.")
        return max(1, round(self.memory * GB))

    def with_fields(self, **fields: Any) -> Self:
        """The same with some fields changed.

        Raises:
            ConfigError: A name that is no field, or as the class.
        """
        known = self.__dataclass_fields__
        if unknown := [name for name in fields if name not in known]:
            raise ConfigError(f"Option {unknown[0]}: not known. Use {', '.join(known)}.")
        return replace(self, **fields)


@dataclass(frozen=True, kw_only=True)
class PredictOptions(SessionOptions):
    """How a folder of scans is predicted: as `SessionOptions`, and what is written.

    Args:
        overwrite: Predict also what is there already.
        nodes: Measure the nodes of each mask: ``CASE.nodes.csv`` and ``CASE.nodes.json``.
        probabilities: Keep the labels' probabilities: ``CASE.npz``, large.
        formats: ``nifti``, and for scans from DICOM also ``rtstruct`` and ``seg``.
        per_node: A structure or segment for each node instead of one for each label.
        names: What masks of DICOM series are called: ``code``, ``series`` or ``patient``.
        cases: Names of the only scans that are predicted; None predicts all.
        exclude: Names of scans that are not predicted.
        rtstruct: How structure sets are written.
    """

    overwrite: bool = False
    nodes: bool = False
    probabilities: bool = False
    formats: tuple[str, ...] = ("nifti",)
    per_node: bool = False
    names: str = "code"
    cases: Cases | None = None
    exclude: Cases = ()
    rtstruct: RtstructOptions = field(default_factory=RtstructOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        formats = [self.formats] if isinstance(self.formats, str) else self.formats
        object.__setattr__(self, "formats", tuple(formats))
        _ = self.choice

    @property
    def choice(self) -> CaseChoice:
        """Which of the scans are predicted."""
        return named_cases(self.cases, self.exclude)
