"""A decoder that crashes or hangs costs one line, and the run goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless

from lnsegfm.datasets.doctor.dicom_diagnosis import diagnose_tree
from lnsegfm.imaging.dicom import decoder_process
from lnsegfm.imaging.dicom.decoder_child import FrameRequest
from lnsegfm.imaging.dicom.decoder_process import DecoderEnded, DecoderFailed, DecoderProcess
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.series import find_series, read_series, series_of
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.frame_encoders import jpeg_2000, put
from tests.imaging.dicom.scanner import write_series

GRID = Grid((4, 16, 18), (3.0, 0.8, 0.7))
HU = np.random.default_rng(0).integers(-1000, 1000, GRID.shape)
FRAME = jpeg_2000((HU[0] + 1024).astype(np.uint16), 16)
REQUEST = FrameRequest(str(JPEG2000Lossless), 16, 18, 16, False, 0.0)
BAD = "tests.imaging.dicom.bad_decoders"


def write(folder: Path, **tags: object) -> None:
    def change(data, k):
        put(data, jpeg_2000((HU[k] + 1024).astype(np.uint16), 16), JPEG2000Lossless)

    write_series(folder, HU, GRID, change=change, **tags)


@pytest.fixture
def with_decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Put another decoder in the place of the shared one; none is left behind."""
    made = []

    def use(name: str, seconds: float = 30.0) -> DecoderProcess:
        made.append(DecoderProcess(f"{BAD}:{name}" if name else decoder_process._DECODE, seconds=seconds))
        monkeypatch.setattr(decoder_process, "SHARED", made[-1])
        return made[-1]

    yield use
    for each in made:
        each.close()


def children() -> set[int]:
    listed = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    if not listed.exists():
        pytest.skip("no list of child processes on this system")
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that ended meanwhile
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.mark.parametrize(
    ("decoder", "line"),
    [
        ("aborts", "its decoder crashed (SIGABRT)"),
        ("reads_nowhere", "its decoder crashed (SIGSEGV)"),
        ("exits", "its decoder ended (exit code 3)"),
        ("hangs", "its decoder took more than 1 s"),
        ("hangs_in_c", "its decoder took more than 1 s"),
        ("swallows_memory", "MemoryError"),
    ],
)
def test_one_line_and_the_run_goes_on(tmp_path, with_decoder, capfd, decoder, line):
    write(tmp_path / "packed", SeriesInstanceUID="1.2.3")
    write_series(tmp_path / "plain", HU, GRID, SeriesInstanceUID="1.2.4")
    before = children()
    with_decoder(decoder, seconds=1.0)
    volumes, refused = [], []
    for series in find_series(tmp_path).series:
        try:
            volumes.append(read_series(series))
        except DicomError as error:
            refused.append(str(error))
    name = "JPEG 2000 Image Compression (Lossless Only)"
    assert refused == [
        f"File 0000.dcm of series 1.2.3 cannot be decoded ({name}; {line}). Export it again, uncompressed."
    ]
    assert len(volumes) == 1
    assert np.array_equal(volumes[0], HU)
    assert capfd.readouterr() == ("", "")
    decoder_process.SHARED.close()
    assert children() <= before  # no zombies


def test_the_doctor_goes_on(tmp_path, with_decoder):
    write(tmp_path / "packed", SeriesInstanceUID="1.2.3")
    write_series(tmp_path / "plain", HU, GRID, SeriesInstanceUID="1.2.4")
    with_decoder("aborts")
    found = diagnose_tree(tmp_path)
    assert len(found.cases) == 2
    errors = found.with_severity("error")
    assert [error.case for error in errors] == ["1.2.3"]
    assert "its decoder crashed (SIGABRT)" in errors[0].what


def test_the_next_frame_has_a_new_process(with_decoder):
    process = with_decoder("crashes_at_odd_frames")
    even, odd = (jpeg_2000(np.full((16, 18), v, np.uint16), 16) for v in (2, 3))
    for _ in range(2):
        assert (process.decode(REQUEST, even) == 2).all()
        with pytest.raises(DecoderEnded, match="SIGABRT"):
            process.decode(REQUEST, odd)


