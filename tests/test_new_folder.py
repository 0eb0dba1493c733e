import stat

import pytest

from lnsegfm.storage import new_folder, staging_folder


def test_a_new_folder_appears_when_all_of_it_is_there(tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("a")
        assert not out.exists()

    assert (out / "a").read_text() == "a"
    assert [place.name for place in out.parent.iterdir()] == ["out"]
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_an_empty_folder_gives_way_and_a_full_one_does_not(tmp_path):
    (tmp_path / "empty").mkdir()
    with new_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("new")
    assert (tmp_path / "empty" / "a").read_text() == "new"

    with pytest.raises(OSError), new_folder(tmp_path / "empty") as folder:  # noqa: PT011 - the system's own
        (folder / "b").write_text("other")
    assert [file.name for file in (tmp_path / "empty").iterdir()] == ["a"]
    assert [place.name for place in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize("make", [new_folder, staging_folder])
def test_nothing_is_left_behind_after_an_error(make, tmp_path):
    with pytest.raises(KeyboardInterrupt), make(tmp_path / "out") as folder:  # noqa: PT012 - what is left is tested
        (folder / "a").write_text("a")
        raise KeyboardInterrupt

    assert not list(tmp_path.iterdir())


def test_work_under_way_goes(tmp_path):
    with staging_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("a")
        assert folder.name.startswith(".partial-out")

    assert not list(tmp_path.iterdir())
