"""Kernels are soft or sharp by the vendors' names; an unknown name is neither."""

from __future__ import annotations

import pytest

from lnsegfm.imaging.dicom.kernels import sharpness

SOFT = (
    "B10f B20s B30f B31f B41s H30s I30f J30s Br36d Br40 Bv40 Bf39 Hr38 Hc40 Qr40 STANDARD SOFT STND FC01 FC08 FC13 FC43"
)
SHARP = "B50f B60f B70f B80f Bl57 Bl49 Br54 Br64 H60s I70f Hr69 Ur77 U90u LUNG BONE BONEPLUS EDGE FC30 FC51 FC56 FC81"
NEITHER = "B46f B47 FC18 FC77 DETAIL CHST XY9 A B C D L 1 ? F"


@pytest.mark.parametrize(("names", "expected"), [(SOFT, "soft"), (SHARP, "sharp"), (NEITHER, "")])
def test_kernels_by_name(names, expected):
    assert {name: sharpness((name,)) for name in names.split()} == dict.fromkeys(names.split(), expected)


def test_words_within_a_name_count():
    assert sharpness(("Body Sharp",)) == "sharp"
    assert sharpness(("Body",)) == sharpness(("ASiR Standard", "40")) == "soft"
    assert sharpness(("HD Lung",)) == "sharp"


def test_one_letter_is_a_kernel_of_philips_alone():
    philips = {name: sharpness((name,), manufacturer="Philips Medical Systems") for name in "ABCDEL"}
    assert philips == dict(zip("ABCDEL", ["soft"] * 3 + ["sharp"] * 3, strict=True))


def test_the_group_of_enhanced_ct_goes_before_the_name():
    assert sharpness(("B70f",), "SOFT_TISSUE") == "soft"
    assert sharpness((), "BONE") == "sharp"
    assert sharpness(("B70f",), "CONSTANT_ANGLE") == "sharp"
    assert sharpness(()) == ""
