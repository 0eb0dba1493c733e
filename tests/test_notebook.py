"""What a notebook shows: results as HTML, progress as a bar; elsewhere nothing."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from lnsegfm import notebook_progress
from lnsegfm.notebook import HtmlTable, notebook_html
from lnsegfm.notebook_progress import NotebookBar, default_progress, in_notebook
from lnsegfm.progress import Silent


class ZMQInteractiveShell:
    """Jupyter's, by its name."""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A notebook: what is displayed, and how (new or in place)."""
    seen: list[tuple[str, str]] = []

    class Handle:
        def update(self, what: Any) -> None:
            seen.append(("update", what.data))

    def display(what: Any, *, display_id: bool) -> Handle:
        assert display_id
        seen.append(("new", what.data))
        return Handle()

    class HTML:
        def __init__(self, data: str) -> None:
            self.data = data

    package, module = ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    module.HTML, module.display = HTML, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return seen


def test_outside_a_notebook_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not in_notebook()
    assert isinstance(default_progress(), Silent)
    package = ModuleType("IPython")
    package.get_ipython = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    assert not in_notebook()


def test_a_notebook_gets_one_bar_that_moves(shown: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook_progress, "SECONDS_BETWEEN_UPDATES", 0.0)
    bar = default_progress()
    assert isinstance(bar, NotebookBar)
    bar.stage("Training <fast>")
    bar.advance(1, 4, "loss 0.5")
    bar.advance(4, 4)
    assert [how for how, _ in shown] == ["new", "update", "update"]
    assert "Training &lt;fast&gt;" in shown[0][1]
    assert '<progress value="1" max="4"></progress> 1/4 loss 0.5' in shown[1][1]
    assert 'value="4"' in shown[2][1]


def test_a_bar_is_not_moved_more_often_than_one_can_see(shown: list[tuple[str, str]]) -> None:
    bar = NotebookBar()
    for done in range(1, 1001):
        bar.advance(done, 1000)
    assert 2 <= len(shown) < 50
    assert "1000/1000" in shown[-1][1]


def test_public_functions_show_it_there(world, shown: list[tuple[str, str]], tmp_path) -> None:
    import lnsegfm

    lnsegfm.predict(world.base, world.clinic / "imagesTr", tmp_path / "masks", mirroring=False, device="cpu")
    assert "4/4" in shown[-1][1]
    before = len(shown)
    lnsegfm.evaluate(tmp_path / "masks", world.clinic / "labelsTr", labels={"node": 1})
    assert len(shown) > before


def test_texts_are_escaped_and_nothing_is_loaded_from_elsewhere() -> None:
    evil = '<img src=x onerror="alert(1)">&'
    html = notebook_html(evil, [HtmlTable([[evil, evil]], [evil, evil]), HtmlTable([])], notes=[evil])
    assert "<img" not in html
    assert html.count("&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&amp;") == 6
    assert "http" not in html
    assert html.count("<table>") == 1
    assert "Not for clinical use." in html


def test_the_package_is_light_and_shows_what_there_is() -> None:
    code = (
        "import sys, lnsegfm; heavy = {'torch', 'nnunetv2', 'SimpleITK', 'IPython', 'pydicom'} & set(sys.modules); "
        "assert not heavy, heavy; assert dir(lnsegfm) == sorted(['__version__', *lnsegfm.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_everything_public_is_there_and_documented() -> None:
    import lnsegfm

    assert sorted(lnsegfm.__all__) == sorted(set(lnsegfm.__all__))
    for name in lnsegfm.__all__:
        public = getattr(lnsegfm, name)
        assert public.__doc__, name
        assert public.__module__.startswith("lnsegfm"), name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lnsegfm.nothing
