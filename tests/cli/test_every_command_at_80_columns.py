"""What every command prints on a terminal of 80 columns: no line is wider, no word is broken.

A word is broken where the terminal of 80 columns shows a piece that stands nowhere in the output at 400 columns.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from lnsegfm.cli.main import app
from lnsegfm.cli.terminal_lines import fitted
from tests.study.tiny_study import TinyStudy, tiny_study  # noqa: F401 - a fixture
from tests.test_terminal_words import broken_words, too_wide

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Places:
    """What the commands are run on; ``out`` is a new name for each width, of one length."""

    world: Any
    run: Path
    folder: Path
    out: Path
    study: TinyStudy | None


SHORT = ("--iterations", "1", "--no-mirroring", "--device", "cpu")
FEW = ("--shots", "2")
COMMANDS: dict[str, Callable[[Places], tuple[object, ...]]] = {
    "demo": lambda p: ("--out", p.world.folder / "plans.json"),  # refused: what a demo prints, the next ones print
    "finetune": lambda p: (p.world.clinic, "--model", p.world.base, *FEW, *SHORT, "--out", p.out),
    "predict": lambda p: (p.run, p.world.clinic, "--out", p.out, "--device", "cpu", "--no-mirroring"),
    "presets": lambda p: (p.run, "--device", "cpu"),
    "evaluate": lambda p: (p.run / "predictions" / "adapted", p.world.clinic, "--out", p.out),
    "report": lambda p: (p.run,),
    "pretrain": lambda p: (
        p.world.clinic, "--plans", p.world.folder / "plans.json", "--held-out", 1, *SHORT, "--out", p.out
    ),
    "methods": lambda _: (),
    "architectures": lambda _: (),
    "env": lambda _: (),
    "data convert": lambda p: ("dicom", p.folder / "empty", "--out", p.out),
    "data arrange": lambda p: (p.world.clinic, "--out", p.out),
    "data check": lambda p: (p.world.clinic, "--model", p.world.base),
    "data phantom": lambda p: (p.out, "--cases", 1),
    "models list": lambda _: (),
    "models show": lambda _: ("totalseg-head-glands",),
    "models pull": lambda _: ("no-model-has-this-name",),
    "models import": lambda p: (p.world.base / "model", "--as", p.out.name),
    "models verify": lambda _: (),
    "models export": lambda p: (p.run, "--to", "nnunet-zip", "--out", p.out.with_suffix(".zip")),
    "models postprocess": lambda p: (
        p.run, "--predictions", p.run / "predictions" / "adapted", "--references", p.world.clinic
    ),
    "models remove": lambda _: ("no-model-has-this-name",),
    "adapter apply": lambda p: (p.world.base, p.run, "--out", p.out),
    "adapter show": lambda p: (p.run, "--base", p.world.base),
    "study run": lambda p: (p.study.file, "--out", p.study.out, "--device", "cpu"),
    "study status": lambda p: (p.study.file, "--out", p.study.out),
    "study report": lambda p: (p.study.file, "--out", p.study.out),
}  # fmt: skip


REFUSED = ("demo", "data convert", "models pull", "models remove")
"""What takes minutes, series or an address: of these the refusal is looked at."""


def leaves(command: Any, way: tuple[str, ...] = ()) -> list[str]:
    inner = getattr(command, "commands", None)
    return [" ".join(way)] if inner is None else [w for n, c in inner.items() for w in leaves(c, (*way, n))]


def test_every_command_is_in_the_list():
    assert sorted(leaves(typer.main.get_command(app))) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_is_wider_and_no_word_broken(command, world, run, request, tmp_path, lnsegfm_here, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("lnsegfm.cli.terminal_lines.on_terminal", lambda _: True)
    monkeypatch.setattr("lnsegfm.report.page.plots_of", lambda _: ())
    own = tmp_path / "run"
    shutil.copytree(run.folder, own)
    (tmp_path / "empty").mkdir()
    study = request.getfixturevalue("tiny_study") if command.startswith("study") else None
    shown = {}
    for width in (400, 80):
        places = Places(world, own, tmp_path, tmp_path / f"at-{width:03}", study)
        done = lnsegfm_here(*command.split(), *COMMANDS[command](places), columns=width)
        assert "Traceback" not in done.stderr
        assert (done.returncode == 2) == (command in REFUSED), done.stderr
        shown[width] = done.stdout + done.stderr
    assert shown[80]
    assert too_wide(shown[80], 80) == []
    assert broken_words(shown[80], shown[400]) == []


@pytest.mark.parametrize("way", [*COMMANDS, *sorted({name.split()[0] for name in COMMANDS if " " in name}), ""])
def test_help_breaks_no_word(way, lnsegfm_here):
    shown = {width: lnsegfm_here(*way.split(), "--help", columns=width).stdout for width in (400, 80)}
    assert too_wide(shown[80], 80) == []
    assert broken_words(shown[80], shown[400]) == []


def test_a_long_line_is_broken_at_spaces_and_a_command_can_be_copied():
    assert fitted("  a " + "word " * 20, 30)[1].startswith("    word")
    address = f"https://example.org/{'x' * 60}"
    assert f"  {address}" in fitted(f"lnsegfm: see {address} for more of it", 40)
    lines = fitted(f"lnsegfm predict {'m' * 30} {'s' * 30} --out masks", 60)
    assert [line.endswith(" \\") for line in lines] == [True, False]
    assert " ".join(line.removesuffix("\\").strip() for line in lines).split()[0] == "lnsegfm"
    assert fitted('  "text": "' + "word " * 40, 40) == ['  "text": "' + "word " * 40]
