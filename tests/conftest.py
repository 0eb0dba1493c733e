from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.world import run, world  # noqa: F401 - fixtures for all

if (workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT")) is not None:  # before torch counts the cores itself
    from lnsegfm.cores import usable_cores

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // int(workers))))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow each other down where cores are shared
os.environ.setdefault("LNSEGFM_CACHE_GB", "0")  # no test leaves scans in the user's home

_of_typer = typer.main.get_command
_commands: dict[typer.Typer, Any] = {}  # typer makes them anew at every call, which takes as long as many a command
gc.disable()  # while tests are collected, which adds objects and drops none: a third less time

Result = subprocess.CompletedProcess[str]


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and other work on the machine gains a core."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def lnsegfm() -> Callable[..., Result]:
    """Run a command in a process of its own, as a user does."""

    def in_a_process(*words: object, timeout: float = 300, **environment: str) -> Result:
        command = [sys.executable, "-m", "lnsegfm", *map(str, words)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "COLUMNS": "200", **environment},
        )

    return in_a_process


@pytest.fixture
def lnsegfm_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process: the same exit code and output without loading torch anew."""

    def in_this_process(*words: object, columns: int = 200) -> Result:
        from lnsegfm.cli.main import app, main

        if app not in _commands:
            _commands[app] = typer.main.get_command(app)
        monkeypatch.setattr("typer.main.get_command", lambda asked: _commands.get(asked) or _of_typer(asked))
        argv = ["lnsegfm", *map(str, words)]
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setenv("COLUMNS", str(columns))
        capsys.readouterr()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(argv, code, out, err)

    return in_this_process


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("LNSEGFM_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real CT data: {folder} is absent")
    return folder
