"""What a command line that is instant must not load, and how it ends when it is stopped."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

import lnsegfm
from lnsegfm.cli.main import app

HEAVY = ("torch", "nnunetv2", "SimpleITK", "scipy", "matplotlib")
LOADED = """
import json, sys
from lnsegfm.cli.main import main
found = {}
for words in json.loads(sys.argv[1]):
    sys.argv = ["lnsegfm", *words]
    try:
        main()
    except SystemExit as stop:
        found[" ".join(words)] = [stop.code or 0, sorted({m.partition(".")[0] for m in sys.modules})]
    else:
        found[" ".join(words)] = [0, sorted({m.partition(".")[0] for m in sys.modules})]
print("\\nFOUND" + json.dumps(found))
"""


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The way to every command and group of the program."""
    inner = getattr(command, "commands", {})
    return [path, *(way for name, sub in inner.items() for way in commands(sub, (*path, name)))]


def test_the_walk_finds_the_commands():
    ways = commands(typer.main.get_command(app))
    assert {(), ("finetune",), ("data",), ("data", "check"), ("data", "phantom"), ("env",)} <= set(ways)
    assert len(ways) >= 11


def test_neither_help_nor_methods_nor_env_load_anything_heavy():
    """All in one process, in this order: what any of them loads shows in the last."""
    asked = [[*way, "--help"] for way in commands(typer.main.get_command(app))]
    asked += [["-h"], ["methods"], ["methods", "--json"], ["env"], ["env", "--epochs", "3", "--set", "gamma=2"]]
    done = subprocess.run([sys.executable, "-c", LOADED, json.dumps(asked)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.rpartition("FOUND")[2])

    assert len(found) == len(asked)
    for words, (code, modules) in found.items():
        assert code == 0, words
        assert "lnsegfm" in modules
        assert not set(HEAVY) & set(modules), words


JOBS = ("workflows.finetune", "prediction.predict_cases", "workflows.pretrain")


def test_no_job_imports_monai_at_its_start():
    """By the imports as they are written, followed from job to job; the long test below loads them."""
    found, left = set(), [f"lnsegfm.{job}" for job in JOBS]
    while left:
        if (name := left.pop()) in found or (file := file_of(name)) is None:
            continue
        found.add(name)
        for node in loaded_at_once(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{each}" for each in names)]
            assert not [each for each in names if each.partition(".")[0] == "monai"], name
            left += [end for each in names for end in (each, each.rpartition(".")[0])]
    assert len(found) > 100


def file_of(module: str) -> Path | None:
    """The file of a module of this package, None of anything else."""
    root = Path(lnsegfm.__file__).parents[1]
    place = root.joinpath(*module.split("."))
    files = [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return files[0] if files and module.startswith("lnsegfm") else None


def loaded_at_once(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when a module is imported: not those of functions, nor of type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from loaded_at_once(child)


@pytest.mark.long
def test_a_job_does_not_load_what_it_may_never_need():
    """MONAI takes longer to load than all else together; only a SwinUNETR needs it."""
    script = "import sys, importlib\nfor job in sys.argv[1:]:\n    importlib.import_module(f'lnsegfm.{job}')\n    "
    script += "print(job, 'monai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, *JOBS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{job} False" for job in JOBS]


def test_every_option_and_argument_has_a_line_of_help():
    program = typer.main.get_command(app)
    for way in commands(program):
        command: Any = program
        for name in way:
            command = command.commands[name]
        assert command.help, way
        for parameter in command.params:
            assert getattr(parameter, "help", "x"), (way, parameter.name)


def test_methods_as_json(lnsegfm_here):
    done = lnsegfm_here("methods", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["dgst"]["settings"]["gamma"]["default"] == 1
    assert {"full", "head", "bias", "affine", "dgst"} <= set(found)


@pytest.mark.parametrize(
    "words",
    [
        ["finetune"],
        ["finetune", "data", "--out", "o"],
        ["finetune", "data", "--model", "m", "--out", "o", "--batch-size", "0"],
        ["finetune", "data", "--model", "m", "--out", "o", "--patch-size", "16", "16"],
        ["predict", "model"],
        ["nothing-of-the-kind"],
        ["data", "phantom", "o", "--site", "knee"],
        ["methods", "--colour"],
    ],
    ids=" ".join,
)
def test_words_that_make_no_command_are_exit_code_2(lnsegfm_here, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = lnsegfm_here(*words)
    assert done.returncode == 2
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"), [(["--shots", "0", "--out", "o"], "--shots 0: one trains"), ([], "--out: it is missing")]
)
def test_what_a_run_lacks_is_one_line(lnsegfm_here, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = lnsegfm_here("finetune", "data", "--model", "m", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lnsegfm: {said}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_torch_loads_is_exit_code_130(tmp_path, how):
    """Python tells every import as it ends; the signal comes in the middle of torch's."""
    (tmp_path / "data").mkdir()
    words = ["finetune", "data", "--model", "model", "--out", "out"]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "lnsegfm", *words],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "torch._utils" in line:
            break
    process.send_signal(how)
    rest = process.stderr.read()
    process.wait(timeout=60)

    said = [line for line in rest.splitlines() if not line.startswith("import time:")]
    assert (process.returncode, said) == (130, ["Interrupted."])
    assert not (tmp_path / "out").exists()


def test_a_reader_that_has_seen_enough_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m lnsegfm methods --json | head -n 1",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


@pytest.mark.parametrize("words", [["data", "phantom"], ["demo", "--out"], ["evaluate", ".", ".", "--out"]])
def test_a_file_where_a_folder_should_be(lnsegfm_here, tmp_path: Path, words):
    file = tmp_path / "thesis.doc"
    file.write_text("years of work")
    done = lnsegfm_here(*words, file)
    assert done.returncode == 2
    assert done.stderr.startswith("lnsegfm: ")
    assert str(file) in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert file.read_text() == "years of work"
