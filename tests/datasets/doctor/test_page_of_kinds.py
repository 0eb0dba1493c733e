"""docs/doctor.md lists every kind of finding, with the severities that it can have, and every fix."""

from __future__ import annotations

import re
from pathlib import Path

import lnsegfm.datasets.check
import lnsegfm.datasets.doctor
import lnsegfm.imaging
import lnsegfm.workflows.base_check
from lnsegfm.datasets.doctor import FIXES

PAGE = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")
IMAGES = tuple(Path(lnsegfm.imaging.__file__).parent.glob("*.py"))
SOURCES = (
    Path(lnsegfm.datasets.check.__file__),
    Path(lnsegfm.workflows.base_check.__file__),
    *Path(lnsegfm.datasets.doctor.__file__).parent.glob("*.py"),
)
KIND = re.compile(
    r'(?:Finding|from_sentence)\(\s*"([a-z-]+)"|\bkind = "([a-z-]+)"|Problem\([^)]*?"([a-z-]+)"\)', re.DOTALL
)


def kinds() -> set[str]:
    found = {name for path in SOURCES for groups in KIND.findall(path.read_text(encoding="utf-8")) for name in groups}
    images = {kind for path in IMAGES for kind in re.findall(r'ImageError\(.*, "([a-z-]+)"\)', path.read_text("utf-8"))}
    return (found | images) - {""} | {"file"}  # the kind of a problem that states none


def listed() -> set[str]:
    cells = re.findall(r"^\| (`[^|]*`) \| (?:error|warning|note)", PAGE, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([a-z-]+)`", cell)}


def test_every_kind_is_on_the_page_and_no_other():
    assert len(kinds()) > 35
    assert listed() == kinds()


def test_every_fix_is_on_the_page():
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \| [^|]*\|$", PAGE, re.MULTILINE)) >= set(FIXES)
