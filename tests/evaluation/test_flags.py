"""Reasons to look at a case, on arrays whose every figure is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.errors import DataError
from lnsegfm.evaluation.domain_ranges import (
    TRAINING_DOMAIN,
    LabelDomain,
    Range,
    TrainingDomain,
    read_domains,
    write_domains,
)
from lnsegfm.evaluation.flags import FLAGS, LIMITS, Flag, Overlap, flags_of, read_flags, write_flags
from lnsegfm.evaluation.mask_statistics import FOREGROUND, MaskStatistics, measure_mask
from lnsegfm.imaging.grid import Grid

SHAPE = (20, 30, 40)
GRID = Grid(shape=SHAPE, spacing_mm=(2.0, 1.0, 0.5))
LABELS = {"node": 1, "vessel": 2}
TRAINED = TrainingDomain(
    "training", 5, (Range(1, 5), Range(0.7, 1), Range(0.5, 1)), (Range(30, 60), Range(20, 40), Range(15, 40))
)


def scan(air: float = -1000, body: float = 40) -> np.ndarray:
    """A body in air: HU, (z, y, x)."""
    image = np.full(SHAPE, air)
    image[:, 5:-5, 5:-5] = body
    return image


def ball(*boxes: tuple[slice, slice, slice], value: int = 1) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    for box in boxes or [(slice(8, 12), slice(10, 15), slice(10, 20))]:
        mask[box] = value
    return mask


def seen_in(*looks: MaskStatistics) -> tuple[TrainingDomain, ...]:
    return (TrainingDomain.over(looks),)


def kinds(found: MaskStatistics, seen: tuple[TrainingDomain, ...] = (), **more: object) -> list[str]:
    return [flag.kind for flag in flags_of("a", found, seen, **more)]


def only(found: MaskStatistics, seen: tuple[TrainingDomain, ...] = (), **more: object) -> Flag:
    (flag,) = flags_of("a", found, seen, **more)
    return flag


GOOD = measure_mask(scan(), ball(), GRID, {"node": 1})


def test_what_is_measured():
    image, mask = scan(), ball()
    mask[2:4, 20:22, 20:22] = 1
    mask[0, 12, 12] = 2
    image[mask == 1] = 70
    image[mask == 2] = 200
    found = measure_mask(image, mask, GRID, LABELS)
    assert found.spacing_mm == (2.0, 1.0, 0.5)
    assert found.extent_mm == (40.0, 30.0, 20.0)
    assert found.axes == ("head-foot", "front-back", "left-right")
    assert found.scan_hu == (-1000, 70)
    assert found.share == 209 / 24000
    assert found.foreground_hu == 70
    node, vessel = found.labels["node"], found.labels["vessel"]
    assert (node.volume_ml, node.components, node.hu, node.faces) == (pytest.approx(0.208), 2, 70, {})
    assert (vessel.volume_ml, vessel.components, vessel.hu, vessel.faces) == (pytest.approx(0.001), 1, 200, {"foot": 1})


def test_without_a_ct_nothing_is_said_of_hu():
    found = measure_mask(None, ball(), GRID, LABELS)
    assert (found.scan_hu, found.foreground_hu, found.labels["node"].hu) == (None, None, None)
    assert kinds(found, (replace(TRAINED, foreground_hu=Range(0, 1)),)) == []


def test_arrays_of_another_shape_are_refused():
    with pytest.raises(DataError, match="does not fill its grid"):
        measure_mask(None, ball()[1:], GRID, LABELS)
    with pytest.raises(DataError, match="does not fill its grid"):
        measure_mask(scan()[1:], ball(), GRID, LABELS)


def test_nothing_to_say_of_a_good_case():
    assert flags_of("a", GOOD) == flags_of("a", GOOD, (TRAINED,)) == ()


@st.composite
def cases(draw: st.DrawFn) -> MaskStatistics:
    """Scans of any intensities, spacings and sizes with random masks, now and then empty or full."""
    shape = draw(st.tuples(*[st.integers(2, 9)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.1, 9)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    image = random.normal(draw(st.floats(-2000, 3000)), draw(st.floats(0, 900)), shape)
    mask = (random.uniform(size=shape) < draw(st.sampled_from([0, 0.02, 0.3, 1]))) * random.integers(1, 3, shape)
    return measure_mask(image, mask, Grid(shape=shape, spacing_mm=spacing), LABELS)


@settings(deadline=None, max_examples=150)
@given(st.lists(cases(), min_size=1, max_size=4))
def test_training_cases_are_like_the_training(looks):
    for found in looks:
        assert set(kinds(found, seen_in(*looks))) <= {"border", "empty-mask"}
        behind = (TrainingDomain.over(looks), replace(TRAINED, source="base", foreground_hu=Range(0, 1)))
        assert set(kinds(found, behind)) <= {"border", "empty-mask"}


# mirrored predictions


def test_disagreement_is_one_minus_dice():
    assert Overlap(40, 50, 50).disagreement == pytest.approx(0.2)
    assert Overlap(0, 0, 0).disagreement == 0
    assert Overlap(0, 0, 7).disagreement == 1


def test_mirrored_predictions_that_disagree():
    unsure = {"node": Overlap(60, 100, 100), FOREGROUND: Overlap(60, 100, 100)}
    flag = only(GOOD, mirrored=unsure)
    assert (flag.kind, flag.value, flag.limit) == ("mirroring", pytest.approx(0.4), 0.2)
    assert flag.reason == (
        "Label node: the prediction and the average over mirrored copies disagree by 40% (1 - Dice; limit 20%), "
        "so the model is unsure."
    )
    for sure in (None, {}, {"node": Overlap(81, 100, 100)}, {"node": Overlap(0, 50, 49)}):
        assert kinds(GOOD, mirrored=sure) == []


def test_several_labels_and_all_together():
    one, other = Overlap(100, 100, 100), Overlap(0, 100, 100)
    both = Overlap(170, 200, 200)
    (flag,) = flags_of("a", GOOD, mirrored={"node": one, "vessel": other, FOREGROUND: both})
    assert flag.reason.startswith("Label vessel:")
    (flag,) = flags_of("a", GOOD, mirrored={"node": one, "vessel": one, FOREGROUND: other})
    assert flag.reason.startswith("All labels together:")


# intensities


@pytest.mark.parametrize("offset", [1000, 1024])
def test_a_scan_stored_with_an_offset(offset):
    found = measure_mask(scan() + offset, ball(), GRID, LABELS)
    flag = only(found)
    assert (flag.kind, flag.value, flag.limit) == ("hu-scale", offset - 1000, LIMITS["hu_no_air"].value)
    assert "1024 was added" in flag.reason
    assert f"lie between {offset - 1000} and {offset + 40}" in flag.reason


@pytest.mark.parametrize(("air", "body"), [(0, 1), (0, 255), (-2.5, 3.0)])
def test_a_scan_that_was_windowed_or_normalised(air, body):
    flag = only(measure_mask(scan(air, body), ball(), GRID, LABELS))
    assert (flag.kind, flag.limit) == ("hu-scale", LIMITS["hu_no_fat"].value)
    assert "neither air nor fat" in flag.reason


def test_scans_that_are_hu():
    cut_out = scan(air=-90)  # a region inside the body: fat, no air
    metal = scan()
    metal[:, 10, 10:12] = 3071
    for image in (cut_out, metal, scan(air=-3024)):
        assert kinds(measure_mask(image, ball(), GRID, LABELS)) == []


def test_an_odd_scale_that_the_training_had_too():
    odd = measure_mask(scan() + 1024, ball(), GRID, LABELS)
    assert kinds(odd, seen_in(odd)) == []
    assert "hu-scale" in kinds(
        odd, seen_in(measure_mask(scan(body=1500), ball(), GRID, LABELS))
    )  # as bright, but with air
    assert kinds(odd, seen_in(measure_mask(scan(), ball(), GRID, LABELS))) == ["hu-scale", "hu"]


def test_hu_under_the_mask_against_plans():
    plans = TrainingDomain("plans", 0, *[tuple(Range(v, v) for v in row) for row in (GRID.spacing_mm, GOOD.extent_mm)])
    plans = replace(plans, foreground_hu=Range(0, 120))
    assert kinds(GOOD, (plans,)) == []
    image = scan()
    image[ball() == 1] = 180
    flag = only(measure_mask(image, ball(), GRID, LABELS), (plans,))
    assert (flag.kind, flag.value, flag.limit) == ("hu", 180, 120)
    assert flag.reason == "The median under the mask is 180 HU; the training domain has 0 to 120 HU (plans)."


def under(hu: float) -> MaskStatistics:
    return replace(GOOD, labels={"node": replace(GOOD.labels["node"], hu=hu)})


@pytest.mark.parametrize(
    ("seen", "inside", "outside"),
    [((30, 100), (-20, 150), (-21, 151)), ((400, 1000), (300, 1250), (299, 1251)), ((-900, -700), (-1125, -525), None)],
)
def test_hu_under_a_label_may_lie_a_little_beyond_the_training(seen, inside, outside):
    trained = (replace(TRAINED, labels={"node": LabelDomain(Range(0.1, 1), Range(1, 1), Range(*seen))}),)
    assert [kinds(under(hu), trained) for hu in (*inside, *seen)] == [[]] * 4
    for hu, bound in zip(outside or (), inside, strict=bool(outside)):
        flag = only(under(hu), trained)
        assert (flag.kind, flag.value, flag.limit) == ("hu", hu, bound)
        assert flag.reason == (
            f"The median under node is {hu} HU; the training domain has {seen[0]} to {seen[1]} HU (training)."
        )


def test_hu_may_be_as_in_the_base_or_in_the_training():
    labels = {"node": LabelDomain(Range(0.1, 1), Range(1, 1), Range(100, 100))}
    bright = replace(TRAINED, labels=labels, foreground_hu=Range(-500, 900))  # of all its labels: says less
    dark = replace(TRAINED, source="base", foreground_hu=Range(-200, -100))
    assert kinds(under(-150), (bright, dark)) == []
    flag = only(under(-10), (bright, dark))
    assert (flag.kind, flag.value, flag.limit) == ("hu", -10, -50)
    assert (
        flag.reason
        == "The median under node is -10 HU; the training domain has 100 HU (training) or -200 to -100 HU (base)."
    )


# geometry


def at(spacing: tuple[float, float, float], extent: tuple[float, float, float] = (40, 30, 20)) -> MaskStatistics:
    return replace(GOOD, spacing_mm=spacing, extent_mm=extent)


def test_spacing_beyond_the_training():
    assert kinds(at((6.2, 1, 0.5)), (TRAINED,)) == []  # 5 mm x 1.25
    flag = only(at((6.3, 1, 0.5)), (TRAINED,))
    assert (flag.kind, flag.value, flag.limit) == ("spacing", 6.3, 6.25)
    assert flag.reason == "The spacing along head-foot is 6.3 mm; the model was trained on 1 to 5 mm (training)."
    assert only(at((2, 1, 0.39)), (TRAINED,)).limit == 0.4
    assert "left-right" in only(at((7, 1, 0.1)), (TRAINED,)).reason  # the worst axis speaks


def test_spacing_as_the_base_had_it():
    base = replace(TRAINED, source="base", spacing_mm=(Range(6, 8), Range(1, 1), Range(0.5, 0.5)))
    assert kinds(at((7, 1, 0.5)), (TRAINED, base)) == []


def test_geometry_against_the_medians_of_plans():
    plans = TrainingDomain(
        "plans", 0, (Range(3, 3), Range(1, 1), Range(1, 1)), (Range(40, 40), Range(30, 30), Range(20, 20))
    )
    assert kinds(at((6, 1, 0.5)), (plans,)) == []  # twice, and half
    assert only(at((6.1, 1, 0.5)), (plans,)).limit == 6
    assert kinds(at((3, 1, 1), (120, 10, 20)), (plans,)) == []  # three times, and a third
    flag = only(at((3, 1, 1), (121, 30, 20)), (plans,))
    assert (flag.kind, flag.value, flag.limit) == ("field-of-view", 121, 120)
    assert flag.reason == "The field of view along head-foot is 121 mm; the model was trained on 40 mm (plans)."


# border


@pytest.mark.parametrize(
    ("index", "face"),
    [
        ((0, 9, 9), "foot"),
        ((-1, 9, 9), "head"),
        ((9, 0, 9), "front"),
        ((9, -1, 9), "back"),
        ((9, 9, 0), "right"),
        ((9, 9, -1), "left"),
    ],
)
def test_the_face_that_a_mask_touches(index, face):
    mask = ball()
    mask[index] = 1
    flag = only(measure_mask(scan(), mask, GRID, LABELS))
    assert (flag.kind, flag.value, flag.limit) == ("border", 1, 0)
    assert f"Label node touches the scan's border at the {face} (1 voxel);" in flag.reason
    mask[index] = 0
    assert kinds(measure_mask(scan(), mask, GRID, LABELS)) == []


def test_faces_follow_the_direction_of_the_scan():
    turned = replace(GRID, direction=(-1, 0, 0, 0, 0, -1, 0, -1, 0))  # x to the right, y to the foot, z to the front
    mask = ball()
    mask[0, 9, 9] = mask[9, 0, 9] = mask[9, 9, 0] = 1
    found = measure_mask(None, mask, turned, LABELS)
    assert found.axes == ("front-back", "head-foot", "left-right")
    assert set(found.labels["node"].faces) == {"back", "head", "left"}


def cord(*, foot: bool, head: bool = False) -> MaskStatistics:
    """A cord along z that ends at the foot of the scan or before it, and at its head or before it."""
    mask = ball((slice(0 if foot else 3, 20 if head else 17), slice(14, 17), slice(18, 22)))
    return measure_mask(scan(), mask, GRID, {"cord": 1})


def test_a_face_that_training_masks_usually_touch_raises_no_flag():
    seen = seen_in(*[cord(foot=True)] * 9, cord(foot=False))
    assert kinds(cord(foot=True), seen) == []
    both = only(cord(foot=True, head=True), seen)
    assert both.kind == "border"
    assert "at the head (12 voxels);" in both.reason
    assert "foot" not in both.reason
    assert both.reason.endswith("Of 10 training masks none did.")


@pytest.mark.parametrize(("touching", "others", "expected"), [(5, 5, []), (4, 6, ["border"]), (1, 0, ["border"])])
def test_usual_is_half_of_at_least_two_training_masks(touching: int, others: int, expected: list[str]):
    seen = seen_in(*[cord(foot=True)] * touching, *[cord(foot=False)] * others)
    assert kinds(cord(foot=True), seen) == expected
    assert kinds(cord(foot=True), (*seen, *seen_in(*[cord(foot=True)] * 20))) == []  # usual with the base


def test_a_training_that_did_not_count_faces_flags_as_before(tmp_path: Path):
    counted = seen_in(*[cord(foot=True)] * 4)
    write_domains(tmp_path, counted)
    assert read_domains(tmp_path) == counted
    file = tmp_path / TRAINING_DOMAIN
    content = json.loads(file.read_text())
    assert content["domains"][0]["labels"]["cord"].pop("faces") == {"foot": 4}
    file.write_text(json.dumps(content))
    flag = only(cord(foot=True), read_domains(tmp_path))
    assert "training masks" not in flag.reason


def test_at_45_degrees_each_face_has_its_own_name():
    half = math.sqrt(0.5)
    for sign in (1, -1):
        oblique = replace(GRID, direction=(1, 0, 0, 0, half, -half * sign, 0, half * sign, half))
        found = measure_mask(None, np.ones(SHAPE, np.uint8), oblique, LABELS)
        assert set(found.axes) == {"head-foot", "front-back", "left-right"}
        assert set(found.labels["node"].faces) == {"foot", "head", "front", "back", "left", "right"}


# amounts


def test_nothing_found():
    flag = only(measure_mask(scan(), ball(value=0), GRID, LABELS), (TRAINED,))
    assert (flag.kind, flag.reason) == ("empty-mask", "The mask is empty.")


def with_volume(volume: float, components: int = 1) -> MaskStatistics:
    return replace(GOOD, labels={"node": replace(GOOD.labels["node"], volume_ml=volume, components=components)})


def test_volumes_and_components_beyond_the_training():
    trained = (replace(TRAINED, labels={"node": LabelDomain(Range(2, 10), Range(1, 3))}),)
    for volume in (0.5, 2, 40):
        assert kinds(with_volume(volume), trained) == []
    low, high = only(with_volume(0.49), trained), only(with_volume(41), trained)
    assert (low.kind, low.value, low.limit) == ("volume", 0.49, 0.5)
    assert (high.kind, high.value, high.limit) == ("volume", 41, 40)
    assert high.reason == "Label node has 41 ml; in training a case had 2 to 10 ml."
    assert kinds(with_volume(5, 30), trained) == []
    scattered = only(with_volume(5, 31), trained)
    assert (scattered.kind, scattered.value, scattered.limit) == ("components", 31, 30)
    assert scattered.reason == "Label node has 31 connected components; in training a case had 1 to 3."


def test_volumes_belong_to_the_models_own_training():
    base = replace(TRAINED, source="base", labels={"node": LabelDomain(Range(2, 10), Range(1, 3))})
    assert kinds(with_volume(500), (TRAINED, base)) == []


@pytest.mark.parametrize(("absent", "expected"), [(0, ["volume"]), (1, [])])
def test_a_label_that_every_training_case_had(absent, expected):
    labels = {name: LabelDomain(Range(0.01, 10), Range(1, 3), absent=absent) for name in LABELS}
    assert kinds(measure_mask(scan(), ball(), GRID, LABELS), (replace(TRAINED, labels=labels),)) == expected


def test_a_mask_that_fills_the_scan():
    half = np.zeros(SHAPE, np.uint8)
    half[1:-1, 1:-1, 1:-6] = 1
    flag = only(measure_mask(scan(), half, GRID, LABELS))
    assert (flag.kind, flag.limit) == ("volume", 0.5)
    assert flag.value == pytest.approx(18 * 28 * 33 / 24000)


# files


def test_flags_are_kept_by_case(tmp_path: Path):
    one = Flag("a", "hu", "It is bright.", 200.0, 150.0)
    assert read_flags(tmp_path) == {}
    write_flags(tmp_path, {"a": [one], "b": []})
    assert read_flags(tmp_path) == {"a": (one,), "b": ()}
    write_flags(tmp_path, {"b": [replace(one, case="b")], "a": [one]})
    assert read_flags(tmp_path) == {"a": (one,), "b": (replace(one, case="b"),)}
    assert list(read_flags(tmp_path)) == ["a", "b"]
    assert [p.name for p in tmp_path.iterdir()] == [FLAGS]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"format": "lnsegfm.flags/2", "cases": {}},
        {"format": "lnsegfm.flags/1", "cases": []},
        {"format": "lnsegfm.flags/1", "cases": {"a": 3}},
        {"format": "lnsegfm.flags/1", "cases": {"a": [{"case": "a"}]}},
        {"format": "lnsegfm.flags/1", "cases": {"a": [{"case": 1, "kind": "", "reason": "", "value": 1, "limit": 2}]}},
    ],
)
def test_flags_of_another_kind_are_refused(tmp_path: Path, content):
    (tmp_path / FLAGS).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"flags\.json"):
        read_flags(tmp_path)


def test_what_was_seen_is_kept(tmp_path: Path):
    mask = ball()
    mask[0] = 2
    seen = (
        TrainingDomain.over([GOOD, measure_mask(scan(), mask, GRID, {"node": 1})]),
        TrainingDomain.over([measure_mask(None, mask, GRID, LABELS)], "base"),
    )
    assert read_domains(tmp_path) == ()
    write_domains(tmp_path, seen)
    assert read_domains(tmp_path) == seen
    assert seen[1].renamed({"node": "lymph node"}).labels.keys() == {"lymph node", "vessel"}


def test_cases_without_a_label_are_counted():
    empty = measure_mask(scan(), ball(value=0), GRID, LABELS)
    seen = TrainingDomain.over(
        [measure_mask(scan(), ball(), GRID, LABELS), empty, measure_mask(scan(), ball(), GRID, LABELS)]
    )
    assert seen.labels["node"].absent == 1
    assert seen.labels["node"].volume_ml == Range(0.2, 0.2)
    assert "vessel" not in seen.labels
    with pytest.raises(DataError, match="No case"):
        TrainingDomain.over([])


@pytest.mark.parametrize(
    "content",
    [
        {"format": "other"},
        {"format": "lnsegfm.training-domain/1", "domains": 3},
        {"format": "lnsegfm.training-domain/1", "domains": [{}]},
        {"format": "lnsegfm.training-domain/1", "domains": [{"spacing_mm": [{"low": 2, "high": 1}] * 3}]},
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, content):
    (tmp_path / TRAINING_DOMAIN).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"training_domain\.json"):
        read_domains(tmp_path)


@pytest.mark.parametrize(("low", "high"), [(2, 1), (float("nan"), 1), (0, float("inf")), ("0", 1), (True, 2)])
def test_ranges_are_ranges(low, high):
    with pytest.raises(DataError, match="Range"):
        Range(low, high)


def test_the_page_tells_every_limit():
    page = (Path(__file__).parents[2] / "docs" / "flags.md").read_text(encoding="utf-8")
    rows = [f"| `{name}` | {limit.value:g} | {limit.why} |" for name, limit in LIMITS.items()]
    assert [row for row in rows if row not in page] == []
