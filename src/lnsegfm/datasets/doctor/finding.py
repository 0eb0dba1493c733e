"""One finding of the doctor, and the fixes that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""``error``: training would be refused. ``warning``: review it. ``note``: harmless, or a mere fact."""

FIXES = {
    "straighten": "resample an image or label whose axes are not at right angles onto an orthogonal grid",
    "copy-header": "give a label the geometry of its image, where both have the same shape",
    "nan-to-air": "replace NaN and infinite voxels by -1024 HU",
    "offset-1024": "subtract 1024 from a scan that holds stored values instead of HU",
    "clip-hu": "clip a scan to -1024 to 3071 HU",
    "drop-fragments": "remove the fragments of a label next to much larger connected components",
    "drop-duplicates": "leave out the later ones of cases that have the very same image",
}
"""What can be fixed in a copy, in the order in which it is done."""


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        kind: What kind of thing, a word or two with hyphens, such as ``hu-offset``.
        severity: How bad it is.
        case: Name of the case, or of the series; empty where it concerns the whole dataset.
        file: The file it is about, if it is about one.
        what: What was found, with its numbers, without a full stop.
        remedy: What to do about it, a sentence without its full stop.
        fix: Name of the fix (one of ``FIXES``) that a copy of the dataset can get.
    """

    kind: str
    severity: Severity
    case: str
    file: Path | None
    what: str
    remedy: str
    fix: str | None = None

    def __str__(self) -> str:
        place = f"Case {self.case}:" if self.case else "Dataset:"
        file = f" {self.file}:" if self.file else ""
        return " ".join(f"{place}{file} {self.what}. {self.remedy}.".split())

    def to_json(self) -> dict[str, Any]:
        """Its fields for a JSON file."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "case": self.case or None,
            "file": str(self.file) if self.file else None,
            "what": self.what,
            "remedy": self.remedy,
            "fix": self.fix,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Finding:
        """Read what `to_json` gave."""
        file = Path(content["file"]) if content["file"] is not None else None
        fields = (content[name] for name in ("what", "remedy", "fix"))
        return cls(content["kind"], content["severity"], content["case"] or "", file, *fields)


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The worst first, then by case and kind; each thing once."""
    return tuple(dict.fromkeys(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.case, f.kind, f.what))))


def from_sentence(kind: str, severity: Severity, case: str, file: Path | None, line: str, remedy: str = "") -> Finding:
    """A finding from an error's line: its last sentence is the remedy, unless one is given."""
    line = " ".join(line.split()).rstrip(".")
    if not remedy:
        line, _, remedy = line.rpartition(". ") if ". " in line else (line, "", "Export it again")
    return Finding(kind, severity, case, file, line.removeprefix(f"{file}: "), remedy)
