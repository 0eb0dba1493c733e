"""A model loaded once, which predicts what it is handed: files, images in memory, DICOM."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import ending, image_files
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import KINDS, Volume, as_volumes
from lnsegfm.models.model_folder import Model, ModelChoice, read_models
from lnsegfm.models.training_domain import training_domains
from lnsegfm.nnunet.environment import choose_device, without_warnings
from lnsegfm.nnunet.preprocessing import PreprocessedScan
from lnsegfm.prediction.memory_budget import room, scan_bytes
from lnsegfm.prediction.pipeline import prepared_ahead, worthwhile
from lnsegfm.prediction.predict_options import GB, SessionOptions
from lnsegfm.prediction.predicted_scan import Prediction
from lnsegfm.prediction.ready_predictor import ready
from lnsegfm.prediction.scans import Scans, find_scans
from lnsegfm.prediction.writers.mask_origin import model_title

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series


@dataclass(frozen=True, eq=False)
class _Scan:
    """A scan that is ready for the network.

    Args:
        name: What it is called.
        prepared: The scan.
        series: The DICOM series that it is, if it is one.
    """

    name: str
    prepared: PreprocessedScan
    series: Series | None = None


class Session:
    """A model that is loaded, its network built. Several threads may use it: they prepare at once and predict in turn.

    Args:
        model: The model.
        options: How it predicts.

    Attributes:
        model: The model.
        options: How it predicts.

    Raises:
        ConfigError: A device that is not there, or settings that this model cannot be used with.
        ModelError: The network cannot be built, or the weights are another's.
    """

    def __init__(self, model: Model, options: SessionOptions | None = None) -> None:
        self.options = options or SessionOptions()
        model = model if self.options.postprocessing else model.without_postprocessing()
        self.model = model = model.with_axes(self.options.model_axes)
        device = choose_device(self.options.device)
        bound = self.options.memory_bytes
        self._room = room(model, (), {}, bound).rest if bound is not None else None
        self._predictor = ready(
            model,
            self.options.setting,
            device=device,
            watch=self.options.flags,
            air=self.options.air,
            memory=self._room,
        )
        self._domains = training_domains(model) if self.options.flags else ()
        self._trained_scans = model.trained_scans
        self._network = threading.Lock()
        self._dicom = threading.Lock()  # pydicom's settings are the whole process's

    @property
    def labels(self) -> dict[str, int]:
        """Label name to value."""
        return dict(self.model.mask_labels.names)

    @property
    def channels(self) -> tuple[str, ...]:
        """What the model takes, a name a channel."""
        return tuple(self.model.channel_names)

    def predict(
        self, scan: Any, *, grid: Grid | None = None, probabilities: bool = False, name: str | None = None
    ) -> Prediction:
        """Predict one scan.

        Args:
            scan: A path (NIfTI, NRRD, MHA; a folder, file or zip with one DICOM series), a SimpleITK, nibabel or
                torchio image, a NumPy array (z, y, x) with its ``grid`` or as a pair ``(array, grid)``, or a DICOM
                `Series`. For a model of several channels a list with one of these for each.
            grid: Where an array's voxels lie.
            probabilities: Keep each label's probability in each voxel.
            name: What the scan is called; the file's name, the series' UID, or ``scan`` unless given.

        Raises:
            DataError: A scan that cannot be read, is no volume, or whose channels are not the model's.
            ConfigError: The scan needs more memory than the session may hold.
            ModelError: Logits that are not finite.
        """
        return self._run(self._prepare(scan, grid, name), probabilities)

    def predict_many(
        self, scans: Iterable[Any], *, probabilities: bool = False, threads: int | None = None
    ) -> Iterator[Prediction]:
        """Predict scans one after the other, while threads prepare those that come.

        Args:
            scans: Each as `predict` takes it; taken as they are needed.
            probabilities: Keep each label's probability in each voxel.
            threads: That prepare; unless given one, or none where the network leaves no core of the CPU.

        Yields:
            The predictions, in the order of the scans. What is wrong with a scan is raised when its turn comes.
        """
        if threads is None:
            threads = int(worthwhile(self._predictor.device.type, torch.get_num_threads()))
        with without_warnings:
            for scan in prepared_ahead(scans, lambda one: self._prepare(one, None, None), threads):
                yield self._run(scan, probabilities)

    def _run(self, scan: _Scan, probabilities: bool) -> Prediction:
        with self._network:
            if self._room is not None:
                self._predictor.memory = self._left(scan.prepared.grid, probabilities)
            made = self._predictor.run(scan.prepared, probabilities=probabilities)
        return Prediction(
            array=made.mask,
            grid=scan.prepared.grid,
            labels=self.labels,
            regions=self.model.mask_labels.regions,
            name=scan.name,
            probabilities=made.probabilities,
            mirror_agreement=made.mirrored,
            series=scan.series,
            image_hu=scan.prepared.scan,
            model=model_title(self.model),
            training_domains=self._domains,
            trained_axes=self.model.trained_axes if self.options.flags else None,
            trained_on=scan.prepared.scan_hash in self._trained_scans.scans,
        )

    def _left(self, grid: Grid, probabilities: bool) -> int:
        """Bytes that are left of the bound beside a scan."""
        assert self._room is not None
        need = scan_bytes(self.model, grid, probabilities)
        if need >= self._room:
            raise ConfigError(
                f"memory {self.options.memory:g}: this scan alone takes {need / GB:.2g} GB more than the model. "
                "Load the model with more."
            )
        return self._room - need

    def _prepare(self, scan: Any, grid: Grid | None, name: str | None) -> _Scan:
        if isinstance(scan, str | Path):
            place = Path(scan)
            if not _is_dicom(place):
                return self._of_files(place, name)
            from lnsegfm.imaging.dicom.series import series_of

            with self._dicom:
                scan = series_of(
                    place,
                    straighten=self.options.straighten,
                    resample_uneven=self.options.resample_uneven,
                    series=self.options.series,
                )
        if _is_series(scan):
            return self._of_series(scan, name)
        pair = isinstance(scan, tuple) and len(scan) == 2 and isinstance(scan[1], Grid)
        parts = list(scan) if isinstance(scan, list | tuple) and not pair else [scan]
        images = [image for part in parts for image in self._channels_of(part, grid, name or "scan")]
        stem = images[0].name.split(".")[0] if images and isinstance(images[0], Path) else "scan"
        return _Scan(name or stem, self._prepared(images, name or stem))

    def _channels_of(self, part: Any, grid: Grid | None, name: str) -> Sequence[Path | Volume]:
        """A file stays one: the plans' reader may want to read it."""
        return [Path(part)] if isinstance(part, str | Path) else as_volumes(part, grid, name)

    def _prepared(self, images: Sequence[Path | Volume], name: str) -> PreprocessedScan:
        if len(images) != self.model.channels:
            raise DataError(
                f"{name}: {len(images)} channels, but the model takes {self.model.channels} "
                f"({', '.join(self.channels)}). Give a list with one image a channel."
            )
        return self._predictor.prepare(images)

    def _of_files(self, place: Path, name: str | None) -> _Scan:
        cases = find_scans(place, self.model.channels).cases
        if len(cases) != 1:
            raise DataError(f"{place}: it holds {len(cases)} scans. Give one, or all of them to lnsegfm.predict.")
        return _Scan(name or cases[0].name, self._prepared(cases[0].images, cases[0].name))

    def _of_series(self, series: Series, name: str | None) -> _Scan:
        if self.model.channels != 1:
            raise DataError(
                f"Series {series.name}: DICOM gives one channel, and the model takes {self.model.channels}. "
                "Give images by channel."
            )
        case = Case(name or "series", ())
        with ExitStack() as closing:
            with self._dicom:
                opened = closing.enter_context(Scans((case,), {case.name: series}).opened(case))
            prepared = self._predictor.prepare(opened.images)
        return _Scan(name or series.name, prepared, series)


