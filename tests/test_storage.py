"""Locks between processes: one holder at a time, whatever becomes of it; JSON as editors write it."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import filelock
import pytest

from lnsegfm.errors import RunMismatch
from lnsegfm.storage import LOCK, PARTIAL, HeldLock, clear_partials, locked, read_json, try_lock

HOLDER = """
import sys, time
from pathlib import Path
from lnsegfm.storage import try_lock
lock = try_lock(Path(sys.argv[1]))
print("held" if lock else "refused", flush=True)
sys.stdin.read()
lock.release()
"""


def holder(place: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("end", ["released", "killed"])
def test_a_lock_of_another_process_ends_with_it(tmp_path, end):
    place = tmp_path / "a.lock"
    process = holder(place)
    assert try_lock(place) is None
    if end == "killed":
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    else:
        process.communicate("")
    held = try_lock(place)
    assert held is not None
    held.release()
    held.release()  # twice is as once
    assert list(tmp_path.iterdir()) == []


def test_within_a_process_too_and_any_thread_may_release(tmp_path):
    place = tmp_path / "a.lock"
    held = try_lock(place)
    assert held is not None
    assert try_lock(place) is None
    thread = threading.Thread(target=held.release)
    thread.start()
    thread.join()
    with try_lock(place) as again:
        assert isinstance(again, HeldLock)
        assert try_lock(place) is None
    assert not place.exists()


def test_a_lock_is_waited_for(tmp_path):
    place = tmp_path / "a.lock"
    held = try_lock(place)
    threading.Timer(0.2, held.release).start()
    waited = try_lock(place, wait_s=30)
    assert waited is not None
    waited.release()


def test_many_threads_are_never_in_at_once(tmp_path):
    """Also where each one removes the file that the others wait for."""
    place, inside, most, turns = tmp_path / "a.lock", [], [], []

    def work() -> None:
        for _ in range(20):
            with try_lock(place, wait_s=60):
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                turns.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(turns)) == (1, 80)


def test_a_locked_folder_is_refused_and_its_lock_is_no_leftover(tmp_path):
    out = tmp_path / "new" / "folder"
    with locked(out):
        (out / f"{PARTIAL}1-x").write_text("half")
        clear_partials(out)
        assert [file.suffix for file in out.iterdir()] == [LOCK]
        with pytest.raises(RunMismatch, match="another run writes there now"), locked(out):
            pass
    with locked(out):
        pass
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_where_there_are_no_locks_nobody_is_kept_out(tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with try_lock(tmp_path / "a.lock") as one, try_lock(tmp_path / "a.lock") as other:
        assert one is not None
        assert other is not None


def test_a_folder_that_cannot_be_written_to_says_so(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(PermissionError):
        try_lock(tmp_path / "a.lock")


def test_a_byte_order_mark_before_json_is_no_part_of_it(tmp_path):
    file = tmp_path / "dataset.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps({"labels": {"Knoten": 1}}).encode())

    assert read_json(file) == {"labels": {"Knoten": 1}}
