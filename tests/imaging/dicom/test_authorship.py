"""Whether a person or an algorithm drew a structure."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.authorship import author_of, corrected_copy
from lnsegfm.imaging.dicom.drawn_structure import DrawnStructure

OURS = {"manufacturer": "lnsegfm", "model": "lnsegfm"}
SIGNED = {"approval": "APPROVED", "reviewer": "Roe^Rita"}


def file(**more: object) -> Annotation:
    fields: dict[str, object] = {"manufacturer": "Planner", "model": "P1", "approval": "UNAPPROVED"}
    return Annotation(Path("rs.dcm"), "RTSTRUCT", "1", (), (), "", "", (), "", **(fields | more))  # type: ignore[arg-type]


def structure(algorithm: str, name: str = "", interpreter: str = "") -> DrawnStructure:
    return DrawnStructure(1, "LN", algorithm=algorithm, algorithm_name=name, interpreter=interpreter)


@pytest.mark.parametrize(
    ("of_file", "of_structure", "person"),
    [
        ({}, structure("MANUAL"), True),
        ({}, structure("SEMIAUTOMATIC"), True),
        ({}, structure(""), True),
        ({}, structure("UNKNOWN"), True),
        ({"manufacturer": "", "model": ""}, structure(""), True),
        ({}, structure("AUTOMATIC"), False),
        ({"approval": "APPROVED"}, structure("AUTOMATIC"), False),
        ({"reviewer": "Roe^Rita"}, structure("AUTOMATIC"), False),
        ({"operators": "Roe^Rita"}, structure("AUTOMATIC"), False),
        (SIGNED, structure("AUTOMATIC"), True),
        ({"manufacturer": "TotalSegmentator"}, structure("AUTOMATIC"), False),
        (OURS, structure("AUTOMATIC", "lnsegfm 0.1"), False),
        (OURS, structure(""), False),
        (OURS, structure("MANUAL"), True),
        (OURS, structure("SEMIAUTOMATIC"), True),
        ({**OURS, "operators": "Roe^Rita"}, structure("AUTOMATIC"), True),
        ({**OURS, "operators": "^^"}, structure("AUTOMATIC"), False),
        ({**OURS, "creator": "Roe^Rita"}, structure("AUTOMATIC"), True),
        ({**OURS, "approval": "APPROVED"}, structure("AUTOMATIC"), False),
        ({**OURS, **SIGNED}, structure("AUTOMATIC"), True),
        (OURS, structure("AUTOMATIC", "lnsegfm 0.1", "Roe^Rita"), True),
        ({"manufacturer": "LNSegFM ", "model": ""}, structure(""), False),
        ({"manufacturer": "", "model": "lnsegfm"}, structure("AUTOMATIC"), False),
        ({"manufacturer": "Viewer"}, structure("AUTOMATIC", "lnsegfm 0.1, model"), True),
        ({"manufacturer": ""}, structure("AUTOMATIC", "lnsegfm 0.1, model"), False),
        ({"manufacturer": "Viewer"}, structure("AUTOMATIC", "other algorithm"), False),
    ],
)
def test_who_drew_it(of_file, of_structure, person):
    author = author_of(file(**of_file), of_structure)
    assert author.person is person
    assert author.why


OLD = {"times": ("20200101",)}
NEW = {"times": ("20200102",)}


@pytest.mark.parametrize(
    ("later", "earlier", "person"),
    [
        ((file(**NEW, operators="Roe"), structure("AUTOMATIC")), (file(**OLD), structure("AUTOMATIC")), True),
        (
            (file(**NEW, operators="Roe"), structure("AUTOMATIC")),
            (file(**OLD, operators="Poe"), structure("AUTOMATIC")),
            True,
        ),
        ((file(**NEW), structure("AUTOMATIC")), (file(**OLD), structure("AUTOMATIC")), False),
        ((file(**OLD, operators="Roe"), structure("AUTOMATIC")), (file(**NEW), structure("AUTOMATIC")), False),
        (
            (file(**NEW, manufacturer="B"), structure("AUTOMATIC", "A")),
            (file(**OLD), structure("AUTOMATIC", "A")),
            True,
        ),
        (
            (file(**NEW, manufacturer="B"), structure("AUTOMATIC", "B")),
            (file(**OLD), structure("AUTOMATIC", "A")),
            False,
        ),
        (
            (file(**NEW, manufacturer="B", operators="Roe"), structure("AUTOMATIC")),
            (file(**OLD), structure("AUTOMATIC")),
            False,
        ),
        ((file(**NEW, operators="Roe"), structure("AUTOMATIC")), (file(**OLD), structure("MANUAL")), False),
    ],
)
def test_a_corrected_copy_is_a_person_s(later, earlier, person):
    assert (corrected_copy(later, earlier) is not None) is person