def load(
    model: str | Path | Model | Sequence[str | Path],
    device: str | None = None,
    *,
    choice: ModelChoice | None = None,
    options: SessionOptions | None = None,
    **fields: Any,
) -> Session:
    """Load a model to predict with: it is read, and its network built, once.

    Args:
        model: A model folder, the folder of a run, the name of an imported model, or a model that was read; or several
            folders or names, whose probabilities are averaged.
        device: ``auto`` (CUDA where there is one, else the CPU), ``cpu``, ``cuda`` or ``mps``; that of the options
            unless given.
        choice: Which configuration, folds and previous stage of a cascade, where there are several.
        options: How it predicts; the defaults unless given.
        fields: Fields of `SessionOptions` that differ from ``options``: ``mirroring``, ``step``, ``fast``, ...

    Raises:
        LnSegFmError: A model, a device or settings that cannot be used.
    """
    settled = (options or SessionOptions()).with_fields(**fields, **({"device": device} if device is not None else {}))
    if isinstance(model, Model):
        return Session(model, settled)
    models = [model] if isinstance(model, str | Path) else model
    return Session(read_models([Path(each) for each in models], choice or ModelChoice()), settled)


def _is_dicom(place: Path) -> bool:
    """Whether a path is to be read as DICOM: neither an image by its ending, nor a folder of such."""
    if not place.exists():
        raise DataError(f"{place}: no such file or folder. Give {KINDS}.")
    return not image_files(place) if place.is_dir() else ending(place) is None


def _is_series(scan: Any) -> bool:
    if type(scan).__module__.partition(".")[0] != "lnsegfm":
        return False
    from lnsegfm.imaging.dicom.series import Series

    return isinstance(scan, Series)
