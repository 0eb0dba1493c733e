"""The checks of networks, metrics, readers, writers, datasets and commands name the law that is broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import Tensor, nn

from lnsegfm.datasets.convert import SetCard
from lnsegfm.datasets.convert.conversion_plan import ConversionPlan, LoadedScan, PlannedScan
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.metric_table import METRICS, Metric
from lnsegfm.evaluation.scoring import Scoring, score_label
from lnsegfm.imaging.files import read_volume, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.readers import Reader
from lnsegfm.networks.cards import NETWORKS, NetworkCard
from lnsegfm.prediction.writers.nifti_writer import NiftiWriter
from lnsegfm.testing import check_command, check_dataset, check_metric, check_network, check_reader, check_writer
from lnsegfm.testing.tiny_networks import UNET

# -- metrics -------------------------------------------------------------------------------------------------------


def built_in(key: str) -> Metric:
    def measure(prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
        grid = Grid(reference.shape, spacing_mm)
        return score_label(prediction, reference, grid, scoring=Scoring()).value(key)

    return replace(METRICS[key], measure=measure)


@pytest.mark.parametrize("key", METRICS)
def test_the_metrics_that_are_built_in_pass(key: str) -> None:
    check_metric(built_in(key))


def metric(measure: Any, key: str = "mine", better: Any = "lower", bounds: Any = (0.0, math.inf)) -> Metric:
    return Metric(key, "Mine", better, bounds, 2, measure)


def wrong(prediction: np.ndarray, reference: np.ndarray, _: Any) -> float:
    return float((prediction != reference).sum())


def spoiling(prediction: np.ndarray, reference: np.ndarray, _: Any) -> float:
    prediction[0, 0, 0] ^= True
    return 0.0


def by_memory(prediction: np.ndarray, reference: np.ndarray, _: Any) -> float:
    return wrong(prediction, reference, _) + float(not prediction.flags.c_contiguous)


def by_place(prediction: np.ndarray, reference: np.ndarray, _: Any) -> float:
    centres = [mask.nonzero()[2].mean() if mask.any() else 0.0 for mask in (prediction, reference)]
    return wrong(prediction, reference, _) * (1.0 + centres[0])


def of_first_axis(prediction: np.ndarray, reference: np.ndarray, _: Any) -> float:
    return float((prediction.any(axis=(1, 2)) != reference.any(axis=(1, 2))).sum())


BROKEN_METRICS: dict[str, tuple[Metric, str]] = {
    "no function": (METRICS["dice"], "it has no function measure"),
    "key": (metric(wrong, key="My Metric"), "the key 'My Metric'"),
    "bounds": (metric(wrong, bounds=(0.0, 2.0)), "outside its bounds 0.0 to 2.0"),
    "direction": (metric(wrong, better="higher"), "a wrong mask scores"),
    "raises": (metric(lambda p, r, _: float(p.sum() // r.sum() if r.any() else int("x"))), "raise ValueError"),
    "no number": (metric(lambda *_: "0.5"), "which is no number"),
    "changes": (metric(spoiling), "it changes the masks"),
    "memory": (metric(by_memory), "it depends on the order in memory"),
    "place": (metric(by_place), "empty voxels around the masks change it|turning axis 2 round changes it"),
    "axes": (metric(of_first_axis), r"the order \(2, 0, 1\) of the axes changes it"),
    "unit": (metric(wrong, key="mine_ml"), "with twice the spacing it is not 8 times as much"),
}


@pytest.mark.parametrize("name", BROKEN_METRICS)
def test_a_metric_that_breaks_a_law(name: str) -> None:
    broken, said = BROKEN_METRICS[name]
    with pytest.raises(AssertionError, match=said):
        check_metric(broken)


def test_a_figure_of_axial_slices_need_not_take_every_order_of_axes() -> None:
    check_metric(metric(of_first_axis), any_axis=False)


# -- writers -------------------------------------------------------------------------------------------------------


class Writer(NiftiWriter):
    """A writer that others break."""

    name = "mine"

    def file_name(self, case: str) -> str:
        return f"{case}.mine.nii.gz"


class Capital(Writer):
    name = "My Format"


class Stranger(Writer):
    def file_name(self, case: str) -> str:
        return f"mask_{case}.nii.gz"


class Taken(Writer):
    def file_name(self, case: str) -> str:
        return f"{case}.nii.gz"


class Lazy(Writer):
    def write(self, export: Any, destination: Path) -> None:
        if export.mask.any():
            super().write(export, destination)


class Littering(Writer):
    def write(self, export: Any, destination: Path) -> None:
        destination.with_name("left").write_text("")
        super().write(export, destination)


class Clearing(Writer):
    def write(self, export: Any, destination: Path) -> None:
        super().write(export, destination)
        export.mask[:] = 0


class Flipping(Writer):
    def write(self, export: Any, destination: Path) -> None:
        write_volume(destination, np.flip(export.mask, 2).copy(), export.grid)


class Moving(Writer):
    def write(self, export: Any, destination: Path) -> None:
        write_volume(destination, export.mask, Grid(export.grid.shape, export.grid.spacing_mm))


class NeedsSeries(Writer):
    needs_series = True


BROKEN_WRITERS: dict[Any, str] = {
    Capital: "a name is of small letters",
    Stranger: "does not begin with 'CASE.'",
    Taken: "is the file of the format nifti",
    Lazy: "it wrote no file empty.mine.nii.gz",
    Littering: r"it left \['left'\] beside its file",
    Clearing: "it changed the mask",
    Flipping: "the file does not give the mask back",
    Moving: "the file's grid is not the mask's: origin",
    NeedsSeries: "it needs a DICOM series",
}


@pytest.mark.parametrize("writer", BROKEN_WRITERS, ids=lambda cls: cls.__name__)
def test_a_writer_that_breaks_a_law(writer: Any) -> None:
    with pytest.raises(AssertionError, match=BROKEN_WRITERS[writer]):
        check_writer(writer())


def test_writers_that_keep_the_laws_and_what_is_none() -> None:
    check_writer(NiftiWriter())
    check_writer(Writer())
    with pytest.raises(AssertionError, match="it is the class Writer; name an instance"):
        check_writer(Writer)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="it lacks file_name, check_labels, write, name, needs_series"):
        check_writer(object())  # type: ignore[arg-type]


# -- readers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    file = tmp_path / "scan.nii.gz"
    voxels = np.random.default_rng(0).integers(-1000, 1000, (9, 16, 15)).astype(np.int16)
    write_volume(file, voxels, Grid(voxels.shape, (3.0, 0.8, 0.8)))
    return file


def careless(file: Path) -> tuple[np.ndarray, Grid]:
    """ITK fills up a file that is cut short without a word."""
    image = sitk.ReadImage(str(file))
    return sitk.GetArrayFromImage(image), Grid.from_image(image)


def test_readers(scan: Path) -> None:
    check_reader(Reader(read_volume), scan, read_volume(scan))
    voxels, grid = read_volume(scan)
    calls: list[int] = []

    def changing(file: Path) -> tuple[np.ndarray, Grid]:
        calls.append(1)
        return voxels + len(calls), grid

    broken: dict[str, tuple[Reader, str]] = {
        "turned": (Reader(lambda f: (read_volume(f)[0].T, grid)), "do not fill a grid"),
        "complex": (Reader(lambda f: (read_volume(f)[0].astype(complex), grid)), "are no real numbers"),
        "changing": (Reader(changing), "reading twice gives two volumes"),
        "grid": (Reader(read_volume, lambda _: Grid(grid.shape, (1, 1, 1))), "the grid alone is"),
        "constant": (Reader(lambda _: (voxels, grid)), "an empty file is read without a word"),
    }
    for name, (reader, said) in broken.items():
        with pytest.raises(AssertionError, match=said):
            check_reader(reader, scan)
        assert name
    with pytest.raises(AssertionError, match="it does not give the voxels of the file"):
        check_reader(Reader(read_volume), scan, (voxels + 1, grid))
    plain = scan.with_name("scan.nii")
    write_volume(plain, voxels, grid)
    with pytest.raises(AssertionError, match="a file that is cut short is read without a word"):
        check_reader(Reader(careless), plain)


# -- networks ------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A network whose card others break."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.LeakyReLU())
        self.out = nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.body(x))


class Unused(Small):
    """One of its layers is never computed with."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Conv3d(4, 4, 1)


