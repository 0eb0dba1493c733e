"""Prepared scans from an earlier run: the same to the bit, found by content alone, never damaged, never too many."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from lnsegfm.datasets.dataset import Case, open_dataset
from lnsegfm.errors import ConfigError
from lnsegfm.methods.dgst import DGST
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.progress import Silent
from lnsegfm.training import prepared_cache as caching
from lnsegfm.training import prepared_cases as module
from lnsegfm.training.prepared_cache import PreparedCache
from lnsegfm.training.prepared_cases import prepare_cases
from lnsegfm.training.schedule import Schedule
from lnsegfm.training.train_process import move_to_gpu, prepare_scans
from lnsegfm.training.training_job import TrainingJob
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.weights.checkpoint import Checkpoint
from tests.scenes import small_plans, write_scenes
from tests.training.same import same

DESCRIPTION = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "node": 1}, "file_ending": ".nii.gz"}


@pytest.fixture
def cases(tmp_path: Path) -> tuple[Case, ...]:
    return open_dataset(write_scenes(tmp_path / "clinic", 2)).cases


@pytest.fixture
def cache(tmp_path: Path) -> PreparedCache:
    return PreparedCache(tmp_path / "cache", 10**8)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that were prepared and not found."""
    names: list[str] = []
    real = module._prepared
    monkeypatch.setattr(module, "_prepared", lambda case, *rest: (names.append(case.name), real(case, *rest))[1])
    return names


def shots(
    cases: tuple[Case, ...], cache: PreparedCache | None, plans: dict[str, Any] | None = None, **description: Any
) -> tuple[PreparedCase, ...]:
    manager = PlansManager(plans or small_plans())
    configuration = manager.get_configuration("3d_fullres")
    return prepare_cases(cases, manager, configuration, DESCRIPTION | description, Silent(), cache=cache)


def test_a_scan_is_prepared_once_and_found_as_it_was(cases, cache, made) -> None:
    plain = shots(cases, None)
    made.clear()
    first, second = shots(cases, cache), shots(cases, cache)
    assert made == [case.name for case in cases]
    for one, kept, found in zip(plain, first, second, strict=True):
        assert same(one, kept)
        assert same(one, found)


def test_places_of_annotated_voxels_are_found_under_their_key(cases, cache) -> None:
    labels = {"background": 0, "node": 1, "ignore": 2}
    first, second = (shots(cases, cache, labels=labels) for _ in range(2))
    assert (-1, 0, 1) in second[0].locations
    assert all(same(one, other) for one, other in zip(first, second, strict=True))


