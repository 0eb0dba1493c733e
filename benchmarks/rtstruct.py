"""Volume that a structure set keeps, beside rt-utils, and the time that a whole-body case takes.

    python -m benchmarks.rtstruct --out results/rtstruct_cpu.json

Spheres of 5 to 30 mm, each at five places between voxels, are masks of 0.98x0.98x3 mm. Each side writes them and reads
its own file, a file of the other side, and a drawn one: the sphere's circles, 200 points each. A *written* volume is
the area of the polygons times the slice distance, a *read* one the voxels; all as a share of the mask's. rt-utils is
measured if it can be imported. The case of the times has 512x512x300 voxels and 60 ellipsoid nodes, one structure each.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pydicom
from scipy import ndimage
from skimage.draw import polygon2mask

from benchmarks.evaluation import GRID, NODES, made_up_case
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_masks import Roi, roi_mask, structures_mask, to_index
from lnsegfm.imaging.grid import Grid
from lnsegfm.storage import write_json

SPHERES = Grid((20, 64, 64), (3.0, 0.98, 0.98), (-31.0, -31.0, -30.0))
DIAMETERS_MM = (5, 8, 10, 15, 20, 30)
PLACES = 5
RT_UTILS = "rt-utils 1.2.7"


@dataclass(frozen=True)
class Sphere:
    """A sphere on ``SPHERES``: its centre in voxels (z, y, x), and its diameter."""

    centre: np.ndarray
    diameter_mm: float

    @property
    def mask(self) -> np.ndarray:
        """The voxels whose centres lie inside."""
        index = np.stack(np.mgrid[tuple(slice(n) for n in SPHERES.shape)], axis=-1)
        return np.sum(((index - self.centre) * SPHERES.spacing_mm) ** 2, axis=-1) <= (self.diameter_mm / 2) ** 2

    def circle_mm(self, k: int) -> np.ndarray:
        """Where slice k cuts it."""
        z, y, x = self.centre * SPHERES.spacing_mm
        radius = np.sqrt((self.diameter_mm / 2) ** 2 - (k * SPHERES.spacing_mm[0] - z) ** 2)
        angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
        circle = np.stack(
            (x + radius * np.cos(angle), y + radius * np.sin(angle), np.full(200, k * SPHERES.spacing_mm[0])), axis=1
        )
        return circle + SPHERES.origin_mm


def spheres(diameter_mm: float) -> list[Sphere]:
    rng = np.random.default_rng(diameter_mm)
    centres = np.array(SPHERES.shape) // 2 + rng.uniform(-0.5, 0.5, (PLACES, 3))
    return [Sphere(centre, diameter_mm) for centre in centres]


def draw(sphere: Sphere, series: Series, path: Path) -> None:
    """Write the sphere's circles: the file of its mask with other points."""
    write_rtstruct(path, sphere.mask, {"node": 1}, series)
    data = pydicom.dcmread(path)
    for contour in data.ROIContourSequence[0].ContourSequence:
        k = round((float(contour.ContourData[2]) - SPHERES.origin_mm[2]) / SPHERES.spacing_mm[0])
        points = sphere.circle_mm(k)
        contour.NumberOfContourPoints, contour.ContourData = len(points), [f"{v:.4f}" for v in points.flat]
    data.save_as(path)


def polygons_ml(roi: Roi, grid: Grid) -> float:
    total = 0.0
    for contour in roi.contours:
        x, y = to_index(contour.points_mm, grid)[:, :2].T
        total += abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
    return total * grid.voxel_volume_ml


def ours_writes(mask: np.ndarray, series: Series, path: Path) -> None:
    write_rtstruct(path, mask, {"node": 1}, series)


def ours_reads(series: Series, path: Path) -> np.ndarray:
    return roi_mask(read_rtstruct(path).rois[0], series.grid)


def rt_utils_writes(mask: np.ndarray, series: Series, path: Path) -> None:
    from rt_utils import RTStructBuilder

    with redirect_stdout(io.StringIO()):
        made = RTStructBuilder.create_new(dicom_series_path=str(series.slices[0].path.parent))
        made.add_roi(mask=np.moveaxis(mask, 0, -1), name="node")  # (y, x, z), slices in order of position
        made.save(str(path))