def test_one_process_for_all_frames(with_decoder):
    process = with_decoder("gives_its_process")
    assert len({int(process.decode(REQUEST, FRAME)[0, 0]) for _ in range(20)}) == 1
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: process.decode(REQUEST, FRAME), range(40)))
    assert len({int(values[0, 0]) for values in results}) == 1
    assert int(results[0][0, 0]) != os.getpid()


def test_one_that_was_killed_meanwhile_is_started_again(with_decoder):
    process = with_decoder("gives_its_process")
    first = int(process.decode(REQUEST, FRAME)[0, 0])
    os.kill(first, signal.SIGKILL)
    assert int(process.decode(REQUEST, FRAME)[0, 0]) != first


def test_what_a_library_prints_reaches_nobody(with_decoder, capfd):
    values = with_decoder("prints").decode(REQUEST, FRAME)
    assert np.array_equal(values, HU[0] + 1024)
    assert capfd.readouterr() == ("", "")


def test_a_refusal_is_told_by_its_kind(with_decoder):
    process = with_decoder("")
    with pytest.raises(DecoderFailed, match=r"^\w+Error$"):
        process.decode(REQUEST, FRAME[:200] + b"\xff\xd9")
    assert np.array_equal(process.decode(REQUEST, FRAME), HU[0] + 1024)


def test_an_interrupt_leaves_no_answer_for_the_next_frame(with_decoder, monkeypatch):
    process = with_decoder("")
    other = jpeg_2000(np.full((16, 18), 7, np.uint16), 16)
    for name in ("send", "receive"):
        with monkeypatch.context() as patched:
            patched.setattr(decoder_process, name, interrupted_after(getattr(decoder_process, name), name == "send"))
            with pytest.raises(KeyboardInterrupt):
                process.decode(REQUEST, FRAME)
        assert (process.decode(REQUEST, other) == 7).all()


def interrupted_after(call: Callable[..., object], done: bool) -> Callable[..., object]:
    def interrupted(*given: object) -> None:
        if done:
            call(*given)
        raise KeyboardInterrupt

    return interrupted


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_fork_has_its_own(tmp_path):
    write(tmp_path)
    series = series_of(tmp_path)
    assert np.array_equal(read_series(series), HU)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for volume in pool.map(read_series, [series] * 6):
            assert np.array_equal(volume, HU)
    assert np.array_equal(read_series(series), HU)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_fork_takes_no_part_in_the_decoder_of_its_parent(with_decoder):
    of_parent = decoder_of_this_process(with_decoder("gives_its_process"))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert of_parent not in pool.map(decoder_of_this_process, [None] * 8, chunksize=1)
    assert decoder_of_this_process() == of_parent


def decoder_of_this_process(_: object = None) -> int:
    return int(decoder_process.SHARED.decode(REQUEST, FRAME)[0, 0])


SCRIPT = """
import sys
from pathlib import Path
from lnsegfm.imaging.dicom.series import read_series, series_of
volume = read_series(series_of(Path(sys.argv[1])))
from lnsegfm.imaging.dicom import decoder_process
print(int(volume.sum()), decoder_process.SHARED._child.pid, flush=True)
"""


@pytest.mark.parametrize("how", ["a script without a guard", "from standard input", "killed"])
def test_nothing_stays_behind(tmp_path, how):
    write(tmp_path / "ct")
    (tmp_path / "script.py").write_text(SCRIPT + ("import time; time.sleep(60)" if how == "killed" else ""))
    command = [
        sys.executable,
        "-" if how == "from standard input" else str(tmp_path / "script.py"),
        str(tmp_path / "ct"),
    ]
    with (tmp_path / "script.py").open() as script:
        run = subprocess.Popen(command, stdin=script, stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        total, child = run.stdout.readline().split()
        if how == "killed":
            run.kill()
        run.stdout.close()
        assert run.wait(30) == (-signal.SIGKILL if how == "killed" else 0)
    assert int(total) == HU.sum()
    end = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
