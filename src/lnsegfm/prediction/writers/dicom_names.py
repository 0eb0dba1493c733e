"""Names of labels in DICOM files."""

from __future__ import annotations

from lnsegfm.datasets.labels import LabelMap, nodes_among
from lnsegfm.errors import ConfigError

TEXT = 64
"""Characters of a DICOM long string, as the name of a structure or segment is."""


def require_dicom_names(format_name: str, labels: LabelMap, per_node: bool) -> None:
    """Refuse labels that cannot be the name of a structure or segment.

    Raises:
        ConfigError: Such a label.
    """
    for label in labels.names:
        by_node = per_node and label in nodes_among(labels.names)
        room = TEXT - len(" 65535") if by_node else TEXT
        if len(label) > room or "\\" in label or label != label.strip():
            raise ConfigError(
                f"--format {format_name}: label {label[:TEXT]!r} is no name in DICOM, which takes {room} characters "
                "here, no backslash and no blanks at the ends. Rename it in the model's dataset.json."
            )
