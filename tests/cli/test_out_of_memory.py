"""Memory that runs out is a line with a remedy, whichever library asked for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lnsegfm.cli.out_of_memory import memory_line

HUGE = 1 << 50
CUDA = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 7.79 GiB of which 1.1 GiB is free."
)
MPS = "MPS backend out of memory (MPS allocated: 8.9 GB). Tried to allocate 1.00 GiB on private pool."


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (
            lambda: torch.zeros(HUGE, dtype=torch.uint8),
            "the machine has not enough of it (1048576.0 GiB were asked for)",
        ),
        (lambda: np.ones(HUGE, dtype=np.uint8), "the machine has not enough of it (1.00 PiB were asked for)"),
    ],
)
def test_what_the_libraries_raise_is_recognised(ask, said):
    with pytest.raises((MemoryError, RuntimeError)) as error:
        ask()

    assert said in str(memory_line(error.value))


@pytest.mark.parametrize(("text", "asked"), [(CUDA, "2.50 GiB"), (MPS, "1.00 GiB")])
def test_of_a_gpu_it_is_named(text, asked):
    assert f"the GPU has not enough of it ({asked} were asked for)" in str(memory_line(torch.OutOfMemoryError(text)))


def test_other_errors_are_none_of_it():
    assert memory_line(RuntimeError("shapes differ")) is None


def test_a_patch_that_no_machine_holds_is_one_line(world, tmp_path, lnsegfm_here):
    words = ("--shots", 2, "--patch-size", 65536, 65536, 65536, "--iterations", 2, "--device", "cpu", "--workers", 0)
    done = lnsegfm_here("finetune", world.clinic, "--model", world.base, "--out", tmp_path / "run", *words)

    assert done.returncode == 2
    assert "lnsegfm: Memory: the machine has not enough of it" in done.stderr
    assert "--patch-size" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
