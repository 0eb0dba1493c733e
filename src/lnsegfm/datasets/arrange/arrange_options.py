"""What a user says about how scans and masks lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ArrangeOptions:
    """Options of an arrangement; what is not said is guessed from names.

    Args:
        images: Pattern of the images below the source (``*/CT.nii.gz``, or a folder); several are channels, in order.
        labels: Patterns of the masks, likewise.
        names: Labels by name: of the values in the masks, or of structures that have a file each.
        label_file: A file with the names (`lnsegfm.datasets.arrange.label_files`).
        channels: Names of the channels.
        unlabelled: Images without a mask go to ``imagesTs``.
        link: Files are linked, not copied, where the file system can.

    Raises:
        ConfigError: A value that cannot be.
    """

    images: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    names: LabelMap | None = None
    label_file: Path | None = None
    channels: tuple[str, ...] = ()
    unlabelled: bool = False
    link: bool = False

    def __post_init__(self) -> None:
        for option, patterns in (("--images", self.images), ("--labels", self.labels)):
            for pattern in patterns:
                if not pattern.strip("/ ") or pattern.startswith("/") or ".." in pattern.split("/"):
                    raise ConfigError(f"{option} {pattern!r}: it is read below SOURCE. Write it as '*/CT.nii.gz'.")
        if self.names is not None and self.label_file is not None:
            raise ConfigError(f"--label-file {self.label_file}: the labels are named by --label already. Drop one.")
        if any(not name.strip() for name in self.channels) or len(set(self.channels)) < len(self.channels):
            raise ConfigError(f"--channels {','.join(self.channels)}: a name is empty or there twice. Write CT,PET.")
        if len(self.images) > 1 and self.channels and len(self.channels) != len(self.images):
            raise ConfigError(
                f"--channels {','.join(self.channels)}: there are {len(self.images)} patterns of images. "
                "Name each channel once."
            )

    def identity(self) -> dict[str, Any]:
        """What decides the bytes of a case."""
        return {
            "images": list(self.images),
            "labels": list(self.labels),
            "names": self.names.to_dataset_json() if self.names is not None else None,
            "channels": list(self.channels),
        }
