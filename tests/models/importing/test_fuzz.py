"""Whatever a file holds, an import ends in a stored model or in one of the project's errors, and leaves no traces."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lnsegfm.errors import LnSegFmError
from lnsegfm.models.install import install
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.weights.state import load_weights

ROUNDS, SEED = 60, 0
JUNK: list[Any] = [None, True, -1, 0, 3, 2**70, 1.5, "", "os.system", "3d_fullres", [], [1, 2], {}, {"a": []}, [[[]]]]


def places(table: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in nested tables and lists."""
    entries = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in list(entries):
        yield table, key
        yield from places(value)


def spoil(table: Any, draw: random.Random) -> None:
    container, key = draw.choice(list(places(table)))
    if isinstance(container, dict) and draw.random() < 0.3:
        del container[key]
    else:
        container[key] = copy.deepcopy(draw.choice(JUNK))


def tried(source: Path, home: Path) -> bool:
    """Whether it was stored; else it was refused."""
    try:
        install(source, "it")
    except LnSegFmError as error:
        refused = str(error)
    else:
        model = read_model(Path("it"))  # what is stored can be used
        load_weights(build_network(model.first, deep_supervision=True), model.first.weights)
        shutil.rmtree(home)
        return True
    assert str(source) in refused  # it says which
    assert not (home / "models").exists()
    return False


@pytest.mark.parametrize("file", ["plans.json", "dataset.json"])
def test_spoilt_tables(file, trained, home, tmp_path):
    folder = Path(shutil.copytree(trained.folder, tmp_path / "model"))
    whole = json.loads((folder / file).read_text())
    draw = random.Random(SEED)
    outcomes = set()
    for _ in range(ROUNDS):
        table = copy.deepcopy(whole)
        spoil(table, draw)
        (folder / file).write_text(json.dumps(table))
        outcomes.add(tried(folder, home))
    assert outcomes == {True, False}


def test_spoilt_checkpoints(trained, home, tmp_path):
    whole = torch.load(trained.checkpoint, weights_only=False)
    draw = random.Random(SEED)
    outcomes = set()
    for _ in range(ROUNDS):
        content = copy.deepcopy({key: whole[key] for key in whole if key not in ("optimizer_state", "logging")})
        content["network_weights"] = dict(content["network_weights"])
        spoil(content, draw)
        torch.save(content, tmp_path / "net.pth")
        outcomes.add(tried(tmp_path / "net.pth", home))
    assert outcomes == {True, False}


def test_spoilt_bytes(trained, home, tmp_path):
    whole = trained.checkpoint.read_bytes()
    draw = random.Random(SEED)
    for _ in range(ROUNDS):
        content = bytearray(whole)
        for _ in range(draw.randint(1, 6)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        (tmp_path / "net.pth").write_bytes(content if draw.random() < 0.8 else content[: draw.randrange(len(content))])
        tried(tmp_path / "net.pth", home)
