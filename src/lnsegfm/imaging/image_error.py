"""What cannot be used of image files."""

from __future__ import annotations

from pathlib import Path

from lnsegfm.errors import DataError

COPY_AGAIN = "Copy or export it again"
"""What to do about a damaged file."""


class ImageError(DataError):
    """An image file that cannot be used.

    Args:
        path: The file.
        what: What is wrong with it, without a full stop.
        remedy: What to do about it, a sentence without its full stop.
        kind: What kind of thing, a word.
    """

    def __init__(self, path: Path, what: str, remedy: str, kind: str = "file") -> None:
        super().__init__(f"{path}: {what}. {remedy}.")
        self.path, self.what, self.remedy, self.kind = path, what, remedy, kind
