"""What must hold for every phantom: one domain of each site, small enough to be quick."""

from dataclasses import replace

import numpy as np
import pytest

from lnsegfm.datasets.phantom import DOMAINS, SITES, Domain, Tissue, make_case, preset
from lnsegfm.errors import ConfigError, DataError, UnknownName

NECK = replace(preset("base"), spacing_mm=(3.0, 2.5, 2.5), size_mm=(90.0, 160.0, 160.0), node_count=(6, 12))
CHEST = replace(preset("base", "chest"), spacing_mm=(5.0, 4.0, 4.0), size_mm=(100.0, 240.0, 350.0), node_count=(8, 20))
SMALL = {"neck": NECK, "chest": CHEST}


@pytest.fixture(scope="module", params=SITES)
def cases(request):
    return [make_case(SMALL[request.param], seed=5, index=i) for i in range(2)]


@pytest.fixture(scope="module")
def small_cases():
    return [make_case(NECK, seed=6, index=i) for i in range(2)]


def test_same_seed_same_case_and_others_differ():
    one, again = make_case(NECK, 1, 0), make_case(NECK, 1, 0)
    np.testing.assert_array_equal(one.image_hu, again.image_hu)
    np.testing.assert_array_equal(one.mask, again.mask)
    assert one.truth() == again.truth()

    for other in (make_case(NECK, 1, 1), make_case(NECK, 2, 0)):
        assert one.truth()["nodes"] != other.truth()["nodes"]
        assert not np.array_equal(one.tissue, other.tissue)


def test_two_domains_share_no_patient_under_one_seed():
    scanner = replace(NECK, noise_hu=NECK.noise_hu + 1)
    one, other = make_case(NECK, 1, 0), make_case(scanner, 1, 0)
    assert not np.array_equal(one.tissue, other.tissue)


def test_arrays_are_of_one_grid(cases):
    for case in cases:
        assert case.image_hu.dtype == np.int16
        assert case.mask.dtype == np.uint8
        assert case.image_hu.shape == case.mask.shape == case.tissue.shape == case.grid.shape


def test_number_and_size_of_nodes_are_in_range(cases):
    for case in cases:
        domain = SMALL["neck" if "neck" in case.name else "chest"]
        assert domain.node_count[0] <= len(case.nodes) <= domain.node_count[1]
        low, high = domain.node_size_mm
        diameters = 2 * np.array([n.solid.semi_axes for n in case.nodes])
        assert diameters.min() >= low - 1e-9
        assert diameters.max() <= high + 1e-9


def test_nodes_lie_in_fat(cases):
    for case in cases:
        inside = case.tissue[case.mask > 0]
        assert np.unique(inside).tolist() == [Tissue.FAT], [Tissue(t).name for t in np.unique(inside)]


def test_nodes_do_not_reach_beyond_the_scan(cases):
    for case in cases:
        half = np.array(case.grid.shape[::-1]) * np.array(case.grid.spacing_mm[::-1]) / 2
        for node in case.nodes:
            low, high = node.solid.bounds
            assert np.all(low >= -half)
            assert np.all(high <= half)


def test_tissues_have_the_hu_of_ct(cases):
    expected = {
        Tissue.OUTSIDE: (-1010, -980),
        Tissue.FAT: (-130, -75),
        Tissue.MUSCLE: (45, 80),
        Tissue.ARTERY: (110, 220),
        Tissue.VEIN: (110, 230),
        Tissue.AIRWAY: (-1010, -900),
        Tissue.LUNG: (-920, -780),
        Tissue.SPONGY_BONE: (150, 700),
    }
    for case in cases:
        for tissue in (*expected, "node"):
            where = case.mask > 0 if tissue == "node" else (case.tissue == tissue) & (case.mask == 0)
            low, high = expected.get(tissue, (60, 105))
            if np.count_nonzero(where) > 60:
                core = case.image_hu[_core(where)]
                if core.size > 30:
                    assert low < np.median(core) < high, (case.name, tissue)


def _core(where):
    from scipy.ndimage import binary_erosion

    return binary_erosion(where)


def test_every_tissue_of_the_site_is_there(cases):
    site = "neck" if "neck" in cases[0].name else "chest"
    wanted = {Tissue.SKIN, Tissue.FAT, Tissue.MUSCLE, Tissue.SPONGY_BONE, Tissue.AIRWAY, Tissue.ARTERY, Tissue.VEIN}
    wanted |= {Tissue.SALIVARY_GLAND} if site == "neck" else {Tissue.LUNG, Tissue.HEART_WALL}
    for case in cases:
        assert wanted <= {Tissue(t) for t in np.unique(case.tissue)}