def rt_utils_reads(series: Series, path: Path) -> np.ndarray:
    from rt_utils import RTStructBuilder

    folder = str(series.slices[0].path.parent)
    read = RTStructBuilder.create_from(dicom_series_path=folder, rt_struct_path=str(path))
    return np.moveaxis(read.get_roi_mask_by_name("node"), -1, 0)


def polygon2mask_reads(series: Series, path: Path) -> np.ndarray:
    mask = np.zeros(series.grid.shape, dtype=bool)
    for contour in read_rtstruct(path).rois[0].contours:
        index = to_index(contour.points_mm, series.grid)
        mask[round(index[0, 2])] ^= polygon2mask(series.grid.shape[1:], index[:, 1::-1])
    return mask


def shares(series: Series, folder: Path) -> dict[str, Any]:
    """Shares of the mask's volume in per cent by diameter: mean over the places and, of what is read, the extremes."""
    writers, readers = {"lnsegfm": ours_writes}, {"lnsegfm": ours_reads, "polygon2mask with XOR": polygon2mask_reads}
    if importlib.util.find_spec("rt_utils") is not None:
        writers[RT_UTILS], readers[RT_UTILS] = rt_utils_writes, rt_utils_reads
    table: dict[str, Any] = {}
    for diameter in DIAMETERS_MM:
        kept: dict[str, list[float]] = {}
        for number, sphere in enumerate(spheres(diameter)):
            mask, path = sphere.mask, folder / f"{diameter}-{number}.dcm"
            for writer, write in writers.items():
                write(mask, series, path)
                volume = polygons_ml(read_rtstruct(path).rois[0], series.grid) / series.grid.voxel_volume_ml
                kept.setdefault(f"written by {writer}", []).append(volume / mask.sum())
                for reader, read in readers.items():
                    name = f"written by {writer}, read by {reader}"
                    kept.setdefault(name, []).append(read(series, path).sum() / mask.sum())
                if writer == "lnsegfm" and not np.array_equal(ours_reads(series, path), mask):
                    raise RuntimeError(f"{diameter} mm: our file is not the mask.")
            draw(sphere, series, path)
            for reader, read in readers.items():
                kept.setdefault(f"drawn, read by {reader}", []).append(read(series, path).sum() / mask.sum())
        table[str(diameter)] = {
            name: {"mean": round(100 * statistics.fmean(v), 1), "range": [round(100 * f(v), 1) for f in (min, max)]}
            for name, v in kept.items()
        }
    return table


def whole_body(folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to write (reading back included) and to read 60 nodes on 300 slices."""
    from tests.imaging.dicom.scanner import write_series

    write_series(folder / "ct", np.broadcast_to(np.int16(0), GRID.shape), GRID)
    series, path = series_of(folder / "ct"), folder / "rs.dcm"
    reference = made_up_case(0)[1]
    nodes, number = ndimage.label(reference, np.ones((3, 3, 3)))
    mask, written, read_in = reference.astype(np.uint8), [], []
    for _ in range(repeats):
        start = time.perf_counter()
        write_rtstruct(path, mask, {"lymph_node": 1}, series, instances=nodes)
        written.append(time.perf_counter() - start)
        start = time.perf_counter()
        read = structures_mask(read_rtstruct(path), series.grid, ["*=lymph_node"], {"lymph_node": 1})
        read_in.append(time.perf_counter() - start)
        if not np.array_equal(read, mask):
            raise RuntimeError("The mask is another one.")
    return {
        "shape": GRID.shape,
        "spacing_mm": GRID.spacing_mm,
        "structures": number,
        "asked_for": NODES,
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "write_and_read_back_seconds": round(statistics.median(written), 2),
        "read_seconds": round(statistics.median(read_in), 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/rtstruct_cpu.json"))
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    from tests.imaging.dicom.scanner import write_series

    from benchmarks.machine import machine

    result: dict[str, Any] = {
        "machine": machine(),
        "spheres": {"spacing_mm": SPHERES.spacing_mm, "places": PLACES, "unit": "per cent of the mask's volume"},
    }
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_series(folder / "spheres", np.zeros(SPHERES.shape, np.int16), SPHERES)
        result["shares_by_diameter_mm"] = shares(series_of(folder / "spheres"), folder)
        result["whole_body"] = whole_body(folder, chosen.repeats)
    write_json(chosen.out, result)
    for diameter, kept in result["shares_by_diameter_mm"].items():
        for what, share in kept.items():
            print(f"{diameter} mm, {what}: {share['mean']} %")
    print(result["whole_body"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
