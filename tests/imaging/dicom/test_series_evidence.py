"""Which planes are one series: laws over orders, noise and hints, and every image told."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.imaging.dicom.headers import DISTINGUISHING_KEYWORDS
from tests.imaging.dicom.planes import counted, heights_of, noisy, plane, sort, stack, uids

STEPS = st.sampled_from([0.5, 0.625, 1.0, 1.25, 2.0, 2.5, 3.0, 5.0])
COUNTS = st.integers(5, 30)
laws = settings(max_examples=60, deadline=None)


def alone(planes, **options):
    series, refused = sort(planes, **options)
    assert refused == []
    (only,) = series
    assert counted(series, refused) == len(planes)
    return only


def as_shown(series, refused):
    """What a result says, without the names of files."""
    told = [(uids(s), s.part, s.grid, s.notes, s.frames_of_reference) for s in series]
    return told, sorted((r.reason, r.harmless, r.images) for r in refused)


# ----------------------------------------------------------------------------------------- one series stays one

EQUIVALENT = {
    "as it is": lambda planes, _: planes,
    "a frame of reference for each slice": lambda planes, _: [
        replace(p, frame_of_reference_uid=f"1.7.{k}") for k, p in enumerate(planes)
    ],
    "frames of reference by halves": lambda planes, _: [
        replace(p, frame_of_reference_uid=f"1.7.{k < len(planes) // 2}") for k, p in enumerate(planes)
    ],
    "frames of reference in turn": lambda planes, _: [
        replace(p, frame_of_reference_uid=f"1.7.{k % 2}") for k, p in enumerate(planes)
    ],
    "one without a frame of reference": lambda planes, _: [
        replace(p, frame_of_reference_uid="" if k == len(planes) - 1 else "1.7") for k, p in enumerate(planes)
    ],
    "none with a frame of reference": lambda planes, _: [replace(p, frame_of_reference_uid="") for p in planes],
    "step and shoot, a slice each": lambda planes, _: [
        hinted(p, AcquisitionNumber=str(k + 1)) for k, p in enumerate(planes)
    ],
    "step and shoot, four slices each": lambda planes, _: [
        hinted(p, AcquisitionNumber=str(k // 4)) for k, p in enumerate(planes)
    ],
    "an acquisition that ends halfway": lambda planes, _: [
        hinted(p, AcquisitionNumber=str(1 + (k > len(planes) // 2))) for k, p in enumerate(planes)
    ],
    "times in turn": lambda planes, _: [hinted(p, AcquisitionTime=f"1000{k % 2}") for k, p in enumerate(planes)],
    "a time for each slice": lambda planes, _: [hinted(p, ContentTime=f"1000{k}") for k, p in enumerate(planes)],
    "rounded and noisy": lambda planes, rng: noisy(planes, int(rng.integers(99)), 2e-4, 2e-4, 0.04),
    "files twice": lambda planes, _: [
        *planes, *(replace(p, path=p.path.with_name(f"copy{k}")) for k, p in enumerate(planes))
    ],
    "files twice, as other instances": lambda planes, _: [
        *planes,
        *(replace(p, path=p.path.with_name(f"copy{k}"), sop_instance_uid=f"2.{k}") for k, p in enumerate(planes[::3])),
    ],
    "in folders": lambda planes, _: [
        replace(p, path=p.path.parent / str(k % 3) / p.path.name) for k, p in enumerate(planes)
    ],
}  # fmt: skip


IN_TURN = ("times in turn", "frames of reference in turn")


def hinted(p, **hints):
    values = dict(zip(DISTINGUISHING_KEYWORDS, p.distinguishing, strict=True)) | hints
    return replace(p, distinguishing=tuple(values.values()))


@pytest.mark.parametrize("how", EQUIVALENT)
@settings(max_examples=12, deadline=None)
@given(step=STEPS, count=COUNTS, seed=st.integers(0, 10**6))
def test_a_series_written_in_an_equivalent_way_is_the_same_volume(how, step, count, seed):
    rng = np.random.default_rng(seed)
    planes = stack(-100 + step * np.arange(count))
    first, series = alone(planes), alone(EQUIVALENT[how](planes, rng))
    assert [s.path.name for s in series.slices] == [s.path.name for s in first.slices]
    assert series.grid.shape == first.grid.shape
    assert series.grid.difference(first.grid, tolerance_mm=0.06) is None
    assert not series.uneven
    assert any("interleave in it" in note for note in series.notes) == (how in IN_TURN and count > 7)
    if how == "files twice, as other instances":
        assert "occur twice with the same pixels" in series.notes[-1]


@pytest.mark.parametrize("decimals", [1, 2])
@pytest.mark.parametrize("tilt", [0, 0.1, 0.2])
@settings(max_examples=15, deadline=None)
@given(step=st.sampled_from([1.0, 1.25, 2.5, 3.3, 5.0]), count=COUNTS, seed=st.integers(0, 99))
def test_rounded_positions_are_no_obstacle(decimals, tilt, step, count, seed):
    """An oblique stack whose positions are rounded to 0.1 or 0.01 mm moves along all three axes."""
    normal = np.array([0, -np.sin(tilt), np.cos(tilt)])
    orientation = (1.0, 0.0, 0.0, 0.0, float(np.cos(tilt)), float(np.sin(tilt)))
    start = np.random.default_rng(seed).uniform(-200, 0, 3)
    planes = [
        plane(0, k, orientation=orientation, description=str(k),
              position_mm=tuple(np.round(start + normal * step * k, decimals)))
        for k in range(count)
    ]  # fmt: skip
    assert alone(planes).grid.shape == (count, 512, 512)


@pytest.mark.parametrize("odd", [2.4, 2.6])
def test_one_step_of_a_tenth_more_or_less_is_rounding(odd):
    steps = [2.5] * 5 + [odd] + [2.5] * 5
    assert alone(stack(np.concatenate([[-700.3], -700.3 + np.cumsum(steps)]))).grid.shape[0] == 12
    assert alone(stack(np.cumsum([2.4, 2.6] * 8))).grid.spacing_mm[0] == pytest.approx(2.5, abs=0.01)


@laws
@given(step=STEPS, count=COUNTS, seed=st.integers(0, 10**6), how=st.sampled_from(sorted(EQUIVALENT)))
def test_order_and_names_of_files_do_not_count(step, count, seed, how):
    rng = np.random.default_rng(seed)
    planes = EQUIVALENT[how](stack(step * np.arange(count)), rng)
    if rng.random() < 0.5:
        planes = [*planes, *stack(step * np.arange(count) + step / 3, start=500, hints={"AcquisitionNumber": "7"})]
    order = rng.permutation(len(planes))
    shuffled = [replace(planes[k], path=planes[k].path.with_name(f"{n}")) for n, k in enumerate(order)]
    if how.startswith("files twice"):
        shuffled = [planes[k] for k in rng.permutation(len(planes))]
    assert as_shown(*sort(planes)) == as_shown(*sort(shuffled))


def test_what_the_series_says_of_its_frames():
    planes = [replace(p, frame_of_reference_uid=f"1.7.{k > 3}") for k, p in enumerate(stack(3.0 * np.arange(9)))]
    series = alone(planes)
    assert (series.frame_of_reference_uid, series.frames_of_reference) == ("1.7.True", ("1.7.True", "1.7.False"))
    assert series.in_frame("1.7.False")
    assert not series.in_frame("1.7")
    assert series.notes == (
        "its slices state 2 frames of reference (FrameOfReferenceUID): read as one series, as they are one stack; "
        "exports carry that of slice 5",
    )


# ----------------------------------------------------------------------------------------- several become several


def two(heights, **second):
    """Two acquisitions of one series UID."""
    one, other = heights
    return [*stack(one, hints={"AcquisitionNumber": "1"}), *stack(other, start=100, **second)]


@laws
@given(
    step=STEPS, count=st.integers(6, 25), more=st.integers(-2, 4), share=st.floats(0.05, 0.95),
    whole=st.integers(-3, 3),
    hint=st.sampled_from(["AcquisitionNumber", "TemporalPositionIdentifier", "KVP", "ConvolutionKernel", "EchoTime"]),
)  # fmt: skip
def test_two_acquisitions_of_any_offset_are_two(step, count, more, share, whole, hint):
    """Interleaved anyhow, at half a step too, where both together are one even stack."""
    heights = step * np.arange(count), step * (np.arange(count + more) + share + whole)
    planes = [*stack(heights[0], hints={hint: "80"}), *stack(heights[1], start=100, hints={hint: "140"})]
    series, refused = sort(planes)
    assert refused == []
    assert [heights_of(s) for s in series] == [list(map(float, h)) for h in heights]
    assert [s.part for s in series] == [1, 2]
    assert [s.notes for s in series] == [
        (f"distinguished from others of its UID by {hint} {v}",) for v in ("80", "140")
    ]


@laws
@given(step=STEPS, count=st.integers(4, 25), gap=st.floats(2.3, 40), times=st.integers(3, 9))
def test_two_ranges_are_two(step, count, gap, times):
    for apart in (gap, times):
        heights = step * np.arange(count), step * (np.arange(count) + count - 1 + apart)
        series, refused = sort(two(heights, hints={"AcquisitionNumber": "2"}))
        if apart == times or abs(apart - round(apart)) * step > 0.5:
            assert refused == []
            assert [heights_of(s) for s in series] == [list(map(float, h)) for h in heights]


@pytest.mark.parametrize("offset", [0.0, 1.1])
def test_frames_of_reference_tell_two_scans_of_the_same_heights_apart(offset):
    heights = 3.0 * np.arange(9)
    planes = [*stack(heights), *stack(heights + offset, start=50, frame_of_reference_uid="1.8", pixels="other")]
    planes = [replace(p, description=f"{p.description} {k}") for k, p in enumerate(planes)]
    series, refused = sort(planes)
    assert refused == []
    assert [s.frames_of_reference for s in series] == [("1.7",), ("1.8",)]


def test_acquisitions_and_kernels_together():
    heights = 2.0 * np.arange(10)
    planes = [
        plane(
            h,
            100 * n + k,
            pixels=f"{n} {k}",
            hints={"AcquisitionNumber": str(n // 2), "ConvolutionKernel": f"B{n % 2}"},
        )
        for n in range(8)
        for k, h in enumerate(heights)
    ]
    series, refused = sort(planes)
    assert (len(series), refused) == (8, [])
    for s in series:
        assert len({uid.rpartition(".")[2][:-2] for uid in uids(s)}) == 1


def test_two_phases_each_in_several_acquisitions():
    heights = 2.0 * np.arange(12)
    planes = [
        plane(h, 100 * n + k, pixels=f"{n} {k}", hints={"AcquisitionNumber": str(1 + 3 * n + k // 4)})
        for n in range(2)
        for k, h in enumerate(heights)
    ]
    series, refused = sort(planes)
    assert refused == []
    assert [uids(s) for s in series] == [[f"1.9.{100 * n + k}" for k in range(12)] for n in range(2)]


def test_phases_that_share_a_slice_of_air_are_complete():
    planes = [
        plane(2.0 * k, 100 * n + k, pixels="air" if k == 0 else f"{n} {k}", hints={"AcquisitionNumber": str(n)})
        for n in range(2)
        for k in range(9)
    ]
    series, refused = sort(planes)
    assert ([len(s.slices) for s in series], refused) == ([9, 9], [])


# ----------------------------------------------------------------------------------------- nothing is lost


@laws
@given(step=STEPS, count=st.integers(6, 25), at=st.data(), how=st.sampled_from(sorted(EQUIVALENT)))
def test_a_series_that_lacks_a_slice_is_refused(step, count, at, how):
    planes = EQUIVALENT[how](stack(step * np.arange(count)), np.random.default_rng(1))
    missing = at.draw(st.integers(1, count - 2))
    kept = [p for p in planes if abs(p.position_mm[2] - step * missing) > 0.1]
    series, refused = sort(kept)
    assert series == []
    assert not any(r.harmless for r in refused)
    assert counted(series, refused) == len(kept)


@laws
@given(step=STEPS, count=st.integers(6, 25), share=st.sampled_from([0.0, 0.3, 0.5]), at=st.data())
def test_two_acquisitions_that_lack_a_slice_are_refused_or_named(step, count, share, at):
    heights = step * np.arange(count), step * (np.arange(count) + share)
    planes = two(heights, hints={"AcquisitionNumber": "2"})
    planes = [replace(p, description=f"{p.description} {k}") for k, p in enumerate(planes)]
    which = at.draw(st.sampled_from([*range(1, count - 1), *range(count + 1, 2 * count - 1)]))
    series, refused = sort([*planes[:which], *planes[which + 1 :]])
    assert series == []
    assert sum(r.images for r in refused) == 2 * count - 1


def test_two_acquisitions_that_lack_slices_are_resampled_each_on_its_own():
    heights = 3.0 * np.arange(12)
    planes = two((heights, heights), hints={"AcquisitionNumber": "2"})
    planes = [replace(p, description=f"{p.description} {k}") for k, p in enumerate(planes) if k not in (4, 18)]
    assert sort(planes)[0] == []
    series, refused = sort(planes, resample_uneven=True)
    assert refused == []
    assert [heights_of(s) for s in series] == [[h for h in heights if h != gone] for gone in (12.0, 18.0)]
    assert [s.uneven for s in series] == [True, True]


TORN = {
    "Rows": lambda p: replace(p, rows=480),
    "Columns": lambda p: replace(p, columns=480),
    "PixelSpacing": lambda p: replace(p, pixel_spacing_mm=(0.72, 0.72)),
    "ImageOrientationPatient": lambda p: replace(p, orientation=(1.0, 0.0, 0.0, 0.0, 0.99995, 0.01)),
}


@pytest.mark.parametrize("keyword", TORN)
@pytest.mark.parametrize("which", ["halves", "in turn", "the last", "one within", "a few"])
def test_a_torn_series_is_refused_as_one(keyword, which):
    def is_changed(k):
        return {"halves": k > 5, "in turn": k % 2, "the last": k == 11, "one within": k == 5, "a few": k in (3, 4, 8)}[
            which
        ]

    planes = [TORN[keyword](p) if is_changed(k) else p for k, p in enumerate(stack(3.0 * np.arange(12)))]
    series, (refusal,) = sort(planes)
    assert series == []
    assert not refusal.harmless
    assert f"its 12 slices are one even stack by their places, but differ in {keyword} (" in refusal.reason
    assert refusal.images == 12


def test_geometries_that_share_heights_are_series_of_their_own():
    small = [replace(p, rows=256, columns=256) for p in stack(3.0 * np.arange(9), start=50)]
    series, refused = sort([*stack(3.0 * np.arange(12)), *small])
    assert ([len(s.slices) for s in series], refused) == ([12, 9], [])


mutations = st.lists(
    st.tuples(
        st.integers(0, 23),
        st.sampled_from([
            ("orientation", None), ("orientation", (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)),
            ("orientation", (1.0, 0.0, 0.0, 0.5, 0.8, 0.0)),
            ("position_mm", None), ("position_mm", (0.0, 0.0, 1e11)), ("position_mm", (-180.0, -180.0, 9.0)),
            ("position_mm", (5.0, 5.0, 3.3)), ("pixel_spacing_mm", None), ("pixel_spacing_mm", (0.0, 1.0)),
            ("pixel_spacing_mm", (1e9, 1.0)), ("rows", 1), ("rows", 100_000), ("columns", 17), ("samples", 3),
            ("series_uid", ""), ("series_uid", "1.4"), ("study_uid", "9"), ("patient_id", "Q"), ("modality", "MR"),
            ("image_type", ("",)), ("image_type", ("A", "B", "LOCALIZER")), ("description", "same"),
            ("frame_of_reference_uid", ""), ("frame_of_reference_uid", "1.8"), ("sop_instance_uid", ""), ("bits", 8),
            ("distinguishing", tuple("x" for _ in DISTINGUISHING_KEYWORDS)),
            ("distinguishing", tuple("nan" for _ in DISTINGUISHING_KEYWORDS)),
        ]),
    ),
    max_size=24,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(changes=mutations, resample=st.booleans(), straighten=st.booleans(), second=st.booleans())
def test_every_image_is_in_a_series_or_told(changes, resample, straighten, second):
    planes = stack(3.0 * np.arange(12))
    planes += stack(3.0 * np.arange(12) + 1.5 * second, start=12, hints={"AcquisitionNumber": "2"}, pixels="second")
    for k, (name, value) in changes:
        planes[k] = replace(planes[k], **{name: value})
    series, refused = sort(planes, resample_uneven=resample, straighten=straighten)
    assert counted(series, refused) == len(planes)
    slices = [uid for s in series for uid in uids(s) if uid]
    assert len(slices) == len(set(slices))
    for refusal in refused:
        assert refusal.reason.endswith(".")
        assert "\n" not in refusal.reason


@pytest.mark.parametrize("hostile", ["a value of each hint for each", "a geometry for each", "two at each place"])
def test_a_hundred_thousand_planes_do_not_hang(hostile):
    count = 20_000
    start = time.perf_counter()
    planes = [plane(0.5 * k, k) for k in range(count)]
    rng = np.random.default_rng(0)
    if hostile == "a value of each hint for each":
        values = rng.integers(0, 150, (count, len(DISTINGUISHING_KEYWORDS)))
        planes = [replace(p, distinguishing=tuple(map(str, v))) for p, v in zip(planes, values, strict=True)]
        planes[77] = replace(planes[77], position_mm=(-180.0, -180.0, 38.4))
    elif hostile == "a geometry for each":
        planes = [replace(p, pixel_spacing_mm=(0.1 + k / 1000, 1.0)) for k, p in enumerate(planes)]
    else:
        planes = [plane(k // 2, k, pixels=str(k)) for k in range(count)]
    series, refused = sort(planes)
    assert counted(series, refused) == count
    assert time.perf_counter() - start < 60