def test_noise_and_contrast_are_what_was_asked_for():
    quiet, loud = (replace(NECK, noise_hu=n, size_mm=(60.0, 160.0, 160.0)) for n in (0.0, 40.0))
    for domain in (quiet, loud):
        case = make_case(domain, 0, 0)
        muscle = case.image_hu[_core(_core(case.tissue == Tissue.MUSCLE))].astype(float)
        assert np.sqrt(max(0, muscle.std() ** 2 - domain.noise_hu**2)) < 14  # what is left are the muscle's own ripples
        assert muscle.std() > domain.noise_hu - 1

    plain = make_case(replace(NECK, contrast="none"), 0, 0)
    vessels = plain.image_hu[_core((plain.tissue == Tissue.ARTERY) | (plain.tissue == Tissue.VEIN))]
    assert 20 < np.median(vessels) < 60


def test_some_nodes_touch():
    domain = replace(NECK, touching_share=0.6)
    made = [make_case(domain, seed, 0) for seed in range(3)]
    assert any(node.touches for case in made for node in case.nodes)
    for case in made:
        for i, node in enumerate(case.nodes):
            assert all(i in case.nodes[j].touches for j in node.touches)


def test_nodes_that_touch_share_no_volume(small_cases):
    rng = np.random.default_rng(0)
    ball = rng.normal(size=(4000, 3))
    ball *= (rng.random((4000, 1)) ** (1 / 3)) / np.linalg.norm(ball, axis=1, keepdims=True)
    for case in small_cases:
        for node in case.nodes:
            points = node.solid.centre + (ball * node.solid.semi_axes) @ node.solid.rotation.T
            inside = sum((n.solid.level(*points.T) < 1 - 1e-6).astype(int) for n in case.nodes)
            assert inside.max() == 1


def test_what_the_annotator_left_out_is_ignored():
    case = make_case(replace(NECK, annotated_share=0.3), 3, 0)
    marked = [node.annotated for node in case.nodes]
    assert sum(marked) == max(1, round(0.3 * len(marked)))
    for k, node in enumerate(case.nodes):
        assert set(np.unique(case.mask[case.instances == k + 1])) <= {1 if node.annotated else 2}
    assert np.all(case.mask[case.instances == 0] == 0)

    assert set(np.unique(make_case(NECK, 3, 0).mask)) == {0, 1}


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_every_preset_works_at_every_site(name, site):
    domain = replace(preset(name, site), spacing_mm=(5.0, 4.0, 4.0))
    case = make_case(domain, 0, 0)
    assert case.name.startswith(f"phantom_{site}_")
    assert len(case.nodes) >= domain.node_count[0]
    assert 1 in case.mask


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_a_site_can_be_replaced_alone(name):
    domain = replace(DOMAINS[name], site="chest", spacing_mm=(5.0, 4.0, 4.0))
    assert make_case(domain, 0, 0).mask.any()


def test_anatomy_fills_scans_longer_than_the_drawing():
    domain = replace(NECK, spacing_mm=(8.0, 5.0, 5.0), size_mm=(320.0, 160.0, 160.0))
    case = make_case(domain, 0, 0)
    for z in (0, -1):
        assert {Tissue.FAT, Tissue.MUSCLE, Tissue.AIRWAY} <= {Tissue(t) for t in np.unique(case.tissue[z])}


@pytest.mark.parametrize(
    "wrong",
    [
        {"site": "knee"},
        {"contrast": "dark"},
        {"noise_hu": -1.0},
        {"noise_hu": float("nan")},
        {"blur_mm": -0.1},
        {"spacing_mm": (0.0, 1.0, 1.0)},
        {"spacing_mm": (1.0, 1.0)},
        {"size_mm": (10.0, 160.0, 160.0)},
        {"spacing_mm": (0.2, 0.2, 0.2), "size_mm": (500.0, 500.0, 500.0)},
        {"node_count": (2, 10)},
        {"node_count": (10, 5)},
        {"node_count": (3, 41)},
        {"node_size_mm": (2.0, 10.0)},
        {"node_size_mm": (3.0, 31.0)},
        {"annotated_share": 0.0},
        {"annotated_share": 1.1},
        {"necrotic_share": -0.1},
        {"hu_offset": 1e6},
    ],
)
def test_an_impossible_domain_is_refused_in_one_line(wrong):
    with pytest.raises(ConfigError) as refused:
        Domain(**wrong)
    assert "\n" not in str(refused.value)
    assert next(reversed(wrong)) in str(refused.value)


def test_unknown_presets_are_refused():
    with pytest.raises(UnknownName, match="farther"):
        preset("farther")
    with pytest.raises(ConfigError, match="knee"):
        preset("base", "knee")


def test_nodes_that_cannot_fit_are_refused():
    with pytest.raises(DataError, match="node_count"):
        make_case(replace(NECK, node_count=(40, 40), node_size_mm=(28.0, 30.0)), 0, 0)


def test_a_domain_survives_json():
    import json

    for domain in DOMAINS.values():
        assert Domain(**json.loads(json.dumps(domain.as_dict()))) == domain
