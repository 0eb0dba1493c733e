"""Who may write to a folder of masks, and what becomes of what the dead left."""

from __future__ import annotations

import errno
import json
from contextlib import ExitStack
from pathlib import Path

import filelock
import pytest

from lnsegfm.errors import RunMismatch
from lnsegfm.prediction.shared_folder import CARD, joined, take_case
from lnsegfm.storage import LOCK, PARTIAL

OURS, THEIRS = {"model": ["ab"], "step": 0.5}, {"model": ["cd"], "step": 0.5}


def member(out: Path, made_by=OURS, *, overwrite=False, leaving=lambda: None):
    return joined(out, made_by, overwrite=overwrite, leaving=leaving)


def hidden(out: Path) -> list[str]:
    return sorted(file.name for file in out.iterdir() if file.name.startswith("."))


def test_members_of_one_model_and_settings_share_a_folder(tmp_path):
    with member(tmp_path) as first, member(tmp_path) as second:
        assert (first, second) == (0, 0)
        assert json.loads((tmp_path / CARD).read_text()) == OURS
        assert len(hidden(tmp_path)) == 2
    assert [file.name for file in tmp_path.iterdir()] == [CARD]


def test_the_first_one_says_by_what_masks_are_made(tmp_path):
    with member(tmp_path):
        for overwrite, said in ((False, "come from another model"), (True, "writes there now")):
            with pytest.raises(RunMismatch, match=said), member(tmp_path, THEIRS, overwrite=overwrite):
                pass
    with pytest.raises(RunMismatch, match="come from another model"), member(tmp_path, THEIRS):
        pass
    assert json.loads((tmp_path / CARD).read_text()) == OURS
    with member(tmp_path, THEIRS, overwrite=True) as generation:
        assert generation == 1
    assert json.loads((tmp_path / CARD).read_text()) == THEIRS | {"generation": 1}
    with member(tmp_path, THEIRS) as generation:
        assert generation == 1


def test_other_settings_are_named(tmp_path):
    full = {"model": ["a"], "mirroring": True, "step": 0.5}
    with member(tmp_path, full):
        pass
    for changed, said in (
        ({"mirroring": False, "step": 0.75}, r"other settings \(mirroring True, not False; step 0.5, not 0.75\)\. "),
        ({"exact": True}, r"other settings \(--exact here alone\)\. "),
        ({"postprocessing": {"rules": []}}, r"other settings \(postprocessing here alone\)\. "),
        ({"model": ["b"], "step": 1.0}, r"come from another model\. "),
    ):
        with pytest.raises(RunMismatch, match=said), member(tmp_path, full | changed):
            pass


def test_who_overwrites_joins_another_who_does_and_nobody_else(tmp_path):
    with member(tmp_path), member(tmp_path, overwrite=True) as first, member(tmp_path, overwrite=True) as second:
        assert (first, second) == (1, 1)
    with member(tmp_path, overwrite=True) as third:
        assert third == 2


def test_members_leave_under_the_folders_lock_however_the_work_ends(tmp_path):
    left: list[list[str]] = []

    def stopped() -> None:
        with member(tmp_path, leaving=lambda: left.append(hidden(tmp_path))):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    ((mine, folder),) = [sorted(names, key=lambda name: "folder" in name) for names in left]
    assert folder == f"{PARTIAL}folder{LOCK}"
    assert mine.startswith(f"{PARTIAL}member-predict-")
    assert hidden(tmp_path) == []


def test_what_the_dead_left_goes_once_nobody_is_at_work(tmp_path):
    def litter() -> None:
        for name in ("1-a-x.nii.gz", f"case-x{LOCK}", f"member-overwrite-0{LOCK}"):
            (tmp_path / f"{PARTIAL}{name}").write_text("")

    with member(tmp_path):
        litter()
        with member(tmp_path, overwrite=True) as generation:
            assert generation == 1  # a dead one that overwrote is not joined
        assert f"{PARTIAL}1-a-x.nii.gz" in hidden(tmp_path)  # it might be the other member's
    assert hidden(tmp_path) == []
    litter()
    with member(tmp_path):
        assert len(hidden(tmp_path)) == 1


def test_a_case_is_one_processs(tmp_path):
    held = take_case(tmp_path, "a")
    assert held is not None
    assert take_case(tmp_path, "a") is None
    with take_case(tmp_path, "b") as other:
        assert other is not None
    held.release()
    with take_case(tmp_path, "a") as again:
        assert again is not None


def test_without_locks_nothing_of_others_is_removed(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with ExitStack() as members:
        members.enter_context(member(tmp_path))
        (tmp_path / f"{PARTIAL}1-a-x.nii.gz").write_text("under way")
        members.enter_context(member(tmp_path))
        with pytest.raises(RunMismatch), member(tmp_path, THEIRS):
            pass
    assert (tmp_path / f"{PARTIAL}1-a-x.nii.gz").is_file()
