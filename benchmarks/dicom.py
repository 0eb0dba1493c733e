"""Time and memory of one whole-body case from DICOM and back to DICOM.

    python -m benchmarks.dicom --out results/dicom_cpu.json

The case is made up: 300 slices of 512x512 voxels of 0.98x0.98x1.5 mm, soft tissue with noise in air, and 60 ellipsoid
nodes. Every round runs each part in a process of its own (Linux), after the imports:

- *in*: the series is found in its folder and read to HU,
- *out*: what `lnsegfm predict --format rtstruct,seg --per-node` does once a mask is there: it is read, its nodes are
  measured and numbered, RTSTRUCT and DICOM SEG are written, one structure and segment a node, and read back,
- *back*: both files are read to masks again,
- *convert*: `lnsegfm data convert dicom`: series and RTSTRUCT to compressed NIfTI, which is read back and compared.

The exit code is 1 when *in* and *out* together take more than 30 s, or any part more than 4 GiB.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.evaluation import GRID, NODES, made_up_case, peak_mib
from lnsegfm.storage import write_json

SECONDS, MIB = 30.0, 4096.0
"""What a case may take, in and out, on two cores."""
LABELS = {"lymph_node": 1}


def write_case(folder: Path) -> None:
    """Write the case as a scanner and a physician's workstation would: a series and a structure set."""
    from tests.imaging.dicom.scanner import write_series

    from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
    from lnsegfm.imaging.dicom.series import series_of

    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = (x / 0.8) ** 2 + (y / 0.55) ** 2 <= 1
    nodes = made_up_case(0)[1]
    hu = np.empty(GRID.shape, np.int16)
    for k in range(GRID.shape[0]):
        hu[k] = np.where(body, rng.normal(40, 20, body.shape), rng.normal(-1000, 10, body.shape)).clip(-1024)
    hu[nodes] += 40
    write_series(folder / "ct", hu, GRID)
    np.save(folder / "nodes.npy", nodes)
    write_rtstruct(folder / "rs.dcm", nodes.astype(np.uint8), LABELS, series_of(folder / "ct"))


def part_in(folder: Path) -> Callable[[], None]:
    from lnsegfm.imaging.dicom.series import read_series, series_of

    def run() -> None:
        series = series_of(folder / "ct")
        if read_series(series).shape != GRID.shape:
            raise RuntimeError("The series has another shape.")

    return run


def part_out(folder: Path) -> Callable[[], None]:
    from lnsegfm.datasets.dataset import Case
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.imaging.dicom.series import series_of
    from lnsegfm.imaging.files import write_mask
    from lnsegfm.prediction.predict_options import PredictOptions
    from lnsegfm.prediction.scans import Scans
    from lnsegfm.prediction.writers.case_outputs import CaseOutputs
    from lnsegfm.prediction.writers.case_records import record_file
    from lnsegfm.prediction.writers.mask_origin import MaskOrigin

    series = series_of(folder / "ct")
    case, mask = Case("out", ()), folder / "out.nii.gz"
    write_mask(mask, np.load(folder / "nodes.npy").astype(np.uint8), series.grid)

    def run() -> None:
        scans = Scans((case,), {case.name: series})
        options = PredictOptions(formats=("rtstruct", "seg"), per_node=True, flags=False)
        outputs = CaseOutputs(folder, MaskOrigin(labels=LabelMap(LABELS)), scans, options)
        record_file(folder, case.name).unlink(missing_ok=True)  # every round writes anew
        outputs.complete(case)

    return run


def part_back(folder: Path) -> Callable[[], None]:
    from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
    from lnsegfm.imaging.dicom.seg_read import read_seg
    from lnsegfm.imaging.dicom.segmentation import segments_mask
    from lnsegfm.imaging.dicom.series import series_of
    from lnsegfm.imaging.dicom.structure_masks import structures_mask

    series, mask = series_of(folder / "ct"), np.load(folder / "nodes.npy")
    pattern = ["*=lymph_node"]

    def run() -> None:
        for read in (
            structures_mask(read_rtstruct(folder / "out.rtstruct.dcm"), series.grid, pattern, LABELS),
            segments_mask(read_seg(folder / "out.seg.dcm"), series.grid, pattern, LABELS),
        ):
            if not np.array_equal(read == 1, mask):
                raise RuntimeError("The mask is another one.")

    return run


def part_convert(folder: Path) -> Callable[[], None]:
    from lnsegfm.datasets.convert import SETS, ConversionOptions, convert

    def run() -> None:
        with TemporaryDirectory(dir=folder) as out:
            source = folder / "export"
            source.mkdir(exist_ok=True)
            for name in ("ct", "rs.dcm"):
                if not (source / name).exists():
                    (source / name).symlink_to(folder / name)
            options = ConversionOptions(roi=("lymph_node=lymph_node",), key=folder / "key", accept_automatic=True)
            done = convert(SETS["dicom"], source, Path(out) / "dataset", options)
            if len(done.written) != 1 or done.failed:
                raise RuntimeError(f"Not converted: {done.failed}")

    return run


PARTS: dict[str, Callable[[Path], Callable[[], None]]] = {
    "in": part_in,
    "out": part_out,
    "back": part_back,
    "convert": part_convert,
}


def measure(part: str, folder: Path) -> dict[str, float]:
    """Seconds of one part, and the process's peak memory in MiB, imports included."""
    run = PARTS[part](folder)
    start = time.perf_counter()
    run()
    return {"seconds": time.perf_counter() - start, "peak_mib": peak_mib()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/dicom_cpu.json"))
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    from benchmarks.machine import machine

    rounds: dict[str, list[dict[str, float]]] = {part: [] for part in PARTS}
    with TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LNSEGFM_HOME"] = str(folder / "home")
        write_case(folder)
        for _ in range(chosen.repeats):
            for part in PARTS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    rounds[part].append(pool.apply(measure, (part, folder)))
                print(
                    f"{part}: {rounds[part][-1]['seconds']:.2f} s, {rounds[part][-1]['peak_mib']:.0f} MiB", flush=True
                )
        sizes = {kind: round((folder / f"out.{kind}.dcm").stat().st_size / 1e6, 2) for kind in ("rtstruct", "seg")}
    parts = {
        part: {
            "seconds_median": round(statistics.median(one["seconds"] for one in of_part), 2),
            "seconds_range": [round(pick(one["seconds"] for one in of_part), 2) for pick in (min, max)],
            "peak_mib": round(max(one["peak_mib"] for one in of_part)),
        }
        for part, of_part in rounds.items()
    }
    case = {"shape": GRID.shape, "spacing_mm": GRID.spacing_mm, "nodes": NODES, "megabytes": sizes}
    required = {"seconds_in_and_out": SECONDS, "peak_mib": MIB}
    write_json(
        chosen.out, {"machine": machine(), "case": case, "repeats": chosen.repeats, **parts, "required": required}
    )
    spent = parts["in"]["seconds_median"] + parts["out"]["seconds_median"]
    return int(spent > SECONDS or any(part["peak_mib"] > MIB for part in parts.values()))


if __name__ == "__main__":
    sys.exit(main())
