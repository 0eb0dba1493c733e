"""Processes that torchrun or srun started on several nodes train as those of one node do, and go on where they were."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.errors import ConfigError
from lnsegfm.models.model_folder import read_model
from lnsegfm.storage import read_json
from lnsegfm.training.launched import LaunchedProcess, first_host

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "node-1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_ID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


def test_what_torchrun_and_srun_say() -> None:
    assert LaunchedProcess.of_environment(TORCHRUN) == LaunchedProcess(3, 4, 1, 2, "node-1", 29500)
    found = LaunchedProcess.of_environment(SRUN)
    assert found is not None
    assert (found.rank, found.processes, found.local_rank, found.local_processes) == (3, 4, 1, 2)
    assert found.address == "gpu03"
    others = SRUN | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert LaunchedProcess.of_environment(others).port == found.port  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "alone",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # a batch script that calls it itself
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
    ],
)
def test_a_process_alone_waits_for_nobody(alone: dict[str, str]) -> None:
    assert LaunchedProcess.of_environment(alone) is None


@pytest.mark.parametrize(("missing", "of"), [("RANK", TORCHRUN), ("MASTER_ADDR", TORCHRUN), ("SLURM_PROCID", SRUN)])
def test_half_an_environment_is_refused(missing: str, of: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=missing):
        LaunchedProcess.of_environment({name: value for name, value in of.items() if name != missing})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n[1-2]", "n1"), ("gpu[03-05,9],login", "gpu03"), ("a-1,b", "a-1"), ("n[7]-ib,n9", "n7-ib")],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


class Nodes:
    """Two nodes on this machine, each an address of its own, that run a command by torchrun."""

    def __init__(self, words: list[Any], log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        self.log, self.nodes = log, []
        for node in range(2):
            launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--node-rank", node]
            launcher += ["--nproc-per-node", 1, "--master-addr", "127.0.0.1", "--master-port", port]
            launcher += ["--local-addr", f"127.0.0.{node + 1}", "-m", "lnsegfm"]
            command = [str(word) for word in (*launcher, *words)]
            with log.open("a") as said:
                self.nodes.append(subprocess.Popen(command, stdout=said, stderr=said, env=environment))

    def codes(self) -> list[int]:
        return [node.wait(timeout=400) for node in self.nodes]

    def lose_second(self) -> None:
        """Kill what runs on the second node: the launcher's process, and the launcher."""
        launcher = self.nodes[1].pid
        for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self.nodes[1].kill()


@pytest.mark.long
def test_two_nodes_train_as_one_and_go_on_when_one_was_lost(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    iterations = 120

    def words(out: str, *more: Any) -> list[Any]:
        options = ["--plans", world.folder / "plans.json", "--iterations", iterations, "--device", "cpu"]
        return ["pretrain", world.clinic, *options, "--out", tmp_path / out, *more]

    one = [str(word) for word in (sys.executable, "-m", "lnsegfm", *words("one", "--gpus", 2))]
    done = subprocess.run(one, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    lost = Nodes(words("two"), tmp_path / "lost.log")
    state = tmp_path / "two" / "work" / "training.pt"
    for _ in range(2400):
        if state.is_file() or (tmp_path / "two" / "run.json").is_file():
            break
        time.sleep(0.1)
    lost.lose_second()
    assert lost.codes()[0] != 0, lost.log.read_text()
    assert not (tmp_path / "two" / "run.json").exists()

    again = Nodes(words("two"), tmp_path / "again.log")
    assert again.codes() == [0, 0], again.log.read_text()
    assert "continued at" in again.log.read_text()
    weights = [read_model(tmp_path / name).first.weights_sha256 for name in ("one", "two")]
    assert weights[0] == weights[1]
    assert read_json(tmp_path / "one" / "run.json")["losses"] == read_json(tmp_path / "two" / "run.json")["losses"]


@pytest.mark.long
def test_where_the_first_refuses_the_others_end(world: Any, tmp_path: Path) -> None:
    nodes = Nodes(
        ["pretrain", world.clinic, "--held-out", 99, "--device", "cpu", "--out", tmp_path / "out"], tmp_path / "log"
    )
    assert any(nodes.codes())
    assert "held-out 99: there are only" in nodes.log.read_text()