def card(**changes: Any) -> NetworkCard:
    facts: dict[str, Any] = {
        "class_path": f"{__name__}.Small",
        "head": lambda network: [network.out],
        "decoder": ("body",),
        "last": lambda network: network.out,
        "deep_supervision": False,
    }
    return NetworkCard(**facts | changes)


BROKEN_NETWORKS: dict[str, tuple[NetworkCard, Callable[[], nn.Module], str]] = {
    "no class": (card(class_path="nowhere.Small"), Small, "no class can be imported by this path"),
    "other class": (card(class_path=f"{__name__}.Unused"), Small, "Small, and not derived from it"),
    "no head": (card(head=lambda _: []), Small, "its head is empty"),
    "strange head": (card(head=lambda _: [nn.Conv3d(1, 1, 1)]), Small, "modules that the network does not"),
    "last": (card(last=lambda network: network.body), Small, "is no part of its head"),
    "decoder": (card(decoder=("up",)), Small, "it has no module up, which its card calls part of the decoder"),
    "positions": (card(positions=frozenset({"table"})), Small, "no parameter is called table"),
    "labels": (card(), lambda: _with_head(3), "it was built for two labels and gives 3 channels"),
    "unused": (card(), Unused, "method full: method full: trained tensors without a gradient"),
}


