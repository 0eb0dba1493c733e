"""Scans to predict: files by case, or DICOM series."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.datasets.case_choice import CaseChoice
from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.name_affixes import masks_beside_images
from lnsegfm.datasets.nnunet_layout import parse_image_name
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import image_files, read_volume, stem, write_volume
from lnsegfm.imaging.stored_image import is_sheared

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series
    from lnsegfm.imaging.dicom.series_choice import PassedOver


@dataclass(frozen=True)
class Failure:
    """A case that could not be predicted.

    Args:
        case: Its name; of a series that was refused, what the refusal calls it.
        reason: Why, in one line.
        named: The reason says itself what it is about, as the refusal of a series does.
    """

    case: str
    reason: str
    named: bool = False

    def __str__(self) -> str:
        if self.named or self.reason.startswith((f"Case {self.case}", f"Series {self.case}")):
            return self.reason
        return f"Case {self.case}: {self.reason}"


@dataclass(frozen=True)
class Scans:
    """Scans to predict.

    Args:
        cases: By name; a case from DICOM has no image file until it is ``opened``.
        series: The DICOM series of cases that come from one.
        refused: What looked like a scan and cannot be used.
        source: Where they come from; "" where that has no name.
        passed_over: DICOM series that are not taken, since another one of their scan is, or by a selector.
        unmatched: Selectors that fit no series.
        straighten: Resample images whose axes are not at right angles when they are opened.
        masks: Masks next to their images, by their names, and are not predicted.
        note: Which folder of a dataset they are of, as a line; "" where that is plain.
    """

    cases: tuple[Case, ...]
    series: Mapping[str, Series] = field(default_factory=dict)
    refused: tuple[Failure, ...] = ()
    source: str = ""
    passed_over: tuple[PassedOver, ...] = ()
    unmatched: tuple[str, ...] = ()
    straighten: bool = False
    masks: tuple[Path, ...] = ()
    note: str = ""

    def chosen(self, choice: CaseChoice) -> Scans:
        """The scans that are chosen by name, and the refusals that concern them.

        Raises:
            ConfigError: A name that no scan has, or no scan that is left.
        """
        if choice.cases is None and not choice.exclude:
            return self
        names = set(choice.usable((case.name for case in self.cases), "scan"))
        kept = tuple(case for case in self.cases if case.name in names)
        refused = tuple(lost for lost in self.refused if choice.cases is None and lost.case not in choice.exclude)
        return replace(self, cases=kept, refused=refused)

    @contextmanager
    def opened(self, case: Case) -> Iterator[Case]:
        """The case with its image in a file: for DICOM a temporary one, which goes when the block ends.

        So it is for a NIfTI that is straightened.

        Raises:
            DicomError: The series' pixels cannot be read.
            ImageError: A file that is to be straightened cannot be read.
        """
        if case.name not in self.series:
            with ExitStack() as copies:
                yield replace(case, images=tuple(self._straight(image, copies) for image in case.images))
            return
        from lnsegfm.imaging.dicom.series import read_series

        series = self.series[case.name]
        with tempfile.TemporaryDirectory(prefix="lnsegfm-") as folder:
            image = Path(folder) / "scan.nii"
            write_volume(image, read_series(series), series.grid)
            try:
                yield replace(case, images=(image,))
            except DataError as error:  # nobody knows the temporary file
                problems = (problem.replace(str(image), f"Series {series.name}") for problem in error.problems)
                raise DataError(*problems) from None

    def _straight(self, image: Path, copies: ExitStack) -> Path:
        """The file, or a temporary copy at right angles where it is sheared and to be straightened."""
        if not (self.straighten and is_sheared(image)):
            return image
        copy = Path(copies.enter_context(tempfile.TemporaryDirectory(prefix="lnsegfm-"))) / "scan.nii"
        write_volume(copy, *read_volume(image, straighten=True))
        return copy


def find_scans(path: Path, channels: int) -> Scans:
    """The images that a user means: one, or those of a folder.

    A name that ends in ``_0000``, ``_0001``, ... is a channel of the case before it, as nnU-Net has it; a plain name is
    a case of its own. Where the model takes one channel, only ``_0000`` is one, and other numbers are of the name
    (``amos_0001``); so is ``_0000`` where such a name is beside it. A case that lacks a channel stops no other. In a
    folder a mask whose image is there (``P7_seg`` beside ``P7``) is no scan.

    Raises:
        DataError: Nothing there, no image in it, two files of one case, or no case with all channels.
    """
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = image_files(path)
    else:
        raise DataError(f"{path}: no such file or folder. Give a scan, or a folder of scans.")
    if not files:
        raise DataError(f"{path}: it holds no images. Give a folder with NIfTI, NRRD or MHA files, or DICOM.")
    masks = masks_beside_images(files) if path.is_dir() else ()
    files = [file for file in files if file not in masks]
    parsed = (parse_image_name(stem(file)) for file in files)
    numbered_names = {each.case for each in parsed if each and each.channel}
    scans: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in files:
        name, channel = parse_image_name(stem(file)) or (stem(file), 0)
        if channels == 1 and name in numbered_names:
            name, channel = stem(file), 0
        if channel in scans[name]:
            raise DataError(f"{file}: {scans[name][channel].name} is the same case. Rename or remove one of the two.")
        scans[name][channel] = file
    complete = {name for name, given in scans.items() if sorted(given) == list(range(channels))}
    problems = {
        name: f"Case {name} in {path}: channels {sorted(given)} are there, but the model takes {channels}. "
        "Add the others."
        for name, given in scans.items()
        if name not in complete
    }
    if not complete:
        raise DataError(*problems.values())
    cases = tuple(Case(name, tuple(scans[name][c] for c in range(channels))) for name in sorted(complete))
    refused = tuple(Failure(name, line, named=True) for name, line in problems.items())
    return Scans(cases, refused=refused, masks=masks)