def test_what_a_scan_is_made_of_is_its_key_and_nothing_else(cases, cache, made, tmp_path: Path) -> None:
    shots(cases[:1], cache)
    made.clear()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    copies = {path: moved / f"other.{path.name.split('.', 1)[1]}" for path in (cases[0].images[0], cases[0].label)}
    for number, (path, copy) in enumerate(copies.items()):
        copies[path] = copy.with_name(f"{number}{copy.name}")
        copies[path].write_bytes(path.read_bytes())
    renamed = Case("other", (copies[cases[0].images[0]],), copies[cases[0].label])
    plans = small_plans()
    plans["configurations"]["3d_fullres"] |= {"patch_size": [8, 8, 8], "batch_size": 7, "architecture": {}}
    (found,) = shots((renamed,), cache, plans)
    assert made == []
    assert found.name == "other"

    def changes() -> list[tuple[Callable[[dict[str, Any]], Any], dict[str, Any]]]:
        def of(configuration: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
            return lambda plans: plans["configurations"]["3d_fullres"].update(configuration)

        def intensities(plans: dict[str, Any]) -> None:
            plans["foreground_intensity_properties_per_channel"]["0"]["mean"] += 1

        return [
            (of({"spacing": [2.5, 1.0, 1.5]}), {}),
            (of({"normalization_schemes": ["ZScoreNormalization"]}), {}),
            (of({"use_mask_for_norm": [True]}), {}),
            (
                of({"resampling_fn_seg_kwargs": {"is_seg": True, "order": 0, "order_z": 0, "force_separate_z": None}}),
                {},
            ),
            (lambda plans: plans.update(transpose_forward=[1, 0, 2]), {}),
            (intensities, {}),
            (dict, {"labels": {"background": 0, "node": 1, "ignore": 2}}),
        ]

    for number, (change, description) in enumerate(changes(), 1):
        other = deepcopy(small_plans())
        change(other)
        shots(cases[:1], cache, other, **description)
        assert len(made) == number
    label = cases[0].label
    assert label is not None
    label.write_bytes(cases[1].label.read_bytes())
    shots(cases[:1], cache)
    assert len(made) == len(changes()) + 1


def key_of(
    cache: PreparedCache, case: Case, change: Callable[[dict[str, Any]], Any] = dict, **description: Any
) -> str | None:
    plans = deepcopy(small_plans())
    change(plans)
    manager = PlansManager(plans)
    return cache.key(case, manager, manager.get_configuration("3d_fullres"), DESCRIPTION | description)


def test_every_entry_of_a_configuration_is_part_of_it_but_what_the_network_is_and_sees(cases, cache) -> None:
    usual = key_of(cache, cases[0])
    besides = {"data_identifier", "batch_size", "patch_size", "median_image_size_in_voxels", "architecture"}
    besides |= {"batch_dice", "resampling_fn_probabilities", "resampling_fn_probabilities_kwargs"}
    besides |= {"inherits_from", "next_stage"}
    configuration = small_plans()["configurations"]["3d_fullres"]
    for name in {*configuration, *besides, "anything_new"} - {"inherits_from"}:
        value = "DefaultPreprocessor2" if name == "preprocessor_name" else ["other"]
        told = key_of(
            cache, cases[0], lambda plans, n=name, v=value: plans["configurations"]["3d_fullres"].update({n: v})
        )
        assert (told == usual) == (name in besides), name


@pytest.mark.parametrize(
    "name",
    ["transpose_forward", "image_reader_writer", "foreground_intensity_properties_per_channel", "label_manager"],
)
def test_so_are_the_plans(cases, cache, name: str) -> None:
    assert key_of(cache, cases[0], lambda plans: plans.update({name: "other"})) != key_of(cache, cases[0])


@pytest.mark.parametrize("changed", [{"labels": {"background": 0}}, {"regions_class_order": [1]}])
def test_so_are_the_labels(cases, cache, changed: dict[str, Any]) -> None:
    assert key_of(cache, cases[0], **changed) != key_of(cache, cases[0])


def test_so_are_the_files_and_their_format(cases, cache, tmp_path: Path) -> None:
    case, usual = cases[0], key_of(cache, cases[0])
    image, label = case.images[0], case.label
    assert label is not None
    other = tmp_path / "same.mha"
    other.write_bytes(image.read_bytes())
    found = [
        key_of(cache, Case("a", (cases[1].images[0],), label)),
        key_of(cache, Case("a", (image,), cases[1].label)),
        key_of(cache, Case("a", (other,), label)),
        key_of(cache, Case("a", (image, image), label)),
    ]
    assert len({usual, *found}) == 5
    assert key_of(cache, Case("a", (image,), None)) is None


@pytest.mark.parametrize("package", ["lnsegfm", "nnunetv2", "torch", "numpy", "scipy", "SimpleITK"])
def test_so_is_what_made_it(cases, cache, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    usual, real = key_of(cache, cases[0]), caching.version
    monkeypatch.setattr(caching, "version", lambda name: "0" if name == package else real(name))
    caching._versions.cache_clear()
    try:
        assert key_of(cache, cases[0]) != usual
    finally:
        caching._versions.cache_clear()


def test_a_preprocessor_of_someone_else_is_not_guessed_at(cases, cache) -> None:
    plans = small_plans()
    plans["configurations"]["3d_fullres"]["preprocessor_name"] = "Own"
    manager = PlansManager(plans)
    assert cache.key(cases[0], manager, manager.get_configuration("3d_fullres"), DESCRIPTION) is None


@pytest.mark.parametrize("place", [0.001, 0.01, 0.3, 0.5, 0.9, 0.97, 0.999])
@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_entry_is_made_anew(cases, cache, made, place: float, cut: bool) -> None:
    (kept,) = shots(cases[:1], cache)
    (file,) = cache.folder.glob("*.npz")
    content = bytearray(file.read_bytes())
    at = int(place * len(content))
    if cut:
        content = content[:at]
    else:
        content[at : at + 24] = bytes(b ^ 0x55 for b in content[at : at + 24])
    file.write_bytes(content)
    made.clear()
    (again,) = shots(cases[:1], cache)
    assert same(kept, again)
    shots(cases[:1], cache)
    assert made in ([], [cases[0].name])  # damage that changes nothing that is read is none
    assert made or not (cut or 0.2 < place < 0.6)


def test_those_used_longest_ago_go_first(cache, tmp_path: Path) -> None:
    image = np.zeros((1, 10, 10, 10), np.float32)
    shot = PreparedCase.prepared("a", image, image.astype(np.int16), {1: np.zeros((0, 4), int)})
    for number, key in enumerate("abc"):
        cache.keep(key, shot)
        os.utime(cache.folder / f"{key}.npz", (number, number))
    size = (cache.folder / "a.npz").stat().st_size
    assert cache.find("a", "x") is not None  # used now
    small = PreparedCache(cache.folder, 3 * size + 100)
    small.keep("d", shot)
    assert sorted(file.name for file in cache.folder.iterdir()) == ["a.npz", "c.npz", "d.npz"]
    PreparedCache(cache.folder, size // 2).keep(
        "e", shot
    )  # larger than all room: not kept, and nothing else goes for it
    assert sorted(file.name for file in cache.folder.iterdir()) == ["a.npz", "c.npz", "d.npz"]
    (cache.folder / ".partial-1-x.npz").write_bytes(b"half")
    os.utime(cache.folder / ".partial-1-x.npz", (0, 0))
    (cache.folder / ".partial-2-x.npz").write_bytes(b"another process writes this now")
    small.keep("f", shot)
    assert [file.name for file in cache.folder.glob(".partial-*")] == [".partial-2-x.npz"]


def test_only_the_user_may_look_into_it(cases, cache) -> None:
    shots(cases[:1], cache)
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_a_disk_that_cannot_be_written_is_no_reason_to_stop(cases, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert len(shots(cases, PreparedCache(tmp_path / "file" / "cache", 10**8))) == 2


def test_several_may_use_it_at_once(cases, cache) -> None:
    expected = shots(cases, None)
    key = "k"

    def use(number: int) -> bool:
        if number % 2:
            cache.keep(f"{key}{number}", expected[0])
        found = cache.find(f"{key}{number - 1 if number > 1 else 1}", expected[0].name)
        return found is None or same(found, expected[0])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(use, range(40)))


def test_the_size_is_the_user_s_to_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path))
    monkeypatch.setenv("LNSEGFM_CACHE_GB", "0.5")
    assert PreparedCache.of_this_machine() == PreparedCache(tmp_path / "prepared", 500_000_000)
    monkeypatch.setenv("LNSEGFM_CACHE_GB", "0")
    assert PreparedCache.of_this_machine() is None
    monkeypatch.delenv("LNSEGFM_CACHE_GB")
    assert PreparedCache.of_this_machine() == PreparedCache(tmp_path / "prepared", 4_000_000_000)
    for wrong in ("-1", "much", "nan", "inf"):
        monkeypatch.setenv("LNSEGFM_CACHE_GB", wrong)
        with pytest.raises(ConfigError, match=r"Set it to 0"):
            PreparedCache.of_this_machine()


def test_runs_use_it(cases, made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LNSEGFM_CACHE_GB", "1")
    start = Checkpoint({}, "3d_fullres", small_plans(), DESCRIPTION, STOCK_TRAINER, None)
    for run in ("one", "other"):
        job = TrainingJob(
            start=start,
            method=DGST(),
            cases=cases,
            schedule=Schedule(lr=1e-3, iterations=1, seed=0),
            out=tmp_path / run,
            device="cpu",
        )
        prepare_scans(job, Silent())
    assert made == [case.name for case in cases]


@pytest.mark.parametrize(("lacking", "device"), [(0, "cuda"), (4, "cpu")])
def test_scans_lie_on_a_gpu_that_has_room(cases, monkeypatch: pytest.MonkeyPatch, lacking: int, device: str) -> None:
    """Which ones are put there, not what the GPU does with them: a quarter of its memory may be theirs."""
    prepared = shots(cases, None)
    memory = 4 * sum(shot.labels.numel() * (4 + 2) for shot in prepared) - lacking  # float32 and int16
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))
    monkeypatch.setattr(PreparedCase, "to", lambda shot, device: (shot, device))
    found = move_to_gpu(prepared)
    assert all(isinstance(one, tuple) == (device == "cuda") for one in found)