def _with_head(channels: int) -> nn.Module:
    network = Small()
    network.out = nn.Conv3d(4, channels, 1)
    return network


@pytest.mark.parametrize("name", BROKEN_NETWORKS)
def test_a_network_that_breaks_a_law(name: str) -> None:
    broken, build, said = BROKEN_NETWORKS[name]
    with pytest.raises(AssertionError, match=said):
        check_network(broken, build)


def test_networks_that_keep_the_laws() -> None:
    check_network(card(), Small)
    check_network(NETWORKS["plain-conv-unet"], lambda: PlainConvUNet(**UNET, n_conv_per_stage=1), methods=("head",))
    with pytest.raises(AssertionError, match="several outputs, and its card says that it does not"):
        check_network(
            replace(NETWORKS["plain-conv-unet"], deep_supervision=False),
            lambda: PlainConvUNet(**UNET, n_conv_per_stage=1),
        )


# -- datasets and commands -----------------------------------------------------------------------------------------


def set_card(load: Callable[[], LoadedScan], names: Callable[[], list[str]] = lambda: ["a", "b"], **facts: Any) -> Any:
    def plan(source: Path, _: Any) -> ConversionPlan:
        return ConversionPlan(
            LabelMap({"node": 1}), tuple(PlannedScan(name, name, (name,), load) for name in names() if source.is_dir())
        )

    told = dict.fromkeys(("title", "url", "licence", "citation", "download", "layout"), "an example")
    return SetCard(name="mine", plan=plan, **told | facts)


def loaded(label: int = 1) -> LoadedScan:
    voxels = np.random.default_rng(0).normal(0, 100, (6, 7, 8)).round().astype(np.int16)
    return LoadedScan((voxels,), Grid(voxels.shape, (3.0, 1.0, 1.0)), (label * (voxels > 50)).astype(np.uint8))


def test_datasets(tmp_path: Path) -> None:
    good = set_card(loaded, lambda: ["a"])
    check_dataset(good, tmp_path)
    with pytest.raises(AssertionError, match="its card leaves licence empty"):
        check_dataset(replace(good, licence=" "), tmp_path)
    with pytest.raises(AssertionError, match="it finds no case in"):
        check_dataset(set_card(loaded, list), tmp_path)
    count = iter(range(100))
    with pytest.raises(AssertionError, match="planned twice it finds"):
        check_dataset(set_card(loaded, lambda: [f"case{next(count)}"]), tmp_path)
    with pytest.raises(AssertionError, match="Case a: "):
        check_dataset(set_card(lambda: loaded(7), lambda: ["a"]), tmp_path)

    def touching() -> LoadedScan:
        (tmp_path / "touched").write_text("x")
        return loaded()

    with pytest.raises(AssertionError, match="the conversion changes its source"):
        check_dataset(set_card(touching, lambda: ["a"]), tmp_path)


def test_commands() -> None:
    def silent(times: int = 1) -> None: ...

    def unsaid(times: int = 1) -> None:
        """Say it."""

    group = typer.Typer(help="Several.")
    group.command()(silent)
    group.command("other")(unsaid)
    for command, said in (
        (3, "it is neither a function nor a typer.Typer"),
        (silent, "it has no line of help"),
        (unsaid, "times has no line of help"),
        (group, "command silent: it has no line of help"),
    ):
        with pytest.raises(AssertionError, match=said):
            check_command(command)
