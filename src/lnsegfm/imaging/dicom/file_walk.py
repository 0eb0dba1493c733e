"""The files of a folder tree, each once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lnsegfm.imaging.dicom.dicom_errors import DicomError


def files_under(root: Path) -> Iterator[Path]:
    """The regular files of a tree, by name; ``root`` itself if it is one.

    Links to folders and files are followed, each folder once, so that links in a circle come to an end. Sockets,
    pipes and devices are passed over unopened, and so is what may not be looked into.

    Raises:
        DicomError: ``root`` is neither a folder nor a file.
    """
    if root.is_file():
        yield root
        return
    if not root.is_dir():
        raise DicomError(f"{root}: no such file or folder. Check the path.")
    seen: set[tuple[int, int]] = set()
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            here = folder.stat()
            if (here.st_dev, here.st_ino) in seen:
                continue
            seen.add((here.st_dev, here.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError:
            continue
        deeper = []
        for entry in entries:
            try:
                mode = entry.stat().st_mode
            except OSError:  # a link to nothing
                continue
            if stat.S_ISDIR(mode):
                deeper.append(Path(entry.path))
            elif stat.S_ISREG(mode):
                yield Path(entry.path)
        folders += reversed(deeper)
